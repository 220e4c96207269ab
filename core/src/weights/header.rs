//! The safetensors header, read with errors that name the file and count the bytes.
//!
//! Layout: eight bytes of little-endian header length, that many bytes of JSON, then the tensors with neither gap nor overlap.
//! The header can be read from a file's first bytes alone: [`FileHeader::length`] says how many.

use super::{Dtype, WeightError, byte_len};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;

/// Longest header accepted, as in the reference reader.
const MAX_HEADER: u64 = 100_000_000;

/// One tensor's place in a file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Byte range in the file, header included.
    pub(super) range: Range<u64>,
}

/// What the beginning of a file says of the rest.
#[derive(Clone, Debug)]
pub struct FileHeader {
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) metadata: BTreeMap<String, String>,
    total_bytes: u64,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl FileHeader {
    /// Bytes at the beginning of `file` that hold its header, given at least its first eight.
    ///
    /// # Errors
    /// Fewer than eight bytes, or a length that no header has.
    pub fn length(file: &str, start: &[u8]) -> Result<u64, WeightError> {
        let prefix = start
            .first_chunk::<8>()
            .ok_or_else(|| too_short(file, 8, start))?;
        let n = u64::from_le_bytes(*prefix);
        if n > MAX_HEADER {
            return Err(unreadable(
                file,
                format!("its first 8 bytes give a header of {n} bytes, more than {MAX_HEADER}"),
            ));
        }
        Ok(8 + n)
    }

    /// Reads and checks the header of `file` from its first bytes, [`FileHeader::length`] of them or more.
    ///
    /// # Errors
    /// Too few bytes; a header that is not safetensors; tensors with a gap or an overlap between them.
    pub fn parse(file: &str, start: &[u8]) -> Result<Self, WeightError> {
        let length = Self::length(file, start)?;
        let json = start
            .get(8..length as usize)
            .ok_or_else(|| too_short(file, length, start))?;
        let (mut entries, metadata) = entries(json).map_err(|reason| unreadable(file, reason))?;
        let mut at = 0;
        for (name, entry) in &mut entries {
            if entry.range.start != at {
                let begin = entry.range.start;
                return Err(unreadable(
                    file,
                    format!("tensor {name} begins at byte {begin}, expected {at} (gap or overlap)"),
                ));
            }
            at = entry.range.end;
            // Cannot overflow: the last end is checked below, and no other is larger.
            entry.range = length.wrapping_add(entry.range.start)..length.wrapping_add(at);
        }
        let total_bytes = at
            .checked_add(length)
            .ok_or_else(|| unreadable(file, "its offsets overflow".into()))?;
        Ok(Self {
            entries: entries.into_iter().collect(),
            metadata,
            total_bytes,
        })
    }

    /// Size of the whole file.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Refuses a file of `found` bytes that should have another number.
    ///
    /// # Errors
    /// It is truncated, or has something after its last tensor.
    pub fn check_length(&self, file: &str, found: u64) -> Result<(), WeightError> {
        if self.total_bytes == found {
            return Ok(());
        }
        Err(WeightError::Length {
            file: file.to_owned(),
            expected: self.total_bytes,
            found,
        })
    }
}

type Entries = (Vec<(String, Entry)>, BTreeMap<String, String>);

/// The tensors that `json` lists, in the order in which they lie, with ranges counted from the header's end; and the
/// `__metadata__`.
fn entries(json: &[u8]) -> Result<Entries, String> {
    let raw: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(json).map_err(|e| format!("its header is not JSON: {e}"))?;
    let mut entries = Vec::new();
    let mut metadata = BTreeMap::new();
    for (name, value) in raw {
        if name == "__metadata__" {
            metadata = serde_json::from_value(value).map_err(|e| format!("__metadata__: {e}"))?;
            continue;
        }
        let e: RawEntry =
            serde_json::from_value(value).map_err(|e| format!("tensor {name}: {e}"))?;
        let (begin, end) = e.data_offsets;
        let size = byte_len(e.dtype, &e.shape);
        if end.checked_sub(begin) != size || size.is_none() {
            return Err(format!(
                "tensor {name}: {} of shape {:?} does not fill bytes {begin}..{end}",
                e.dtype, e.shape
            ));
        }
        let entry = Entry {
            dtype: e.dtype,
            shape: e.shape,
            range: begin..end,
        };
        entries.push((name, entry));
    }
    entries.sort_by_key(|(_, e)| (e.range.start, e.range.end));
    Ok((entries, metadata))
}

fn unreadable(file: &str, reason: String) -> WeightError {
    WeightError::Header {
        file: file.to_owned(),
        reason,
    }
}

fn too_short(file: &str, expected: u64, found: &[u8]) -> WeightError {
    WeightError::Length {
        file: file.to_owned(),
        expected,
        found: found.len() as u64,
    }
}
