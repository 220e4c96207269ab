//! [`Store`] over the origin private file system (WHATWG File System standard): bindings only.

use js_sys::{AsyncIterator, Function, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    File, FileSystemDirectoryHandle, FileSystemFileHandle, FileSystemGetDirectoryOptions,
    FileSystemGetFileOptions, FileSystemSyncAccessHandle,
};

use super::{Store, StoreError};
use crate::fetch::browser::{said, scope};

const FOLDER: &str = "qloom-pieces";

/// A folder of the origin's private file system.
#[derive(Debug)]
pub(super) struct Opfs(FileSystemDirectoryHandle);

impl Opfs {
    /// Opens the folder.
    pub(super) async fn open() -> Result<Self, StoreError> {
        let missing = || StoreError::Unusable("there is no private file system".to_owned());
        let navigator = scope().navigator();
        // Neither is there on pages that are no secure context.
        let storage = Reflect::get(&navigator, &"storage".into()).unwrap_or_default();
        let getter = Reflect::get(&storage, &"getDirectory".into()).ok();
        getter
            .and_then(|f| f.dyn_into::<Function>().ok())
            .ok_or_else(missing)?;
        let root: FileSystemDirectoryHandle = settled(navigator.storage().get_directory()).await?;
        let options = FileSystemGetDirectoryOptions::new();
        options.set_create(true);
        Ok(Self(
            settled(root.get_directory_handle_with_options(FOLDER, &options)).await?,
        ))
    }

    async fn file(&self, name: &str) -> Result<Option<File>, StoreError> {
        match settled::<FileSystemFileHandle>(self.0.get_file_handle(name)).await {
            Ok(handle) => settled(handle.get_file()).await.map(Some),
            Err(_) => Ok(None),
        }
    }
}

/// What a promise comes to.
async fn settled<T: JsCast>(promise: js_sys::Promise) -> Result<T, StoreError> {
    let value = JsFuture::from(promise)
        .await
        .map_err(|error| failed(&error))?;
    value
        .dyn_into()
        .map_err(|_| StoreError::Unusable("the browser answered with something else".to_owned()))
}

/// An exception as one of the three things that matter.
pub(super) fn failed(error: &JsValue) -> StoreError {
    let name = Reflect::get(error, &"name".into())
        .ok()
        .and_then(|name| name.as_string());
    match name.as_deref() {
        Some("QuotaExceededError") => StoreError::Full,
        Some("NoModificationAllowedError" | "InvalidStateError") => StoreError::Busy,
        _ => StoreError::Unusable(said(error)),
    }
}

/// Writes through a handle that is closed whatever happens; a disk that takes only a part is full.
fn write_all(access: &FileSystemSyncAccessHandle, bytes: &[u8]) -> Result<(), StoreError> {
    access
        .truncate_with_u32(0)
        .map_err(|error| failed(&error))?;
    let written = access
        .write_with_js_u8_array(&Uint8Array::from(bytes))
        .map_err(|error| failed(&error))?;
    access.flush().map_err(|error| failed(&error))?;
    #[allow(clippy::cast_precision_loss)] // pieces are a few MiB
    if written < bytes.len() as f64 {
        return Err(StoreError::Full);
    }
    Ok(())
}

impl Store for Opfs {
    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(file) = self.file(name).await? else {
            return Ok(None);
        };
        let buffer: js_sys::ArrayBuffer = settled(file.array_buffer()).await?;
        Ok(Some(Uint8Array::new(&buffer).to_vec()))
    }

    async fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let options = FileSystemGetFileOptions::new();
        options.set_create(true);
        let handle: FileSystemFileHandle =
            settled(self.0.get_file_handle_with_options(name, &options)).await?;
        let access: FileSystemSyncAccessHandle =
            settled(handle.create_sync_access_handle()).await?;
        let result = write_all(&access, bytes);
        access.close();
        result
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        match JsFuture::from(self.0.remove_entry(name)).await {
            Ok(_) => Ok(()),
            Err(error) if said(&error).starts_with("NotFoundError") => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn names(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let mut all = Vec::new();
        let names: AsyncIterator = self.0.keys();
        loop {
            let next = names.next().map_err(|error| failed(&error))?;
            let next = JsFuture::from(next).await.map_err(|error| failed(&error))?;
            let field = |name: &str| Reflect::get(&next, &name.into()).unwrap_or_default();
            if field("done").is_truthy() {
                return Ok(all);
            }
            let Some(name) = field("value").as_string() else {
                continue;
            };
            if let Some(file) = self.file(&name).await? {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                // a whole number of bytes
                all.push((name, file.size() as u64));
            }
        }
    }
}
