//! The dedicated worker: it owns the module and the GPU, takes the page's requests, and tells what comes of them.
//!
//! ```text
//! page    [json, buffer, ...]  ──>  message event  ──>  Engine::accept, Engine::work
//! page    <──  [json, buffer, ...], buffers transferred  <──  Surroundings::emit
//! ```
//!
//! A request is accepted as soon as it arrives, so a `Stop` overtakes what is at work. What breaks the worker itself is told
//! with id 0: a panic as `internal`, a lost or failing GPU as `device`; the page then starts another worker.

mod browser;
mod device;
mod pauses;

use std::cell::Cell;
use std::panic::PanicHookInfo;
use std::rc::Rc;

use js_sys::{Array, ArrayBuffer, Uint8Array};
use wasm_bindgen::prelude::Closure;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::spawn_local;
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent};

use crate::engine::Engine;
use crate::protocol::{Event, Failure, FailureKind, Message, Request};
use browser::{Browser, Handed};

thread_local! {
    /// Set by a panic: nothing that is left of the module can be trusted.
    static BROKEN: Cell<bool> = const { Cell::new(false) };
}

/// Takes requests from now on.
pub fn start() {
    std::panic::set_hook(Box::new(panicked));
    device::watch();
    let engine = Rc::new(Engine::new(Browser::default()));
    let on_message = Closure::<dyn Fn(MessageEvent)>::new(move |event: MessageEvent| {
        receive(&engine, &event.data())
    });
    if let Err(error) =
        scope().add_event_listener_with_callback("message", on_message.as_ref().unchecked_ref())
    {
        fail(
            0,
            FailureKind::Internal,
            crate::fetch::browser::said(&error),
        );
    }
    // It listens for as long as the worker lives.
    on_message.forget();
}

fn scope() -> DedicatedWorkerGlobalScope {
    js_sys::global().unchecked_into()
}

fn receive(engine: &Rc<Engine<Browser>>, data: &JsValue) {
    let parts = Array::from(data);
    let Some(json) = parts.get(0).as_string() else {
        return fail(
            0,
            FailureKind::Request,
            "a message is an array that begins with its JSON text".to_owned(),
        );
    };
    let message: Message<Request> = match serde_json::from_str(&json) {
        Ok(message) => message,
        Err(error) => {
            let message = format!(
                "the request cannot be read: {error}; reload the page, its worker may be of another version"
            );
            return fail(id_of(&json), FailureKind::Request, message);
        }
    };
    if BROKEN.get() {
        return fail(
            message.id,
            FailureKind::Internal,
            "the worker broke earlier and has to be restarted".to_owned(),
        );
    }
    let buffers = parts
        .iter()
        .skip(1)
        .filter_map(|part| part.dyn_into::<ArrayBuffer>().ok());
    let files = buffers
        .map(|buffer| Handed::File(Uint8Array::new(&buffer)))
        .collect();
    if matches!(message.body, Request::LoseDevice) {
        device::destroy();
    }
    engine.accept(message, files);
    let engine = Rc::clone(engine);
    spawn_local(async move { engine.work().await });
}

/// The id of a request that cannot be read otherwise, so that its asker is answered.
fn id_of(json: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    value["id"].as_u64().unwrap_or(0)
}

/// Posts an event; the attachments' buffers change hands.
fn post(message: &Message<Event>, attachments: &[Vec<u8>]) {
    let json = match serde_json::to_string(message) {
        Ok(json) => json,
        // Numbers that JSON has no word for: the asker must be answered all the same.
        Err(error) => {
            return fail(
                message.id,
                FailureKind::Internal,
                format!("an answer could not be written: {error}"),
            );
        }
    };
    let (parts, transfer) = (Array::of1(&json.into()), Array::new());
    for bytes in attachments {
        let buffer = Uint8Array::from(bytes.as_slice()).buffer();
        parts.push(&buffer);
        transfer.push(&buffer);
    }
    if let Err(error) = scope().post_message_with_transfer(&parts, &transfer) {
        web_sys::console::error_2(&"an answer could not be posted".into(), &error);
    }
}

fn fail(id: u64, kind: FailureKind, message: String) {
    let failure = Failure { kind, message };
    post(
        &Message {
            id,
            body: Event::Failed { failure },
        },
        &[],
    );
}

fn panicked(info: &PanicHookInfo<'_>) {
    console_error_panic_hook::hook(info);
    BROKEN.set(true);
    fail(
        0,
        FailureKind::Internal,
        format!("the worker broke: {info}"),
    );
}
