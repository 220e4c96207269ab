//! [`Net`] over the browser's `fetch`: bindings only.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

use js_sys::{Array, Promise as JsPromise, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{
    AbortController, ReadableStreamDefaultReader, RequestCache, RequestInit, Response,
    WorkerGlobalScope,
};

use super::{Body, Cut, Head, Net, promise};

/// A server that says nothing for so long is given up, and asked again.
const SILENCE_MS: i32 = 30_000;

/// The network as a worker sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Network;

/// A body that is read as it comes.
#[derive(Debug)]
pub struct Streamed {
    reader: Option<ReadableStreamDefaultReader>,
    abort: AbortController,
}

/// The global scope of a worker.
pub(crate) fn scope() -> WorkerGlobalScope {
    js_sys::global().unchecked_into()
}

/// What an exception says.
pub(crate) fn said(error: &JsValue) -> String {
    let text = |key: &str| {
        Reflect::get(error, &key.into())
            .ok()
            .and_then(|value| value.as_string())
    };
    match (text("name"), text("message")) {
        (Some(name), Some(message)) if !message.is_empty() => format!("{name}: {message}"),
        (_, Some(message)) if !message.is_empty() => message,
        (Some(name), _) => name,
        _ => error
            .as_string()
            .unwrap_or_else(|| "an unknown error".to_owned()),
    }
}

fn cut(error: &JsValue) -> Cut {
    Cut(said(error))
}

/// A promise that is kept after `ms`, and the timer's handle.
fn timer(ms: i32) -> (JsPromise, i32) {
    let mut handle = 0;
    let promise = JsPromise::new(&mut |resolve, _| {
        handle = scope()
            .set_timeout_with_callback_and_timeout_and_arguments_0(&resolve, ms)
            .unwrap_or(0);
    });
    (promise, handle)
}

/// The result of `work`, unless nothing comes of it for too long.
async fn unless_silent(work: &JsPromise) -> Result<JsValue, Cut> {
    let (silence, handle) = timer(SILENCE_MS);
    let first = JsFuture::from(JsPromise::race(&Array::of2(work, &silence))).await;
    scope().clear_timeout_with_handle(handle);
    match first.map_err(|error| cut(&error))? {
        // The timer's value; neither an answer nor a part of a body is that.
        value if value.is_undefined() => Err(Cut("the server went silent".to_owned())),
        value => Ok(value),
    }
}

impl Net for Network {
    type Body = Streamed;

    async fn get(&self, url: &str, range: Option<Range<u64>>) -> Result<(Head, Streamed), Cut> {
        let abort = AbortController::new().map_err(|error| cut(&error))?;
        let init = RequestInit::new();
        init.set_signal(Some(&abort.signal()));
        // What is worth keeping goes to the shelf: a second copy in the browser's own cache would only take room.
        init.set_cache(RequestCache::NoStore);
        if let Some(range) = range {
            let headers = web_sys::Headers::new().map_err(|error| cut(&error))?;
            let end = if range.end == u64::MAX {
                String::new()
            } else {
                (range.end - 1).to_string()
            };
            headers
                .set("Range", &format!("bytes={}-{end}", range.start))
                .map_err(|error| cut(&error))?;
            init.set_headers(&headers);
        }
        let mut body = Streamed {
            reader: None,
            abort,
        };
        let response = unless_silent(&scope().fetch_with_str_and_init(url, &init)).await?;
        let response: Response = response.dyn_into().map_err(|error| cut(&error))?;
        body.reader = response
            .body()
            .map(|stream| stream.get_reader().unchecked_into());
        Ok((head(&response), body))
    }

    async fn sleep(&self, ms: f64) {
        #[allow(clippy::cast_possible_truncation)] // `as` saturates, and nobody waits for weeks
        let (wait, _) = timer(ms as i32);
        // A timer cannot fail.
        let _ = JsFuture::from(wait).await;
    }

    fn now_ms(&self) -> f64 {
        js_sys::Date::now()
    }

    fn ahead<T: 'static>(
        &self,
        work: impl Future<Output = T> + 'static,
    ) -> Pin<Box<dyn Future<Output = T>>> {
        let (keeper, promised) = promise();
        spawn_local(async move { keeper.keep(work.await) });
        Box::pin(promised)
    }
}

fn head(response: &Response) -> Head {
    let headers = response.headers();
    let text = |name: &str| headers.get(name).ok().flatten();
    Head {
        status: response.status(),
        content_range: text("content-range"),
        content_length: text("content-length").and_then(|length| length.parse().ok()),
        content_encoding: text("content-encoding"),
        etag: text("etag"),
        last_modified: text("last-modified"),
        retry_after: text("retry-after").and_then(|seconds| seconds.parse().ok()),
    }
}

impl Body for Streamed {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Cut> {
        let Some(reader) = &self.reader else {
            return Ok(None);
        };
        let read = unless_silent(&reader.read()).await?;
        let field = |name: &str| Reflect::get(&read, &name.into()).map_err(|error| cut(&error));
        if field("done")?.is_truthy() {
            self.reader = None;
            return Ok(None);
        }
        let part: Uint8Array = field("value")?.dyn_into().map_err(|error| cut(&error))?;
        Ok(Some(part.to_vec()))
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // A body that is not read to its end would hold the connection.
        self.abort.abort();
    }
}
