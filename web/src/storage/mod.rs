//! What is kept of downloads: pieces of files, so that a closed tab resumes and a second visit needs no network.
//!
//! ```text
//! KEY.json            what is stored of a URL: its length, version, and the SHA-256 of every whole piece
//! KEY-VERSION-00007   piece 7 of it
//! ```
//!
//! A piece is written first and recorded after, so one that a closed tab cut short was never recorded; length and hash are
//! checked whenever it is read. [`Shelf`] holds that logic over any [`Store`]: the origin private file system, else the
//! Cache API, else this page's memory. The browser's stores are bindings only; everything else is tested natively.

mod digest;
mod memory;
mod record;
mod shelf;

#[cfg(target_arch = "wasm32")]
mod cache;
#[cfg(target_arch = "wasm32")]
mod opfs;
#[cfg(target_arch = "wasm32")]
mod persistent;
#[cfg(test)]
pub(crate) mod tests;

pub use memory::Memory;
pub use record::Record;
pub use shelf::Shelf;

#[cfg(target_arch = "wasm32")]
pub use persistent::Persistent;

use thiserror::Error;

/// Named bytes that outlive the page.
#[allow(async_fn_in_trait)] // one thread: nobody sends these futures
pub trait Store {
    /// The bytes under `name`; `None` where there are none.
    ///
    /// # Errors
    /// The store cannot be used.
    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Puts `bytes` under `name`, in place of what was there.
    ///
    /// # Errors
    /// [`StoreError::Full`] where the quota ends, [`StoreError::Busy`] where another tab writes the same.
    async fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Removes `name`, if it is there.
    ///
    /// # Errors
    /// The store cannot be used.
    async fn remove(&self, name: &str) -> Result<(), StoreError>;

    /// Every name with its size in bytes.
    ///
    /// # Errors
    /// The store cannot be used.
    async fn names(&self) -> Result<Vec<(String, u64)>, StoreError>;
}

/// Why something could not be stored or read back.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The browser allows no more.
    #[error("the browser's storage is full")]
    Full,
    /// Another tab has the file open.
    #[error("another tab is writing the same file")]
    Busy,
    /// It does not work at all, as in some private windows.
    #[error("the browser's storage does not work: {0}")]
    Unusable(String),
}
