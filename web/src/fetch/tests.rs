//! Downloads from a server that misbehaves in every way that servers and networks do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::retry::Retry;
use super::*;
use crate::engine::File;
use crate::protocol::{Failure, FailureKind};
use crate::storage::tests::{Fake, block_on, fake};
use crate::storage::{Shelf, StoreError};

const URL: &str = "https://host/model.safetensors";

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// No answer at all.
    NoAnswer,
    /// The body stops after so many bytes.
    CutAfter(usize),
    /// An answer of this status.
    Status(u16),
}

/// A server with one file.
struct Server {
    file: RefCell<Vec<u8>>,
    etag: RefCell<&'static str>,
    ranges: Cell<bool>,
    /// Hides all headers that CORS hides, as a server does that was not set up for it.
    hides: Cell<bool>,
    announces: Cell<bool>,
    /// Compresses on the fly, and cuts parts out of the compressed file.
    packs: Cell<bool>,
    down: Cell<bool>,
    faults: RefCell<VecDeque<Fault>>,
    asked: RefCell<Vec<Option<Range<u64>>>>,
    slept: RefCell<Vec<f64>>,
    sent: Rc<Cell<u64>>,
}

struct Sending {
    parts: VecDeque<Vec<u8>>,
    cut: bool,
    sent: Rc<Cell<u64>>,
}

impl Body for Sending {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Cut> {
        match self.parts.pop_front() {
            Some(part) => {
                self.sent.set(self.sent.get() + part.len() as u64);
                Ok(Some(part))
            }
            None if self.cut => Err(Cut("network error".into())),
            None => Ok(None),
        }
    }
}

impl Net for Server {
    type Body = Sending;

    async fn get(&self, _: &str, range: Option<Range<u64>>) -> Result<(Head, Sending), Cut> {
        self.asked.borrow_mut().push(range.clone());
        let fault = self.faults.borrow_mut().pop_front();
        if self.down.get() || matches!(fault, Some(Fault::NoAnswer)) {
            return Err(Cut("Failed to fetch".into()));
        }
        let file = self.file.borrow();
        let length = file.len() as u64;
        let mut head = Head {
            status: 200,
            etag: Some((*self.etag.borrow()).to_owned()),
            ..Head::default()
        };
        let mut bytes = file.clone();
        if let (Some(range), true) = (range, self.ranges.get()) {
            if range.start >= length {
                head.status = 416;
            } else {
                let end = range.end.min(length);
                head.status = 206;
                head.content_range = Some(format!("bytes {}-{}/{length}", range.start, end - 1));
                bytes = file[usize::try_from(range.start).unwrap()..usize::try_from(end).unwrap()]
                    .to_vec();
            }
        }
        if let Some(Fault::Status(status)) = fault {
            head.status = status;
        }
        head.content_length = self.announces.get().then_some(bytes.len() as u64);
        if self.packs.get() {
            head.content_encoding = Some("gzip".to_owned());
            head.content_length = Some(length / 2);
            if head.status == 206 {
                bytes = vec![0; 5];
                head.content_range = Some(format!("bytes 0-4/{}", length / 2));
            }
        }
        if self.hides.get() {
            (head.etag, head.content_range) = (None, None);
        }
        let cut = match fault {
            Some(Fault::CutAfter(count)) => {
                bytes.truncate(count);
                true
            }
            _ => false,
        };
        let body = Sending {
            parts: bytes.chunks(1 << 20).map(<[u8]>::to_vec).collect(),
            cut,
            sent: Rc::clone(&self.sent),
        };
        Ok((head, body))
    }

    async fn sleep(&self, ms: f64) {
        self.slept.borrow_mut().push(ms);
    }

    fn now_ms(&self) -> f64 {
        1.0
    }

    fn ahead<T: 'static>(
        &self,
        work: impl Future<Output = T> + 'static,
    ) -> Pin<Box<dyn Future<Output = T>>> {
        Box::pin(work)
    }
}

/// A file of two whole pieces and a bit, and a server that has it.
fn server(length: usize) -> Rc<Server> {
    let file = (0..length)
        .map(|i| u8::try_from(i * 7 % 251).unwrap())
        .collect();
    Rc::new(Server {
        file: RefCell::new(file),
        etag: RefCell::new("\"one\""),
        ranges: Cell::new(true),
        hides: Cell::new(false),
        announces: Cell::new(true),
        packs: Cell::new(false),
        down: Cell::new(false),
        faults: RefCell::default(),
        asked: RefCell::default(),
        slept: RefCell::default(),
        sent: Rc::default(),
    })
}

const P: usize = PIECE as usize;
const LONG: usize = 2 * P + 1000;

type File_ = Remote<Server, &'static Fake>;

fn shelf(store: &'static Fake) -> Rc<Shelf<&'static Fake>> {
    Rc::new(Shelf::new(Ok(store)))
}

fn try_open(server: &Rc<Server>, store: &'static Fake) -> Result<Option<File_>, Failure> {
    block_on(open(Rc::clone(server), shelf(store), URL, true))
}

fn opened(server: &Rc<Server>, store: &'static Fake) -> File_ {
    try_open(server, store).unwrap().unwrap()
}

/// Reads all of it in parts of `step` bytes; returns what came over the network by the file's own account.
fn read_all(file: &File_, server: &Server, step: u64) -> u64 {
    let (mut all, mut downloaded) = (Vec::new(), 0);
    let mut at = 0;
    while at < file.length() {
        let end = file.length().min(at + step);
        let piece = block_on(file.read(at..end)).unwrap();
        downloaded += piece.downloaded;
        all.extend(piece.bytes);
        at = end;
    }
    assert!(all == *server.file.borrow(), "the very bytes");
    downloaded
}

#[test]
fn a_file_comes_in_pieces_and_then_from_the_shelf() {
    let (server, store) = (server(LONG), fake());
    let file = opened(&server, store);
    assert_eq!(file.length(), LONG as u64);
    assert_eq!(read_all(&file, &server, 3_000_000), LONG as u64);
    assert_eq!(server.sent.get(), LONG as u64, "nothing twice");
    for range in server.asked.borrow().iter().flatten() {
        assert!(range.end - range.start <= PIECE, "{range:?}");
    }

    let again = opened(&server, store);
    server.asked.borrow_mut().clear();
    assert_eq!(read_all(&again, &server, 1 << 22), 0);
    assert!(server.asked.borrow().is_empty());
    // Without network too.
    server.down.set(true);
    assert_eq!(read_all(&opened(&server, store), &server, 1 << 22), 0);
}

#[test]
fn only_what_is_read_is_downloaded() {
    let (server, store) = (server(LONG), fake());
    let file = opened(&server, store);
    assert_eq!(block_on(file.read(0..8)).unwrap().bytes.len(), 8);
    assert_eq!(server.sent.get(), PIECE);
    let end = LONG as u64;
    assert_eq!(block_on(file.read(end - 10..end)).unwrap().downloaded, 1000);
    assert_eq!(server.sent.get(), PIECE + 1000);
}

#[test]
fn a_cut_goes_on_where_it_stopped() {
    let (server, store) = (server(LONG), fake());
    let file = opened(&server, store);
    server.faults.borrow_mut().extend([
        Fault::NoAnswer,
        Fault::CutAfter(P / 2),
        Fault::Status(503),
    ]);
    read_all(&file, &server, PIECE);
    let asked = server.asked.borrow();
    let (p, half) = (PIECE, PIECE / 2);
    assert_eq!(asked[2], Some(p..2 * p), "{asked:?}");
    assert_eq!(asked[3], Some(p + half..2 * p), "only the missing half");
    assert_eq!(
        *server.slept.borrow(),
        [500.0, 500.0, 1000.0],
        "patience starts anew where something came"
    );
}

#[test]
fn a_first_piece_that_is_cut_goes_on_too() {
    let (server, store) = (server(LONG), fake());
    server.faults.borrow_mut().push_back(Fault::CutAfter(P / 2));
    let file = opened(&server, store);
    assert_eq!(read_all(&file, &server, PIECE), LONG as u64);
    assert_eq!(server.asked.borrow()[1], Some(PIECE / 2..PIECE));
    assert_eq!(server.sent.get(), LONG as u64, "nothing twice");
}

#[test]
fn a_closed_tab_resumes() {
    let (server, store) = (server(LONG), fake());
    let file = opened(&server, store);
    block_on(file.read(0..100)).unwrap();
    block_on(file.read(PIECE..PIECE + 100)).unwrap();
    drop(file);
    server.sent.set(0);
    let file = opened(&server, store);
    assert_eq!(
        read_all(&file, &server, 1 << 22),
        1000,
        "the last piece alone is missing"
    );
    assert_eq!(server.sent.get(), 1000);
}

#[test]
fn damage_on_the_shelf_is_downloaded_again() {
    let (server, store) = (server(LONG), fake());
    read_all(&opened(&server, store), &server, PIECE);
    let name = store
        .held
        .borrow()
        .keys()
        .find(|name| name.ends_with("-00001"))
        .unwrap()
        .clone();
    store.held.borrow_mut().get_mut(&name).unwrap()[5] ^= 1;
    assert_eq!(read_all(&opened(&server, store), &server, PIECE), PIECE);
    assert_eq!(
        read_all(&opened(&server, store), &server, PIECE),
        0,
        "and kept"
    );
}

#[test]
fn patience_ends_with_a_sentence() {
    let (server, store) = (server(LONG), fake());
    let file = opened(&server, store);
    server.down.set(true);
    let failure = block_on(file.read(PIECE..PIECE + 1)).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Network);
    assert!(
        failure.message.contains(URL) && failure.message.contains("go on from there"),
        "{failure:?}"
    );
    assert_eq!(
        *server.slept.borrow(),
        [500.0, 1000.0, 2000.0, 4000.0, 8000.0]
    );

    let none = try_open(&server, fake()).err().unwrap();
    assert!(none.message.contains("CORS"), "{none:?}");
}

#[test]
fn what_is_not_there_or_not_public() {
    let (server, store) = (server(10), fake());
    for status in [404, 410] {
        server.faults.borrow_mut().push_back(Fault::Status(status));
        assert!(try_open(&server, store).unwrap().is_none());
    }
    server.faults.borrow_mut().push_back(Fault::Status(401));
    let failure = try_open(&server, store).err().unwrap();
    assert!(
        failure.message.contains("401") && failure.message.contains("not public"),
        "{failure:?}"
    );
    assert!(
        server.slept.borrow().is_empty(),
        "asking again would not help"
    );
}

#[test]
fn a_file_that_changes_is_never_mixed() {
    let (server, store) = (server(LONG), fake());
    let file = opened(&server, store);
    block_on(file.read(0..10)).unwrap();
    *server.etag.borrow_mut() = "\"two\"";
    server.file.borrow_mut().fill(9);
    let failure = block_on(file.read(PIECE..PIECE + 10)).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Integrity, "{failure:?}");
    // Opened again, the old pieces are gone.
    read_all(&opened(&server, store), &server, PIECE);
}

#[test]
fn headers_that_cors_hides_are_done_without() {
    for length in [10, P, LONG] {
        let (server, store) = (server(length), fake());
        server.hides.set(true);
        let file = opened(&server, store);
        assert_eq!(file.length(), length as u64);
        read_all(&file, &server, 5_000_000);
    }
    let server = server(LONG);
    server.hides.set(true);
    server.announces.set(false);
    let failure = try_open(&server, fake()).err().unwrap();
    assert!(
        failure.message.contains("Access-Control-Expose-Headers"),
        "{failure:?}"
    );
}

#[test]
fn servers_without_ranges_are_read_as_a_stream() {
    let (server, store) = (server(LONG), fake());
    server.ranges.set(false);
    let file = opened(&server, store);
    server.faults.borrow_mut().push_back(Fault::CutAfter(P / 2));
    assert_eq!(read_all(&file, &server, 3_000_000), LONG as u64);
    // Back to the front: the shelf has it, no second stream.
    let before = server.asked.borrow().len();
    block_on(file.read(0..10)).unwrap();
    assert_eq!(server.asked.borrow().len(), before);
    assert_eq!(read_all(&opened(&server, store), &server, PIECE), 0);
}

#[test]
fn a_stream_that_is_cut_starts_over_and_skips() {
    let (server, store) = (server(LONG), fake());
    server.ranges.set(false);
    server
        .faults
        .borrow_mut()
        .push_back(Fault::CutAfter(P + P / 2));
    let file = opened(&server, store);
    assert_eq!(read_all(&file, &server, PIECE), LONG as u64);
    assert_eq!(server.asked.borrow().len(), 2);
}

#[test]
fn parts_of_a_compressed_copy_are_refused() {
    let (server, store) = (server(LONG), fake());
    server.packs.set(true);
    assert_eq!(
        read_all(&opened(&server, store), &server, 3_000_000),
        LONG as u64
    );
    assert_eq!(read_all(&opened(&server, store), &server, 3_000_000), 0);
    // A piece that is missing comes by a stream of the whole.
    let name = store
        .held
        .borrow()
        .keys()
        .find(|name| name.ends_with("-00001"))
        .unwrap()
        .clone();
    store.held.borrow_mut().remove(&name);
    assert_eq!(read_all(&opened(&server, store), &server, PIECE), PIECE);
}

#[test]
fn lengths_nobody_announces() {
    for length in [0, 10, LONG] {
        let (server, store) = (server(length), fake());
        server.ranges.set(false);
        server.announces.set(false);
        let file = opened(&server, store);
        assert_eq!(file.length(), length as u64);
        assert_eq!(read_all(&file, &server, 3_000_000), length as u64);
    }
    // An empty file of a server with ranges answers 416.
    let server = server(0);
    assert_eq!(opened(&server, fake()).length(), 0);
}

#[test]
fn a_refused_quota_costs_nothing_but_the_next_visit() {
    let (server, store) = (server(LONG), fake());
    *store.error.borrow_mut() = Some(StoreError::Full);
    read_all(&opened(&server, store), &server, PIECE);
    assert!(store.held.borrow().is_empty());
}

#[test]
fn what_is_not_to_be_kept_is_not() {
    let (server, store) = (server(LONG), fake());
    let file = block_on(open(Rc::clone(&server), shelf(store), URL, false))
        .unwrap()
        .unwrap();
    read_all(&file, &server, PIECE);
    assert!(store.held.borrow().is_empty());
}

#[test]
fn reads_outside_of_the_file_are_refused() {
    let server = server(10);
    let file = opened(&server, fake());
    let failure = block_on(file.read(5..11)).unwrap_err();
    assert!(failure.message.contains("has 10"), "{failure:?}");
    assert_eq!(block_on(file.read(4..4)).unwrap().bytes, [0u8; 0]);
}

#[test]
fn heads() {
    let said = |status, content_range: &str| Head {
        status,
        content_range: Some(content_range.to_owned()),
        content_length: Some(5),
        ..Head::default()
    };
    assert_eq!(said(206, "bytes 2-4/10").range(), Some((2..5, Some(10))));
    assert_eq!(said(206, "bytes 2-4/*").range(), Some((2..5, None)));
    for wrong in [
        "bytes */10",
        "bytes 4-2/10",
        "items 0-1/2",
        "bytes 1-x/3",
        "",
    ] {
        assert_eq!(said(206, wrong).range(), None, "{wrong}");
    }
    assert_eq!(said(206, "bytes 2-4/10").total(), Some(10));
    assert_eq!(said(200, "").total(), Some(5));
    let packed = Head {
        content_encoding: Some("br".into()),
        ..said(200, "")
    };
    assert_eq!(packed.total(), None);
    let tagged = Head {
        etag: Some("W/\"a\"".into()),
        last_modified: Some("then".into()),
        ..Head::default()
    };
    assert_eq!(tagged.validator(), "\"a\"");
    assert_eq!(
        Head {
            etag: None,
            ..tagged
        }
        .validator(),
        "then"
    );
}

#[test]
fn pauses() {
    let mut retry = Retry::under_way();
    assert_eq!(retry.pause(Some(3.0)), Some(3000.0), "the server's wish");
    assert_eq!(retry.pause(Some(900.0)), Some(16_000.0), "within reason");
    retry.progressed();
    assert_eq!(retry.pause(None), Some(500.0));
    let mut first = Retry::first_contact();
    assert_eq!(
        [first.pause(None), first.pause(None), first.pause(None)],
        [Some(500.0), Some(1000.0), None]
    );
}

#[test]
fn promises() {
    let (keeper, promised) = promise();
    keeper.keep(5);
    assert_eq!(block_on(promised), 5);
    let (keeper, promised) = promise::<u8>();
    let waited = block_on(async {
        let mut promised = std::pin::pin!(promised);
        let waits = std::future::poll_fn(|context| {
            std::task::Poll::Ready(promised.as_mut().poll(context).is_pending())
        });
        let waits = waits.await;
        keeper.keep(7);
        (waits, promised.await)
    });
    assert_eq!(waited, (true, 7));
}
