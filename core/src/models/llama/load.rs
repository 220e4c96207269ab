//! From checkpoint tensors to a model on a device: one tensor at a time, quantized on the way in
//! where the run asks for it.

use burn::tensor::Device;

use super::{Attention, Block, Llama, LlamaConfig, Mlp, block_path};
use crate::models::load::Loader;
pub use crate::models::load::{BaseQuantization, LoadError, LoadOptions};
use crate::models::rope::RopeTable;
use crate::weights::WeightSource;

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
        source,
        options,
        device,
    };
    let total = config.num_hidden_layers;
    let mut blocks = Vec::with_capacity(total);
    for index in 0..total {
        blocks.push(block(&loader, config, index)?);
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
