//! NF4 with double quantization: four bits for a weight, half a byte more for 64 of them.
//!
//! The maths follow QLoRA (Dettmers et al., arXiv 2305.14314); codes, scales and files are bitsandbytes' to the bit, so a base
//! quantized here loads in transformers and the other way round.
//!
//! ```text
//! weight [out, in] f32/f16/bf16, flattened      64 values = 1 block
//!   -> codes   4 bits a value, two to a byte    codebook.rs, blockwise.rs
//!   -> absmax  one f32 a block                  blockwise.rs
//!        -> 8 bits a block + f32 a 256 blocks   double_quant.rs, dynamic_map.rs
//! on disk: X.weight, .absmax, .quant_map, ...   bitsandbytes.rs; whole checkpoints: checkpoint.rs, requantize.rs; which tensors: config.rs
//! ```

mod bitsandbytes;
mod blockwise;
mod checkpoint;
mod codebook;
mod config;
mod double_quant;
mod dynamic_map;
mod requantize;
mod tensor;

pub(crate) use bitsandbytes::dense_spec;
use bitsandbytes::nf4_specs;
pub use bitsandbytes::{Stored, is_quantized, nf4_shape, read_bnb, stored_format, write_bnb};
pub use blockwise::{Blocks, dequantize, dequantize_reference, quantize, quantize_reference};
pub use checkpoint::{
    CheckpointReport, QuantizeOptions, SOURCE_FINGERPRINT, dequantize_checkpoint,
    quantize_checkpoint,
};
pub(crate) use checkpoint::{encode, is_companion};
pub use codebook::{NF4_CODEBOOK, NF4_MIDPOINTS, nf4_code};
pub use config::{QuantizationConfig, is_quantizable};
pub use double_quant::{Absmax, NESTED_BLOCKSIZE};
pub use dynamic_map::DYNAMIC_MAP;
pub use requantize::{Replacement, rewrite_quantized};
pub use tensor::{BLOCKSIZE, Nf4Tensor};

use crate::weights::WeightError;
use thiserror::Error;

/// What can be wrong with quantized weights.
#[derive(Debug, Error)]
pub enum QuantizationError {
    /// A NaN or an infinity among the values.
    #[error("value {index} is {found}: only finite weights can be quantized; check the checkpoint")]
    NonFinite {
        /// Flat row-major index.
        index: usize,
        /// The value.
        found: f32,
    },
    /// A block size that does not exist.
    #[error("blocksize {found}: expected 32, 64, 128, 256, 512, 1024, 2048 or 4096")]
    Blocksize {
        /// The block size found.
        found: usize,
    },
    /// Parts that do not fit together.
    #[error("expected {expected} {what}, found {found}")]
    Count {
        /// What was counted.
        what: &'static str,
        /// The number expected.
        expected: usize,
        /// The number found.
        found: usize,
    },
    /// The above, with the tensor's name.
    #[error("tensor {name}: {source}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        source: Box<QuantizationError>,
    },
    /// Another quantization than NF4.
    #[error(
        "{what} is quantized as {found}; expected NF4 (bitsandbytes 4-bit) or a dense checkpoint: start from the unquantized model"
    )]
    Unsupported {
        /// The tensor or the configuration.
        what: String,
        /// The method found.
        found: String,
    },
    /// Unreadable quantization state.
    #[error("{name}: {reason}")]
    State {
        /// The tensor or file.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Quantizing what is already quantized.
    #[error("the checkpoint is already quantized ({name}); dequantize it first or use it as it is")]
    AlreadyQuantized {
        /// A quantized tensor.
        name: String,
    },
    /// Nothing in the checkpoint can be quantized.
    #[error(
        "no tensor to quantize among {found}: expected attention and MLP linears such as model.layers.0.self_attn.q_proj.weight"
    )]
    NothingToQuantize {
        /// Number of tensors there are.
        found: usize,
    },
    /// Reading or writing weights failed.
    #[error(transparent)]
    Weights(#[from] WeightError),
}

impl QuantizationError {
    /// The same error naming its tensor.
    pub fn of(self, name: &str) -> Self {
        match self {
            Self::NonFinite { .. } | Self::Blocksize { .. } | Self::Count { .. } => Self::Tensor {
                name: name.to_owned(),
                source: Box::new(self),
            },
            other => other,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod golden_tests;
