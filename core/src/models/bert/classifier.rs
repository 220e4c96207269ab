//! An encoder with a classification head.

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};

use super::{Bert, BertError, Head, Layout};
use crate::data::Batch;
use crate::lora::Overlay;

/// A sequence classifier on one device.
#[derive(Clone, Debug)]
pub struct BertClassifier {
    /// The encoder.
    pub encoder: Bert,
    /// What the base has of a head.
    pub head: Head,
}

impl BertClassifier {
    /// The device the weights are on, without autodiff.
    pub fn device(&self) -> Device {
        self.encoder.device()
    }

    /// This classifier with adapters and trained weights laid over it; base tensors are shared.
    pub fn with(&self, overlay: &Overlay) -> Self {
        Self {
            encoder: self.encoder.with(overlay),
            head: self.head.with(overlay),
        }
    }

    /// Logits of every document of `batch` in its order, `[documents, classes]`, f32.
    ///
    /// # Errors
    /// [`BertError::NoHead`]; ids, positions or token types outside the encoder's tables.
    pub fn logits(&self, batch: &Batch) -> Result<Tensor<2>, BertError> {
        self.head.parts()?;
        self.encoder.check(batch)?;
        let layout = Layout::compact(batch, &self.device());
        let mut x = self.encoder.embeddings.forward(&layout, false);
        let last = self.encoder.blocks.len() - 1;
        for block in &self.encoder.blocks[..last] {
            x = block.forward(x, &layout, None);
        }
        let first = self.encoder.blocks[last].forward_first(x, &layout, None);
        self.head.forward(first, false)
    }

    /// Class probabilities of every document of `batch`, `[documents, classes]`, f32.
    ///
    /// # Errors
    /// As [`BertClassifier::logits`].
    pub fn probabilities(&self, batch: &Batch) -> Result<Tensor<2>, BertError> {
        Ok(softmax(self.logits(batch)?, 1))
    }
}
