//! What the page knows of the worker: its device, the base, what is under way, and what went wrong.

use crate::protocol::{BaseInfo, BaseSource, DeviceInfo, Failure, Stage};

use super::numbers;

/// How often the worker may be restarted without having finished anything in between.
pub const MOST_RESTARTS: u32 = 3;

/// Notes that are kept, the newest last.
const MOST_NOTES: usize = 6;

/// Something long that goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// What.
    pub stage: Stage,
    /// Done so far.
    pub done: u64,
    /// In all; 0 where unknown.
    pub total: u64,
    /// A second; 0 where unknown.
    pub rate: f64,
}

/// The worker, as the page knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    /// Its device, once there is one.
    pub device: Option<DeviceInfo>,
    /// The loaded base.
    pub base: Option<BaseInfo>,
    /// Where the base lies that is loaded or being loaded.
    pub source: Option<BaseSource>,
    /// The request that loads a base.
    pub loading: Option<u64>,
    /// How far that is.
    pub progress: Option<Progress>,
    /// Why the last base or device did not come.
    pub failure: Option<Failure>,
    /// Why the worker is being started again, while it is.
    pub restarting: Option<String>,
    /// Whether the worker is given up until the visitor asks for it.
    pub broken: bool,
    /// Restarts since something was last finished.
    pub restarts: u32,
    /// Things to know, a sentence each, the newest last.
    pub notes: Vec<String>,
}

impl Session {
    /// Adds a sentence, once.
    pub fn note(&mut self, text: &str) {
        self.notes.retain(|n| n != text);
        self.notes.push(text.to_owned());
        let over = self.notes.len().saturating_sub(MOST_NOTES);
        self.notes.drain(..over);
    }

    /// Whether a base is there to be asked.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.base.is_some() && self.loading.is_none() && self.restarting.is_none() && !self.broken
    }
}

impl Progress {
    /// The share that is done, where it is known.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        (self.total > 0).then(|| (self.done as f64 / self.total as f64).clamp(0.0, 1.0))
    }

    /// `Downloading: 12.0 MiB of 600.0 MiB, 3.0 MiB/s, 3 min 16 s left`.
    #[must_use]
    pub fn words(&self) -> String {
        let bytes = matches!(self.stage, Stage::Download | Stage::Restore);
        let amount = |n| {
            if bytes {
                numbers::bytes(n)
            } else {
                numbers::count(n)
            }
        };
        let mut text = format!("{}: {}", self.verb(), amount(self.done));
        if self.total > 0 {
            text.push_str(&format!(" of {}", amount(self.total)));
        }
        if bytes && self.rate > 0.0 {
            text.push_str(&format!(", {}/s", numbers::bytes(self.rate as u64)));
        }
        if self.rate > 0.0 && self.total > self.done {
            let left = (self.total - self.done) as f64 / self.rate;
            text.push_str(&format!(", {} left", numbers::duration(left)));
        }
        text
    }

    fn verb(&self) -> &'static str {
        match self.stage {
            Stage::Download => "Downloading",
            Stage::Restore => "Reading from this browser's storage",
            Stage::Load => "Loading blocks",
            Stage::Merge => "Merging modules",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_in_words() {
        let mib = 1 << 20;
        let mut progress = Progress {
            stage: Stage::Download,
            done: 12 * mib,
            total: 600 * mib,
            rate: 3.0 * f64::from(mib as u32),
        };
        assert_eq!(
            progress.words(),
            "Downloading: 12.0 MiB of 600.0 MiB, 3.0 MiB/s, 3 min 16 s left"
        );
        progress.total = 0;
        assert_eq!(progress.words(), "Downloading: 12.0 MiB, 3.0 MiB/s");
        assert_eq!(progress.share(), None);
        let blocks = Progress {
            stage: Stage::Load,
            done: 3,
            total: 22,
            rate: 0.0,
        };
        assert_eq!(blocks.words(), "Loading blocks: 3 of 22");
    }

    #[test]
    fn notes_are_kept_once_and_few() {
        let mut session = Session::default();
        for text in ["a", "b", "a", "c", "d", "e", "f", "g"] {
            session.note(text);
        }
        assert_eq!(session.notes, ["a", "c", "d", "e", "f", "g"]);
    }
}
