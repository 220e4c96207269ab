//! The encoder behind BERTScore.

use std::path::Path;

use anyhow::{Result, ensure};
use burn::tensor::DType;
use qloom_core::evaluation::{EmbedError, Embedder, TokenVectors};
use qloom_core::host::block_on;
use qloom_core::models::bert::Bert;
use qloom_core::tokenizer::Tokenizer;

use crate::base::BaseFiles;
use crate::device;

/// Texts per forward pass.
const BATCH: usize = 32;

/// A BERT-class base that gives the hidden states of one layer.
struct Encoder {
    model: Bert,
    tokenizer: Tokenizer,
    layer: usize,
    longest: usize,
}

/// Opens the BERT-class base in `model` as an embedder. `layer` counts from 0, the embedding; none takes the last.
///
/// # Errors
/// A folder that is no such base; a layer it does not have.
pub(crate) fn open(model: &Path, layer: Option<usize>, device: &str) -> Result<Box<dyn Embedder>> {
    let base = BaseFiles::open(&model.to_string_lossy())?;
    let config = base.bert_config()?;
    let layers = config.num_hidden_layers;
    let layer = layer.unwrap_or(layers);
    ensure!(
        layer <= layers,
        "--layer {layer}: {} has layers 0 (the embedding) to {layers}",
        base.name
    );
    let tokenizer = base.tokenizer()?;
    let stated = tokenizer.model_max_length().unwrap_or(usize::MAX);
    let chosen = device::choose(device)?;
    Ok(Box::new(Encoder {
        model: base.load_encoder(&chosen, "auto", DType::F32)?,
        longest: stated.min(config.max_position_embeddings),
        tokenizer,
        layer,
    }))
}

impl Encoder {
    fn ids(&self, text: &str) -> Result<Vec<u32>, EmbedError> {
        // bert-score strips texts before it tokenizes them.
        let whole = self
            .tokenizer
            .encode_sequences(text.trim(), None, self.longest, false)?;
        Ok(whole.ids)
    }
}

impl Embedder for Encoder {
    fn special_ids(&self) -> Vec<u32> {
        // What the tokenizer puts around nothing at all.
        self.ids("").unwrap_or_default()
    }

    fn tokenize(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>, EmbedError> {
        texts.iter().map(|text| self.ids(text)).collect()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<TokenVectors>, EmbedError> {
        let mut all = Vec::with_capacity(texts.len());
        for batch in self.tokenize(texts)?.chunks(BATCH) {
            let vectors = block_on(self.model.embed(batch, self.layer))?;
            let pairs = batch.iter().cloned().zip(vectors);
            all.extend(pairs.map(|(ids, vectors)| TokenVectors { ids, vectors }));
        }
        Ok(all)
    }
}
