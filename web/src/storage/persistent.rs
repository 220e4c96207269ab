//! The store that lasts in this browser: the private file system, else the Cache API, whichever first proves that it works.

use super::cache::Pieces;
use super::opfs::Opfs;
use super::{Store, StoreError};

/// The browser's lasting store.
#[derive(Debug)]
pub struct Persistent(Kind);

#[derive(Debug)]
enum Kind {
    Opfs(Opfs),
    Cache(Pieces),
}

impl Persistent {
    /// Opens the first store that takes something and gives it back: some exist and refuse, as in private windows.
    ///
    /// # Errors
    /// None does; why the first did not.
    pub async fn open() -> Result<Self, StoreError> {
        let first = match Opfs::open().await {
            Ok(opfs) => match try_out(&opfs).await {
                Ok(()) => return Ok(Self(Kind::Opfs(opfs))),
                Err(error) => error,
            },
            Err(error) => error,
        };
        if let Ok(cache) = Pieces::open().await
            && try_out(&cache).await.is_ok()
        {
            return Ok(Self(Kind::Cache(cache)));
        }
        Err(first)
    }
}

async fn try_out(store: &impl Store) -> Result<(), StoreError> {
    const NAME: &str = "probe";
    match store.write(NAME, b"probe").await {
        // Another tab tries it out just now: it works.
        Err(StoreError::Busy) => return Ok(()),
        result => result?,
    }
    let read = store.read(NAME).await?;
    // Another tab may have removed it in between; wrong bytes are another matter.
    if read.is_some_and(|bytes| bytes != b"probe") {
        return Err(StoreError::Unusable(
            "it gave back other bytes than it was given".to_owned(),
        ));
    }
    match store.remove(NAME).await {
        Err(StoreError::Busy) => Ok(()),
        result => result,
    }
}

/// Hands a call to the store at hand.
macro_rules! on {
    ($self:ident, $store:ident => $call:expr) => {
        match &$self.0 {
            Kind::Opfs($store) => $call,
            Kind::Cache($store) => $call,
        }
    };
}

impl Store for Persistent {
    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        on!(self, store => store.read(name).await)
    }

    async fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        on!(self, store => store.write(name, bytes).await)
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        on!(self, store => store.remove(name).await)
    }

    async fn names(&self) -> Result<Vec<(String, u64)>, StoreError> {
        on!(self, store => store.names().await)
    }
}
