//! Surroundings of tests: files in memory, a clock that ticks when looked at, faults on demand.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::rc::{Rc, Weak};

use super::super::{Engine, File, Gpu, Piece, Surroundings};
use crate::protocol::{Event, Failure, FailureKind, Message, Request};

/// Milliseconds the clock advances every time it is read: enough that every breath is a pause.
const TICK: f64 = 40.0;

type Told = (Message<Event>, Vec<Vec<u8>>);
type Trigger = Box<dyn FnMut(&Event) -> bool>;

pub(super) struct Native {
    engine: Weak<Engine<Self>>,
    now: Cell<f64>,
    told: RefCell<Vec<Told>>,
    served: RefCell<BTreeMap<String, Rc<Vec<u8>>>>,
    /// What is served instead until it is forgotten: a damaged stored copy.
    stored: RefCell<BTreeMap<String, Rc<Vec<u8>>>>,
    pub(super) forgotten: RefCell<Vec<String>>,
    pub(super) opened: RefCell<Vec<String>>,
    /// The request to stop, and the event upon which.
    stop: RefCell<Option<(u64, Trigger)>>,
    pub(super) gpu: RefCell<Result<Gpu, String>>,
}

#[derive(Clone)]
pub(super) struct NativeFile {
    bytes: Rc<Vec<u8>>,
    downloads: bool,
}

impl NativeFile {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Rc::new(bytes),
            downloads: false,
        }
    }
}

impl Native {
    pub(super) fn new(engine: Weak<Engine<Self>>) -> Self {
        Self {
            engine,
            now: Cell::new(0.0),
            told: RefCell::default(),
            served: RefCell::default(),
            stored: RefCell::default(),
            forgotten: RefCell::default(),
            opened: RefCell::default(),
            stop: RefCell::default(),
            gpu: RefCell::new(Err("tests run on the CPU".to_owned())),
        }
    }

    pub(super) fn serve(&self, url: &str, bytes: Vec<u8>) {
        let bytes = Rc::new(bytes);
        self.served.borrow_mut().insert(url.to_owned(), bytes);
    }

    /// Makes every file below `folder` available below `url`.
    pub(super) fn serve_folder(&self, url: &str, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match path.is_dir() {
                true => self.serve_folder(&format!("{url}/{name}"), &path),
                false => self.serve(&format!("{url}/{name}"), std::fs::read(&path).unwrap()),
            }
        }
    }

    pub(super) fn served(&self, url: &str) -> Vec<u8> {
        self.served.borrow()[url].to_vec()
    }

    pub(super) fn unserve(&self, url: &str) {
        self.served.borrow_mut().remove(url);
    }

    /// Has `bytes` stored under `url`, whatever the server has.
    pub(super) fn store(&self, url: &str, bytes: Vec<u8>) {
        let bytes = Rc::new(bytes);
        self.stored.borrow_mut().insert(url.to_owned(), bytes);
    }

    /// Sends `Stop` for request `id` when an event of it makes `when` true.
    pub(super) fn stop_when(&self, id: u64, when: impl FnMut(&Event) -> bool + 'static) {
        *self.stop.borrow_mut() = Some((id, Box::new(when)));
    }

    /// What was told of request `id`, with all attachments.
    pub(super) fn take(&self, id: u64) -> (Vec<Event>, Vec<Vec<u8>>) {
        let told = self.told.take();
        let (own, others): (Vec<Told>, Vec<Told>) = told.into_iter().partition(|t| t.0.id == id);
        *self.told.borrow_mut() = others;
        let attachments = own.iter().flat_map(|t| t.1.clone()).collect();
        (own.into_iter().map(|t| t.0.body).collect(), attachments)
    }
}

impl Surroundings for Native {
    type File = NativeFile;

    fn now_ms(&self) -> f64 {
        self.now.set(self.now.get() + TICK);
        self.now.get()
    }

    async fn pause(&self) {}

    fn emit(&self, message: Message<Event>, attachments: Vec<Vec<u8>>) {
        let mut stop = self.stop.borrow_mut();
        if let Some((id, when)) = stop.as_mut()
            && message.id == *id
            && when(&message.body)
        {
            let body = Request::Stop { id: *id };
            *stop = None;
            let engine = self.engine.upgrade().unwrap();
            engine.accept(Message { id: 999, body }, Vec::new());
        }
        self.told.borrow_mut().push((message, attachments));
    }

    async fn gpu(&self) -> Result<Gpu, String> {
        self.gpu.borrow().clone()
    }

    async fn open(&self, url: &str, _keep: bool) -> Result<Option<NativeFile>, Failure> {
        if url.starts_with("https://offline.test") {
            let message = format!("{url}: the network is gone");
            return Err(Failure::new(FailureKind::Network, message));
        }
        self.opened.borrow_mut().push(url.to_owned());
        let stored = self.stored.borrow().get(url).cloned();
        let downloads = stored.is_none();
        let found = stored.or_else(|| self.served.borrow().get(url).cloned());
        Ok(found.map(|bytes| NativeFile { bytes, downloads }))
    }

    async fn forget(&self, url: &str) {
        self.forgotten.borrow_mut().push(url.to_owned());
        self.stored.borrow_mut().remove(url);
    }

    async fn clear(&self) -> Result<u64, Failure> {
        let stored = self.stored.take();
        Ok(stored.values().map(|b| b.len() as u64).sum())
    }
}

impl File for NativeFile {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn read(&self, range: Range<u64>) -> Result<Piece, Failure> {
        let range = range.start as usize..range.end as usize;
        Ok(Piece {
            downloaded: if self.downloads {
                range.len() as u64
            } else {
                0
            },
            bytes: self.bytes[range].to_vec(),
        })
    }
}
