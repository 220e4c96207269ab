//! The gallery of a published site: which adapters there are, what they did, and the hashes of their files.
//!
//! ```text
//! adapters/index.json            Gallery: one row per adapter, sorted by slug
//! adapters/SLUG/entry.json       Entry: the row, and every file of the folder with size and SHA-256
//! adapters/SLUG/...              PEFT's two files, the receipt, README.md, scores, samples, loss curve
//! ```
//!
//! Written by `trainer publish`, read by `trainer publish --check` and by the page: both sides use the structs here. A row
//! holds the hash of its `entry.json`, an entry the hashes of its files, so one trusted index vouches for everything below it.
//! All strings in it are data that somebody typed; whoever shows them escapes them for the medium.

mod entry;
mod error;
mod names;
mod scores;

pub use entry::{AdapterFacts, ENTRY, Entry, EntryFile, REQUIRED_FILES};
pub use error::GalleryError;
pub use names::{check_date, check_path, check_slug, slug_of};
pub use scores::{Estimate, Score, scores_of};

use serde::{Deserialize, Serialize};

/// Where the gallery lies in a site.
pub const GALLERY: &str = "adapters/index.json";

/// The version of both schemas that this code writes and reads.
pub const GALLERY_VERSION: u32 = 1;

/// `adapters/index.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gallery {
    /// [`GALLERY_VERSION`].
    pub version: u32,
    /// The adapters, sorted by slug.
    pub adapters: Vec<GalleryRow>,
}

/// The base an adapter belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GalleryBase {
    /// Hub id, or the name it goes by.
    pub name: String,
    /// [`crate::weights::base_fingerprint`] of its weights, where the adapter's receipt has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Fingerprints of the same base in another form (the dense model of a quantized one).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub equivalent: Vec<String>,
}

/// What the gallery shows of one adapter before anything of it is loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GalleryRow {
    /// The folder's name: lower-case letters, digits and single hyphens.
    pub slug: String,
    /// The name to show.
    pub name: String,
    /// What it was trained to do, in a word or two: `sentiment`.
    pub task: String,
    /// A sentence about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The base it needs.
    pub base: GalleryBase,
    /// Scores before and after.
    #[serde(default)]
    pub scores: Vec<Score>,
    /// Bytes to download in order to use it: configuration, tensors and receipt.
    pub size: u64,
    /// SPDX identifier or name of its licence, where the author chose one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// The day it was published, `YYYY-MM-DD`.
    pub created: String,
    /// SHA-256 of its `entry.json`.
    pub entry_sha256: String,
}

impl Default for Gallery {
    fn default() -> Self {
        Self {
            version: GALLERY_VERSION,
            adapters: Vec::new(),
        }
    }
}

impl Gallery {
    /// Reads and validates the bytes of an `index.json`.
    ///
    /// # Errors
    /// Not JSON of this shape, another version, rows that [`Self::validate`] refuses.
    pub fn from_json(bytes: &[u8]) -> Result<Self, GalleryError> {
        check_version(bytes, GALLERY)?;
        let gallery: Self =
            serde_json::from_slice(bytes).map_err(|e| GalleryError::json(GALLERY, &e))?;
        gallery.validate()?;
        Ok(gallery)
    }

    /// The bytes of an `index.json`.
    ///
    /// # Errors
    /// Values JSON cannot hold.
    pub fn to_json(&self) -> Result<Vec<u8>, GalleryError> {
        to_json(self, GALLERY)
    }

    /// Puts `row` in its place, instead of one of the same slug if there is one.
    pub fn insert(&mut self, row: GalleryRow) {
        match self.adapters.binary_search_by(|r| r.slug.cmp(&row.slug)) {
            Ok(at) => self.adapters[at] = row,
            Err(at) => self.adapters.insert(at, row),
        }
    }

    /// Names that stay within the site, in order and once each; hashes and dates that are such.
    ///
    /// # Errors
    /// The first row that is not so.
    pub fn validate(&self) -> Result<(), GalleryError> {
        for row in &self.adapters {
            row.validate()?;
        }
        for pair in self.adapters.windows(2) {
            if pair[0].slug >= pair[1].slug {
                return Err(GalleryError::invalid(
                    GALLERY,
                    "slug",
                    &pair[1].slug,
                    "slugs in ascending order, each once",
                ));
            }
        }
        Ok(())
    }
}

impl GalleryRow {
    fn validate(&self) -> Result<(), GalleryError> {
        check_slug(&self.slug, GALLERY)?;
        check_date(&self.created, GALLERY)?;
        names::check_hash(&self.entry_sha256, "entry_sha256", GALLERY)?;
        names::check_shown(&self.name, "name", GALLERY)?;
        self.base.validate(GALLERY)?;
        self.scores.iter().try_for_each(|s| s.validate(GALLERY))
    }
}

impl GalleryBase {
    fn validate(&self, file: &str) -> Result<(), GalleryError> {
        names::check_shown(&self.name, "base.name", file)?;
        let mut hashes = self.fingerprint.iter().chain(&self.equivalent);
        hashes.try_for_each(|h| names::check_hash(h, "base.fingerprint", file))
    }
}

/// Refuses another schema before its fields are looked at: they may mean something else there.
fn check_version(bytes: &[u8], file: &str) -> Result<(), GalleryError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let found: Versioned =
        serde_json::from_slice(bytes).map_err(|e| GalleryError::json(file, &e))?;
    if found.version == GALLERY_VERSION {
        return Ok(());
    }
    Err(GalleryError::Version {
        file: file.to_owned(),
        found: found.version,
        expected: GALLERY_VERSION,
    })
}

fn to_json<T: Serialize>(value: &T, file: &str) -> Result<Vec<u8>, GalleryError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| GalleryError::json(file, &e))?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests;
