//! The channel to the worker: `[json, buffer, ...]` both ways.
//!
//! Requests leave in the order they were made, also where the files of one must be read first. The files themselves stay
//! with the page as `Blob`s, so that a worker that is started again can be given them again.

use std::collections::{HashMap, VecDeque};

use js_sys::{Array, ArrayBuffer};
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, ErrorEvent, MessageEvent, Worker, WorkerOptions, WorkerType};

use crate::protocol::{Event, Failure, FailureKind, Message, Request};
use crate::state::FileKey;

use super::store::Store;

/// Where the shell says how the worker is called.
const WORKER_META: &str = "meta[name='qloom-worker']";

/// The worker and what is on its way to it.
#[derive(Default)]
pub(crate) struct Link {
    worker: Option<Running>,
    files: HashMap<FileKey, Vec<Blob>>,
    queue: VecDeque<(Message<Request>, Option<FileKey>)>,
    sending: bool,
}

/// A worker and the closures it calls, which live as long.
struct Running {
    worker: Worker,
    _message: Closure<dyn FnMut(MessageEvent)>,
    _error: Closure<dyn FnMut(ErrorEvent)>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.worker.set_onmessage(None);
        self.worker.set_onerror(None);
        self.worker.terminate();
    }
}

impl Link {
    /// Starts a worker in place of the one there may be.
    pub(super) fn spawn(store: Store) {
        let started = start(store);
        let failure = store.link(|link| {
            link.queue.clear();
            match started {
                Ok(running) => {
                    link.worker = Some(running);
                    None
                }
                Err(problem) => {
                    link.worker = None;
                    Some(problem)
                }
            }
        });
        if let Some(Some(problem)) = failure {
            report(
                store,
                &format!("The worker cannot be started: {}", words(&problem)),
            );
        }
    }

    /// Queues a request.
    pub(super) fn send(store: Store, message: Message<Request>, files: Option<FileKey>) {
        let idle = store.link(|link| {
            link.queue.push_back((message, files));
            !std::mem::replace(&mut link.sending, true)
        });
        if idle == Some(true) {
            spawn_local(pump(store));
        }
    }

    pub(super) fn keep(&mut self, key: FileKey, blobs: Vec<Blob>) {
        self.files.insert(key, blobs);
    }

    fn next(&mut self) -> Option<(Message<Request>, Vec<Blob>)> {
        let Some((message, key)) = self.queue.pop_front() else {
            self.sending = false;
            return None;
        };
        let blobs = key
            .and_then(|k| self.files.get(&k).cloned())
            .unwrap_or_default();
        Some((message, blobs))
    }
}

fn start(store: Store) -> Result<Running, JsValue> {
    let meta = document().query_selector(WORKER_META)?;
    let url = meta.and_then(|m| m.get_attribute("content"));
    let url = url.ok_or_else(|| {
        JsValue::from_str("the page does not name its worker; build the site again")
    })?;
    let options = WorkerOptions::new();
    options.set_type(WorkerType::Module);
    let worker = Worker::new_with_options(&url, &options)?;
    let message = Closure::new(move |event: MessageEvent| receive(store, &event));
    let error = Closure::new(move |event: ErrorEvent| {
        let said = event.message();
        let said = if said.is_empty() {
            "its module cannot be loaded"
        } else {
            &said
        };
        report(store, &format!("The worker stopped: {said}"));
    });
    worker.set_onmessage(Some(JsCast::unchecked_ref(message.as_ref())));
    worker.set_onerror(Some(JsCast::unchecked_ref(error.as_ref())));
    Ok(Running {
        worker,
        _message: message,
        _error: error,
    })
}

fn receive(store: Store, event: &MessageEvent) {
    let parts = Array::from(&event.data());
    let message = parts.get(0).as_string();
    let message = message.and_then(|json| serde_json::from_str::<Message<Event>>(&json).ok());
    let Some(message) = message else {
        report(
            store,
            "The worker said something this page does not understand; reload the page",
        );
        return;
    };
    let attachments: Vec<ArrayBuffer> = parts
        .iter()
        .skip(1)
        .filter_map(|v| v.dyn_into().ok())
        .collect();
    // A failure may end this very worker, whose closure is running now: take it once the closure has returned.
    spawn_local(async move { store.take(message, &attachments) });
}

/// A failure of the worker itself, as it would tell it.
fn report(store: Store, message: &str) {
    let failure = Failure {
        kind: FailureKind::Internal,
        message: message.to_owned(),
    };
    let message = Message {
        id: 0,
        body: Event::Failed { failure },
    };
    spawn_local(async move { store.take(message, &[]) });
}

async fn pump(store: Store) {
    while let Some(Some((message, blobs))) = store.link(Link::next) {
        let id = message.id;
        if let Err(problem) = post(store, message, &blobs).await {
            let failure = Failure {
                kind: FailureKind::Request,
                message: format!(
                    "This could not be handed to the worker: {}",
                    words(&problem)
                ),
            };
            store.take(
                Message {
                    id,
                    body: Event::Failed { failure },
                },
                &[],
            );
        }
    }
}

async fn post(store: Store, message: Message<Request>, blobs: &[Blob]) -> Result<(), JsValue> {
    let json = serde_json::to_string(&message).map_err(|e| JsValue::from_str(&e.to_string()))?;
    let parts = Array::of1(&JsValue::from_str(&json));
    let transfer = Array::new();
    for blob in blobs {
        let buffer = JsFuture::from(blob.array_buffer()).await?;
        parts.push(&buffer);
        transfer.push(&buffer);
    }
    let posted = store.link(|link| match &link.worker {
        Some(running) => running.worker.post_message_with_transfer(&parts, &transfer),
        None => Err(JsValue::from_str("there is no worker; start it again")),
    });
    posted.unwrap_or(Ok(()))
}

/// What a JavaScript error says.
pub(super) fn words(value: &JsValue) -> String {
    let message = js_sys::Reflect::get(value, &JsValue::from_str("message"));
    let text = message
        .ok()
        .and_then(|m| m.as_string())
        .or_else(|| value.as_string());
    text.unwrap_or_else(|| "no reason is given".to_owned())
}
