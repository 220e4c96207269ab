//! The head on the CPU: tiles of the vocabulary under a running maximum, so that logits live in cache only.
//!
//! For a block of positions and a tile of the vocabulary, held transposed (`[tile, rows]`) so that every vector
//! lane is one position:
//!
//! ```text
//! logits = weight_tile hiddenᵀ                       gemm
//! m' = max(m, max logits);  c = exp(m - m')
//! p = exp(logits - m');     s = c s + Σ p            one pass each, no sums across lanes
//! acc = c acc + pᵀ weight_tile                       gemm, while the tile is still in cache
//! ```
//!
//! and at the end `loss = m + ln s - logit[target]`, `grad = scale (acc / s - weight[target])`. The running maximum
//! is that of Milakov and Gimelshein, "Online normalizer calculation for softmax" (<https://arxiv.org/abs/1805.02867>).
//! Few positions leave too few blocks for the cores, so the vocabulary is then also cut into segments, merged in order.
//! Blocks, tiles and segments depend on the shapes alone: the same input gives the same bits.

mod softmax;

use crate::kernels::cpu::{MatRef, Shared, for_each_task, gemm};
use softmax::{exp_tile, max_tile, subtract_exp_tile};

/// Positions per block.
const ROWS: usize = 256;
/// Blocks times segments aimed at, so that the cores share the work evenly.
const TASKS: usize = 16;
/// Elements of the head per tile: 1 MiB, half a second-level cache.
const TILE_ELEMENTS: usize = 256 * 1024;

/// What is computed from; all matrices row-major.
pub(super) struct Head<'a> {
    /// `[n, width]`.
    pub(super) hidden: &'a [f32],
    /// `[vocab, width]`.
    pub(super) weight: &'a [f32],
    /// `[n]`, below `vocab`.
    pub(super) targets: &'a [u32],
    /// Factor on the gradients.
    pub(super) scale: f32,
    /// Columns of both matrices.
    pub(super) width: usize,
}

/// Per position: the loss, and the logarithm of the softmax's denominator.
pub(super) struct Losses {
    pub(super) nll: Vec<f32>,
    pub(super) logsumexp: Vec<f64>,
}

/// What one block of positions knows after one segment of the vocabulary.
struct Partial {
    /// Running maximum of the logits.
    max: Vec<f32>,
    /// Σ exp(logit - max).
    sum: Vec<f64>,
    /// The target's logit, where it lies in this segment.
    target: Vec<Option<f32>>,
    /// Σ exp(logit - max) weight, `[rows, width]`.
    acc: Vec<f32>,
}

impl Head<'_> {
    fn positions(&self) -> usize {
        self.targets.len()
    }

    fn vocab(&self) -> usize {
        self.weight.len() / self.width.max(1)
    }

    /// Vocabulary entries per tile.
    fn tile(&self) -> usize {
        (TILE_ELEMENTS / self.width.max(1)).clamp(64, 512)
    }

    /// Losses, and `scale * d(sum losses)/d(hidden)`.
    pub(super) fn losses(&self) -> (Losses, Vec<f32>) {
        let (n, width) = (self.positions(), self.width);
        let blocks = n.div_ceil(ROWS);
        let tiles = self.vocab().div_ceil(self.tile());
        let segments = (TASKS / blocks).clamp(1, tiles.max(1));
        let per_segment = tiles.div_ceil(segments) * self.tile();
        let partials: Vec<std::sync::OnceLock<Partial>> = (0..blocks * segments)
            .map(|_| std::sync::OnceLock::new())
            .collect();
        for_each_task(blocks * segments, |task| {
            let first = task / segments * ROWS;
            let start = (task % segments * per_segment).min(self.vocab());
            let end = (start + per_segment).min(self.vocab());
            let partial = self.segment(first, ROWS.min(n - first), start, end);
            // Every task has its own cell.
            let _ = partials[task].set(partial);
        });
        let mut losses = Losses {
            nll: Vec::with_capacity(n),
            logsumexp: Vec::with_capacity(n),
        };
        let mut grad = vec![0.0; n * width];
        let mut partials = partials
            .into_iter()
            .filter_map(std::sync::OnceLock::into_inner);
        for block in 0..blocks {
            let parts: Vec<Partial> = partials.by_ref().take(segments).collect();
            self.merge(block * ROWS, &parts, &mut losses, &mut grad);
        }
        (losses, grad)
    }

    /// One block of positions against the vocabulary from `start` to `end`.
    fn segment(&self, first: usize, rows: usize, start: usize, end: usize) -> Partial {
        let width = self.width;
        let hidden = MatRef::rows(&self.hidden[first * width..(first + rows) * width], width);
        let mut partial = Partial {
            max: vec![f32::NEG_INFINITY; rows],
            sum: vec![0.0; rows],
            target: vec![None; rows],
            acc: vec![0.0; rows * width],
        };
        let mut logits = vec![0.0; self.tile().min(end - start) * rows];
        let (mut max, mut correction) = (vec![0.0; rows], vec![0.0; rows]);
        let mut sum = vec![0.0; rows];
        for tile in (start..end).step_by(self.tile()) {
            let height = self.tile().min(end - tile);
            let weight = MatRef::rows(&self.weight[tile * width..(tile + height) * width], width);
            let logits = &mut logits[..height * rows];
            gemm(
                &mut Shared::whole(logits, rows),
                weight,
                hidden.transpose(),
                false,
            );
            for (r, target) in partial.target.iter_mut().enumerate() {
                let id = self.targets[first + r] as usize;
                if (tile..tile + height).contains(&id) {
                    *target = Some(logits[(id - tile) * rows + r]);
                }
            }
            max.copy_from_slice(&partial.max);
            max_tile(logits, &mut max);
            exp_tile(logits, &partial.max, &max, &mut correction, &mut sum);
            for r in 0..rows {
                partial.sum[r] = partial.sum[r] * f64::from(correction[r]) + f64::from(sum[r]);
                if correction[r] != 1.0 {
                    for v in &mut partial.acc[r * width..(r + 1) * width] {
                        *v *= correction[r];
                    }
                }
            }
            partial.max.copy_from_slice(&max);
            let probabilities = MatRef::rows(logits, rows).transpose();
            gemm(
                &mut Shared::whole(&mut partial.acc, width),
                probabilities,
                weight,
                true,
            );
        }
        partial
    }

    /// Puts the segments of the block that begins at `first` together.
    fn merge(&self, first: usize, parts: &[Partial], losses: &mut Losses, grad: &mut [f32]) {
        let width = self.width;
        let rows = parts.first().map_or(0, |p| p.max.len());
        for r in 0..rows {
            let max = parts.iter().fold(f32::NEG_INFINITY, |m, p| m.max(p.max[r]));
            let factor = |p: &Partial| f64::from(p.max[r] - max).exp();
            // A segment without entries has max = -inf and contributes exp(-inf) = 0.
            let sum: f64 = parts.iter().map(|p| p.sum[r] * factor(p)).sum();
            let logsumexp = f64::from(max) + sum.ln();
            let target = parts.iter().find_map(|p| p.target[r]).unwrap_or(f32::NAN);
            losses.nll.push((logsumexp - f64::from(target)) as f32);
            losses.logsumexp.push(logsumexp);
            let row = &mut grad[(first + r) * width..(first + r + 1) * width];
            for p in parts {
                let factor = (factor(p) / sum * f64::from(self.scale)) as f32;
                for (g, a) in row.iter_mut().zip(&p.acc[r * width..(r + 1) * width]) {
                    *g += factor * a;
                }
            }
            let id = self.targets[first + r] as usize;
            for (g, w) in row
                .iter_mut()
                .zip(&self.weight[id * width..(id + 1) * width])
            {
                *g -= self.scale * w;
            }
        }
    }

    /// `scale * d(sum losses)/d(weight)`, `[vocab, width]`, from the logarithms of the denominators.
    pub(super) fn weight_gradient(&self, logsumexp: &[f64]) -> Vec<f32> {
        let (n, width, vocab) = (self.positions(), self.width, self.vocab());
        let mut grad = vec![0.0; vocab * width];
        // Big enough for the products to run at full speed, small enough for every core to get some.
        let height = self.tile().min(vocab.div_ceil(TASKS)).max(16);
        let offsets: Vec<f32> = logsumexp.iter().map(|v| *v as f32).collect();
        crate::kernels::cpu::for_each_chunk(&mut grad, height * width, |task, grad| {
            let start = task * height;
            let height = grad.len() / width;
            let weight = &self.weight[start * width..(start + height) * width];
            let weight = MatRef::rows(weight, width);
            let mut logits = vec![0.0; height * ROWS.min(n)];
            for first in (0..n).step_by(ROWS) {
                let rows = ROWS.min(n - first);
                let hidden = &self.hidden[first * width..(first + rows) * width];
                let hidden = MatRef::rows(hidden, width);
                let logits = &mut logits[..height * rows];
                gemm(
                    &mut Shared::whole(logits, rows),
                    weight,
                    hidden.transpose(),
                    false,
                );
                subtract_exp_tile(logits, &offsets[first..first + rows], self.scale);
                for (r, id) in self.targets[first..first + rows].iter().enumerate() {
                    let id = *id as usize;
                    if (start..start + height).contains(&id) {
                        logits[(id - start) * rows + r] -= self.scale;
                    }
                }
                gemm(
                    &mut Shared::whole(grad, width),
                    MatRef::rows(logits, rows),
                    hidden,
                    first > 0,
                );
            }
        });
        grad
    }
}
