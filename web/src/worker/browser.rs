//! What the engine needs of the browser: clock, pauses, files, storage, and the page to tell events to.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use js_sys::Uint8Array;

use super::pauses::Pauses;
use super::{device, post};
use crate::engine::{File, Gpu, Piece, Surroundings};
use crate::fetch::browser::{Network, scope};
use crate::fetch::{Remote, open};
use crate::protocol::{Event, Failure, FailureKind, Message};
use crate::storage::{Persistent, Shelf};

/// The browser around a worker.
#[derive(Default)]
pub(super) struct Browser {
    pauses: Pauses,
    /// Opened when it is first needed.
    shelf: RefCell<Option<Rc<Shelf<Persistent>>>>,
}

/// An open file.
pub(super) enum Handed {
    /// Of a URL.
    Remote(Box<Remote<Network, Persistent>>),
    /// Of the visitor. Its bytes stay outside of WebAssembly's memory until they are read.
    File(Uint8Array),
}

impl Browser {
    async fn shelf(&self) -> Rc<Shelf<Persistent>> {
        if let Some(shelf) = self.shelf.borrow().as_ref() {
            return Rc::clone(shelf);
        }
        let shelf = Rc::new(Shelf::new(Persistent::open().await));
        Rc::clone(self.shelf.borrow_mut().get_or_insert(shelf))
    }

    /// Tells the page what storage had to say.
    fn tell_notes(&self) {
        let notes = self
            .shelf
            .borrow()
            .as_ref()
            .map(|shelf| shelf.take_notes())
            .unwrap_or_default();
        for text in notes {
            self.emit(
                Message {
                    id: 0,
                    body: Event::Note { text },
                },
                Vec::new(),
            );
        }
    }
}

impl Surroundings for Browser {
    type File = Handed;

    fn now_ms(&self) -> f64 {
        scope()
            .performance()
            .map_or_else(js_sys::Date::now, |performance| performance.now())
    }

    async fn pause(&self) {
        self.tell_notes();
        self.pauses.take().await;
    }

    fn emit(&self, message: Message<Event>, attachments: Vec<Vec<u8>>) {
        post(&message, &attachments);
    }

    async fn gpu(&self) -> Result<Gpu, String> {
        device::describe().await
    }

    async fn open(&self, url: &str, keep: bool) -> Result<Option<Handed>, Failure> {
        let file = open(Rc::new(Network), self.shelf().await, url, keep).await;
        self.tell_notes();
        Ok(file?.map(|remote| Handed::Remote(Box::new(remote))))
    }

    async fn forget(&self, url: &str) {
        self.shelf().await.forget(url).await;
    }

    async fn clear(&self) -> Result<u64, Failure> {
        self.shelf().await.clear().await.map_err(|error| Failure {
            kind: FailureKind::Internal,
            message: format!("what is stored cannot be removed, because {error}; close other tabs of this page and try again"),
        })
    }
}

impl File for Handed {
    fn length(&self) -> u64 {
        match self {
            Self::Remote(remote) => remote.length(),
            Self::File(bytes) => u64::from(bytes.length()),
        }
    }

    async fn read(&self, range: Range<u64>) -> Result<Piece, Failure> {
        match self {
            Self::Remote(remote) => remote.read(range).await,
            Self::File(bytes) => part(bytes, &range),
        }
    }
}

fn part(bytes: &Uint8Array, range: &Range<u64>) -> Result<Piece, Failure> {
    let length = bytes.length();
    match (u32::try_from(range.start), u32::try_from(range.end)) {
        (Ok(start), Ok(end)) if start <= end && end <= length => Ok(Piece {
            bytes: bytes.subarray(start, end).to_vec(),
            downloaded: 0,
        }),
        _ => Err(Failure {
            kind: FailureKind::Format,
            message: format!(
                "bytes {} to {} were asked for of a file that has {length}: it is cut short, or its header is wrong",
                range.start, range.end
            ),
        }),
    }
}
