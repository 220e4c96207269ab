//! [`Store`] over the Cache API (Service Workers standard), where there is no private file system: bindings only.

use js_sys::{Array, Uint8Array};
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Cache, Headers, Request, Response, ResponseInit};

use super::opfs::failed;
use super::{Store, StoreError};
use crate::fetch::browser::scope;

const CACHE: &str = "qloom-pieces";
/// A cache is keyed by addresses. This one can never be asked for: `.invalid` is reserved for that (RFC 2606).
const ADDRESS: &str = "https://pieces.invalid/";
/// Where a size is told without reading the bytes.
const SIZE: &str = "x-size";

/// A cache of the origin.
#[derive(Debug)]
pub(super) struct Pieces(Cache);

impl Pieces {
    /// Opens the cache.
    pub(super) async fn open() -> Result<Self, StoreError> {
        let caches = scope().caches().map_err(|error| failed(&error))?;
        if caches.is_undefined() {
            return Err(StoreError::Unusable(
                "there is no cache for pages that are not secure".to_owned(),
            ));
        }
        let cache = JsFuture::from(caches.open(CACHE))
            .await
            .map_err(|error| failed(&error))?;
        Ok(Self(cache.unchecked_into()))
    }

    async fn get(&self, name: &str) -> Result<Option<Response>, StoreError> {
        let found = JsFuture::from(self.0.match_with_str(&address(name)))
            .await
            .map_err(|error| failed(&error))?;
        Ok(found.dyn_into().ok())
    }
}

fn address(name: &str) -> String {
    format!("{ADDRESS}{name}")
}

impl Store for Pieces {
    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(response) = self.get(name).await? else {
            return Ok(None);
        };
        let buffer = response.array_buffer().map_err(|error| failed(&error))?;
        let buffer = JsFuture::from(buffer)
            .await
            .map_err(|error| failed(&error))?;
        Ok(Some(Uint8Array::new(&buffer).to_vec()))
    }

    async fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let headers = Headers::new().map_err(|error| failed(&error))?;
        headers
            .set(SIZE, &bytes.len().to_string())
            .map_err(|error| failed(&error))?;
        let init = ResponseInit::new();
        init.set_headers(&headers);
        let body = Uint8Array::from(bytes);
        let response = Response::new_with_opt_js_u8_array_and_init(Some(&body), &init)
            .map_err(|error| failed(&error))?;
        let put = JsFuture::from(self.0.put_with_str(&address(name), &response)).await;
        put.map(|_| ()).map_err(|error| failed(&error))
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        let removed = JsFuture::from(self.0.delete_with_str(&address(name))).await;
        removed.map(|_| ()).map_err(|error| failed(&error))
    }

    async fn names(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let keys = JsFuture::from(self.0.keys())
            .await
            .map_err(|error| failed(&error))?;
        let mut all = Vec::new();
        for key in Array::from(&keys).iter() {
            let url = key.unchecked_into::<Request>().url();
            let Some(name) = url.strip_prefix(ADDRESS) else {
                continue;
            };
            let size = match self.get(name).await? {
                Some(response) => response.headers().get(SIZE).ok().flatten(),
                None => None,
            };
            all.push((
                name.to_owned(),
                size.and_then(|size| size.parse().ok()).unwrap_or(0),
            ));
        }
        Ok(all)
    }
}
