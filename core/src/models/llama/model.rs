//! The whole model: embedding, blocks, final norm and language-model head.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::{Block, Context, LayerCache, LlamaConfig};
use crate::data::Batch;
use crate::host::{ReadError, to_vec};
use crate::kernels::cross_entropy::linear_cross_entropy;
use crate::kernels::rms_norm::rms_norm;
use crate::lora::Overlay;
use crate::models::embedding::EmbeddingTable;
use crate::models::rope::RopeTable;

/// Positions of the head evaluated at once when only losses are wanted.
const LOSS_CHUNK: usize = 256;

/// A Llama on one device.
#[derive(Clone, Debug)]
pub struct Llama {
    /// Sizes and switches.
    pub config: LlamaConfig,
    /// Token embedding, `[vocab, hidden]`.
    pub embed_tokens: EmbeddingTable,
    /// Transformer blocks, first to last.
    pub blocks: Vec<Block>,
    /// Final norm, `[hidden]`.
    pub norm: Tensor<1>,
    /// Head, `[vocab, hidden]`.
    pub lm_head: Tensor<2>,
    /// Whether the head is the embedding's table.
    pub tied: bool,
    /// Rotary angles.
    pub rope: RopeTable,
}

/// Summed negative log-likelihood and target count of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowLosses {
    /// Sum over the row's target tokens, in nats.
    pub nll: f64,
    /// Target tokens in the row.
    pub tokens: usize,
}

impl Llama {
    /// The device the weights are on, without autodiff.
    pub fn device(&self) -> Device {
        self.embed_tokens.device()
    }

    /// The head's matrix, `[vocab, hidden]`.
    pub fn head(&self) -> &Tensor<2> {
        &self.lm_head
    }

    /// This model with adapters and trained weights laid over it; base tensors are shared.
    pub fn with(&self, overlay: &Overlay) -> Self {
        let blocks = (0..self.blocks.len())
            .map(|i| self.block_with(i, overlay))
            .collect();
        let dtype = self.embed_tokens.dtype();
        let embedding = overlay.matrix("model.embed_tokens.weight");
        let embedding = embedding.map(|table| table.cast(dtype));
        let head = overlay.matrix("lm_head.weight");
        let head = head.map(|head| head.cast(self.lm_head.dtype()));
        let tied = self.tied && head.is_none() && !overlay.keeps_head();
        let tied_head = embedding.clone().filter(|_| tied);
        Self {
            config: self.config.clone(),
            embed_tokens: embedding
                .map_or_else(|| self.embed_tokens.clone(), EmbeddingTable::Device),
            blocks,
            norm: overlay
                .vector("model.norm.weight")
                .unwrap_or_else(|| self.norm.clone()),
            lm_head: head.or(tied_head).unwrap_or_else(|| self.lm_head.clone()),
            tied,
            rope: self.rope.clone(),
        }
    }

    /// Block `index` with its part of `overlay`.
    pub fn block_with(&self, index: usize, overlay: &Overlay) -> Block {
        self.blocks[index].with(overlay, &block_path(index))
    }

    /// Embeds row-major token ids, `[ids.len(), hidden]`.
    pub fn embed(&self, ids: &[u32]) -> Tensor<2> {
        self.embed_tokens.rows(ids)
    }

    /// Positions and visibility of `batch`.
    pub fn context(&self, batch: &Batch) -> Context {
        let device = self.device();
        Context::new(
            &self.rope,
            &batch.position_ids,
            &batch.segment_ids,
            batch.rows,
            batch.width,
            &device,
        )
    }

    /// The final norm over `[rows, hidden]`, with the trained weight where `overlay` has one.
    pub fn norm_with(&self, overlay: &Overlay, hidden: Tensor<2>) -> Tensor<2> {
        let weight = overlay
            .vector("model.norm.weight")
            .unwrap_or_else(|| self.norm.clone());
        rms_norm(hidden, weight, self.config.rms_norm_eps)
    }

    /// The final norm over `[rows, hidden]`.
    pub fn final_norm(&self, hidden: Tensor<2>) -> Tensor<2> {
        rms_norm(hidden, self.norm.clone(), self.config.rms_norm_eps)
    }

    /// Hidden states after the last block, before the final norm, `[rows * width, hidden]`.
    pub fn hidden(&self, batch: &Batch) -> Tensor<2> {
        let context = self.context(batch);
        let embedded = self.embed(&batch.input_ids);
        self.blocks
            .iter()
            .fold(embedded, |x, block| block.forward(x, &context, None))
    }

    /// Logits of every position, `[rows, width, vocab]`, f32.
    pub fn logits(&self, batch: &Batch) -> Tensor<3> {
        let hidden = self.final_norm(self.hidden(batch));
        let logits = hidden
            .matmul(self.head().clone().transpose())
            .cast(DType::F32);
        logits.reshape([batch.rows, batch.width, self.config.vocab_size])
    }

    /// The loss of every row of `batch`, without gradients.
    ///
    /// # Errors
    /// The device failed.
    pub async fn row_losses(&self, batch: &Batch) -> Result<Vec<RowLosses>, ReadError> {
        let rows = self.token_losses(batch).await?;
        let sum = |row: Vec<f32>| RowLosses {
            nll: row.iter().fold(0.0, |sum, &nll| sum + f64::from(nll)),
            tokens: row.len(),
        };
        Ok(rows.into_iter().map(sum).collect())
    }

    /// The negative log-likelihood of every target token of every row of `batch`, in order, in nats.
    ///
    /// # Errors
    /// The device failed.
    pub async fn token_losses(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, ReadError> {
        let mut rows = vec![Vec::new(); batch.rows];
        let (positions, targets) = batch.targets();
        if positions.is_empty() {
            return Ok(rows);
        }
        let hidden = self
            .hidden(batch)
            .select(0, index_tensor(&positions, &self.device()));
        let found = linear_cross_entropy(
            self.final_norm(hidden),
            self.head(),
            &targets,
            1.0,
            LOSS_CHUNK,
            false,
        );
        let losses = to_vec(found.losses).await?;
        for (position, nll) in positions.iter().zip(losses) {
            rows[*position as usize / batch.width].push(nll);
        }
        Ok(rows)
    }

    /// An empty cache for `rows` sequences of at most `capacity` tokens.
    pub fn new_cache(&self, rows: usize, capacity: usize) -> Vec<LayerCache> {
        let (device, dtype) = (self.device(), self.embed_tokens.dtype());
        self.blocks
            .iter()
            .map(|_| LayerCache::new(&self.config, rows, capacity, (&device, dtype)))
            .collect()
    }

    /// Feeds `width` new tokens per row after `past` cached ones and returns the logits of the last
    /// of them, `[rows, vocab]`, f32. `hidden_prefix` counts each row's left padding.
    pub fn step(
        &self,
        ids: &[u32],
        hidden_prefix: &[usize],
        past: usize,
        cache: &mut [LayerCache],
    ) -> Tensor<2> {
        let rows = hidden_prefix.len();
        let width = ids.len() / rows.max(1);
        let context = Context::cached(&self.rope, hidden_prefix, past, width, &self.device());
        let mut x = self.embed(ids);
        for (block, layer) in self.blocks.iter().zip(cache.iter_mut()) {
            x = block.forward(x, &context, Some((layer, past)));
        }
        let hidden = self.config.hidden_size;
        let last = x
            .reshape([rows, width, hidden])
            .narrow(1, width - 1, 1)
            .reshape([rows, hidden]);
        self.final_norm(last)
            .matmul(self.head().clone().transpose())
            .cast(DType::F32)
    }
}

/// The path of block `index` in the checkpoint.
pub(crate) fn block_path(index: usize) -> String {
    format!("model.layers.{index}")
}

/// Ids as a device tensor of indices.
pub(crate) fn index_tensor(ids: &[u32], device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let count = ids.len();
    Tensor::from_data(TensorData::new(ids, [count]), (device, DType::I32))
}
