//! One request at work: whom it answers, and the pauses in which it can be stopped.

use super::device::Opened;
use super::failure::Ended;
use super::{Engine, Surroundings};
use crate::protocol::{Event, Message};

/// How often long stretches of small steps let others run, in milliseconds: often enough for a button to feel alive.
const BREATH_MS: f64 = 30.0;

/// The request being answered.
pub(super) struct Task<'a, S: Surroundings> {
    engine: &'a Engine<S>,
    id: u64,
    device: Option<Opened>,
    last_pause: std::cell::Cell<f64>,
}

impl<'a, S: Surroundings> Task<'a, S> {
    pub(super) fn new(engine: &'a Engine<S>, id: u64, device: Option<Opened>) -> Self {
        Self {
            last_pause: std::cell::Cell::new(engine.around.now_ms()),
            engine,
            id,
            device,
        }
    }

    /// Where the engine runs.
    pub(super) fn around(&self) -> &'a S {
        &self.engine.around
    }

    pub(super) fn now_ms(&self) -> f64 {
        self.engine.around.now_ms()
    }

    /// Tells the page.
    pub(super) fn emit(&self, body: Event) {
        self.emit_with(body, Vec::new());
    }

    /// Tells the page, with bytes beside it.
    pub(super) fn emit_with(&self, body: Event, attachments: Vec<Vec<u8>>) {
        let message = Message { id: self.id, body };
        self.engine.around.emit(message, attachments);
    }

    /// Something to know that is no failure.
    pub(super) fn note(&self, text: impl Into<String>) {
        self.emit(Event::Note { text: text.into() });
    }

    /// Whether it was told to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.engine.stopping.get()
    }

    /// Lets everything else run, then looks whether to go on.
    ///
    /// # Errors
    /// The request was stopped; the device is lost.
    pub(super) async fn pause(&self) -> Result<(), Ended> {
        self.engine.around.pause().await;
        self.last_pause.set(self.now_ms());
        self.go_on()
    }

    /// As [`Self::pause`], but pauses only where the last pause is some time ago.
    ///
    /// # Errors
    /// As [`Self::pause`].
    pub(super) async fn breathe(&self) -> Result<(), Ended> {
        match self.now_ms() - self.last_pause.get() < BREATH_MS {
            true => self.go_on(),
            false => self.pause().await,
        }
    }

    fn go_on(&self) -> Result<(), Ended> {
        if self.is_stopped() {
            return Err(Ended::Stopped);
        }
        if let Some(device) = &self.device {
            device.check()?;
        }
        Ok(())
    }
}
