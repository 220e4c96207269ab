//! From checkpoint tensors to an encoder or a classifier on a device: one tensor at a time, the blocks' linears
//! quantized on the way in where the run asks for it, embeddings, norms and head never.

use burn::tensor::Device;

use super::embeddings::Norm;
use super::{
    Attention, Bert, BertClassifier, BertConfig, Block, Embeddings, Family, Head, Prefixed,
};
use crate::models::linear::Linear;
use crate::models::load::{LoadError, LoadOptions, Loader};
use crate::models::parts::{Part, stored};
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
    let mut builder = BertBuilder::new(config, options, device);
    builder.add_encoder(source, progress)?;
    builder.finish_encoder()
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
    config.validate_weights(source)?;
    let mut builder = BertBuilder::new(config, options, device);
    builder.add_encoder(source, progress)?;
    builder.add(Part::Head, source)?;
    builder.finish()
}

/// An encoder or classifier that is put together part by part, from sources that need to hold no more than the part at
/// hand; [`crate::models::llama::LlamaBuilder`] shows how.
#[derive(Debug)]
pub struct BertBuilder {
    config: BertConfig,
    options: LoadOptions,
    device: Device,
    embeddings: Option<Embeddings>,
    blocks: Vec<Option<Block>>,
    head: Option<Head>,
}

impl BertBuilder {
    /// Nothing loaded yet.
    pub fn new(config: &BertConfig, options: LoadOptions, device: &Device) -> Self {
        Self {
            config: config.clone(),
            options,
            device: device.clone(),
            embeddings: None,
            blocks: vec![None; config.num_hidden_layers],
            head: None,
        }
    }

    /// The parts to add, in any order. An encoder alone needs no head.
    pub fn parts(&self) -> Vec<Part> {
        Part::all(self.config.num_hidden_layers)
    }

    /// The tensors that `part` needs, by the names they have in `source`; of a head, those that are there.
    pub fn tensors(&self, part: Part, source: &dyn WeightSource) -> Vec<String> {
        let named = Prefixed::new(source, self.config.family);
        let wanted = self.config.part_tensors(part).into_iter();
        stored(wanted.map(|(name, _)| named.stored(&name)), source)
    }

    /// Loads `part` from `source`, which must hold the tensors that [`BertBuilder::tensors`] names.
    ///
    /// # Errors
    /// Tensors that are missing, damaged, of another shape or in a quantization that cannot be read, each by name; a
    /// block that the model does not have.
    pub fn add(&mut self, part: Part, source: &dyn WeightSource) -> Result<(), LoadError> {
        self.config.validate_part(part, source)?;
        let source = Prefixed::new(source, self.config.family);
        let loader = Loader {
            source: &source,
            options: self.options,
            device: &self.device,
        };
        match part {
            Part::Embedding => self.embeddings = Some(embeddings(&loader, &self.config)?),
            Part::Block(index) => {
                let blocks = self.blocks.len();
                let slot = self.blocks.get_mut(index);
                let slot = slot.ok_or(LoadError::NoSuchPart { part, blocks })?;
                *slot = Some(block(&loader, &self.config, index)?);
            }
            Part::Head => self.head = Some(head(&loader, &self.config)?),
        }
        Ok(())
    }

    /// The encoder alone.
    ///
    /// # Errors
    /// A part that was never added.
    pub fn finish_encoder(self) -> Result<Bert, LoadError> {
        let missing = |part| LoadError::MissingPart { part };
        let blocks = self.blocks.into_iter().enumerate();
        let blocks = blocks.map(|(i, block)| block.ok_or(missing(Part::Block(i))));
        Ok(Bert {
            config: self.config,
            embeddings: self.embeddings.ok_or(missing(Part::Embedding))?,
            blocks: blocks.collect::<Result<_, _>>()?,
        })
    }

    /// The encoder with its head.
    ///
    /// # Errors
    /// A part that was never added.
    pub fn finish(mut self) -> Result<BertClassifier, LoadError> {
        let part = Part::Head;
        let head = self.head.take();
        let head = head.ok_or(LoadError::MissingPart { part })?;
        let encoder = self.finish_encoder()?;
        Ok(BertClassifier { encoder, head })
    }

    /// Every part but the head.
    fn add_encoder(
        &mut self,
        source: &dyn WeightSource,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), LoadError> {
        self.add(Part::Embedding, source)?;
        let total = self.config.num_hidden_layers;
        for index in 0..total {
            self.add(Part::Block(index), source)?;
            progress(index + 1, total);
        }
        Ok(())
    }
}

fn embeddings(loader: &Loader<'_>, config: &BertConfig) -> Result<Embeddings, LoadError> {
    let names = config.names();
    let types = match config.type_vocab_size {
        0 => None,
        _ => Some(loader.matrix(&names.type_embeddings())?),
    };
    Ok(Embeddings {
        words: loader.embedding(&names.word_embeddings())?,
        positions: loader.matrix(&names.position_embeddings())?,
        types,
        norm: norm(loader, config, &names.embedding_norm())?,
        dropout: config.hidden_dropout,
    })
}

/// Whatever the checkpoint has of a head.
fn head(loader: &Loader<'_>, config: &BertConfig) -> Result<Head, LoadError> {
    let names = config.names();
    let part = |path: &str| -> Result<Option<Linear>, LoadError> {
        let found = loader.source.contains(&format!("{path}.weight"));
        found.then(|| loader.dense(path)).transpose()
    };
    Ok(Head {
        dense: part(names.head_dense())?,
        classifier: part(names.classifier())?,
        family: config.family,
        dropout: config.classifier_dropout,
        dtype: loader.options.dtype,
    })
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
