//! Llama, and the models that differ from it only by switches (Mistral, Qwen2).
//!
//! Source: Touvron et al., arXiv 2302.13971; grouped queries: Ainslie et al., arXiv 2305.13245.

mod attention;
mod block;
mod config;
mod context;
#[cfg(test)]
pub(crate) mod fixtures;
mod init;
mod load;
mod mlp;
mod model;
#[cfg(test)]
mod tests;

pub use attention::{Attention, LayerCache};
pub use block::Block;
pub use config::*;
pub use context::Context;
pub use init::random_weights;
pub use load::{BaseQuantization, LlamaBuilder, LoadError, LoadOptions, load};
pub use mlp::Mlp;
use model::block_path;
pub(crate) use model::index_tensor;
pub use model::{Llama, RowLosses};
