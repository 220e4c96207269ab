//! Progress with a rate: of the last seconds, so that it says how fast it goes now.

use std::collections::VecDeque;

use super::super::Surroundings;
use super::super::task::Task;
use crate::protocol::{Event, Stage};

/// How long back the rate looks, in milliseconds.
const WINDOW_MS: f64 = 4000.0;

/// Counts bytes and tells of them.
pub(super) struct Meter {
    total: u64,
    done: u64,
    /// When how much was done.
    marks: VecDeque<(f64, u64)>,
}

impl Meter {
    /// Nothing of `total` bytes yet.
    pub(super) fn new(total: u64, now_ms: f64) -> Self {
        Self {
            total,
            done: 0,
            marks: VecDeque::from([(now_ms, 0)]),
        }
    }

    /// `bytes` more, of which `downloaded` came over the network.
    pub(super) fn add<S: Surroundings>(&mut self, task: &Task<'_, S>, bytes: u64, downloaded: u64) {
        self.done += bytes;
        let rate = self.rate(task.now_ms());
        task.emit(Event::Progress {
            stage: match downloaded {
                0 => Stage::Restore,
                _ => Stage::Download,
            },
            done: self.done.min(self.total),
            total: self.total,
            rate,
        });
    }

    fn rate(&mut self, now_ms: f64) -> f64 {
        self.marks.push_back((now_ms, self.done));
        while self.marks.len() > 2 && self.marks[1].0 < now_ms - WINDOW_MS {
            self.marks.pop_front();
        }
        let (since, before) = self.marks[0];
        let seconds = (now_ms - since) / 1000.0;
        match seconds > 0.0 {
            true => (self.done - before) as f64 / seconds,
            false => 0.0,
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut meter = Meter::new(1000, 0.0);
        let mut at = |done, now| {
            meter.done = done;
            meter.rate(now)
        };
        assert_eq!(at(0, 0.0), 0.0);
        assert_eq!(at(100, 1000.0), 100.0);
        assert_eq!(at(200, 2000.0), 100.0);
        // A long pause, then fast: what lies more than four seconds back does not count.
        assert_eq!(at(200, 10_000.0), 0.0);
        assert_eq!(at(700, 11_000.0), 500.0 / 9.0);
    }
}
