//! Downloads: files read by ranges, a piece at a time, kept on the [`Shelf`](crate::storage::Shelf) as they come.
//!
//! ```text
//! open     one small request: length, version, whether ranges work       (nothing at all where all is stored and no network)
//! read     stored piece, else Range: bytes=a-b, 8 MiB each, two ahead    cut off: goes on where it stopped, with pauses
//! ```
//!
//! A server that ignores ranges is read as one stream, in order. [`Remote`] holds that logic over any [`Net`], tested against
//! a faked one; `browser` binds it to `fetch`.

mod ahead;
mod answer;
mod open;
mod remote;
mod retry;

#[cfg(target_arch = "wasm32")]
pub mod browser;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

pub use ahead::{Keeper, Promise, promise};
pub use answer::Head;
pub use open::open;
pub use remote::Remote;

/// Bytes of a piece: large enough that requests cost little, small enough to be held a few times and lost once.
pub const PIECE: u64 = 8 << 20;

/// The network, as far as downloads need it.
#[allow(async_fn_in_trait)] // one thread: nobody sends these futures
pub trait Net: 'static {
    /// An answer's body.
    type Body: Body + 'static;

    /// Asks for `url`, or for `range` of it, and waits for the answer's head.
    ///
    /// # Errors
    /// No answer came.
    async fn get(&self, url: &str, range: Option<Range<u64>>) -> Result<(Head, Self::Body), Cut>;

    /// Waits.
    async fn sleep(&self, ms: f64);

    /// Milliseconds since 1970, to tell what was used last.
    fn now_ms(&self) -> f64;

    /// Starts `work` now, where there is someone to run it; its result is awaited later, or never.
    fn ahead<T: 'static>(
        &self,
        work: impl Future<Output = T> + 'static,
    ) -> Pin<Box<dyn Future<Output = T>>>;
}

/// The body of an answer, as it comes. Dropping it ends the request.
#[allow(async_fn_in_trait)]
pub trait Body {
    /// The next bytes, `None` at the end. Not asking is what holds the server back.
    ///
    /// # Errors
    /// The connection ended before the body did.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Cut>;
}

/// The network failed: no answer, or a body that stopped. The browser does not tell pages more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut(pub String);
