//! The encoder: embeddings and blocks, and the hidden states of any layer.

use burn::tensor::{DType, Device, Tensor};

use super::{BertConfig, BertError, Block, Embeddings, Layout};
use crate::data::Batch;
use crate::host::to_vec;
use crate::lora::Overlay;

/// An encoder on one device.
#[derive(Clone, Debug)]
pub struct Bert {
    /// Sizes and switches.
    pub config: BertConfig,
    /// Before the first block.
    pub embeddings: Embeddings,
    /// Blocks, first to last.
    pub blocks: Vec<Block>,
}

impl Bert {
    /// The device the weights are on, without autodiff.
    pub fn device(&self) -> Device {
        self.embeddings.words.device()
    }

    /// The type activations are computed in.
    pub fn dtype(&self) -> DType {
        self.embeddings.norm.weight.dtype()
    }

    /// This encoder with adapters and trained weights laid over it; base tensors are shared.
    pub fn with(&self, overlay: &Overlay) -> Self {
        Self {
            config: self.config.clone(),
            embeddings: self.embeddings_with(overlay),
            blocks: (0..self.blocks.len())
                .map(|i| self.block_with(i, overlay))
                .collect(),
        }
    }

    /// The embeddings with their part of `overlay`.
    pub fn embeddings_with(&self, overlay: &Overlay) -> Embeddings {
        self.embeddings.with(overlay, self.config.names())
    }

    /// Block `index` with its part of `overlay`.
    pub fn block_with(&self, index: usize, overlay: &Overlay) -> Block {
        self.blocks[index].with(overlay, &self.config.names().block(index))
    }

    /// Hidden state `layer` of every position of `batch`, `[rows, width, hidden]`, f32: 0 is the embeddings' output, `n`
    /// that of block `n`, as in transformers' `hidden_states`. Padding sees padding only; its states mean nothing.
    ///
    /// # Errors
    /// A layer the encoder does not have; ids, positions or token types outside its tables.
    pub fn hidden_states(&self, batch: &Batch, layer: usize) -> Result<Tensor<3>, BertError> {
        if layer > self.blocks.len() {
            return Err(BertError::Layer {
                found: layer,
                last: self.blocks.len(),
            });
        }
        self.check(batch)?;
        let layout = Layout::plain(batch, &self.device());
        let embedded = self.embeddings.forward(&layout, false);
        let states = self.blocks[..layer]
            .iter()
            .fold(embedded, |x, block| block.forward(x, &layout, None));
        let hidden = self.config.hidden_size;
        Ok(states
            .cast(DType::F32)
            .reshape([batch.rows, batch.width, hidden]))
    }

    /// Hidden state `layer` of each sequence's own tokens, row-major `[tokens, hidden]`: what embedding-based scores
    /// (BERTScore) compare. Sequences are padded together, so give those of similar length.
    ///
    /// # Errors
    /// As [`Bert::hidden_states`]; the device failed.
    pub async fn embed(
        &self,
        sequences: &[Vec<u32>],
        layer: usize,
    ) -> Result<Vec<Vec<f32>>, BertError> {
        let batch = Batch::of_sequences(sequences);
        let hidden = self.config.hidden_size;
        let all = to_vec(self.hidden_states(&batch, layer)?).await?;
        let row = batch.width * hidden;
        Ok(sequences
            .iter()
            .enumerate()
            .map(|(i, ids)| all[i * row..i * row + ids.len() * hidden].to_vec())
            .collect())
    }

    /// Refuses what the tables have no row for.
    pub(crate) fn check(&self, batch: &Batch) -> Result<(), BertError> {
        let c = &self.config;
        let types = c.type_vocab_size.max(1);
        for (what, values, limit) in [
            ("token id", &batch.input_ids, c.vocab_size),
            ("position", &batch.position_ids, c.max_position_embeddings),
            // DistilBERT has no segments and ignores them, as transformers does.
            (
                "token type",
                &batch.token_type_ids,
                if c.type_vocab_size == 0 {
                    usize::MAX
                } else {
                    types
                },
            ),
        ] {
            if let Some(&found) = values.iter().find(|&&v| v as usize >= limit) {
                return Err(BertError::Input { what, found, limit });
            }
        }
        Ok(())
    }
}
