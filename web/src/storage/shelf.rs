//! [`Shelf`]: pieces of downloads over a store that lasts, and memory where that fails.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::digest::sha256;
use super::record::{key, record_name};
use super::{Memory, Record, Store, StoreError};

/// What memory holds at most where nothing lasting works: enough that a lost device need not download a small base again.
const MEMORY_LIMIT: u64 = 192 << 20;

/// Stored pieces of files by URL.
#[derive(Debug)]
pub struct Shelf<S> {
    /// `None` once it failed.
    lasting: RefCell<Option<Rc<S>>>,
    memory: Memory,
    /// Whether memory is full, which is said once.
    said_full: Cell<bool>,
    notes: RefCell<Vec<String>>,
}

impl<S: Store> Shelf<S> {
    /// Over `lasting`, or over memory alone with the reason why.
    pub fn new(lasting: Result<S, StoreError>) -> Self {
        let shelf = Self {
            lasting: RefCell::default(),
            memory: Memory::new(MEMORY_LIMIT),
            said_full: Cell::new(false),
            notes: RefCell::default(),
        };
        match lasting {
            Ok(store) => *shelf.lasting.borrow_mut() = Some(Rc::new(store)),
            Err(error) => shelf.fall_back(&error),
        }
        shelf
    }

    /// What there is to say about storage since this was asked last, a sentence each.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.borrow_mut())
    }

    /// What is stored of `url`, if anything usable.
    pub async fn record(&self, url: &str) -> Option<Record> {
        let bytes = self.read(&record_name(url)).await?;
        Record::parse(&bytes, url)
    }

    /// Starts to store what `record` describes: pieces of other versions go away.
    pub async fn begin(&self, record: &mut Record, now_ms: f64) {
        record.touch(now_ms);
        let first = record.piece_name(0);
        let version = first
            .trim_end_matches(|c: char| c.is_ascii_digit())
            .to_owned();
        for (name, _) in self.names().await {
            if name.starts_with(&key(record.url()))
                && name.contains('-')
                && !name.starts_with(&version)
            {
                self.remove(&name).await;
            }
        }
        self.write(record, &record_name(record.url()), &record.to_json())
            .await;
    }

    /// Piece `index`, if it is stored and still what it was. A damaged one is struck off, to be downloaded again.
    pub async fn piece(&self, record: &RefCell<Record>, index: usize) -> Option<Vec<u8>> {
        let (name, stored) = {
            let record = record.borrow();
            (record.piece_name(index), record.has(index))
        };
        if !stored {
            return None;
        }
        if let Some(bytes) = self.read(&name).await {
            let found = sha256(&bytes).await;
            if record.borrow().verifies(index, bytes.len(), &found) {
                return Some(bytes);
            }
        }
        record.borrow_mut().set(index, None);
        let snapshot = record.borrow().clone();
        self.remove(&name).await;
        self.write(&snapshot, &record_name(snapshot.url()), &snapshot.to_json())
            .await;
        None
    }

    /// Stores piece `index`, then says so in the record: a piece that was cut short is never trusted.
    pub async fn keep(&self, record: &RefCell<Record>, index: usize, bytes: &[u8]) {
        let snapshot = record.borrow().clone();
        if !self
            .write(&snapshot, &snapshot.piece_name(index), bytes)
            .await
        {
            return;
        }
        let written = sha256(bytes).await;
        record.borrow_mut().set(index, Some(written));
        let snapshot = record.borrow().clone();
        self.write(&snapshot, &record_name(snapshot.url()), &snapshot.to_json())
            .await;
    }

    /// Removes everything of `url`.
    pub async fn forget(&self, url: &str) {
        self.remove_all_of(&key(url)).await;
    }

    /// Removes everything; returns the bytes that were freed.
    ///
    /// # Errors
    /// The store that lasts cannot be read or changed.
    pub async fn clear(&self) -> Result<u64, StoreError> {
        let mut freed = empty(&self.memory).await?;
        let lasting = self.lasting.borrow().clone();
        if let Some(store) = lasting {
            freed += empty(store.as_ref()).await?;
        }
        self.said_full.set(false);
        Ok(freed)
    }

    async fn read(&self, name: &str) -> Option<Vec<u8>> {
        let lasting = self.lasting.borrow().clone();
        if let Some(store) = lasting
            && let Ok(Some(bytes)) = store.read(name).await
        {
            return Some(bytes);
        }
        self.memory.read(name).await.ok().flatten()
    }

    /// Writes for `record`'s URL; what was used longest ago makes room. Whether it worked.
    async fn write(&self, record: &Record, name: &str, bytes: &[u8]) -> bool {
        loop {
            let lasting = self.lasting.borrow().clone();
            let Some(store) = lasting else { break };
            match store.write(name, bytes).await {
                Ok(()) => return true,
                // The other tab stores the same; this one goes without.
                Err(StoreError::Busy) => return false,
                Err(StoreError::Full) if evict(store.as_ref(), record.url()).await => {}
                Err(error) => self.fall_back(&error),
            }
        }
        loop {
            match self.memory.write(name, bytes).await {
                Ok(()) => return true,
                Err(StoreError::Full) if evict(&self.memory, record.url()).await => {}
                Err(_) => break,
            }
        }
        if !self.said_full.replace(true) {
            let text =
                "There is no room to keep the whole download: it has to be loaded again next time.";
            self.notes.borrow_mut().push(text.to_owned());
        }
        false
    }

    fn fall_back(&self, error: &StoreError) {
        *self.lasting.borrow_mut() = None;
        self.notes.borrow_mut().push(format!(
            "Downloads are kept in memory until this tab closes, because {error}. A private window, or little free disk \
             space, can be the reason."
        ));
    }

    async fn remove(&self, name: &str) {
        let lasting = self.lasting.borrow().clone();
        if let Some(store) = lasting {
            // What cannot be removed is not trusted either: its record does not name it.
            let _ = store.remove(name).await;
        }
        let _ = self.memory.remove(name).await;
    }

    async fn names(&self) -> Vec<(String, u64)> {
        let mut names = self.memory.names().await.unwrap_or_default();
        let lasting = self.lasting.borrow().clone();
        if let Some(store) = lasting {
            names.extend(store.names().await.unwrap_or_default());
        }
        names
    }

    async fn remove_all_of(&self, key: &str) {
        for (name, _) in self.names().await {
            if name.starts_with(key) {
                self.remove(&name).await;
            }
        }
    }
}

async fn empty(store: &impl Store) -> Result<u64, StoreError> {
    let mut freed = 0;
    for (name, size) in store.names().await? {
        store.remove(&name).await?;
        freed += size;
    }
    Ok(freed)
}

/// Removes the file that was used longest ago, other than `url`'s; whether there was one. The record goes first: without it
/// its pieces mean nothing.
async fn evict(store: &impl Store, url: &str) -> bool {
    let own = key(url);
    let Ok(names) = store.names().await else {
        return false;
    };
    let mut oldest: Option<(f64, String)> = None;
    for (name, _) in &names {
        let other = name.get(..own.len()).unwrap_or(name);
        if other == own {
            continue;
        }
        let used = match name.ends_with(".json") {
            true => match store.read(name).await {
                Ok(Some(bytes)) => used_of(&bytes),
                _ => 0.0,
            },
            // Pieces have a record of their own among the names; those without one go first.
            false if names.iter().any(|(n, _)| *n == format!("{other}.json")) => continue,
            false => 0.0,
        };
        if oldest.as_ref().is_none_or(|(least, _)| used < *least) {
            oldest = Some((used, other.to_owned()));
        }
    }
    let Some((_, other)) = oldest else {
        return false;
    };
    let mut all: Vec<&String> = names
        .iter()
        .map(|(name, _)| name)
        .filter(|n| n.starts_with(&other))
        .collect();
    all.sort_by_key(|name| !name.ends_with(".json"));
    for name in all {
        if store.remove(name).await.is_err() {
            return false;
        }
    }
    true
}

fn used_of(bytes: &[u8]) -> f64 {
    serde_json::from_slice::<Record>(bytes).map_or(0.0, |record| record.used())
}
