//! Downloads into the shared cache.
//!
//! The revision is resolved to a commit first and every file is taken from that commit, so that a push in between
//! cannot mix two versions. `refs/REVISION` is written last: offline use never sees an unfinished snapshot. `hf-hub`
//! continues a broken-off file from its `.part`; here the result's length is checked, and its SHA-256 where the hub
//! states one (files in large storage: all weights).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo, Metadata};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use sha2::{Digest, Sha256};

use super::errors::{explain, is_transient, status};
use super::reference::{RepoRef, safe_path};
use super::settings::HubSettings;
use crate::files::base::{INDEX, json_object, shards_of};
use crate::progress::Mode;
use crate::progress::task::{Task, Unit};

/// A commit's files in the cache.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The folder, `.../snapshots/COMMIT`.
    pub(crate) path: PathBuf,
    /// The chosen files, relative to `path`.
    pub(crate) files: Vec<String>,
}

/// Access to the hub under some settings.
#[derive(Debug)]
pub(crate) struct Hub {
    settings: HubSettings,
    api: Api,
    cache: Cache,
}

impl Hub {
    /// Prepares access; nothing is asked yet.
    pub(crate) fn new(settings: HubSettings) -> Result<Self> {
        let cache = Cache::new(settings.cache.clone());
        let api = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(settings.endpoint.clone())
            .with_token(settings.token.clone())
            .with_progress(false)
            // Retries are made here: those of the crate may append to the wrong place of the partial file.
            .with_retries(0)
            .with_user_agent("qloom", env!("CARGO_PKG_VERSION"))
            .build()
            .context("cannot set up the hub client")?;
        Ok(Self {
            settings,
            api,
            cache,
        })
    }

    /// Brings the files `choose` picks from a repository's listing into the cache.
    ///
    /// A sharded model's index brings its shards along. Without a connection the cached snapshot is used, with a
    /// note on stderr; with `HF_HUB_OFFLINE` nothing is asked at all.
    ///
    /// # Errors
    /// No such repository or no access to it; no connection or offline, and not in the cache; what `choose`
    /// refuses; a file whose length or hash is not what the hub states.
    pub(crate) fn snapshot(
        &self,
        kind: RepoType,
        repo: &RepoRef,
        choose: impl Fn(&[String]) -> Result<Vec<String>>,
    ) -> Result<Snapshot> {
        let named = Repo::with_revision(repo.id.clone(), kind, repo.revision.clone());
        let place = self.cache.repo(named.clone());
        if self.settings.offline {
            return self.cached(kind, repo, &choose).with_context(|| {
                format!(
                    "HF_HUB_OFFLINE is set, so {repo} must be in the cache {}: unset it once to download, \
                     or name a folder instead",
                    self.settings.cache.display()
                )
            });
        }
        let info = match self.api.repo(named).info() {
            Ok(info) => info,
            Err(error) if is_transient(&error) => {
                let Ok(snapshot) = self.cached(kind, repo, &choose) else {
                    return Err(explain(error, &self.settings, repo, None));
                };
                if self.settings.progress != Mode::Quiet {
                    eprintln!(
                        "{} cannot be reached; using the cached {repo}",
                        self.settings.endpoint
                    );
                }
                return Ok(snapshot);
            }
            Err(error) => return Err(explain(error, &self.settings, repo, None)),
        };
        if info.sha.is_empty() || !info.sha.chars().all(|c| c.is_ascii_alphanumeric()) {
            bail!(
                "{} gave {:?} as the commit of {repo}, which is none",
                self.settings.endpoint,
                info.sha
            );
        }
        let held: Vec<String> = info.siblings.into_iter().map(|s| s.rfilename).collect();
        let mut files = choose(&held).with_context(|| format!("{repo} cannot be used"))?;
        let download = Download {
            settings: &self.settings,
            api: &self.api,
            repo,
            remote: self
                .api
                .repo(Repo::with_revision(repo.id.clone(), kind, info.sha.clone())),
            place: &place,
            folder: place.pointer_path(&info.sha),
        };
        for file in &files {
            download.get(file)?;
        }
        if files.iter().any(|file| file == INDEX) {
            let index = json_object(&download.folder, INDEX)?
                .context("the index vanished from the cache")?;
            for shard in shards_of(&index).with_context(|| format!("{INDEX} of {repo}"))? {
                download.get(&shard)?;
                files.push(shard);
            }
        }
        place
            .create_ref(&info.sha)
            .with_context(|| format!("cannot note {} in the cache", repo.revision))?;
        Ok(Snapshot {
            path: download.folder,
            files,
        })
    }

    fn cached(
        &self,
        kind: RepoType,
        repo: &RepoRef,
        choose: &impl Fn(&[String]) -> Result<Vec<String>>,
    ) -> Result<Snapshot> {
        let named = Repo::with_revision(repo.id.clone(), kind, repo.revision.clone());
        let refs = self
            .settings
            .cache
            .join(named.folder_name())
            .join("refs")
            .join(&repo.revision);
        let commit =
            fs::read_to_string(refs).map_or(repo.revision.clone(), |text| text.trim().to_owned());
        let path = self.cache.repo(named).pointer_path(&commit);
        if !path.is_dir() {
            bail!("{repo} is not in the cache");
        }
        let mut held = Vec::new();
        walk(&path, "", &mut held)?;
        let mut files = choose(&held)?;
        if files.iter().any(|file| file == INDEX) {
            let weights = crate::files::base::weight_files(&path)?;
            let names = weights.iter().filter_map(|p| p.file_name()?.to_str());
            files.extend(names.map(str::to_owned));
        }
        Ok(Snapshot { path, files })
    }
}

/// Lists a snapshot's files, `/`-separated and sorted; links whose blob is gone are left out.
fn walk(folder: &Path, prefix: &str, held: &mut Vec<String>) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
            continue;
        };
        if path.is_dir() {
            walk(&path, &format!("{prefix}{name}/"), held)?;
        } else if path.exists() {
            held.push(format!("{prefix}{name}"));
        }
    }
    held.sort();
    Ok(())
}

/// What is needed to fetch the files of one commit.
struct Download<'a> {
    settings: &'a HubSettings,
    api: &'a Api,
    repo: &'a RepoRef,
    remote: ApiRepo,
    place: &'a CacheRepo,
    folder: PathBuf,
}

impl Download<'_> {
    /// Makes sure `file` is in the snapshot, whole.
    fn get(&self, file: &str) -> Result<()> {
        safe_path(file)?;
        if self.folder.join(file).exists() {
            return Ok(());
        }
        let mut attempt = 1;
        loop {
            match self.try_once(file) {
                Ok(metadata) => return self.check(file, &metadata),
                Err(error) if is_transient(&error) && attempt < self.settings.attempts => {
                    std::thread::sleep(pause(attempt, status(&error) == Some(429)));
                    attempt += 1;
                }
                Err(error) => return Err(explain(error, self.settings, self.repo, Some(file))),
            }
        }
    }

    fn try_once(&self, file: &str) -> Result<Metadata, ApiError> {
        let metadata = self.api.metadata(&self.remote.url(file))?;
        if metadata.etag().starts_with('/') || metadata.etag().contains("..") {
            return Err(ApiError::InvalidHeader("etag"));
        }
        let blob = self.place.blob_path(metadata.etag());
        let (part, size) = (blob.with_extension("part"), metadata.size() as u64);
        trim_part(&part, size)?;
        self.remote
            .download_with_progress(file, Meter::new(self.settings.progress))?;
        let length = fs::metadata(&blob)?.len();
        if length < size {
            // The connection closed early without an error: keep what came and ask for the rest.
            fs::remove_file(self.folder.join(file))?;
            fs::rename(&blob, &part)?;
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        Ok(metadata)
    }

    /// Compares length and, where the hub states one, SHA-256; removes what is wrong.
    fn check(&self, file: &str, metadata: &Metadata) -> Result<()> {
        let blob = self.place.blob_path(metadata.etag());
        let length = fs::metadata(&blob)?.len();
        let etag = metadata.etag();
        let hashed = etag.len() == 64 && etag.chars().all(|c| c.is_ascii_hexdigit());
        let wrong = if length != metadata.size() as u64 {
            Some(format!(
                "{length} bytes came, {} were announced",
                metadata.size()
            ))
        } else if hashed && sha256_file(&blob)? != etag.to_ascii_lowercase() {
            Some("its SHA-256 is not the one the hub states".to_owned())
        } else {
            None
        };
        let Some(wrong) = wrong else { return Ok(()) };
        let _ = fs::remove_file(self.folder.join(file));
        let _ = fs::remove_file(&blob);
        Err(anyhow!(
            "{file} of {} arrived damaged ({wrong}) and was removed from the cache: run the command again",
            self.repo
        ))
    }
}

/// Makes a partial file one that can be continued.
///
/// A part that is already whole (killed just before it was renamed) would make the server refuse the rest, so its
/// last byte is fetched again; one that is too long is no part of this file.
fn trim_part(part: &Path, size: u64) -> std::io::Result<()> {
    let Ok(found) = fs::metadata(part) else {
        return Ok(());
    };
    if found.len() > size || size == 0 {
        fs::remove_file(part)
    } else if found.len() == size {
        fs::OpenOptions::new()
            .write(true)
            .open(part)?
            .set_len(size - 1)
    } else {
        Ok(())
    }
}

fn sha256_file(path: &Path) -> Result<String> {
    let mut file =
        fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn pause(attempt: u32, rate_limited: bool) -> Duration {
    let base = if rate_limited { 5_000 } else { 250 };
    Duration::from_millis(base * u64::from(attempt * attempt)).min(Duration::from_secs(30))
}

/// Shows a file's download.
struct Meter {
    mode: Mode,
    task: Option<Task>,
}

impl Meter {
    fn new(mode: Mode) -> Self {
        Self { mode, task: None }
    }
}

impl Progress for Meter {
    fn init(&mut self, size: usize, filename: &str) {
        self.task = Some(Task::start(self.mode, filename, size as u64, Unit::Bytes));
    }

    fn update(&mut self, size: usize) {
        if let Some(task) = &mut self.task {
            task.advance(size as u64);
        }
    }

    fn finish(&mut self) {
        self.task = None;
    }
}
