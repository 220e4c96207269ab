//! Giving files to the visitor.

use js_sys::{Array, ArrayBuffer, Uint8Array};
use leptos::prelude::document;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Blob, HtmlAnchorElement, Url};

/// Bytes as a blob.
pub(super) fn blob(buffer: &ArrayBuffer) -> Option<Blob> {
    Blob::new_with_buffer_source_sequence(&Array::of1(buffer)).ok()
}

/// Offers bytes under a name.
pub(super) fn buffer(name: &str, bytes: &ArrayBuffer) {
    if let Some(blob) = blob(bytes) {
        offer(name, &blob);
    }
}

/// Offers bytes of the page's own under a name.
pub(super) fn bytes(name: &str, bytes: &[u8]) {
    let array = Uint8Array::from(bytes);
    buffer(name, &array.buffer());
}

fn offer(name: &str, blob: &Blob) {
    let Ok(url) = Url::create_object_url_with_blob(blob) else {
        return;
    };
    let link = document()
        .create_element("a")
        .map(JsCast::dyn_into::<HtmlAnchorElement>);
    if let Ok(Ok(link)) = link {
        link.set_href(&url);
        link.set_download(name);
        link.click();
    }
    // The browser has begun to read by the next task; until then the URL must stand.
    let release = move || {
        let _: Result<(), JsValue> = Url::revoke_object_url(&url);
    };
    leptos::prelude::set_timeout(release, std::time::Duration::from_secs(30));
}
