//! SHA-256 of pieces. Browsers compute it several times faster than WebAssembly does, and aside from this thread.

use qloom_core::weights::sha256_hex;

/// SHA-256 of `bytes`, in hexadecimal.
pub(super) async fn sha256(bytes: &[u8]) -> String {
    #[cfg(target_arch = "wasm32")]
    if let Some(digest) = subtle(bytes).await {
        return digest;
    }
    sha256_hex(bytes)
}

/// By the browser (W3C Web Cryptography); `None` on pages that are no secure context.
#[cfg(target_arch = "wasm32")]
async fn subtle(bytes: &[u8]) -> Option<String> {
    use js_sys::{Function, Promise, Reflect, Uint8Array};
    use wasm_bindgen::JsCast;

    let crypto = Reflect::get(&js_sys::global(), &"crypto".into()).ok()?;
    let subtle = Reflect::get(&crypto, &"subtle".into()).ok()?;
    let digest: Function = Reflect::get(&subtle, &"digest".into())
        .ok()?
        .dyn_into()
        .ok()?;
    let asked = digest
        .call2(&subtle, &"SHA-256".into(), &Uint8Array::from(bytes))
        .ok()?;
    let result = wasm_bindgen_futures::JsFuture::from(Promise::resolve(&asked))
        .await
        .ok()?;
    let bytes = Uint8Array::new(&result).to_vec();
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
