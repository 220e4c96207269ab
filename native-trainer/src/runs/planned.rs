//! One run of several: its key, its folder, and getting it done.
//!
//! The key is a hash of the resolved configuration (but for where it is written) and of the data files' and the
//! base's bytes. It is part of the folder's name: a run that is there under the same key is finished or continued, and a changed
//! configuration gets a new folder instead of mixing with an old one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use qloom_core::weights::sha256_hex;
use serde_json::{Map, Value, json};

use super::child;
use crate::base::BaseFiles;
use crate::config::RunConfig;
use crate::files::{atomic, explain, read};
use crate::progress::interrupt::Interrupt;
use crate::session::cost;

/// Steps between checkpoints where the configuration names none: a killed run loses no more.
const SAVE_EVERY: u64 = 25;
/// Digits of the key in a folder's name.
const KEY_DIGITS: usize = 8;
/// Longest part of a folder's name that comes from the run's name.
const NAME_LENGTH: usize = 80;

/// A run that is to be made, or has been.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// As tables call it.
    pub(crate) name: String,
    /// What distinguishes it from its siblings: `(key, label)`.
    pub(crate) labels: Vec<(String, String)>,
    /// Resolved, with its output folder.
    pub(crate) config: RunConfig,
    /// Hash of all that decides it.
    pub(crate) key: String,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not begun.
    New,
    /// Begun, and to be continued.
    Begun,
    /// Its results are there.
    Finished,
}

/// Where several runs go, and on what they run.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// The folder of all of them.
    pub(crate) out: PathBuf,
    /// The `--device` value.
    pub(crate) device: String,
}

impl Planned {
    /// A run below `out`.
    pub(crate) fn new(
        name: String,
        labels: Vec<(String, String)>,
        mut config: RunConfig,
        out: &Path,
    ) -> Result<Self> {
        config.train.save_every = config.train.save_every.or(Some(SAVE_EVERY));
        let key = key(&config)?;
        let short: String = folder_name(&name).chars().take(NAME_LENGTH).collect();
        let folder = format!("{short}-{}", &key[..KEY_DIGITS]);
        config.output.dir = out.join("runs").join(folder).display().to_string();
        Ok(Self {
            name,
            labels,
            config,
            key,
        })
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> PathBuf {
        PathBuf::from(&self.config.output.dir)
    }

    /// `metrics.json` of a finished run: with the cost, which is written last.
    pub(crate) fn metrics(&self) -> Option<Map<String, Value>> {
        let path = self.folder().join("metrics.json");
        let object: Map<String, Value> = path
            .is_file()
            .then(|| serde_json::from_slice(&read(&path).ok()?).ok())??;
        object.contains_key(cost::KEY).then_some(object)
    }

    /// How far it is.
    pub(crate) fn state(&self) -> State {
        match self.metrics() {
            Some(_) => State::Finished,
            None if self.folder().join("config.toml").is_file() => State::Begun,
            None => State::New,
        }
    }

    /// Runs or continues it in a child process, unless it is finished. `Err` in the inner result is the run's own
    /// failure, which its siblings survive.
    ///
    /// # Errors
    /// Ctrl-C; a folder that cannot be written.
    pub(crate) fn ensure(&self, site: &Site) -> Result<Result<(), String>> {
        let state = self.state();
        if state == State::Finished {
            return Ok(Ok(()));
        }
        let interrupt = Interrupt::install()?;
        let stem = self
            .folder()
            .file_name()
            .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let file = in_folder(&site.out, "configs", &format!("{stem}.toml"))?;
        atomic::write_file(&file, toml::to_string_pretty(&self.config)?.as_bytes())?;
        let mut arguments = vec![
            "train".to_owned(),
            file.display().to_string(),
            "--json".to_owned(),
            "--device".to_owned(),
            site.device.clone(),
        ];
        if state == State::Begun {
            arguments.push("--resume".to_owned());
        }
        let log = in_folder(&site.out, "logs", &format!("{stem}.log"))?;
        let ended = child::run(&arguments, Some(&site.out.join("base_scores")), &log)?;
        if interrupt.requested() {
            bail!("interrupted; the same command continues where this one stopped");
        }
        Ok(match (ended.success, self.state()) {
            (true, State::Finished) => Ok(()),
            (true, _) => Err("it ended without its results".to_owned()),
            (false, _) => Err(ended.error),
        })
    }
}

/// `out/folder/file`, the folder made.
pub(crate) fn in_folder(out: &Path, folder: &str, file: &str) -> Result<PathBuf> {
    let folder = out.join(folder);
    fs::create_dir_all(&folder).map_err(|e| explain(e, "create the folder", &folder))?;
    Ok(folder.join(file))
}

/// A hash of the configuration, but for where it is written, of the local data files and of a local base.
fn key(config: &RunConfig) -> Result<String> {
    let mut decisive = config.clone();
    decisive.output = Default::default();
    decisive.train.save_every = None;
    decisive.train.keep_checkpoints = 0;
    let files = config.data.train.iter().chain(&config.data.eval);
    let hashes: Vec<Option<String>> = files
        .map(|file| {
            let path = Path::new(file);
            path.is_file()
                .then(|| Ok(sha256_hex(&read(path)?)))
                .transpose()
        })
        .collect::<Result<_>>()
        .context("hashing the data files")?;
    // A base in a folder may be another one tomorrow; a hub id names its revision, and is not fetched for this.
    let base = &config.model.base;
    let base = match base.is_empty() || Path::new(base).is_dir() {
        true => Some(BaseFiles::open(base)?.fingerprint()?),
        false => None,
    };
    let parts = json!([decisive, hashes, base]);
    Ok(sha256_hex(parts.to_string().as_bytes()))
}

/// A name without what file systems dislike.
pub(crate) fn folder_name(name: &str) -> String {
    let plain = |c: char| match c {
        c if c.is_alphanumeric() => c,
        '.' | '_' | '-' | '+' | '=' => c,
        _ => '_',
    };
    let name: String = name.chars().map(plain).collect();
    match name.trim_matches('.') {
        "" => "run".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn planned(config: RunConfig, out: &str) -> Planned {
        Planned::new("a b/c".into(), Vec::new(), config, Path::new(out)).unwrap()
    }

    #[test]
    fn the_key_is_the_configuration_and_not_the_place() {
        let config = RunConfig::default();
        let (one, two) = (planned(config.clone(), "x"), planned(config.clone(), "y"));
        assert_eq!(one.key, two.key);
        assert!(
            one.config.output.dir.contains("a_b_c-"),
            "{}",
            one.config.output.dir
        );
        assert_eq!(one.state(), State::New);
        let mut other = config.clone();
        other.train.seed = 7;
        assert_ne!(planned(other, "x").key, one.key);
        let mut saved = config;
        saved.train.save_every = Some(3);
        assert_eq!(planned(saved, "x").key, one.key);
    }

    #[test]
    fn changed_data_is_another_run() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("d.jsonl");
        let mut config = RunConfig::default();
        config.data.train = vec![file.display().to_string()];
        let absent = planned(config.clone(), "x").key;
        fs::write(&file, "1").unwrap();
        let first = planned(config.clone(), "x").key;
        fs::write(&file, "2").unwrap();
        assert_ne!(planned(config, "x").key, first);
        assert_ne!(absent, first);
    }

    #[test]
    fn names_become_folders() {
        assert_eq!(folder_name("../x y:z"), "_x_y_z");
        assert_eq!(folder_name(".."), "run");
    }
}
