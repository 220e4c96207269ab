//! Ctrl-C: the first press lets the running step finish and save, the second stops at once.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::{Context, Result};

/// The exit status of a program ended by SIGINT, by shell convention 128 + 2.
pub(crate) const EXIT_CODE: i32 = 130;

/// Whether the user asked to stop. Clones share one state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    presses: Arc<AtomicU32>,
    /// Whether the next press ends the process.
    at_once: Arc<AtomicBool>,
    /// What the first press says, instead of [`SAVING`].
    notice: Arc<Mutex<Option<&'static str>>>,
}

/// What the first press says while training.
const SAVING: &str = "finishing this step, then saving; press Ctrl-C again to stop at once";

impl Interrupt {
    /// Takes over Ctrl-C for the rest of the process, for training. Further calls return the same state.
    ///
    /// # Errors
    /// The operating system refuses a handler.
    pub(crate) fn install() -> Result<Self> {
        Self::install_saying(SAVING)
    }

    /// As [`Self::install`], for work whose first press says `notice`.
    ///
    /// # Errors
    /// The operating system refuses a handler.
    pub(crate) fn install_saying(notice: &'static str) -> Result<Self> {
        let interrupt = Self::installed()?;
        interrupt.at_once.store(false, Ordering::SeqCst);
        interrupt.say(notice);
        Ok(interrupt)
    }

    fn installed() -> Result<Self> {
        static INSTALLED: OnceLock<Interrupt> = OnceLock::new();
        if let Some(interrupt) = INSTALLED.get() {
            return Ok(interrupt.clone());
        }
        let interrupt = Self::default();
        let seen = interrupt.clone();
        ctrlc::set_handler(move || match seen.ends_with_this_press() {
            false => eprintln!("\n{}", seen.notice()),
            true => std::process::exit(EXIT_CODE),
        })
        .context("cannot take over Ctrl-C")?;
        Ok(INSTALLED.get_or_init(|| interrupt).clone())
    }

    fn say(&self, notice: &'static str) {
        if let Ok(mut place) = self.notice.lock() {
            *place = Some(notice);
        }
    }

    fn notice(&self) -> &'static str {
        self.notice.lock().ok().and_then(|n| *n).unwrap_or(SAVING)
    }

    /// Whether to stop after the running step.
    pub(crate) fn requested(&self) -> bool {
        self.presses.load(Ordering::SeqCst) > 0
    }

    /// From here on the first press ends the process: what follows has nothing of its own to save.
    pub(crate) fn end_at_once(&self) {
        self.at_once.store(true, Ordering::SeqCst);
    }

    /// Counts a press; true where the process is to end.
    fn ends_with_this_press(&self) -> bool {
        self.press() > 1 || self.at_once.load(Ordering::SeqCst)
    }

    /// Counts a press, and says which it was.
    pub(crate) fn press(&self) -> u32 {
        self.presses
            .fetch_add(1, Ordering::SeqCst)
            .saturating_add(1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_presses() {
        let interrupt = Interrupt::default();
        let seen = interrupt.clone();
        assert!(!interrupt.requested());
        assert_eq!((seen.press(), seen.press()), (1, 2));
        assert!(interrupt.requested());
    }

    #[test]
    fn the_first_press_says_what_is_under_way() {
        let interrupt = Interrupt::default();
        assert_eq!(interrupt.notice(), SAVING);
        interrupt.clone().say("stopping");
        assert_eq!(interrupt.notice(), "stopping");
    }

    #[test]
    fn where_nothing_is_to_be_saved_the_first_press_ends() {
        let interrupt = Interrupt::default();
        assert!(!interrupt.clone().ends_with_this_press());
        let scoring = Interrupt::default();
        scoring.clone().end_at_once();
        assert!(scoring.ends_with_this_press());
    }

    #[test]
    fn installing_twice_is_one_handler() {
        let first = Interrupt::install().unwrap();
        let second = Interrupt::install().unwrap();
        first.press();
        assert!(second.requested());
    }
}
