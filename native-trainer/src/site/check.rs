//! `trainer publish --check`: is a site what was published?
//!
//! From the gallery downwards: every name stays in its folder, every file has the size and hash its entry says, nothing lies
//! beside them, the adapter loads, its receipt names the base the entry names, the scores are those of `metrics.json`. All
//! faults are collected, so that one run tells everything.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use qloom_core::adapters::gallery::{ENTRY, Entry, GALLERY, Gallery, GalleryRow, scores_of};
use qloom_core::adapters::{Adapter, RECEIPT, Receipt};
use qloom_core::weights::sha256_hex;
use serde::Serialize;
use serde_json::Value;

use super::ADAPTERS;
use crate::files::read;
use crate::progress::Mode;
use crate::progress::task::{Task, Unit};
use crate::session::{SAMPLES, read_samples};

/// Endings of compressed copies, which may lie beside any file.
const COMPRESSED: [&str; 2] = [".br", ".gz"];

/// What a check found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Checked {
    /// Adapters in the gallery.
    pub(crate) adapters: usize,
    /// Files hashed.
    pub(crate) files: usize,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// What is wrong, each naming its file.
    pub(crate) problems: Vec<String>,
}

/// Checks the site in `site`.
///
/// # Errors
/// No such folder. What is wrong inside it is in the result.
pub(crate) fn check(site: &Path, mode: Mode) -> Result<Checked> {
    ensure!(
        site.is_dir(),
        "there is no site {}: name the folder that holds {GALLERY}",
        site.display()
    );
    let mut checked = Checked::default();
    let gallery = match gallery(site) {
        Ok(gallery) => gallery,
        Err(error) => {
            checked.problems.push(format!("{error:#}"));
            return Ok(checked);
        }
    };
    checked.adapters = gallery.adapters.len();
    let mut bar = Task::start(mode, "checking", gallery.adapters.len() as u64, Unit::Items);
    for row in &gallery.adapters {
        if let Err(error) = entry(site, row, &mut checked) {
            checked.problems.push(format!("{error:#}"));
        }
        bar.advance(1);
    }
    bar.finish();
    strangers(site, &gallery, &mut checked.problems);
    Ok(checked)
}

fn gallery(site: &Path) -> Result<Gallery> {
    let path = site.join(GALLERY);
    ensure!(
        path.is_file(),
        "{GALLERY} is missing in {}: publish an adapter there first",
        site.display()
    );
    Ok(Gallery::from_json(&read(&path)?)?)
}

/// Checks one entry. Faults of single files go to `checked`; what makes the rest meaningless is the error.
fn entry(site: &Path, row: &GalleryRow, checked: &mut Checked) -> Result<()> {
    let folder = site.join(ADAPTERS).join(&row.slug);
    let name = format!("{ADAPTERS}/{}/{ENTRY}", row.slug);
    let bytes = plain_file(&folder, ENTRY, &name)?;
    ensure!(
        sha256_hex(&bytes) == row.entry_sha256,
        "{name}: SHA-256 expected {} ({GALLERY}), found {}; publish the adapter again",
        row.entry_sha256,
        sha256_hex(&bytes)
    );
    let entry = Entry::from_json(&bytes, &name)?;
    ensure!(
        entry.row(&bytes) == *row,
        "{GALLERY}: the row of {} is not what {name} says; publish the adapter again",
        row.slug
    );
    let before = checked.problems.len();
    for file in &entry.files {
        let name = format!("{ADAPTERS}/{}/{}", row.slug, file.path);
        let found = plain_file(&folder, &file.path, &name)
            .and_then(|bytes| Ok(file.verify(&bytes, &name).map(|()| bytes.len())?));
        match found {
            Ok(bytes) => {
                checked.files += 1;
                checked.bytes += bytes as u64;
            }
            Err(error) => checked.problems.push(format!("{error:#}")),
        }
    }
    unlisted(&folder, "", &entry, &mut checked.problems)?;
    if checked.problems.len() > before {
        return Ok(()); // what cannot be trusted byte by byte need not be understood
    }
    contents(&folder, &entry).with_context(|| format!("{ADAPTERS}/{}", row.slug))
}

/// The bytes of a file that lies where it says: no link out of the folder, no folder in its place.
fn plain_file(folder: &Path, path: &str, name: &str) -> Result<Vec<u8>> {
    let full = folder.join(path);
    let (Ok(inside), Ok(real)) = (folder.canonicalize(), full.canonicalize()) else {
        bail!("{name} is missing; publish the adapter again");
    };
    let link = full.symlink_metadata().is_ok_and(|m| m.is_symlink());
    ensure!(
        real.starts_with(&inside) && real.is_file() && !link,
        "{name} is no plain file of its folder; publish the adapter again"
    );
    read(&full)
}

/// Whether the files mean what the entry says.
fn contents(folder: &Path, entry: &Entry) -> Result<()> {
    let bytes = |name: &str| read(&folder.join(name));
    let tensors = bytes("adapter_model.safetensors")?;
    let adapter = Adapter::from_bytes(&bytes("adapter_config.json")?, &tensors)?;
    let base = adapter.config.base_model_name_or_path.as_deref();
    ensure!(
        base == Some(entry.base.name.as_str()),
        "adapter_config.json names the base {}, {ENTRY} {}; publish the adapter again",
        base.unwrap_or("none"),
        entry.base.name
    );
    let receipt = match entry.file(RECEIPT) {
        Some(_) => Receipt::from_json(&bytes(RECEIPT)?)?,
        None => Receipt::default(),
    };
    entry.check_receipt(&receipt, RECEIPT)?;
    let metrics: Value = match entry.file("metrics.json") {
        Some(_) => serde_json::from_slice(&bytes("metrics.json")?).context("metrics.json")?,
        None => Value::Null,
    };
    ensure!(
        scores_of(&metrics) == entry.scores,
        "the scores of {ENTRY} are not those of metrics.json; publish the adapter again"
    );
    if entry.file(SAMPLES).is_some() {
        read_samples(&folder.join(SAMPLES), &entry.task, usize::MAX)?;
    }
    Ok(())
}

/// Files of the folder that the entry does not list.
fn unlisted(folder: &Path, below: &str, entry: &Entry, problems: &mut Vec<String>) -> Result<()> {
    let here = folder.join(below);
    for item in fs::read_dir(&here).with_context(|| format!("cannot list {}", here.display()))? {
        let item = item?;
        let name = item.file_name().to_string_lossy().into_owned();
        let path = match below {
            "" => name,
            below => format!("{below}/{name}"),
        };
        if item.file_type()?.is_dir() {
            unlisted(folder, &path, entry, problems)?;
            continue;
        }
        let plain = COMPRESSED.iter().find_map(|end| path.strip_suffix(end));
        let listed = |p: &str| p == ENTRY || entry.file(p).is_some();
        if !listed(&path) && !plain.is_some_and(listed) {
            problems.push(format!(
                "{ADAPTERS}/{}/{path} is not in {ENTRY}: remove it",
                entry.slug
            ));
        }
    }
    Ok(())
}

/// Things beside the entries that the gallery does not know.
fn strangers(site: &Path, gallery: &Gallery, problems: &mut Vec<String>) {
    let listed = |name: &str| {
        let index = GALLERY.rsplit('/').next().unwrap_or(GALLERY);
        let plain = COMPRESSED.iter().find_map(|end| name.strip_suffix(end));
        name == index || plain == Some(index) || gallery.adapters.iter().any(|r| r.slug == name)
    };
    let items = fs::read_dir(site.join(ADAPTERS)).into_iter().flatten();
    let mut names: Vec<String> = items
        .flatten()
        .map(|item| item.file_name().to_string_lossy().into_owned())
        .filter(|name| !listed(name))
        .collect();
    names.sort();
    problems.extend(names.iter().map(|name| {
        format!("{ADAPTERS}/{name} is not in {GALLERY}: publish it again, or remove it")
    }));
}
