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
    /// Counts workers, so that nothing an earlier one said is taken for the present one's.
    epoch: u64,
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
        let epoch = store.link(|link| {
            link.epoch += 1;
            link.queue.clear();
            link.epoch
        });
        let epoch = epoch.unwrap_or_default();
        let started = start(store, epoch);
        let failure = store.link(|link| match started {
            Ok(running) => {
                link.worker = Some(running);
                None
            }
            Err(problem) => {
                link.worker = None;
                Some(problem)
            }
        });
        if let Some(Some(problem)) = failure {
            report(
                store,
                epoch,
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

    fn next(&mut self) -> Option<Next> {
        let Some((message, key)) = self.queue.pop_front() else {
            self.sending = false;
            return None;
        };
        let blobs = key.and_then(|k| self.files.get(&k).cloned());
        Some(Next {
            message,
            blobs: blobs.unwrap_or_default(),
            epoch: self.epoch,
        })
    }
}

/// A request whose turn it is.
struct Next {
    message: Message<Request>,
    blobs: Vec<Blob>,
    epoch: u64,
}

fn start(store: Store, epoch: u64) -> Result<Running, JsValue> {
    let meta = document().query_selector(WORKER_META)?;
    let url = meta.and_then(|m| m.get_attribute("content"));
    let url = url.ok_or_else(|| {
        JsValue::from_str("the page does not name its worker; build the site again")
    })?;
    let options = WorkerOptions::new();
    options.set_type(WorkerType::Module);
    let worker = Worker::new_with_options(&url, &options)?;
    let message = Closure::new(move |event: MessageEvent| receive(store, epoch, &event));
    let error = Closure::new(move |event: ErrorEvent| {
        let said = event.message();
        let said = if said.is_empty() {
            "its module cannot be loaded"
        } else {
            &said
        };
        report(store, epoch, &format!("The worker stopped: {said}"));
    });
    worker.set_onmessage(Some(message.as_ref().unchecked_ref()));
    worker.set_onerror(Some(error.as_ref().unchecked_ref()));
    Ok(Running {
        worker,
        _message: message,
        _error: error,
    })
}

fn receive(store: Store, epoch: u64, event: &MessageEvent) {
    let parts = Array::from(&event.data());
    let json = parts.get(0).as_string().unwrap_or_default();
    let message =
        serde_json::from_str::<Message<Event>>(&json).unwrap_or_else(|e| unread(&json, &e));
    let attachments: Vec<ArrayBuffer> = parts
        .iter()
        .skip(1)
        .filter_map(|v| v.dyn_into().ok())
        .collect();
    deliver(store, epoch, message, attachments);
}

/// What cannot be read ends the request that it belongs to, and nothing else.
fn unread(json: &str, error: &serde_json::Error) -> Message<Event> {
    let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let id = value
        .get("id")
        .and_then(serde_json::Value::as_u64)
        .unwrap_or(0);
    let failure = Failure {
        kind: FailureKind::Request,
        message: format!(
            "The worker's answer cannot be read: {error}. Reload the page; it may be of another version."
        ),
    };
    Message {
        id,
        body: Event::Failed { failure },
    }
}

/// A failure of the worker itself, as it would tell it.
fn report(store: Store, epoch: u64, message: &str) {
    let failure = Failure {
        kind: FailureKind::Internal,
        message: message.to_owned(),
    };
    let message = Message {
        id: 0,
        body: Event::Failed { failure },
    };
    deliver(store, epoch, message, Vec::new());
}

/// Hands an event to the state once the calling closure has returned, for the event may end the worker that owns it. One
/// that comes when another worker has taken over says nothing any more.
fn deliver(store: Store, epoch: u64, message: Message<Event>, attachments: Vec<ArrayBuffer>) {
    spawn_local(async move {
        if store.link(|link| link.epoch) == Some(epoch) {
            store.take(message, &attachments);
        }
    });
}

async fn pump(store: Store) {
    while let Some(Some(next)) = store.link(Link::next) {
        let (id, epoch) = (next.message.id, next.epoch);
        if let Err(problem) = post(store, next).await {
            let failure = Failure {
                kind: FailureKind::Request,
                message: format!(
                    "This could not be handed to the worker: {}",
                    words(&problem)
                ),
            };
            let body = Event::Failed { failure };
            deliver(store, epoch, Message { id, body }, Vec::new());
        }
    }
}

async fn post(store: Store, next: Next) -> Result<(), JsValue> {
    let json =
        serde_json::to_string(&next.message).map_err(|e| JsValue::from_str(&e.to_string()))?;
    let parts = Array::of1(&JsValue::from_str(&json));
    let transfer = Array::new();
    for blob in &next.blobs {
        let buffer = JsFuture::from(blob.array_buffer()).await?;
        parts.push(&buffer);
        transfer.push(&buffer);
    }
    // While files were read, another worker may have taken over: it is told what it needs by the replay.
    let posted = store.link(|link| match &link.worker {
        _ if link.epoch != next.epoch => Ok(()),
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
