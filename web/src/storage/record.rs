//! What is stored of one URL, and under which names.

use std::ops::Range;

use qloom_core::weights::sha256_hex;
use serde::{Deserialize, Serialize};

/// Layout of the records; others are ignored and replaced.
const VERSION: u32 = 1;

/// What is stored of a URL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    url: String,
    length: u64,
    /// What the server said to tell this version of the file from another; empty where it said nothing.
    validator: String,
    piece: u64,
    /// SHA-256 of every piece that was written whole.
    hashes: Vec<Option<String>>,
    /// When it was last opened, for eviction.
    used: f64,
}

impl Record {
    /// Nothing is stored yet of `length` bytes at `url`, kept in pieces of `piece` bytes.
    #[must_use]
    pub fn new(url: &str, length: u64, validator: &str, piece: u64) -> Self {
        let count = usize::try_from(length.div_ceil(piece.max(1))).unwrap_or(usize::MAX);
        Self {
            version: VERSION,
            url: url.to_owned(),
            length,
            validator: validator.to_owned(),
            piece: piece.max(1),
            hashes: vec![None; count],
            used: 0.0,
        }
    }

    /// Reads a stored record of `url`; `None` for anything else than one of this version that holds together.
    #[must_use]
    pub fn parse(bytes: &[u8], url: &str) -> Option<Self> {
        let record: Self = serde_json::from_slice(bytes).ok()?;
        let pieces = record.length.div_ceil(record.piece.max(1));
        let whole = record.piece > 0 && pieces == record.hashes.len() as u64;
        (record.version == VERSION && record.url == url && whole).then_some(record)
    }

    /// As it is stored.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // A record holds strings and finite numbers only: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The file's length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What tells this version of the file from another.
    #[must_use]
    pub fn validator(&self) -> &str {
        &self.validator
    }

    /// Number of pieces.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.hashes.len()
    }

    /// The bytes of the file that piece `index` holds.
    #[must_use]
    pub fn range(&self, index: usize) -> Range<u64> {
        let start = self.length.min(index as u64 * self.piece);
        start..self.length.min(start + self.piece)
    }

    /// The piece that holds byte `offset`.
    #[must_use]
    pub fn index_of(&self, offset: u64) -> usize {
        usize::try_from(offset / self.piece).unwrap_or(usize::MAX)
    }

    /// Whether piece `index` is stored.
    #[must_use]
    pub fn has(&self, index: usize) -> bool {
        matches!(self.hashes.get(index), Some(Some(_)))
    }

    /// Whether every piece is stored.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.hashes.iter().all(Option::is_some)
    }

    /// Whether piece `index` is `length` bytes of this SHA-256.
    #[must_use]
    pub fn verifies(&self, index: usize, length: usize, sha256: &str) -> bool {
        let range = self.range(index);
        let expected = self.hashes.get(index).and_then(Option::as_deref);
        length as u64 == range.end - range.start && expected == Some(sha256)
    }

    /// Whether a server that says `length` (where it says one) and `validator` means the same version. Without a validator on
    /// both sides the length has to do.
    #[must_use]
    pub fn is_of(&self, length: Option<u64>, validator: &str) -> bool {
        let same = self.validator.is_empty() || validator.is_empty() || self.validator == validator;
        same && length.is_none_or(|length| length == self.length)
    }

    /// Where piece `index` is stored.
    #[must_use]
    pub fn piece_name(&self, index: usize) -> String {
        let version =
            sha256_hex(format!("{} {} {}", self.validator, self.length, self.piece).as_bytes());
        format!("{}-{}-{index:05}", key(&self.url), &version[..8])
    }

    pub(super) fn set(&mut self, index: usize, hash: Option<String>) {
        if let Some(slot) = self.hashes.get_mut(index) {
            *slot = hash;
        }
    }

    pub(super) fn touch(&mut self, now_ms: f64) {
        self.used = now_ms;
    }

    pub(super) fn used(&self) -> f64 {
        self.used
    }

    /// The file's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// What all names of a URL begin with.
pub(super) fn key(url: &str) -> String {
    sha256_hex(url.as_bytes())[..24].to_owned()
}

/// Where the record of a URL is stored.
pub(super) fn record_name(url: &str) -> String {
    format!("{}.json", key(url))
}
