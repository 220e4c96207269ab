//! Files from the visitor: of a picker, or dropped, folders included.
//!
//! A dropped folder is only reachable through `webkitGetAsEntry`, which every browser has and no standard names; it is
//! called by name here, since its types exist in no binding that is used.

use js_sys::{Array, Function, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, DataTransfer, File, FileList};

use crate::protocol::FileRef;

/// Files of a dropped folder at most: a model or an adapter has a few dozen.
const MOST_FILES: usize = 512;

/// A file with its path.
pub(super) struct Picked {
    /// `/`-separated, below what was dropped.
    pub(super) path: String,
    /// The file.
    pub(super) file: File,
}

/// References for a request, and the blobs to keep beside it.
pub(super) fn parts(picked: Vec<Picked>) -> (Vec<FileRef>, Vec<Blob>) {
    let reference = |(attachment, p): (usize, &Picked)| FileRef {
        name: p.path.clone(),
        attachment,
    };
    let references = picked.iter().enumerate().map(reference).collect();
    (
        references,
        picked.into_iter().map(|p| p.file.into()).collect(),
    )
}

/// The files of a picker.
pub(super) fn of_list(list: Option<FileList>) -> Vec<Picked> {
    let Some(list) = list else {
        return Vec::new();
    };
    (0..list.length())
        .filter_map(|at| list.get(at))
        .map(named)
        .collect()
}

fn named(file: File) -> Picked {
    let relative = Reflect::get(&file, &"webkitRelativePath".into()).ok();
    let relative = relative
        .and_then(|p| p.as_string())
        .filter(|p| !p.is_empty());
    Picked {
        path: relative.unwrap_or_else(|| file.name()),
        file,
    }
}

/// The entries of a drop. They must be taken while the event is handled; their files may be read later.
pub(super) fn entries(transfer: &DataTransfer) -> Vec<JsValue> {
    let items = transfer.items();
    let entry = |at: u32| {
        let item: JsValue = items.get(at)?.into();
        let entry = method(&item, "webkitGetAsEntry")?.call0(&item).ok()?;
        (!entry.is_null() && !entry.is_undefined()).then_some(entry)
    };
    (0..items.length()).filter_map(entry).collect()
}

/// The files of entries, folders walked through.
pub(super) async fn of_entries(entries: Vec<JsValue>) -> Vec<Picked> {
    let mut queue: Vec<(String, JsValue)> =
        entries.into_iter().map(|e| (String::new(), e)).collect();
    let mut found = Vec::new();
    while let Some((folder, entry)) = queue.pop() {
        if found.len() >= MOST_FILES {
            break;
        }
        let name = get(&entry, "name")
            .and_then(|n| n.as_string())
            .unwrap_or_default();
        let path = format!("{folder}{name}");
        let is_file = get(&entry, "isFile").is_some_and(|v| v.is_truthy());
        if is_file {
            let file = called_back(&entry, "file").await;
            if let Some(Ok(file)) = file.map(JsCast::dyn_into::<File>) {
                found.push(Picked { path, file });
            }
        } else if let Some(reader) =
            method(&entry, "createReader").and_then(|f| f.call0(&entry).ok())
        {
            for child in children(&reader).await {
                queue.push((format!("{path}/"), child));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// A folder's entries, which come in portions until an empty one.
async fn children(reader: &JsValue) -> Vec<JsValue> {
    let mut all = Vec::new();
    while let Some(portion) = called_back(reader, "readEntries").await {
        let portion = Array::from(&portion);
        if portion.length() == 0 || all.len() > MOST_FILES {
            break;
        }
        all.extend(portion.iter());
    }
    all
}

/// Calls `object.name(resolve, reject)`.
async fn called_back(object: &JsValue, name: &str) -> Option<JsValue> {
    let function = method(object, name)?;
    let promise = Promise::new(&mut |resolve, reject| {
        if function.call2(object, &resolve, &reject).is_err() {
            let _ = reject.call0(&JsValue::NULL);
        }
    });
    JsFuture::from(promise).await.ok()
}

fn get(object: &JsValue, name: &str) -> Option<JsValue> {
    Reflect::get(object, &name.into()).ok()
}

fn method(object: &JsValue, name: &str) -> Option<Function> {
    get(object, name)?.dyn_into().ok()
}

/// A file's text.
pub(super) async fn text(file: &File) -> Option<String> {
    JsFuture::from(file.text()).await.ok()?.as_string()
}
