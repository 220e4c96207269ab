//! A run's folder: its layout, and who may write into it.
//!
//! ```text
//! run/
//!   config.toml                    the resolved configuration; its presence marks a run
//!   log.jsonl                      a row per optimizer step, and evaluation rows
//!   loss.png                       the curve of it
//!   events.out.tfevents.TIME.HOST  the same for TensorBoard
//!   checkpoints/                   last and best, for --resume
//!   adapter/                       the result, PEFT layout
//!   metrics.json                   base and adapted, same keys
//!   scores.json, scores.csv, table.md, scores.png, confusion_matrix.png, per_example.csv
//!                                  the same compared, for programs and people, and example by example
//!   samples.jsonl                  held-out prompts answered by base and adapted
//!   .lock                          held while a trainer writes here
//! ```
//!
//! A fresh run takes an absent or empty folder only: results of another run are never mixed with, or overwritten.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::{atomic, explain, listing};

const LOCK: &str = ".lock";
const CONFIG: &str = "config.toml";
const ELSEWHERE: &str = "--set output.dir=DIR";
/// Names a finder or an editor leaves in a folder without anyone's doing.
const HARMLESS: [&str; 4] = [LOCK, ".DS_Store", "desktop.ini", "Thumbs.db"];

/// An opened run folder; the lock is released when it is dropped.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    /// What [`atomic::recover`] did while opening, for the log.
    pub(crate) recovered: Vec<String>,
    _lock: File,
}

impl RunDir {
    /// Makes the folder for a new run, or takes an empty one.
    ///
    /// # Errors
    /// A folder that holds a run (`--resume` continues it) or other files; one another trainer is writing to.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        refuse_occupied(path)?;
        fs::create_dir_all(path).map_err(|e| explain(e, "create the folder", path))?;
        let lock = lock(path, ELSEWHERE)?;
        refuse_occupied(path)?; // another trainer may have come and gone before the lock was ours
        Ok(Self {
            path: path.to_path_buf(),
            recovered: Vec::new(),
            _lock: lock,
        })
    }

    /// Opens a run to continue it, and cleans up what a crash left.
    ///
    /// # Errors
    /// A folder that holds no run; one another trainer is writing to.
    pub(crate) fn resume(path: &Path) -> Result<Self> {
        if !path.join(CONFIG).is_file() {
            let what = match path.is_dir() {
                true => format!("it holds {}", listing(path, 8)),
                false => "there is no such folder".to_owned(),
            };
            bail!(
                "{} is not a run to resume: no {CONFIG} in it ({what}). Start it without --resume, \
                 or name the right folder with --set output.dir=DIR",
                path.display()
            );
        }
        let lock = lock(path, ELSEWHERE)?;
        let mut recovered = atomic::recover(path)?;
        recovered.extend(atomic::recover(&path.join("checkpoints"))?);
        Ok(Self {
            path: path.to_path_buf(),
            recovered,
            _lock: lock,
        })
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// `config.toml`, resolved.
    pub(crate) fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// `log.jsonl`.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log.jsonl")
    }

    /// `loss.png`.
    pub(crate) fn loss_plot(&self) -> PathBuf {
        self.path.join("loss.png")
    }

    /// `metrics.json`.
    pub(crate) fn metrics(&self) -> PathBuf {
        self.path.join("metrics.json")
    }

    /// `checkpoints/NAME`; `checkpoints/` is made when missing.
    pub(crate) fn checkpoint(&self, name: &str) -> Result<PathBuf> {
        let folder = self.path.join("checkpoints");
        fs::create_dir_all(&folder).map_err(|e| explain(e, "create the folder", &folder))?;
        Ok(folder.join(name))
    }
}

/// The refusal of [`RunDir::create`] ahead of slow work, so that a mistaken folder costs no waiting.
pub(crate) fn refuse_occupied_unless(resume: bool, path: &Path) -> Result<()> {
    if resume {
        Ok(())
    } else {
        refuse_occupied(path)
    }
}

fn refuse_occupied(path: &Path) -> Result<()> {
    if path.is_file() {
        bail!(
            "{} is a file, a folder for the run was expected: choose another with --set output.dir=DIR",
            path.display()
        );
    }
    let Ok(entries) = fs::read_dir(path) else {
        return Ok(()); // absent; if unreadable, creating the lock will say so
    };
    let occupied = entries
        .flatten()
        .any(|e| !HARMLESS.iter().any(|name| e.file_name() == *name));
    if !occupied {
        return Ok(());
    }
    if path.join(CONFIG).is_file() {
        bail!(
            "{} already holds a run: continue it with --resume, or write elsewhere with --set output.dir=DIR",
            path.display()
        );
    }
    bail!(
        "{} is not empty and not a run (it holds {}): choose a new folder with --set output.dir=DIR",
        path.display(),
        listing(path, 8)
    )
}

/// Takes the folder's lock. The operating system frees it when the process ends, however it ends. `elsewhere` is the
/// option that names another folder.
pub(crate) fn lock(folder: &Path, elsewhere: &str) -> Result<File> {
    let path = folder.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| explain(e, "lock", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let owner = fs::read_to_string(&path).unwrap_or_default();
            let owner = match owner.trim() {
                "" => String::new(),
                pid => format!(" (process {pid})"),
            };
            bail!(
                "another trainer{owner} is writing to {}: wait for it, stop it, \
                 or write elsewhere with {elsewhere}",
                folder.display()
            );
        }
        // Some network file systems have no locks; one writer is then the user's affair.
        Err(TryLockError::Error(_)) => return Ok(file),
    }
    let written = file
        .set_len(0)
        .and_then(|()| write!(file, "{}", std::process::id()));
    written.map_err(|e| explain(e, "write", &path))?;
    Ok(file)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn error(result: Result<RunDir>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn a_fresh_run_makes_its_folder_and_later_resumes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runs/one");
        let run = RunDir::create(&path).unwrap();
        fs::write(run.config(), "x").unwrap();
        let last = run.checkpoint("last").unwrap();
        assert!(last.parent().unwrap().is_dir() && !last.exists());
        drop(run);
        fs::create_dir(path.join("checkpoints/last.tmp-abc123")).unwrap();
        let run = RunDir::resume(&path).unwrap();
        assert_eq!(run.recovered.len(), 1);
        assert!(!path.join("checkpoints/last.tmp-abc123").exists());
    }

    #[test]
    fn another_run_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.toml"), "").unwrap();
        let text = error(RunDir::create(dir.path()));
        assert!(
            text.contains("--resume") && text.contains("--set output.dir="),
            "{text}"
        );
    }

    #[test]
    fn foreign_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        let text = error(RunDir::create(dir.path()));
        assert!(
            text.contains("thesis.tex") && text.contains("--set output.dir="),
            "{text}"
        );
        assert!(
            !dir.path().join(LOCK).exists(),
            "a refused folder is left as it was"
        );
        let text = error(RunDir::create(&dir.path().join("thesis.tex")));
        assert!(text.contains("is a file"), "{text}");
    }

    #[test]
    fn an_empty_folder_or_one_with_only_a_stale_lock_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK), "1").unwrap();
        fs::write(dir.path().join(".DS_Store"), "").unwrap();
        RunDir::create(dir.path()).unwrap();
    }

    #[test]
    fn two_trainers_do_not_share_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunDir::create(dir.path()).unwrap();
        fs::write(first.config(), "").unwrap();
        let text = error(RunDir::resume(dir.path()));
        assert!(
            text.contains("another trainer") && text.contains(&std::process::id().to_string()),
            "{text}"
        );
        drop(first);
        RunDir::resume(dir.path()).unwrap();
    }

    #[test]
    fn resuming_nothing_says_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes"), "").unwrap();
        assert!(error(RunDir::resume(dir.path())).contains("holds notes"));
        assert!(error(RunDir::resume(&dir.path().join("none"))).contains("no such folder"));
    }
}
