//! The engine: answers [`Request`]s with [`Event`]s by driving the core. It holds no model or merge maths and no browser
//! API; what it needs around it is [`Surroundings`].
//!
//! ```text
//! worker: on a message   engine.accept(message, files)      returns at once; Stop takes effect here
//!         then           engine.work().await                answers one request after the other; returns when none waits
//! ```
//!
//! Requests are answered one at a time in the order they came, each with one final event. `work` may be called as often as
//! one likes: while one call is at work, others return at once.

mod surroundings;

pub use surroundings::{File, Gpu, Piece, Surroundings};

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::protocol::{Event, Failure, FailureKind, Message, Request};

/// Requests that wait, each with its files.
type Inbox<F> = VecDeque<(Message<Request>, Vec<F>)>;

/// A model with its adapters, and the requests to it.
pub struct Engine<S: Surroundings> {
    around: S,
    inbox: RefCell<Inbox<S::File>>,
    working: Cell<bool>,
}

impl<S: Surroundings> Engine<S> {
    /// An engine without a device or a base.
    pub fn new(around: S) -> Self {
        Self {
            around,
            inbox: RefCell::default(),
            working: Cell::new(false),
        }
    }

    /// Where it runs.
    pub fn surroundings(&self) -> &S {
        &self.around
    }

    /// Takes a request with the files that came beside it, by the indices its [`FileRef`](crate::protocol::FileRef)s name.
    pub fn accept(&self, message: Message<Request>, files: Vec<S::File>) {
        self.inbox.borrow_mut().push_back((message, files));
    }

    /// Answers what waits. Returns at once where another call is at it.
    pub async fn work(&self) {
        if self.working.replace(true) {
            return;
        }
        loop {
            let next = self.inbox.borrow_mut().pop_front();
            let Some((message, _files)) = next else { break };
            let failure = Failure {
                kind: FailureKind::Request,
                message: "this request is not known to the engine".to_owned(),
            };
            self.emit(message.id, Event::Failed { failure });
            self.around.pause().await;
        }
        self.working.set(false);
    }

    fn emit(&self, id: u64, body: Event) {
        self.around.emit(Message { id, body }, Vec::new());
    }
}
