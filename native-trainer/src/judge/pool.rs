//! Many questions to an endpoint: several at a time, no faster than allowed, again after a pause where that may help.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow};

use super::Question;
use super::cache::{Cache, Reply};
use super::endpoint::{Endpoint, Failure};
use crate::progress::Mode;
use crate::progress::interrupt::Interrupt;
use crate::progress::task::{Task, Unit};

/// Longest pause between two tries that is not asked for by the judge.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A judge that asks for a longer pause is left for another day.
const MOST_PATIENCE: Duration = Duration::from_secs(600);
/// How often a sleeper looks whether it should go on.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How hard to press a judge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pressure {
    /// Questions in flight, at least 1.
    pub(crate) concurrency: usize,
    /// Least time from one question to the next.
    pub(crate) gap: Duration,
    /// Tries after the first.
    pub(crate) max_retries: u32,
    /// Pause before the first of them; it doubles with each.
    pub(crate) first_pause: Duration,
}

/// Asks every question and keeps every reply in `cache`. Stops at the first question that cannot be answered; what is in
/// flight then still arrives and is kept.
///
/// # Errors
/// The judge's, naming the pair; the cache's. Not an interrupt: the caller looks at `stop`.
pub(crate) fn ask_all(
    endpoint: &Endpoint,
    questions: &[Question<'_>],
    pressure: Pressure,
    cache: &mut Cache,
    stop: &Interrupt,
    mode: Mode,
) -> Result<()> {
    let pool = Pool {
        endpoint,
        questions,
        pressure,
        next: AtomicUsize::new(0),
        gate: Mutex::new(Instant::now()),
        halted: AtomicBool::new(false),
        stop,
    };
    let mut bar = Task::start(mode, "judging", questions.len() as u64, Unit::Items);
    let mut failed: Option<Error> = None;
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        for _ in 0..pressure.concurrency.clamp(1, questions.len().max(1)) {
            let (pool, tell) = (&pool, tell.clone());
            scope.spawn(move || pool.work(&tell));
        }
        drop(tell);
        for (at, outcome) in told {
            let question = &questions[at];
            let kept =
                outcome.and_then(|reply| cache.put(question.key, &question.request.model, reply));
            match kept {
                Ok(()) => bar.advance(1),
                Err(error) => {
                    pool.halted.store(true, Ordering::SeqCst);
                    failed.get_or_insert(error.context(format!("pair {}", question.pair)));
                }
            }
        }
    });
    bar.finish();
    failed.map_or(Ok(()), Err)
}

/// What the workers share.
struct Pool<'a> {
    endpoint: &'a Endpoint,
    questions: &'a [Question<'a>],
    pressure: Pressure,
    /// The next question nobody has taken.
    next: AtomicUsize,
    /// When the next question may be sent.
    gate: Mutex<Instant>,
    halted: AtomicBool,
    stop: &'a Interrupt,
}

type Outcome = (usize, Result<Reply>);

impl Pool<'_> {
    fn work(&self, tell: &mpsc::Sender<Outcome>) {
        while !self.ended() {
            let at = self.next.fetch_add(1, Ordering::SeqCst);
            let Some(question) = self.questions.get(at) else {
                return;
            };
            let Some(outcome) = self.persist(question) else {
                return;
            };
            if outcome.is_err() {
                self.halted.store(true, Ordering::SeqCst);
            }
            if tell.send((at, outcome)).is_err() {
                return;
            }
        }
    }

    /// Asks until there is a reply or no hope; none when the work ends meanwhile.
    fn persist(&self, question: &Question<'_>) -> Option<Result<Reply>> {
        let tries = self.pressure.max_retries.saturating_add(1);
        for attempt in 1..=tries {
            self.pass_gate()?;
            let (reason, after) = match self.endpoint.ask(question.request) {
                Ok(reply) => return Some(Ok(reply)),
                Err(Failure::Lasting(error)) => return Some(Err(error)),
                Err(Failure::Passing { reason, after }) => (reason, after),
            };
            let address = self.endpoint.shown();
            if let Some(pause) = after.filter(|pause| *pause > MOST_PATIENCE) {
                return Some(Err(anyhow!(
                    "the judge at {address} asks for a pause of {} s: run the command again then ({reason})",
                    pause.as_secs()
                )));
            }
            if attempt == tries {
                return Some(Err(anyhow!(
                    "the judge at {address} gave no usable answer in {tries} tries: {reason}; check that it runs and is \
                     reachable from here, or lower --concurrency and --rate"
                )));
            }
            if let Some(pause) = after {
                self.close_gate(pause);
            }
            let pause = self
                .pause(attempt, question.key)
                .max(after.unwrap_or_default());
            self.sleep_until(Instant::now() + pause)?;
        }
        None
    }

    /// Doubles with each attempt; half of it depends on the question, so that questions refused together do not come back
    /// together.
    fn pause(&self, attempt: u32, key: &str) -> Duration {
        let doubled = self
            .pressure
            .first_pause
            .saturating_mul(1 << (attempt - 1).min(16));
        let digits = key.get(..4).and_then(|d| u16::from_str_radix(d, 16).ok());
        let jitter = f64::from(digits.unwrap_or(0)) / f64::from(u16::MAX);
        doubled.min(LONGEST_PAUSE).mul_f64(0.5 + 0.5 * jitter)
    }

    /// Waits for this question's turn.
    fn pass_gate(&self) -> Option<()> {
        let turn = {
            let mut gate = self.gate.lock().ok()?;
            let turn = (*gate).max(Instant::now());
            *gate = turn + self.pressure.gap;
            turn
        };
        self.sleep_until(turn)
    }

    /// Lets nobody ask for `pause`: the judge said so to one of us and means all.
    fn close_gate(&self, pause: Duration) {
        if let Ok(mut gate) = self.gate.lock() {
            *gate = (*gate).max(Instant::now() + pause);
        }
    }

    /// Sleeps; none when the work ends meanwhile.
    fn sleep_until(&self, time: Instant) -> Option<()> {
        loop {
            if self.ended() {
                return None;
            }
            match time.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => std::thread::sleep(left.min(LOOK_EVERY)),
                _ => return Some(()),
            }
        }
    }

    fn ended(&self) -> bool {
        self.halted.load(Ordering::SeqCst) || self.stop.requested()
    }
}
