//! Logits of the merged base beside those of base and adapter.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::{DType, Int, Tensor, TensorData};
use qloom_core::data::{Batch, BatchOptions, BatchPlan, CollateOptions, collate};
use qloom_core::evaluation::{Divergence, DivergenceReport};
use qloom_core::host::{ReadError, block_on, to_vec};
use qloom_core::models::llama::Llama;

use super::sample::Sample;
use crate::base::BaseFiles;
use crate::device::ChosenDevice;
use crate::progress::{Mode, task};
use crate::session::load_adapter;

/// Examples per batch.
const BATCH: usize = 4;
/// Positions whose logits exist at once.
const CHUNK: usize = 128;

/// The base with the adapter laid over it.
pub(super) struct Unmerged(Llama);

impl Unmerged {
    /// Loads the base as it is stored and checks that the adapter belongs to it.
    pub(super) fn load(
        base: &BaseFiles,
        adapter: &Path,
        chosen: &ChosenDevice,
        dtype: DType,
    ) -> Result<Self> {
        let model = base.load(chosen, "auto", true, dtype)?;
        let overlay = load_adapter(adapter, base, &model)?;
        Ok(Self(model.with(&overlay)))
    }

    /// Compares it with `merged` on every target of the sample.
    pub(super) fn against(
        &self,
        merged: &BaseFiles,
        sample: &Sample,
        chosen: &ChosenDevice,
        dtype: DType,
    ) -> Result<DivergenceReport> {
        let merged = merged.load(chosen, "auto", true, dtype)?;
        let plan = BatchPlan::new(&sample.examples, BatchOptions::sequential(BATCH))?;
        let batches = plan.epoch(0);
        let total = batches.len() as u64;
        let mut bar = task::Task::start(Mode::detect(false), "comparing", total, task::Unit::Items);
        let mut divergence = Divergence::new();
        for (done, rows) in batches.iter().enumerate() {
            let options = CollateOptions::new(sample.pad_id);
            let batch = collate(&sample.examples, rows, options);
            block_on(add(&mut divergence, &self.0, &merged, &batch))?;
            bar.at(done as u64 + 1);
        }
        bar.finish();
        divergence
            .report()
            .context("the sample has no token to compare on")
    }
}

async fn add(
    divergence: &mut Divergence,
    reference: &Llama,
    other: &Llama,
    batch: &Batch,
) -> Result<(), ReadError> {
    let (positions, targets) = batch.targets();
    if positions.is_empty() {
        return Ok(());
    }
    let hidden = [reference, other].map(|model| model.final_norm(model.hidden(batch)));
    for (positions, targets) in positions.chunks(CHUNK).zip(targets.chunks(CHUNK)) {
        let a = logits(reference, &hidden[0], positions).await?;
        let b = logits(other, &hidden[1], positions).await?;
        let width = a.len() / positions.len();
        for ((a, b), target) in a.chunks(width).zip(b.chunks(width)).zip(targets) {
            divergence.add(a, b, *target as usize);
        }
    }
    Ok(())
}

/// Logits at `positions`, row-major.
async fn logits(
    model: &Llama,
    hidden: &Tensor<2>,
    positions: &[u32],
) -> Result<Vec<f32>, ReadError> {
    let at: Vec<i32> = positions.iter().map(|p| *p as i32).collect();
    let count = at.len();
    let at =
        Tensor::<1, Int>::from_data(TensorData::new(at, [count]), (&model.device(), DType::I32));
    let rows = hidden.clone().select(0, at);
    to_vec(
        rows.matmul(model.head().clone().transpose())
            .cast(DType::F32),
    )
    .await
}
