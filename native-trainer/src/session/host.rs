//! The run's side of the loop: clock, Ctrl-C and checkpoints.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use qloom_core::host::LocalFuture;
use qloom_core::train::{Checkpoint, Host, Parameters};

use super::artifact::Artifact;
use crate::files::{atomic, jsonl, read};
use crate::progress::interrupt::Interrupt;

/// The tensors of a checkpoint.
pub(crate) const TENSORS: &str = "checkpoint.safetensors";
const STATE: &str = "state.json";
const PREFIX: &str = "step-";
/// The artifact with the lowest held-out loss.
pub(crate) const BEST: &str = "best";

/// Keeps checkpoints in `checkpoints/step-NNNNNNNN/` and the best artifact in `checkpoints/best/`.
pub(crate) struct RunHost<'a> {
    folder: PathBuf,
    artifact: &'a Artifact,
    interrupt: &'a Interrupt,
    keep: usize,
    started: Instant,
    /// The run's log, flushed with each checkpoint, so that a checkpoint never knows more than the log.
    log: PathBuf,
    /// Whether the log could not be written.
    failed: Arc<AtomicBool>,
}

impl<'a> RunHost<'a> {
    /// A host that keeps the `keep` newest checkpoints under `folder`.
    pub(crate) fn new(
        folder: PathBuf,
        artifact: &'a Artifact,
        interrupt: &'a Interrupt,
        keep: usize,
        (log, failed): (PathBuf, Arc<AtomicBool>),
    ) -> Self {
        Self {
            folder,
            artifact,
            interrupt,
            keep: keep.max(1),
            started: Instant::now(),
            log,
            failed,
        }
    }

    async fn keep(
        &self,
        checkpoint: &Checkpoint,
        parameters: &Parameters,
        best: bool,
    ) -> Result<()> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot create {}", self.folder.display()))?;
        jsonl::sync(&self.log)?;
        if best {
            let files = self.artifact.files(parameters).await?;
            atomic::replace_folder(&self.folder.join(BEST), |folder| files.write(folder))?;
        }
        let (tensors, state) = checkpoint.to_bytes()?;
        let folder = self
            .folder
            .join(format!("{PREFIX}{:08}", checkpoint.state.step));
        atomic::replace_folder(&folder, |folder| {
            atomic::write_file(&folder.join(TENSORS), &tensors)?;
            atomic::write_file(&folder.join(STATE), &state)
        })?;
        for (_, old) in newest_first(&self.folder)?.into_iter().skip(self.keep) {
            fs::remove_dir_all(&old)
                .with_context(|| format!("cannot remove the old checkpoint {}", old.display()))?;
        }
        Ok(())
    }
}

impl Host for RunHost<'_> {
    fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn interrupted(&self) -> bool {
        self.interrupt.requested() || self.failed.load(Ordering::SeqCst)
    }

    fn save<'a>(
        &'a mut self,
        checkpoint: &'a Checkpoint,
        parameters: &'a Parameters,
        best: bool,
    ) -> LocalFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let kept = self.keep(checkpoint, parameters, best).await;
            kept.map_err(|error| format!("{error:#}"))
        })
    }
}

/// The newest checkpoint under `folder`, if there is one.
pub(crate) fn latest(folder: &Path) -> Result<Option<Checkpoint>> {
    let Some((_, newest)) = newest_first(folder)?.into_iter().next() else {
        return Ok(None);
    };
    read_checkpoint(&newest).map(Some)
}

/// Whether `folder` is a checkpoint.
pub(crate) fn is_checkpoint(folder: &Path) -> bool {
    [TENSORS, STATE]
        .iter()
        .all(|name| folder.join(name).is_file())
}

/// The checkpoint in `folder`.
pub(crate) fn read_checkpoint(folder: &Path) -> Result<Checkpoint> {
    let (tensors, state) = (read(&folder.join(TENSORS))?, read(&folder.join(STATE))?);
    Checkpoint::from_bytes(&tensors, &state)
        .with_context(|| format!("checkpoint {}", folder.display()))
}

/// Checkpoint folders by falling step.
fn newest_first(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(step) = name.strip_prefix(PREFIX).and_then(|s| s.parse().ok()) {
            found.push((step, entry.path()));
        }
    }
    found.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
    Ok(found)
}
