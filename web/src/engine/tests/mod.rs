//! Every request answered natively, on the CPU: over the embedded base and the adapters the site ships, which the trainer
//! made and scored.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    missing_docs
)]

mod compare;
mod evaluating;
mod faults;
mod gallery;
mod loading;
mod merging;
mod native;
mod training;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use qloom_core::host::block_on;

use super::Engine;
use crate::protocol::{
    AdapterInfo, AdapterSource, BaseInfo, BaseOptions, BaseSource, Column, Event, Failure, Message,
    Request,
};
use native::{Native, NativeFile};

/// Where the tests' site lies.
const SITE: &str = "https://site.test";
const BASE: &str = "https://site.test/base";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn embedded() -> PathBuf {
    workspace().join("native-trainer/assets/base")
}

/// The folder of shared data, where this machine has it.
fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("QLOOM_SHARED")
        .map_or_else(|| workspace().join("../shared"), PathBuf::from);
    let found = root.join(path);
    if found.exists() {
        return Some(found);
    }
    eprintln!("skipped: {} is not on this machine", found.display());
    None
}

/// An engine with its page: what was asked and answered.
struct Bench {
    engine: Rc<Engine<Native>>,
    next: Cell<u64>,
}

/// The events of one request.
#[derive(Debug)]
struct Answer {
    events: Vec<Event>,
    attachments: Vec<Vec<u8>>,
}

impl Bench {
    /// On a site that has the embedded base and what the page is published with.
    fn new() -> Self {
        let engine = Rc::new_cyclic(|weak| Engine::new(Native::new(weak.clone())));
        let bench = Self {
            engine,
            next: Cell::new(1),
        };
        bench.around().serve_folder(BASE, &embedded());
        bench
            .around()
            .serve_folder(SITE, &workspace().join("web/site"));
        bench
    }

    /// With the embedded base loaded.
    fn started() -> Self {
        let bench = Self::new();
        bench.start();
        bench.load(url(BASE));
        bench
    }

    fn around(&self) -> &Native {
        self.engine.surroundings()
    }

    /// Sends `request` with files, and answers all of it.
    fn ask_with(&self, body: Request, files: Vec<Vec<u8>>) -> Answer {
        let id = self.next.replace(self.next.get() + 1);
        let files = files.into_iter().map(NativeFile::new).collect();
        // As it travels.
        let json = serde_json::to_string(&Message { id, body }).unwrap();
        self.engine
            .accept(serde_json::from_str(&json).unwrap(), files);
        block_on(self.engine.work());
        let (events, attachments) = self.around().take(id);
        let finals = events.iter().filter(|e| e.is_final()).count();
        assert_eq!(finals, 1, "{events:?}");
        assert!(events.last().unwrap().is_final());
        for event in &events {
            let json = serde_json::to_string(event).unwrap();
            let back: Event = serde_json::from_str(&json).unwrap();
            // Of any number it is, up to the last bit, which serde_json does not promise.
            let same = std::mem::discriminant(&back) == std::mem::discriminant(event);
            assert!(same, "{json}");
        }
        Answer {
            events,
            attachments,
        }
    }

    fn ask(&self, body: Request) -> Answer {
        self.ask_with(body, Vec::new())
    }

    fn start(&self) {
        let answer = self.ask(Request::Start {
            prefer: None,
            compute: None,
        });
        assert!(matches!(answer.last(), Event::Ready { .. }), "{answer:?}");
    }

    fn load(&self, source: BaseSource) -> BaseInfo {
        let options = BaseOptions::default();
        match self.ask(Request::LoadBase { source, options }).last() {
            Event::BaseLoaded { base, .. } => base.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Adds an adapter the site ships, through its gallery.
    fn add(&self, slug: &str) -> AdapterInfo {
        self.add_from(slug, gallery(slug)).unwrap()
    }

    fn add_from(&self, name: &str, source: AdapterSource) -> Result<AdapterInfo, Failure> {
        let name = name.to_owned();
        match self.ask(Request::AddAdapter { name, source }).last() {
            Event::AdapterAdded { adapter } => Ok(adapter.clone()),
            Event::Failed { failure } => Err(failure.clone()),
            other => panic!("{other:?}"),
        }
    }
}

impl Answer {
    fn last(&self) -> &Event {
        self.events.last().unwrap()
    }

    fn failure(&self) -> &Failure {
        match self.last() {
            Event::Failed { failure } => failure,
            other => panic!("{other:?}"),
        }
    }

    /// The text of a column.
    fn text(&self, wanted: usize) -> String {
        let piece = |e: &Event| match e {
            Event::Text { column, text } if *column == wanted => Some(text.clone()),
            _ => None,
        };
        self.events.iter().filter_map(piece).collect()
    }
}

fn url(url: &str) -> BaseSource {
    BaseSource::Url {
        url: url.to_owned(),
        name: "qloom/tiny-llama".to_owned(),
    }
}

/// The gallery's source of `slug`, with the hash its index gives.
fn gallery(slug: &str) -> AdapterSource {
    let index = std::fs::read(workspace().join("web/site/adapters/index.json")).unwrap();
    let index = qloom_core::adapters::gallery::Gallery::from_json(&index).unwrap();
    let row = index.adapters.iter().find(|r| r.slug == slug).unwrap();
    AdapterSource::Gallery {
        site: SITE.to_owned(),
        slug: slug.to_owned(),
        entry_sha256: row.entry_sha256.clone(),
    }
}

fn columns(stacks: &[&[&str]]) -> Vec<Column> {
    let column = |stack: &&[&str]| Column {
        adapters: stack.iter().map(|name| (*name).to_owned()).collect(),
    };
    stacks.iter().map(column).collect()
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
