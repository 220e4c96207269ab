//! When to ask again: pauses that double, and start anew whenever something came.

/// Attempts without a byte between them before a download that had begun is given up: half a minute of pauses.
const PATIENCE: u32 = 6;
/// The same for a first contact: whoever mistyped an address should not wait.
const FIRST_CONTACT: u32 = 3;
const FIRST_PAUSE_MS: f64 = 500.0;
const LONGEST_PAUSE_MS: f64 = 16_000.0;

/// Counts failures in a row.
#[derive(Clone, Debug)]
pub(super) struct Retry {
    allowed: u32,
    failures: u32,
}

impl Retry {
    pub(super) fn first_contact() -> Self {
        Self {
            allowed: FIRST_CONTACT,
            failures: 0,
        }
    }

    pub(super) fn under_way() -> Self {
        Self {
            allowed: PATIENCE,
            failures: 0,
        }
    }

    /// Something came: patience starts anew.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// After a failure: how long to wait, or `None` to give up. A server's own wish counts where it is bearable.
    pub(super) fn pause(&mut self, wished_s: Option<f64>) -> Option<f64> {
        self.failures += 1;
        if self.failures >= self.allowed {
            return None;
        }
        let doubled = FIRST_PAUSE_MS * f64::from(1u32 << (self.failures - 1).min(16));
        let wished = wished_s.map_or(0.0, |s| s.max(0.0) * 1000.0);
        Some(doubled.max(wished).min(LONGEST_PAUSE_MS))
    }
}
