//! From checkpoint tensors to an encoder or a classifier on a device: one tensor at a time, the blocks' linears
//! quantized on the way in where the run asks for it, embeddings, norms and head never.

use burn::tensor::Device;

use super::embeddings::Norm;
use super::{
    Attention, Bert, BertClassifier, BertConfig, Block, Embeddings, Family, Head, Prefixed,
};
use crate::models::linear::Linear;
use crate::models::load::{LoadError, LoadOptions, Loader};
use crate::weights::WeightSource;

/// Builds the encoder on `device`; `progress(done, total)` is called after each block.
///
/// # Errors
/// Tensors that are missing, damaged, of another shape or in a quantization that cannot be read, each by name.
pub fn load_encoder(
    config: &BertConfig,
    source: &dyn WeightSource,
    options: LoadOptions,
    device: &Device,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Bert, LoadError> {
    config.validate_weights(source)?;
    let source = Prefixed::new(source, config.family);
    let loader = Loader {
        source: &source,
        options,
        device,
    };
    let names = config.names();
    let total = config.num_hidden_layers;
    let mut blocks = Vec::with_capacity(total);
    for index in 0..total {
        blocks.push(block(&loader, config, index)?);
        progress(index + 1, total);
    }
    let types = match config.type_vocab_size {
        0 => None,
        _ => Some(loader.matrix(&names.type_embeddings())?),
    };
    Ok(Bert {
        config: config.clone(),
        embeddings: Embeddings {
            words: loader.matrix(&names.word_embeddings())?,
            positions: loader.matrix(&names.position_embeddings())?,
            types,
            norm: norm(&loader, config, &names.embedding_norm())?,
            dropout: config.hidden_dropout,
        },
        blocks,
    })
}

/// As [`load_encoder`], with whatever the checkpoint has of a classification head.
///
/// # Errors
/// As [`load_encoder`].
pub fn load_classifier(
    config: &BertConfig,
    source: &dyn WeightSource,
    options: LoadOptions,
    device: &Device,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<BertClassifier, LoadError> {
    let encoder = load_encoder(config, source, options, device, progress)?;
    let source = Prefixed::new(source, config.family);
    let loader = Loader {
        source: &source,
        options,
        device,
    };
    let names = config.names();
    let part = |path: &str| -> Result<Option<Linear>, LoadError> {
        let found = loader.source.contains(&format!("{path}.weight"));
        found.then(|| loader.dense(path)).transpose()
    };
    let head = Head {
        dense: part(names.head_dense())?,
        classifier: part(names.classifier())?,
        family: config.family,
        dropout: config.classifier_dropout,
        dtype: options.dtype,
    };
    Ok(BertClassifier { encoder, head })
}

fn block(loader: &Loader<'_>, config: &BertConfig, index: usize) -> Result<Block, LoadError> {
    let names = config.names().block(index);
    Ok(Block {
        attention: Attention {
            query: loader.linear(&names.query)?,
            key: loader.linear(&names.key)?,
            value: loader.linear(&names.value)?,
            output: loader.linear(&names.output)?,
            heads: config.num_attention_heads,
            dropout: config.attention_dropout,
        },
        attention_norm: norm(loader, config, &names.attention_norm)?,
        up: loader.linear(&names.up)?,
        activation: config.activation,
        down: loader.linear(&names.down)?,
        output_norm: norm(loader, config, &names.output_norm)?,
        attention_output_dropout: match config.family {
            Family::Bert => config.hidden_dropout,
            Family::DistilBert => 0.0,
        },
        dropout: config.hidden_dropout,
    })
}

fn norm(loader: &Loader<'_>, config: &BertConfig, path: &str) -> Result<Norm, LoadError> {
    Ok(Norm {
        weight: loader.vector(&format!("{path}.weight"))?,
        bias: loader.vector(&format!("{path}.bias"))?,
        eps: config.layer_norm_eps,
    })
}
