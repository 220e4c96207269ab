//! The GPU as the browser describes it, and an eye on what happens to it.
//!
//! The libraries between open the device themselves and keep it, so its loss is learned where it is made: `requestAdapter` of
//! this worker's `navigator.gpu` is replaced by one that asks the original, and makes the adapters' `requestDevice` tell
//! of every device. (WebGPU standard, sections "GPUDevice.lost" and "uncapturederror".)

use std::cell::RefCell;

use js_sys::{Function, Object, Promise, Reflect};
use wasm_bindgen::prelude::Closure;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, future_to_promise};

use super::fail;
use crate::engine::Gpu;
use crate::fetch::browser::{said, scope};
use crate::protocol::FailureKind;

thread_local! {
    /// Devices that were made.
    static DEVICES: RefCell<Vec<JsValue>> = const { RefCell::new(Vec::new()) };
}

fn get(value: &JsValue, key: &str) -> JsValue {
    Reflect::get(value, &key.into()).unwrap_or_default()
}

fn text(value: &JsValue, key: &str) -> String {
    get(value, key).as_string().unwrap_or_default()
}

fn method(value: &JsValue, key: &str) -> Option<Function> {
    get(value, key).dyn_into().ok()
}

/// Replaces `object.key` by a function that passes the original's result through `then`.
fn wrap(object: &JsValue, key: &str, then: impl Fn(&JsValue) + Clone + 'static) {
    let Some(original) = method(object, key) else {
        return;
    };
    let this = object.clone();
    let wrapped = Closure::<dyn Fn(JsValue) -> Promise>::new(move |options: JsValue| {
        let asked = original.call1(&this, &options);
        let then = then.clone();
        future_to_promise(async move {
            let result = JsFuture::from(Promise::resolve(&asked?)).await?;
            then(&result);
            Ok(result)
        })
    });
    // Where it cannot be set, the device works unwatched.
    let _ = Reflect::set(object, &key.into(), wrapped.as_ref());
    wrapped.forget();
}

/// Watches every device that is made from now on.
pub(super) fn watch() {
    let gpu = get(&scope().navigator(), "gpu");
    wrap(&gpu, "requestAdapter", |adapter| {
        if !adapter.is_null() {
            wrap(adapter, "requestDevice", made);
        }
    });
}

/// A device was made: its loss and its errors are the page's business.
fn made(device: &JsValue) {
    DEVICES.with_borrow_mut(|devices| devices.push(device.clone()));
    let on_error = Closure::<dyn Fn(JsValue)>::new(|event: JsValue| {
        let error = get(&event, "error");
        tell(&format!(
            "the GPU refused a command: {}",
            text(&error, "message")
        ));
    });
    if let Some(listen) = method(device, "addEventListener") {
        let _ = listen.call2(device, &"uncapturederror".into(), on_error.as_ref());
    }
    on_error.forget();

    let lost = get(device, "lost");
    wasm_bindgen_futures::spawn_local(async move {
        if let Ok(info) = JsFuture::from(Promise::resolve(&lost)).await {
            let reason = match text(&info, "reason").as_str() {
                "destroyed" => "it was destroyed".to_owned(),
                _ => "its driver or the browser took it away".to_owned(),
            };
            tell(&format!(
                "the GPU was lost: {reason}. {}",
                text(&info, "message")
            ));
        }
    });
}

fn tell(message: &str) {
    fail(0, FailureKind::Device, message.trim().to_owned());
}

/// Destroys the devices, as a lost one looks from here.
pub(super) fn destroy() {
    for device in DEVICES.with_borrow_mut(std::mem::take) {
        if let Some(destroy) = method(&device, "destroy") {
            let _ = destroy.call0(&device);
        }
    }
}

/// What the GPU can do.
pub(super) async fn describe() -> Result<Gpu, String> {
    let gpu = get(&scope().navigator(), "gpu");
    let request = method(&gpu, "requestAdapter").ok_or("this browser has no WebGPU")?;
    let options = Object::new();
    // Chosen as the library chooses it, so that this describes the one it opens.
    let _ = Reflect::set(
        &options,
        &"powerPreference".into(),
        &"high-performance".into(),
    );
    let asked = request
        .call1(&gpu, &options)
        .map_err(|error| said(&error))?;
    let adapter = JsFuture::from(Promise::resolve(&asked))
        .await
        .map_err(|error| said(&error))?;
    if adapter.is_null() {
        return Err(
            "this browser offers no GPU to the page: none is there, or it is blocked".to_owned(),
        );
    }
    let limits = get(&adapter, "limits");
    let limit = |key: &str| get(&limits, key).as_f64().unwrap_or(0.0);
    let features = get(&adapter, "features");
    let f16 =
        method(&features, "has").and_then(|has| has.call1(&features, &"shader-f16".into()).ok());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // whole numbers of bytes
    let max_buffer = limit("maxBufferSize").min(limit("maxStorageBufferBindingSize")) as u64;
    Ok(Gpu {
        name: name(&get(&adapter, "info")),
        f16: f16.is_some_and(|has| has.is_truthy()),
        max_buffer,
    })
}

/// What the browser tells of the adapter, which is little, to keep visitors from being told apart.
fn name(info: &JsValue) -> String {
    let description = text(info, "description");
    if !description.is_empty() {
        return description;
    }
    let parts = [
        text(info, "vendor"),
        text(info, "architecture"),
        text(info, "device"),
    ];
    let known: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if known.is_empty() {
        "GPU".to_owned()
    } else {
        known.join(" ")
    }
}
