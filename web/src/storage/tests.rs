//! The shelf over a store that fails on demand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

use super::*;

/// Runs what never really waits.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("the future waits for something that nobody brings");
}

/// A store in memory with a quota, whose bytes a test may damage.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) held: RefCell<BTreeMap<String, Vec<u8>>>,
    pub(crate) quota: Cell<Option<usize>>,
    pub(crate) error: RefCell<Option<StoreError>>,
    pub(crate) writes: RefCell<Vec<String>>,
}

impl Store for &'static Fake {
    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.held.borrow().get(name).cloned())
    }

    async fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.writes.borrow_mut().push(name.to_owned());
        if let Some(error) = self.error.borrow().clone() {
            return Err(error);
        }
        let mut held = self.held.borrow_mut();
        let others: usize = held
            .iter()
            .filter(|(n, _)| *n != name)
            .map(|(_, b)| b.len())
            .sum();
        if self
            .quota
            .get()
            .is_some_and(|quota| others + bytes.len() > quota)
        {
            return Err(StoreError::Full);
        }
        held.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.held.borrow_mut().remove(name);
        Ok(())
    }

    async fn names(&self) -> Result<Vec<(String, u64)>, StoreError> {
        Ok(self
            .held
            .borrow()
            .iter()
            .map(|(n, b)| (n.clone(), b.len() as u64))
            .collect())
    }
}

pub(crate) fn fake() -> &'static Fake {
    Box::leak(Box::default())
}

const URL: &str = "https://host/model.safetensors";

/// A shelf with a file of `pieces` pieces of 4 bytes on it, used at `now`.
fn put(shelf: &Shelf<&'static Fake>, url: &str, pieces: u64, now: f64) -> RefCell<Record> {
    let mut record = Record::new(url, pieces * 4, "v1", 4);
    block_on(shelf.begin(&mut record, now));
    let record = RefCell::new(record);
    for index in 0..usize::try_from(pieces).unwrap() {
        block_on(shelf.keep(&record, index, b"abcd"));
    }
    record
}

fn names(store: &Fake) -> Vec<String> {
    store.held.borrow().keys().cloned().collect()
}

#[test]
fn records_know_their_pieces() {
    let record = Record::new(URL, 10, "v1", 4);
    assert_eq!(
        (record.pieces(), record.range(0), record.range(2)),
        (3, 0..4, 8..10)
    );
    assert_eq!(
        (record.index_of(0), record.index_of(7), record.index_of(9)),
        (0, 1, 2)
    );
    assert_eq!(Record::new(URL, 0, "", 4).pieces(), 0);
    assert!(Record::new(URL, 0, "", 4).is_complete());
    assert!(record.is_of(Some(10), "v1") && record.is_of(None, ""));
    assert!(!record.is_of(Some(11), "v1") && !record.is_of(Some(10), "v2"));
    assert_eq!(Record::parse(&record.to_json(), URL), Some(record.clone()));
    assert_eq!(Record::parse(&record.to_json(), "https://other/"), None);
    assert_eq!(Record::parse(b"{", URL), None);
    let short = String::from_utf8(record.to_json())
        .unwrap()
        .replace("[null,null,null]", "[null]");
    assert_eq!(
        Record::parse(short.as_bytes(), URL),
        None,
        "fewer pieces than its length needs"
    );
    let newer = Record::new(URL, 10, "v2", 4);
    assert_ne!(
        record.piece_name(1),
        newer.piece_name(1),
        "versions do not mix"
    );
}

#[test]
fn a_piece_is_written_before_it_is_recorded() {
    let store = fake();
    let shelf = Shelf::new(Ok(store));
    let record = put(&shelf, URL, 1, 0.0);
    let piece = record.borrow().piece_name(0);
    let writes = store.writes.borrow().clone();
    assert_eq!(writes.len(), 3, "{writes:?}");
    assert_eq!(writes[1], piece);
    assert!(writes[0].ends_with(".json") && writes[2] == writes[0]);

    // A tab that closed between the two: the bytes are there, and nobody trusts them.
    let again = block_on(shelf.record(URL)).unwrap();
    assert!(again.has(0));
    let empty = RefCell::new(Record::new(URL, 4, "v1", 4));
    assert_eq!(block_on(shelf.piece(&empty, 0)), None);
}

#[test]
fn damaged_pieces_are_struck_off() {
    for damage in [&b"abcX"[..], b"abc", b""] {
        let store = fake();
        let shelf = Shelf::new(Ok(store));
        let record = put(&shelf, URL, 2, 0.0);
        assert_eq!(
            block_on(shelf.piece(&record, 1)).as_deref(),
            Some(&b"abcd"[..])
        );
        let name = record.borrow().piece_name(1);
        store
            .held
            .borrow_mut()
            .insert(name.clone(), damage.to_vec());
        assert_eq!(block_on(shelf.piece(&record, 1)), None);
        assert!(!record.borrow().has(1) && record.borrow().has(0));
        assert!(!names(store).contains(&name));
        assert!(
            !block_on(shelf.record(URL)).unwrap().has(1),
            "the stored record says so too"
        );
    }
}

#[test]
fn a_new_version_takes_the_place_of_the_old() {
    let store = fake();
    let shelf = Shelf::new(Ok(store));
    let old = put(&shelf, URL, 2, 0.0);
    let other = put(&shelf, "https://host/other", 1, 0.0);
    let mut new = Record::new(URL, 8, "v2", 4);
    block_on(shelf.begin(&mut new, 1.0));
    let left = names(store);
    assert!(!left.contains(&old.borrow().piece_name(0)), "{left:?}");
    assert!(left.contains(&other.borrow().piece_name(0)));
    assert_eq!(block_on(shelf.record(URL)).unwrap().validator(), "v2");
}

#[test]
fn what_was_used_longest_ago_makes_room() {
    let store = fake();
    let shelf = Shelf::new(Ok(store));
    put(&shelf, "https://host/old", 3, 1.0);
    put(&shelf, "https://host/newer", 3, 2.0);
    let used: usize = store.held.borrow().values().map(Vec::len).sum();
    // Pieces that a closed tab left without a record go before anything else.
    store
        .held
        .borrow_mut()
        .insert(format!("{:024}-aaaaaaaa-00000", 0), vec![0; 40]);
    store.quota.set(Some(used + 60));
    put(&shelf, URL, 1, 3.0);
    assert!(block_on(shelf.record("https://host/newer")).is_some());
    assert!(block_on(shelf.record("https://host/old")).is_none());
    assert!(block_on(shelf.record(URL)).unwrap().is_complete());
    assert_eq!(
        shelf.take_notes(),
        [""; 0],
        "nothing to tell: it is as it should be"
    );
}

#[test]
fn a_refused_quota_falls_back_to_memory_and_says_so_once() {
    let store = fake();
    store.quota.set(Some(0));
    let shelf = Shelf::new(Ok(store));
    let record = put(&shelf, URL, 3, 1.0);
    let notes = shelf.take_notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].contains("memory") && notes[0].contains("full"),
        "{notes:?}"
    );
    assert_eq!(
        block_on(shelf.piece(&record, 2)).as_deref(),
        Some(&b"abcd"[..])
    );
    assert!(names(store).is_empty());
    assert_eq!(
        block_on(shelf.clear()).unwrap(),
        12 + record.borrow().to_json().len() as u64
    );
    assert_eq!(block_on(shelf.piece(&record, 2)), None);
}

#[test]
fn a_private_window_starts_in_memory() {
    let shelf = Shelf::<&'static Fake>::new(Err(StoreError::Unusable("SecurityError".into())));
    let record = put(&shelf, URL, 1, 1.0);
    assert!(shelf.take_notes()[0].contains("SecurityError"));
    assert!(block_on(shelf.piece(&record, 0)).is_some());
}

#[test]
fn memory_has_an_end() {
    let memory = Memory::new(10);
    block_on(memory.write("a", &[0; 6])).unwrap();
    assert_eq!(block_on(memory.write("b", &[0; 5])), Err(StoreError::Full));
    block_on(memory.write("a", &[1; 10])).unwrap();
    assert_eq!(block_on(memory.read("a")).unwrap().unwrap(), [1; 10]);
    assert_eq!(block_on(memory.names()).unwrap(), [("a".to_owned(), 10)]);
    block_on(memory.remove("a")).unwrap();
    assert_eq!(block_on(memory.read("a")).unwrap(), None);
}

#[test]
fn another_tab_that_writes_the_same_is_left_alone() {
    let store = fake();
    let shelf = Shelf::new(Ok(store));
    let record = put(&shelf, URL, 1, 1.0);
    *store.error.borrow_mut() = Some(StoreError::Busy);
    record.borrow_mut().set(0, None);
    block_on(shelf.keep(&record, 0, b"abcd"));
    assert!(!record.borrow().has(0));
    assert_eq!(shelf.take_notes(), [""; 0]);
}

#[test]
fn clearing_and_forgetting() {
    let store = fake();
    let shelf = Shelf::new(Ok(store));
    put(&shelf, URL, 2, 1.0);
    put(&shelf, "https://host/other", 1, 1.0);
    block_on(shelf.forget(URL));
    assert!(block_on(shelf.record(URL)).is_none());
    assert_eq!(names(store).len(), 2, "the other file's record and piece");
    let held: usize = store.held.borrow().values().map(Vec::len).sum();
    assert_eq!(block_on(shelf.clear()).unwrap(), held as u64);
    assert!(names(store).is_empty());
}
