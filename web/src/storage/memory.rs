//! The last resort: this page's memory, bounded, gone with the tab. In a browser the bytes lie outside of WebAssembly's
//! memory, which could never shrink again.

use std::cell::RefCell;
use std::collections::HashMap;

use super::{Store, StoreError};

#[cfg(target_arch = "wasm32")]
type Held = js_sys::Uint8Array;
#[cfg(not(target_arch = "wasm32"))]
type Held = Vec<u8>;

/// Bytes by name, up to a limit.
#[derive(Debug)]
pub struct Memory {
    limit: u64,
    held: RefCell<HashMap<String, Held>>,
}

impl Memory {
    /// Room for `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            held: RefCell::default(),
        }
    }
}

fn size(held: &Held) -> u64 {
    #[cfg(target_arch = "wasm32")]
    return u64::from(held.length());
    #[cfg(not(target_arch = "wasm32"))]
    return held.len() as u64;
}

impl Store for Memory {
    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.held.borrow().get(name).map(|held| held.to_vec()))
    }

    async fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let mut held = self.held.borrow_mut();
        let others = held.iter().filter(|(other, _)| *other != name);
        let used: u64 = others.map(|(_, held)| size(held)).sum();
        if used + bytes.len() as u64 > self.limit {
            return Err(StoreError::Full);
        }
        held.insert(name.to_owned(), Held::from(bytes));
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.held.borrow_mut().remove(name);
        Ok(())
    }

    async fn names(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let held = self.held.borrow();
        Ok(held
            .iter()
            .map(|(name, held)| (name.clone(), size(held)))
            .collect())
    }
}
