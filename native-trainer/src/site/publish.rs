//! An adapter, and what its run says about it, into a site.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use qloom_core::adapters::gallery::{
    AdapterFacts, ENTRY, Entry, EntryFile, GALLERY, GALLERY_VERSION, Gallery, GalleryBase,
    check_date, check_slug, scores_of, slug_of,
};
use qloom_core::adapters::{Adapter, RECEIPT, Receipt};
use serde_json::Value;

use super::ADAPTERS;
use super::card::{self, About};
use crate::commands::UsageError;
use crate::files::{atomic, explain, jsonl, read};
use crate::hub::reference::RepoRef;
use crate::report::curve::LossCurve;
use crate::report::plot;
use crate::report::scores::Sample;
use crate::session::{SAMPLES, read_samples, sample_lines};

/// Samples shown per entry.
const MOST_SAMPLES: usize = 20;

/// What is to be published.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    /// The adapter's folder.
    pub(crate) adapter: PathBuf,
    /// Its run's folder, for configuration, scores, samples and loss curve.
    pub(crate) run: Option<PathBuf>,
    /// The name to show.
    pub(crate) name: String,
    /// The folder's name in the site; made from `name` when absent.
    pub(crate) slug: Option<String>,
    /// What the adapter was trained to do.
    pub(crate) task: String,
    /// A sentence about it.
    pub(crate) description: Option<String>,
    /// SPDX identifier or name of its licence.
    pub(crate) licence: Option<String>,
    /// The day of publishing, `YYYY-MM-DD`.
    pub(crate) created: String,
    /// The base's public name, where the adapter knows it by a private one.
    pub(crate) base_name: Option<String>,
    /// Samples from another file than the run's.
    pub(crate) samples: Option<PathBuf>,
}

/// What was written.
#[derive(Debug)]
pub(crate) struct Published {
    /// The entry.
    pub(crate) entry: Entry,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Whether another entry of the same slug was replaced.
    pub(crate) replaced: bool,
    /// What the author should know, one line each.
    pub(crate) warnings: Vec<String>,
}

/// Writes the entry into `site` and its row into the gallery. The folder is replaced as a whole, then the gallery: what
/// stops in between is mended by publishing again, and seen by the check.
///
/// # Errors
/// An adapter that cannot be read, a run without its files, names and dates that do not fit the gallery, a damaged gallery.
pub(crate) fn publish(site: &Path, publication: &Publication) -> Result<Published> {
    let mut warnings = Vec::new();
    let (entry, files) = contents(publication, &mut warnings)?;
    let folder = site.join(ADAPTERS);
    fs::create_dir_all(&folder).map_err(|e| explain(e, "create the folder", &folder))?;
    let _lock = lock(&folder);
    warnings.extend(atomic::recover(&folder)?);
    // Read before anything is written: a gallery that cannot be continued must not get a folder it does not list.
    let index = site.join(GALLERY);
    let mut gallery = match index.is_file() {
        true => Gallery::from_json(&read(&index)?).with_context(|| site.display().to_string())?,
        false => Gallery::default(),
    };
    let target = folder.join(&entry.slug);
    let replaced = target.exists();
    let json = entry.to_json()?;
    atomic::replace_folder(&target, |new| {
        for (name, bytes) in &files {
            atomic::write_file(&new.join(name), bytes)?;
        }
        atomic::write_file(&new.join(ENTRY), &json)
    })?;
    gallery.insert(entry.row(&json));
    atomic::write_file(&index, &gallery.to_json()?)?;
    Ok(Published {
        entry,
        folder: target,
        replaced,
        warnings,
    })
}

/// One writer at a time, by a lock on the folder itself, which leaves nothing behind in the site. Where folders cannot
/// be locked, one writer is the user's affair.
fn lock(folder: &Path) -> Option<File> {
    let handle = File::open(folder).ok()?;
    handle.lock().ok()?;
    Some(handle)
}

type Files = BTreeMap<String, Vec<u8>>;

/// The entry and the bytes of its files.
fn contents(p: &Publication, warnings: &mut Vec<String>) -> Result<(Entry, Files)> {
    let slug = p.slug.clone().unwrap_or_else(|| slug_of(&p.name));
    check_slug(&slug, "--slug")
        .map_err(|e| UsageError::new(format!("{e}; choose one with --slug")))?;
    check_date(&p.created, "--created").map_err(|e| UsageError::new(e.to_string()))?;
    let mut files = Files::new();
    let (adapter, base) = adapter_files(p, &mut files, warnings)?;
    let mut facts = AdapterFacts::of(&adapter);
    let run = match &p.run {
        Some(run) => Some(run_files(run, &mut files)?),
        None => None,
    };
    // Some methods leave plain pairs, and only the run knows how they came to be (sparse LoRA).
    if let Some(method) = run.as_ref().and_then(RunFiles::method) {
        facts.method = method;
    }
    let samples = samples(p)?;
    if !samples.is_empty() {
        files.insert(SAMPLES.to_owned(), sample_lines(&samples).into_bytes());
    }
    let metrics = run.as_ref().map_or(&Value::Null, |run| &run.metrics);
    let scores = scores_of(metrics);
    if scores.is_empty() {
        warnings.push(
            "no scores: name the run with --run, so that visitors see whether it helped".to_owned(),
        );
    }
    let about = About {
        publication: p,
        base: &base,
        facts: &facts,
        scores: &scores,
        samples: &samples,
        config: run.as_ref().map(|run| run.config.as_str()),
        metrics,
        has_curve: files.contains_key(CURVE),
    };
    files.insert("README.md".to_owned(), card::render(&about).into_bytes());
    let entry = Entry {
        version: GALLERY_VERSION,
        slug,
        name: p.name.clone(),
        task: p.task.clone(),
        description: p.description.clone(),
        base,
        adapter: facts,
        data_sha256: metrics["data"]["sha256"].as_str().map(str::to_owned),
        scores,
        licence: p.licence.clone(),
        created: p.created.clone(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        files: files
            .iter()
            .map(|(name, bytes)| EntryFile::of(name, bytes))
            .collect(),
    };
    entry.validate(ENTRY)?;
    Ok((entry, files))
}

/// The adapter's own files, with a base's name that means something elsewhere.
fn adapter_files(
    p: &Publication,
    files: &mut Files,
    warnings: &mut Vec<String>,
) -> Result<(Adapter, GalleryBase)> {
    let config = read(&p.adapter.join("adapter_config.json"))?;
    let tensors = read(&p.adapter.join("adapter_model.safetensors"))?;
    let mut adapter = Adapter::from_bytes(&config, &tensors)
        .with_context(|| format!("adapter {}", p.adapter.display()))?;
    let path = p.adapter.join(RECEIPT);
    let mut receipt = match path.is_file() {
        true => {
            Some(Receipt::from_json(&read(&path)?).with_context(|| path.display().to_string())?)
        }
        false => {
            warnings.push(format!(
                "{} has no {RECEIPT}, so nobody can tell whether a base is the one it was trained on",
                p.adapter.display()
            ));
            None
        }
    };
    let known = adapter.config.base_model_name_or_path.clone();
    let known = known
        .or_else(|| receipt.as_ref()?.base.clone())
        .unwrap_or_default();
    let name = base_name(&known, p.base_name.as_deref(), warnings);
    ensure!(
        !name.is_empty(),
        "{} does not name its base: say which with --base-name owner/name",
        p.adapter.display()
    );
    let renamed = adapter.config.base_model_name_or_path.as_deref() != Some(&name);
    if renamed {
        adapter.config.base_model_name_or_path = Some(name.clone());
    }
    let config = if renamed {
        adapter.config.to_json()?
    } else {
        config
    };
    files.insert("adapter_config.json".to_owned(), config);
    files.insert("adapter_model.safetensors".to_owned(), tensors);
    if let Some(receipt) = &mut receipt {
        receipt.base = Some(name.clone());
        files.insert(RECEIPT.to_owned(), receipt.to_json()?);
    }
    let receipt = receipt.unwrap_or_default();
    let base = GalleryBase {
        name,
        fingerprint: receipt.base_fingerprint,
        equivalent: receipt.equivalent_bases,
    };
    Ok((adapter, base))
}

/// The name others know the base by. A folder of this machine means nothing to them, and is nobody's business.
fn base_name(known: &str, given: Option<&str>, warnings: &mut Vec<String>) -> String {
    if let Some(given) = given {
        return given.to_owned();
    }
    if known.is_empty() || RepoRef::parse(known).is_ok() && !Path::new(known).is_dir() {
        return known.to_owned();
    }
    let short = Path::new(known)
        .file_name()
        .map_or_else(|| known.to_owned(), |n| n.to_string_lossy().into_owned());
    warnings.push(format!(
        "the adapter knows its base as the folder {known}; published as {short:?}: name it as others find it with --base-name owner/name"
    ));
    short
}

/// What a run's folder has to say.
struct RunFiles {
    config: String,
    metrics: Value,
}

impl RunFiles {
    /// `lora.method` of the configuration.
    fn method(&self) -> Option<String> {
        let table: toml::Table = self.config.parse().ok()?;
        Some(table.get("lora")?.get("method")?.as_str()?.to_owned())
    }
}

/// The loss curve's file.
const CURVE: &str = "loss.png";

/// The run's configuration, scores and loss curve.
fn run_files(run: &Path, files: &mut Files) -> Result<RunFiles> {
    let path = run.join("config.toml");
    ensure!(
        path.is_file(),
        "{} is not a run: it has no config.toml; --run takes the folder that `trainer train` wrote",
        run.display()
    );
    let config = public_config(&crate::files::read_text(&path)?)
        .with_context(|| path.display().to_string())?;
    files.insert("config.toml".to_owned(), config.clone().into_bytes());
    let path = run.join("metrics.json");
    let bytes = read(&path)?;
    let metrics: Value =
        serde_json::from_slice(&bytes).with_context(|| format!("{}: no JSON", path.display()))?;
    files.insert("metrics.json".to_owned(), bytes);
    let log = run.join("log.jsonl");
    if log.is_file() {
        let curve = LossCurve::from_rows(&jsonl::read_rows(&log)?);
        if !curve.is_empty() {
            files.insert(CURVE.to_owned(), plot::png("loss", &curve)?);
        }
    }
    Ok(RunFiles { config, metrics })
}

/// A configuration with the folders of this machine cut from its absolute paths.
fn public_config(text: &str) -> Result<String> {
    fn cut(value: &mut toml::Value) {
        match value {
            toml::Value::String(text) => {
                let path = Path::new(text.as_str());
                if let Some(name) = path.file_name().filter(|_| path.is_absolute()) {
                    *text = name.to_string_lossy().into_owned();
                }
            }
            toml::Value::Array(items) => items.iter_mut().for_each(cut),
            toml::Value::Table(table) => table.iter_mut().for_each(|(_, item)| cut(item)),
            _ => {}
        }
    }
    let mut table: toml::Table = text.parse()?;
    table.iter_mut().for_each(|(_, value)| cut(value));
    Ok(toml::to_string_pretty(&table)?)
}

fn samples(p: &Publication) -> Result<Vec<Sample>> {
    let of_run = || Some(p.run.as_ref()?.join(SAMPLES)).filter(|path| path.is_file());
    match p.samples.clone().or_else(of_run) {
        Some(path) => read_samples(&path, &p.task, MOST_SAMPLES),
        None => Ok(Vec::new()),
    }
}
