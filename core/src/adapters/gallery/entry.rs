//! [`Entry`]: one published adapter, `adapters/SLUG/entry.json`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{GalleryBase, GalleryError, GalleryRow, Score, names};
use crate::adapters::{Adapter, RECEIPT, Receipt};
use crate::weights::sha256_hex;

/// An entry's file name.
pub const ENTRY: &str = "entry.json";

/// Files no entry is without.
pub const REQUIRED_FILES: [&str; 3] = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "README.md",
];

/// Files that are downloaded to use the adapter; the others are about it.
const LOADED: [&str; 3] = ["adapter_config.json", "adapter_model.safetensors", RECEIPT];

/// A file of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryFile {
    /// Below the entry's folder, `/`-separated.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

/// What the adapter is, read from its own files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdapterFacts {
    /// `lora`, `rslora`, `dora`, or PEFT's name of another method in lower case.
    pub method: String,
    /// PEFT's `task_type`: `CAUSAL_LM`, `SEQ_CLS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_type: Option<String>,
    /// Rank.
    pub rank: usize,
    /// Numerator of the scaling.
    pub alpha: f64,
    /// Names of the adapted modules, sorted.
    pub target_modules: Vec<String>,
    /// Trained values.
    pub parameters: u64,
}

/// `entry.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// [`super::GALLERY_VERSION`].
    pub version: u32,
    /// The folder's name.
    pub slug: String,
    /// The name to show.
    pub name: String,
    /// What it was trained to do.
    pub task: String,
    /// A sentence about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The base it needs.
    pub base: GalleryBase,
    /// The adapter's own facts.
    pub adapter: AdapterFacts,
    /// SHA-256 over the tokens it was trained and scored on, where the run is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_sha256: Option<String>,
    /// Scores before and after, those of `metrics.json`.
    #[serde(default)]
    pub scores: Vec<Score>,
    /// SPDX identifier or name of the licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// The day of publishing, `YYYY-MM-DD`.
    pub created: String,
    /// The trainer's version.
    pub tool_version: String,
    /// Every file of the folder but this one, sorted by path.
    pub files: Vec<EntryFile>,
}

impl AdapterFacts {
    /// The facts of an adapter.
    #[must_use]
    pub fn of(adapter: &Adapter) -> Self {
        let config = &adapter.config;
        let method = match (config.use_dora, config.use_rslora) {
            (true, _) => "dora".to_owned(),
            (_, true) => "rslora".to_owned(),
            _ => config.peft_type.to_ascii_lowercase(),
        };
        let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
        let targets: BTreeSet<String> = adapter.paths().map(last).collect();
        let values = |shape: &[usize]| shape.iter().product::<usize>() as u64;
        Self {
            method,
            task_type: config.task_type.clone(),
            rank: config.r,
            alpha: config.lora_alpha,
            target_modules: targets.into_iter().collect(),
            parameters: adapter.tensors.values().map(|t| values(&t.shape)).sum(),
        }
    }
}

impl EntryFile {
    /// The record of a file.
    #[must_use]
    pub fn of(path: &str, bytes: &[u8]) -> Self {
        Self {
            path: path.to_owned(),
            size: bytes.len() as u64,
            sha256: sha256_hex(bytes),
        }
    }

    /// Holds `bytes` to the record: size first, which is cheap, then SHA-256.
    ///
    /// # Errors
    /// [`GalleryError::Content`], naming `file`.
    pub fn verify(&self, bytes: &[u8], file: &str) -> Result<(), GalleryError> {
        let wrong = |what, expected: String, found: String| GalleryError::Content {
            file: file.to_owned(),
            what,
            expected,
            found,
        };
        if bytes.len() as u64 != self.size {
            let found = bytes.len().to_string();
            return Err(wrong("size", self.size.to_string(), found));
        }
        let found = sha256_hex(bytes);
        if found != self.sha256 {
            return Err(wrong("SHA-256", self.sha256.clone(), found));
        }
        Ok(())
    }
}

impl Entry {
    /// Reads and validates the bytes of an `entry.json`; `file` names it in errors.
    ///
    /// # Errors
    /// Not JSON of this shape, another version, contents that [`Self::validate`] refuses.
    pub fn from_json(bytes: &[u8], file: &str) -> Result<Self, GalleryError> {
        super::check_version(bytes, file)?;
        let entry: Self =
            serde_json::from_slice(bytes).map_err(|e| GalleryError::json(file, &e))?;
        entry.validate(file)?;
        Ok(entry)
    }

    /// The bytes of an `entry.json`.
    ///
    /// # Errors
    /// Values JSON cannot hold.
    pub fn to_json(&self) -> Result<Vec<u8>, GalleryError> {
        super::to_json(self, ENTRY)
    }

    /// Names that stay within the folder, files in order and once each, the required ones among them.
    ///
    /// # Errors
    /// The first thing that is not so.
    pub fn validate(&self, file: &str) -> Result<(), GalleryError> {
        names::check_slug(&self.slug, file)?;
        names::check_shown(&self.name, "name", file)?;
        names::check_date(&self.created, file)?;
        self.base.validate(file)?;
        if let Some(hash) = &self.data_sha256 {
            names::check_hash(hash, "data_sha256", file)?;
        }
        self.scores.iter().try_for_each(|s| s.validate(file))?;
        for listed in &self.files {
            names::check_path(&listed.path, file)?;
            names::check_hash(&listed.sha256, "sha256", file)?;
            if listed.path == ENTRY {
                let expected = "the folder's other files only";
                return Err(GalleryError::invalid(file, "path", ENTRY, expected));
            }
        }
        if let Some(pair) = self.files.windows(2).find(|w| w[0].path >= w[1].path) {
            let expected = "paths in ascending order, each once";
            return Err(GalleryError::invalid(file, "path", &pair[1].path, expected));
        }
        match REQUIRED_FILES.iter().find(|name| self.file(name).is_none()) {
            None => Ok(()),
            Some(missing) => Err(GalleryError::Unlisted {
                file: file.to_owned(),
                missing: (*missing).to_owned(),
            }),
        }
    }

    /// The record of one file.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&EntryFile> {
        self.files.iter().find(|f| f.path == path)
    }

    /// The gallery's row for this entry, whose `entry.json` has these bytes.
    #[must_use]
    pub fn row(&self, entry_json: &[u8]) -> GalleryRow {
        let loaded = |f: &&EntryFile| LOADED.contains(&f.path.as_str());
        GalleryRow {
            slug: self.slug.clone(),
            name: self.name.clone(),
            task: self.task.clone(),
            description: self.description.clone(),
            base: self.base.clone(),
            scores: self.scores.clone(),
            size: self.files.iter().filter(loaded).map(|f| f.size).sum(),
            licence: self.licence.clone(),
            created: self.created.clone(),
            entry_sha256: sha256_hex(entry_json),
        }
    }

    /// Holds the adapter's own receipt to what the entry says about its base.
    ///
    /// # Errors
    /// [`GalleryError::Content`] where the two name different weights.
    pub fn check_receipt(&self, receipt: &Receipt, file: &str) -> Result<(), GalleryError> {
        let show = |print: &Option<String>| print.clone().unwrap_or_else(|| "none".into());
        if receipt.base_fingerprint == self.base.fingerprint
            && receipt.equivalent_bases == self.base.equivalent
        {
            return Ok(());
        }
        Err(GalleryError::Content {
            file: file.to_owned(),
            what: "base fingerprint",
            expected: show(&self.base.fingerprint),
            found: show(&receipt.base_fingerprint),
        })
    }
}
