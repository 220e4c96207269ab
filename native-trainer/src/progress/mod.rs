//! Telling the user what is going on, on stderr: stdout carries results only.
//!
//! On a terminal a bar is drawn, once the work has taken a second. Elsewhere (a log file, CI) a plain line is
//! printed at most every [`LINE_EVERY`], so that a log of a night's training stays readable.

pub(crate) mod interrupt;
pub(crate) mod task;
pub(crate) mod training;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Work shorter than this shows nothing.
pub(crate) const SHOW_AFTER: Duration = Duration::from_secs(1);
/// The least time between two lines where there is no terminal.
pub(crate) const LINE_EVERY: Duration = Duration::from_secs(15);

/// Where progress goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A bar that redraws itself.
    Bar,
    /// A line now and then.
    Lines,
    /// Nothing.
    Quiet,
}

impl Mode {
    /// A bar if stderr is a terminal that can redraw, else lines; nothing when `quiet`.
    pub(crate) fn detect(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match (quiet, std::io::stderr().is_terminal() && !dumb) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Bar,
            (false, false) => Self::Lines,
        }
    }
}

/// Lets an event through at most once per interval, and not before the first has passed.
#[derive(Debug)]
struct Throttle {
    every: Duration,
    last: Instant,
}

impl Throttle {
    fn new(every: Duration, now: Instant) -> Self {
        Self { every, last: now }
    }

    fn ready(&mut self, now: Instant) -> bool {
        let ready = now.saturating_duration_since(self.last) >= self.every;
        if ready {
            self.last = now;
        }
        ready
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_lets_one_through_per_interval() {
        let start = Instant::now();
        let mut throttle = Throttle::new(Duration::from_secs(10), start);
        let passed: Vec<u64> = (0..35)
            .filter(|s| throttle.ready(start + Duration::from_secs(*s)))
            .collect();
        assert_eq!(passed, [10, 20, 30]);
    }

    #[test]
    fn quiet_wins() {
        assert_eq!(Mode::detect(true), Mode::Quiet);
    }
}
