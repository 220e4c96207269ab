//! From checkpoint tensors to a model on a device: one tensor at a time, quantized on the way in
//! where the run asks for it.

use burn::tensor::{Device, Tensor};

use super::{Attention, Block, Llama, LlamaConfig, Mlp, block_path};
use crate::models::embedding::EmbeddingTable;
use crate::models::load::Loader;
pub use crate::models::load::{BaseQuantization, LoadError, LoadOptions};
use crate::models::parts::{Part, stored};
use crate::models::rope::RopeTable;
use crate::weights::WeightSource;

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
const NORM: &str = "model.norm.weight";

/// Builds the whole model on `device`; `progress(done, total)` is called after each block.
///
/// # Errors
/// Tensors that are missing, damaged, of another shape or in a quantization that cannot be read,
/// each by name.
pub fn load(
    config: &LlamaConfig,
    source: &dyn WeightSource,
    options: LoadOptions,
    device: &Device,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Llama, LoadError> {
    config.validate_weights(source)?;
    let mut builder = LlamaBuilder::new(config, options, device);
    for part in builder.parts() {
        builder.add(part, source)?;
        if let Part::Block(index) = part {
            progress(index + 1, config.num_hidden_layers);
        }
    }
    builder.finish()
}

/// A model that is put together part by part, from sources that need to hold no more than the part at hand.
///
/// ```text
/// for part in builder.parts() {
///     let names = builder.tensors(part, &catalog);  // what to fetch
///     builder.add(part, &fetched)?;                 // on the device now; the bytes may go
/// }
/// let model = builder.finish()?;
/// ```
///
/// Call [`LlamaConfig::validate_names`] before the first byte is fetched.
#[derive(Debug)]
pub struct LlamaBuilder {
    config: LlamaConfig,
    options: LoadOptions,
    device: Device,
    /// The embedding, and the head that a tied one is.
    embedding: Option<(EmbeddingTable, Option<Tensor<2>>)>,
    blocks: Vec<Option<Block>>,
    /// The final norm, and the head that is not tied.
    head: Option<(Tensor<1>, Option<Tensor<2>>)>,
}

impl LlamaBuilder {
    /// Nothing loaded yet.
    pub fn new(config: &LlamaConfig, options: LoadOptions, device: &Device) -> Self {
        Self {
            config: config.clone(),
            options,
            device: device.clone(),
            embedding: None,
            blocks: vec![None; config.num_hidden_layers],
            head: None,
        }
    }

    /// The parts to add, in any order.
    pub fn parts(&self) -> Vec<Part> {
        Part::all(self.config.num_hidden_layers)
    }

    /// The tensors that `part` needs, by the names they have in `source`: with the scales of packed ones.
    pub fn tensors(&self, part: Part, source: &dyn WeightSource) -> Vec<String> {
        let wanted = self.config.part_tensors(part).into_iter();
        stored(wanted.map(|(name, _)| name), source)
    }

    /// Loads `part` from `source`, which must hold the tensors that [`LlamaBuilder::tensors`] names.
    ///
    /// # Errors
    /// Tensors that are missing, damaged, of another shape or in a quantization that cannot be read, each by name; a
    /// block that the model does not have.
    pub fn add(&mut self, part: Part, source: &dyn WeightSource) -> Result<(), LoadError> {
        self.config.validate_part(part, source)?;
        let loader = Loader {
            source,
            options: self.options,
            device: &self.device,
        };
        match part {
            Part::Embedding if self.config.tie_word_embeddings => {
                let table = loader.matrix(EMBEDDING)?;
                self.embedding = Some((EmbeddingTable::Device(table.clone()), Some(table)));
            }
            Part::Embedding => self.embedding = Some((loader.embedding(EMBEDDING)?, None)),
            Part::Block(index) => {
                let blocks = self.blocks.len();
                let slot = self.blocks.get_mut(index);
                let slot = slot.ok_or(LoadError::NoSuchPart { part, blocks })?;
                *slot = Some(block(&loader, &self.config, index)?);
            }
            Part::Head => {
                let own = !self.config.tie_word_embeddings;
                let head = own.then(|| loader.matrix(HEAD)).transpose()?;
                self.head = Some((loader.vector(NORM)?, head));
            }
        }
        Ok(())
    }

    /// The whole model.
    ///
    /// # Errors
    /// A part that was never added.
    pub fn finish(self) -> Result<Llama, LoadError> {
        let missing = |part| LoadError::MissingPart { part };
        let (embed_tokens, tied_head) = self.embedding.ok_or(missing(Part::Embedding))?;
        let blocks = self.blocks.into_iter().enumerate();
        let blocks = blocks.map(|(i, block)| block.ok_or(missing(Part::Block(i))));
        let (norm, head) = self.head.ok_or(missing(Part::Head))?;
        let positions = self.options.max_positions;
        let positions = positions.unwrap_or(self.config.max_position_embeddings);
        let (inv_freq, attention_scaling) = self.config.inv_freq(positions);
        Ok(Llama {
            embed_tokens,
            blocks: blocks.collect::<Result<_, _>>()?,
            norm,
            tied: tied_head.is_some(),
            lm_head: head.or(tied_head).ok_or(missing(Part::Head))?,
            rope: RopeTable::new(&inv_freq, attention_scaling, positions, &self.device),
            config: self.config,
        })
    }
}

fn block(loader: &Loader<'_>, config: &LlamaConfig, index: usize) -> Result<Block, LoadError> {
    let prefix = block_path(index);
    let linear = |name: &str| loader.linear(&format!("{prefix}.{name}"));
    Ok(Block {
        input_layernorm: loader.vector(&format!("{prefix}.input_layernorm.weight"))?,
        self_attn: Attention {
            q_proj: linear("self_attn.q_proj")?,
            k_proj: linear("self_attn.k_proj")?,
            v_proj: linear("self_attn.v_proj")?,
            o_proj: linear("self_attn.o_proj")?,
            num_heads: config.num_attention_heads,
            num_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        },
        post_attention_layernorm: loader
            .vector(&format!("{prefix}.post_attention_layernorm.weight"))?,
        mlp: Mlp {
            gate_proj: linear("mlp.gate_proj")?,
            up_proj: linear("mlp.up_proj")?,
            down_proj: linear("mlp.down_proj")?,
        },
        rms_norm_eps: config.rms_norm_eps,
    })
}
