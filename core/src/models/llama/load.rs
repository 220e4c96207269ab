//! From checkpoint tensors to a model on a device: one tensor at a time, quantized on the way in
//! where the run asks for it.

use burn::tensor::{DType, Device, Tensor, TensorData};
use thiserror::Error;

use super::{Attention, Block, ConfigError, Llama, LlamaConfig, Mlp, block_path};
use crate::kernels::nf4_matmul::Nf4Weight;
use crate::models::linear::{Linear, Weight};
use crate::models::rope::RopeTable;
use crate::quantization::{Nf4Tensor, QuantizationError, is_quantized, read_bnb};
use crate::weights::{WeightError, WeightSource};

/// How the linear layers of the blocks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseQuantization {
    /// In the compute type.
    None,
    /// As NF4 codes in blocks of 64.
    Nf4 {
        /// Quantize the scales too (8 bits in blocks of 256).
        double_quant: bool,
    },
}

/// How to load a base.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// What becomes of the blocks' linear layers. A checkpoint that is NF4 already keeps its codes
    /// under `Nf4` and is dequantized under `None`.
    pub quantization: BaseQuantization,
    /// Type of dense weights and activations.
    pub dtype: DType,
    /// Tokens the rotary table covers; the model's `max_position_embeddings` when `None`.
    pub max_positions: Option<usize>,
}

/// Why a base could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A tensor is missing, damaged or of another shape.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// Packed weights that cannot be read.
    #[error(transparent)]
    Quantization(#[from] QuantizationError),
    /// A configuration that cannot be run.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

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
    let loader = Loader {
        config,
        source,
        options,
        device,
    };
    let total = config.num_hidden_layers;
    let mut blocks = Vec::with_capacity(total);
    for index in 0..total {
        blocks.push(loader.block(index)?);
        progress(index + 1, total);
    }
    let positions = options
        .max_positions
        .unwrap_or(config.max_position_embeddings);
    let (inv_freq, attention_scaling) = config.inv_freq(positions);
    Ok(Llama {
        embed_tokens: loader.matrix("model.embed_tokens.weight")?,
        blocks,
        norm: loader.vector("model.norm.weight")?,
        lm_head: match config.tie_word_embeddings {
            true => None,
            false => Some(loader.matrix("lm_head.weight")?),
        },
        rope: RopeTable::new(&inv_freq, attention_scaling, positions, device),
        config: config.clone(),
    })
}

struct Loader<'a> {
    config: &'a LlamaConfig,
    source: &'a dyn WeightSource,
    options: LoadOptions,
    device: &'a Device,
}

impl Loader<'_> {
    fn block(&self, index: usize) -> Result<Block, LoadError> {
        let prefix = block_path(index);
        let linear = |name: &str| self.linear(&format!("{prefix}.{name}"));
        Ok(Block {
            input_layernorm: self.vector(&format!("{prefix}.input_layernorm.weight"))?,
            self_attn: Attention {
                q_proj: linear("self_attn.q_proj")?,
                k_proj: linear("self_attn.k_proj")?,
                v_proj: linear("self_attn.v_proj")?,
                o_proj: linear("self_attn.o_proj")?,
                num_heads: self.config.num_attention_heads,
                num_kv_heads: self.config.num_key_value_heads,
                head_dim: self.config.head_dim,
            },
            post_attention_layernorm: self
                .vector(&format!("{prefix}.post_attention_layernorm.weight"))?,
            mlp: Mlp {
                gate_proj: linear("mlp.gate_proj")?,
                up_proj: linear("mlp.up_proj")?,
                down_proj: linear("mlp.down_proj")?,
            },
            rms_norm_eps: self.config.rms_norm_eps,
        })
    }

    fn linear(&self, path: &str) -> Result<Linear, LoadError> {
        let name = format!("{path}.weight");
        let packed = is_quantized(self.source, &name)
            .then(|| read_bnb(self.source, &name))
            .transpose()?;
        let weight = match (self.options.quantization, packed) {
            (BaseQuantization::Nf4 { .. }, Some(packed)) => {
                Weight::Nf4(Nf4Weight::from_host(&packed, self.device))
            }
            (BaseQuantization::None, Some(packed)) => {
                let shape = [packed.shape[0], packed.shape[1]];
                Weight::Dense(self.upload(packed.dequantize()?, shape))
            }
            (BaseQuantization::Nf4 { double_quant }, None) => {
                let tensor = self.source.get(&name)?;
                let packed =
                    Nf4Tensor::quantize(&tensor.to_f32()?, &tensor.shape, 64, double_quant)
                        .map_err(|e| e.of(&name))?;
                Weight::Nf4(Nf4Weight::from_host(&packed, self.device))
            }
            (BaseQuantization::None, None) => Weight::Dense(self.matrix(&name)?),
        };
        let bias = format!("{path}.bias");
        let bias = self
            .source
            .contains(&bias)
            .then(|| self.vector(&bias))
            .transpose()?;
        Ok(Linear::new(weight, bias))
    }

    fn matrix(&self, name: &str) -> Result<Tensor<2>, LoadError> {
        let tensor = self.source.get(name)?;
        let shape = [tensor.shape[0], tensor.shape[1]];
        Ok(self.upload(tensor.to_f32()?, shape))
    }

    fn vector(&self, name: &str) -> Result<Tensor<1>, LoadError> {
        let values = self.source.get(name)?.to_f32()?;
        let count = values.len();
        Ok(self.upload(values, [count]))
    }

    fn upload<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(
            TensorData::new(values, shape),
            (self.device, self.options.dtype),
        )
    }
}
