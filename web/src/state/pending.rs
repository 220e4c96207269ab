//! Requests that are under way, and what each is for.

use std::collections::BTreeMap;

use crate::protocol::{AdapterSource, Message, Request};

use super::compare::Run;

/// What is done with an adapter's zip once it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFor {
    /// The visitor wants it.
    Download,
    /// The page keeps it, so that a restarted worker can have it back.
    Keep,
}

/// What a request is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Purpose {
    /// A device.
    Start,
    /// A base.
    Base,
    /// An adapter from somewhere.
    Adapter {
        /// Where it lies.
        source: AdapterSource,
    },
    /// The end of an adapter.
    Remove,
    /// The merge.
    Merge,
    /// A zip.
    Export {
        /// The adapter.
        name: String,
        /// What for.
        to: ExportFor,
    },
    /// Answers.
    Answers(Run),
    /// Losses of a text's tokens.
    Losses,
    /// An evaluation.
    Evaluate,
    /// A training.
    Train,
    /// Emptying the storage.
    Clear,
    /// Anything whose answer nobody waits for.
    Other,
}

/// Bytes that go with a request, kept by the page for as long as they may be asked for again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKey {
    /// The files of the base.
    Base,
    /// Those of an adapter, by name.
    Adapter(String),
    /// The data file.
    Data,
}

/// What the page is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this to the worker, with the files of that key.
    Send {
        /// What.
        message: Box<Message<Request>>,
        /// Whose files.
        files: Option<FileKey>,
    },
    /// End the worker, start another, then send what [`super::State::replay`] says.
    Restart,
    /// Give the event's first attachment to the visitor.
    Save {
        /// The file's name.
        file: String,
    },
    /// Keep the event's first attachment as the files of an adapter.
    Keep {
        /// The adapter.
        name: String,
    },
}

/// Requests that have not ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pending {
    last: u64,
    open: BTreeMap<u64, Purpose>,
}

impl Pending {
    /// A fresh id for a request.
    pub fn open(&mut self, purpose: Purpose) -> u64 {
        self.last += 1;
        self.open.insert(self.last, purpose);
        self.last
    }

    /// What `id` is for.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Purpose> {
        self.open.get(&id)
    }

    /// Ends `id`.
    pub fn close(&mut self, id: u64) -> Option<Purpose> {
        self.open.remove(&id)
    }

    /// Ends everything.
    pub fn close_all(&mut self) -> Vec<(u64, Purpose)> {
        std::mem::take(&mut self.open).into_iter().collect()
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

/// The files that go with a request, by what it asks for.
#[must_use]
pub(super) fn files_of(request: &Request) -> Option<FileKey> {
    use crate::protocol::{BaseSource, DataSource};
    match request {
        Request::LoadBase {
            source: BaseSource::Files { .. },
            ..
        } => Some(FileKey::Base),
        Request::AddAdapter {
            name,
            source: AdapterSource::Files { .. },
        } => Some(FileKey::Adapter(name.clone())),
        Request::Evaluate {
            data: DataSource::File { .. },
            ..
        } => Some(FileKey::Data),
        _ => None,
    }
}
