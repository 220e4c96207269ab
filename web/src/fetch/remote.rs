//! [`Remote`]: an open file of a server, read by ranges.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;

use crate::engine::{File, Piece};
use crate::protocol::{Failure, FailureKind};
use crate::storage::{Record, Shelf, Store};

use super::open::{lost, refused};
use super::retry::Retry;
use super::{Body, Cut, Head, Net};

/// Pieces held for reads that come back to them: tensors do not end where pieces do.
const HELD: usize = 2;
/// Pieces fetched before they are asked for.
const AHEAD: usize = 2;

/// A piece of the file, and how many bytes of it came over the network for nobody yet.
type Loaded = (Rc<Vec<u8>>, u64);
type Coming = Pin<Box<dyn Future<Output = Result<Loaded, Failure>>>>;

/// How the server gives the file.
pub(super) enum Source<B> {
    /// By ranges.
    Ranges,
    /// Only from its start on; the open body and what was read of it.
    Stream(RefCell<Option<Stream<B>>>),
    /// It was small enough to be read at once.
    Whole,
}

pub(super) struct Stream<B> {
    body: B,
    at: u64,
    /// Read from the body, but of the next piece.
    over: Vec<u8>,
}

impl<B> Source<B> {
    pub(super) fn stream(body: Option<B>) -> Self {
        let stream = body.map(|body| Stream {
            body,
            at: 0,
            over: Vec::new(),
        });
        Self::Stream(RefCell::new(stream))
    }
}

/// An open file of a server.
pub struct Remote<N: Net, S: Store + 'static> {
    shared: Rc<Shared<N, S>>,
    held: RefCell<VecDeque<(usize, Rc<Vec<u8>>)>>,
    coming: RefCell<VecDeque<(usize, Coming)>>,
    /// Where the last read ended: only reads that go on from there are worth running ahead of.
    last: Cell<Option<u64>>,
}

struct Shared<N: Net, S> {
    net: Rc<N>,
    shelf: Rc<Shelf<S>>,
    url: String,
    record: RefCell<Record>,
    keep: bool,
    source: Source<N::Body>,
    /// The first piece as far as it came, or all of a small file, from when it was opened.
    first: RefCell<Option<Vec<u8>>>,
}

impl<N: Net, S: Store + 'static> Remote<N, S> {
    pub(super) fn new(
        net: Rc<N>,
        shelf: Rc<Shelf<S>>,
        record: Record,
        keep: bool,
        source: Source<N::Body>,
        first: Option<Vec<u8>>,
    ) -> Self {
        let shared = Shared {
            net,
            shelf,
            url: record.url().to_owned(),
            record: RefCell::new(record),
            keep,
            source,
            first: RefCell::new(first),
        };
        Self {
            shared: Rc::new(shared),
            held: RefCell::default(),
            coming: RefCell::default(),
            last: Cell::new(None),
        }
    }

    /// Piece `index`, and the bytes of it that came over the network for this call.
    async fn piece(&self, index: usize) -> Result<Loaded, Failure> {
        let held = self
            .held
            .borrow()
            .iter()
            .find(|(i, _)| *i == index)
            .map(|(_, piece)| Rc::clone(piece));
        if let Some(piece) = held {
            return Ok((piece, 0));
        }
        let coming = {
            let mut coming = self.coming.borrow_mut();
            let at = coming.iter().position(|(i, _)| *i == index);
            at.and_then(|at| coming.remove(at))
        };
        let loaded = match coming {
            Some((_, coming)) => coming.await?,
            None => load(Rc::clone(&self.shared), index).await?,
        };
        let mut held = self.held.borrow_mut();
        held.push_back((index, Rc::clone(&loaded.0)));
        while held.len() > HELD {
            held.pop_front();
        }
        Ok(loaded)
    }

    /// Starts what a reader who goes on after piece `index` needs next.
    fn run_ahead(&self, index: usize) {
        if !matches!(self.shared.source, Source::Ranges) {
            return;
        }
        let last = self.shared.record.borrow().pieces();
        let mut coming = self.coming.borrow_mut();
        // A reader that jumped elsewhere does not want what was started for the old place.
        coming.retain(|(i, _)| *i > index && *i <= index + AHEAD);
        for next in index + 1..last.min(index + 1 + AHEAD) {
            if !coming.iter().any(|(i, _)| *i == next) {
                let work = load(Rc::clone(&self.shared), next);
                coming.push_back((next, self.shared.net.ahead(work)));
            }
        }
    }
}

impl<N: Net, S: Store + 'static> File for Remote<N, S> {
    fn length(&self) -> u64 {
        self.shared.record.borrow().length()
    }

    async fn read(&self, range: Range<u64>) -> Result<Piece, Failure> {
        let length = self.length();
        if range.start > range.end || range.end > length {
            return Err(Failure {
                kind: FailureKind::Format,
                message: format!(
                    "{}: bytes {} to {} were asked for, and it has {length}: it is cut short, or its header is wrong",
                    self.shared.url, range.start, range.end
                ),
            });
        }
        let mut read = Piece::default();
        read.bytes
            .reserve_exact(usize::try_from(range.end - range.start).unwrap_or(0));
        let goes_on = self.last.replace(Some(range.end)) == Some(range.start);
        let mut at = range.start;
        while at < range.end {
            let (index, holds) = self.shared.place(at);
            let (piece, downloaded) = self.piece(index).await?;
            if goes_on || at != range.start {
                self.run_ahead(index);
            }
            let end = range.end.min(holds.end);
            let part = within(&piece, at - holds.start, end - holds.start)
                .ok_or_else(|| self.shared.changed())?;
            read.bytes.extend_from_slice(part);
            read.downloaded += downloaded;
            at = end;
        }
        Ok(read)
    }
}

fn within(bytes: &[u8], start: u64, end: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

impl<N: Net, S: Store + 'static> Shared<N, S> {
    /// The piece that holds byte `at`, and its range; a small file is one piece whatever its length.
    fn place(&self, at: u64) -> (usize, Range<u64>) {
        let record = self.record.borrow();
        match self.source {
            Source::Whole => (0, 0..record.length()),
            _ => {
                let index = record.index_of(at);
                (index, record.range(index))
            }
        }
    }

    fn changed(&self) -> Failure {
        Failure {
            kind: FailureKind::Integrity,
            message: format!(
                "{} changed on the server while it was being loaded; load it again",
                self.url
            ),
        }
    }
}

/// Piece `index`: from when the file was opened, from the shelf, or from the network.
async fn load<N: Net, S: Store + 'static>(
    shared: Rc<Shared<N, S>>,
    index: usize,
) -> Result<Loaded, Failure> {
    if matches!(shared.source, Source::Whole) {
        let all = shared.first.borrow_mut().take();
        return match all {
            Some(all) => {
                shared.store_all(&all).await;
                let fresh = all.len() as u64;
                Ok((Rc::new(all), fresh))
            }
            None => shared.again().await,
        };
    }
    if shared.keep
        && let Some(bytes) = shared.shelf.piece(&shared.record, index).await
    {
        return Ok((Rc::new(bytes), 0));
    }
    let first = if index == 0 {
        shared.first.borrow_mut().take()
    } else {
        None
    };
    let bytes = shared.download(index, first.unwrap_or_default()).await?;
    if shared.keep {
        shared.shelf.keep(&shared.record, index, &bytes).await;
    }
    let fresh = bytes.len() as u64;
    Ok((Rc::new(bytes), fresh))
}

impl<N: Net, S: Store + 'static> Shared<N, S> {
    /// Piece `index`, of which `begun` is here already.
    async fn download(&self, index: usize, begun: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let range = self.record.borrow().range(index);
        match &self.source {
            Source::Stream(stream) => self.streamed(stream, range).await,
            _ => self.by_range(range, begun).await,
        }
    }

    /// Bytes by range requests, each going on where the last was cut off; `bytes` are the first of them.
    async fn by_range(&self, range: Range<u64>, mut bytes: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let wanted = range.end - range.start;
        if bytes.len() as u64 == wanted {
            return Ok(bytes);
        }
        bytes.reserve_exact(
            usize::try_from(wanted)
                .unwrap_or(0)
                .saturating_sub(bytes.len()),
        );
        let mut retry = Retry::under_way();
        loop {
            let at = range.start + bytes.len() as u64;
            let (cut, wished) = match self.net.get(&self.url, Some(at..range.end)).await {
                Ok((head, body)) if head.status / 100 == 2 => {
                    let before = bytes.len();
                    let ended = self.take(&head, body, at, range.end, &mut bytes).await?;
                    if bytes.len() > before {
                        retry.progressed();
                    }
                    if bytes.len() as u64 == wanted {
                        return Ok(bytes);
                    }
                    (ended, None)
                }
                Ok((head, _)) if head.is_passing() => {
                    (Cut(format!("answer {}", head.status)), head.retry_after)
                }
                Ok((head, _)) if matches!(head.status, 404 | 410 | 416) => {
                    return Err(self.changed());
                }
                Ok((head, _)) => return Err(refused(&self.url, &head)),
                Err(cut) => (cut, None),
            };
            match retry.pause(wished) {
                Some(ms) => self.net.sleep(ms).await,
                None => return Err(lost(&self.url, &cut)),
            }
        }
    }

    /// Takes what an answer holds of `at..end`. Returns why it ended.
    async fn take(
        &self,
        head: &Head,
        mut body: N::Body,
        at: u64,
        end: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<Cut, Failure> {
        if !self.record.borrow().is_of(head.total(), &head.validator()) {
            return Err(self.changed());
        }
        // A server may answer with everything after all.
        let mut skip = match (head.status, head.range()) {
            (206, _) if !head.plain() => return Err(self.changed()),
            (206, Some((sent, _))) if sent.start != at => return Err(self.changed()),
            (206, _) => 0,
            _ => at,
        };
        let mut missing = end - at;
        while missing > 0 {
            let part = match body.next().await {
                Ok(Some(part)) => part,
                Ok(None) => return Ok(Cut("the answer was too short".to_owned())),
                Err(cut) => return Ok(cut),
            };
            let from = skip.min(part.len() as u64);
            skip -= from;
            let to = (from + missing).min(part.len() as u64);
            if let Some(wanted) = within(&part, from, to) {
                bytes.extend_from_slice(wanted);
                missing -= to - from;
            }
        }
        Ok(Cut("the answer ended".to_owned()))
    }

    /// Bytes of the one stream the server gives; from its start again for what lies behind, or where it was cut off.
    async fn streamed(
        &self,
        stream: &RefCell<Option<Stream<N::Body>>>,
        range: Range<u64>,
    ) -> Result<Vec<u8>, Failure> {
        let mut retry = Retry::under_way();
        let mut furthest = 0;
        loop {
            // Taken out, so that no borrow is held while waiting.
            let open = stream
                .borrow_mut()
                .take()
                .filter(|open| open.at <= range.start);
            let cut = match open {
                Some(mut open) => match open.advance(&range).await {
                    Ok(bytes) => {
                        *stream.borrow_mut() = Some(open);
                        return Ok(bytes);
                    }
                    Err(cut) => {
                        if open.at > furthest {
                            furthest = open.at;
                            retry.progressed();
                        }
                        cut
                    }
                },
                None => match self.net.get(&self.url, None).await {
                    Ok((head, body)) if head.status == 200 => {
                        if !self.record.borrow().is_of(head.total(), &head.validator()) {
                            return Err(self.changed());
                        }
                        *stream.borrow_mut() = Some(Stream {
                            body,
                            at: 0,
                            over: Vec::new(),
                        });
                        continue;
                    }
                    Ok((head, _)) if head.is_passing() => Cut(format!("answer {}", head.status)),
                    Ok((head, _)) => return Err(refused(&self.url, &head)),
                    Err(cut) => cut,
                },
            };
            match retry.pause(None) {
                Some(ms) => self.net.sleep(ms).await,
                None => return Err(lost(&self.url, &cut)),
            }
        }
    }

    /// Puts a small file on the shelf, in its pieces.
    async fn store_all(&self, all: &[u8]) {
        let pieces = self.record.borrow().pieces();
        for index in 0..if self.keep { pieces } else { 0 } {
            let range = self.record.borrow().range(index);
            if let Some(part) = within(all, range.start, range.end) {
                self.shelf.keep(&self.record, index, part).await;
            }
        }
    }

    /// A small file that was let go, as one.
    async fn again(&self) -> Result<Loaded, Failure> {
        let length = self.record.borrow().length();
        let stream = RefCell::new(None);
        let bytes = self.streamed(&stream, 0..length).await?;
        let fresh = bytes.len() as u64;
        Ok((Rc::new(bytes), fresh))
    }
}

impl<B: Body> Stream<B> {
    /// The bytes of `range`, which lies at or after where this stands.
    async fn advance(&mut self, range: &Range<u64>) -> Result<Vec<u8>, Cut> {
        let wanted = usize::try_from(range.end - range.start).unwrap_or(0);
        let mut bytes = Vec::with_capacity(wanted);
        while bytes.len() < wanted {
            let part = match std::mem::take(&mut self.over) {
                over if !over.is_empty() => over,
                _ => match self.body.next().await? {
                    Some(part) => part,
                    None => return Err(Cut("the answer was too short".to_owned())),
                },
            };
            let skip = usize::try_from(range.start.saturating_sub(self.at))
                .unwrap_or(usize::MAX)
                .min(part.len());
            let take = (wanted - bytes.len()).min(part.len() - skip);
            bytes.extend_from_slice(part.get(skip..skip + take).unwrap_or_default());
            self.over = part.get(skip + take..).unwrap_or_default().to_vec();
            self.at += (skip + take) as u64;
        }
        Ok(bytes)
    }
}
