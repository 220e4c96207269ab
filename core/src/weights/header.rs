//! The safetensors header, read with errors that name the file and count the bytes.
//!
//! Layout: eight bytes of little-endian header length, that many bytes of JSON, then the tensors with neither gap nor overlap.

use super::{Dtype, WeightError, byte_len};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Longest header accepted, as in the reference reader.
const MAX_HEADER: u64 = 100_000_000;

/// One tensor's place in a file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Byte range in the file, header included.
    pub(super) range: std::ops::Range<usize>,
}

/// A file's tensors by name, and its `__metadata__`.
pub(super) type Header = (BTreeMap<String, Entry>, BTreeMap<String, String>);

#[derive(Deserialize)]
struct RawEntry {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// Reads and checks the header of `bytes`.
pub(super) fn parse(file: &str, bytes: &[u8]) -> Result<Header, WeightError> {
    let fail = |reason: String| WeightError::Header {
        file: file.to_owned(),
        reason,
    };
    let found = bytes.len() as u64;
    let length = |expected| WeightError::Length {
        file: file.to_owned(),
        expected,
        found,
    };

    let (prefix, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| length(8))?;
    let n = u64::from_le_bytes(*prefix);
    if n > MAX_HEADER {
        return Err(fail(format!(
            "its first 8 bytes give a header of {n} bytes, more than {MAX_HEADER}"
        )));
    }
    let json = rest.get(..n as usize).ok_or_else(|| length(8 + n))?;
    let raw: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(json).map_err(|e| fail(format!("its header is not JSON: {e}")))?;

    let mut entries = Vec::new();
    let mut metadata = BTreeMap::new();
    for (name, value) in raw {
        if name == "__metadata__" {
            metadata =
                serde_json::from_value(value).map_err(|e| fail(format!("__metadata__: {e}")))?;
            continue;
        }
        let e: RawEntry =
            serde_json::from_value(value).map_err(|e| fail(format!("tensor {name}: {e}")))?;
        let (begin, end) = e.data_offsets;
        let size = byte_len(e.dtype, &e.shape);
        if end.checked_sub(begin) != size || size.is_none() {
            return Err(fail(format!(
                "tensor {name}: {} of shape {:?} does not fill bytes {begin}..{end}",
                e.dtype, e.shape
            )));
        }
        entries.push((begin, end, name, e));
    }

    entries.sort_by_key(|e| (e.0, e.1));
    let mut at = 0;
    for (begin, end, name, _) in &entries {
        if *begin != at {
            return Err(fail(format!(
                "tensor {name} begins at byte {begin}, expected {at} (gap or overlap)"
            )));
        }
        at = *end;
    }
    let expected = at
        .checked_add(8 + n)
        .ok_or_else(|| fail("its offsets overflow".into()))?;
    if expected != found {
        return Err(length(expected));
    }

    let base = 8 + n as usize;
    let place = |(begin, end, name, e): (u64, u64, String, RawEntry)| {
        let range = base + begin as usize..base + end as usize;
        (
            name,
            Entry {
                dtype: e.dtype,
                shape: e.shape,
                range,
            },
        )
    };
    Ok((entries.into_iter().map(place).collect(), metadata))
}
