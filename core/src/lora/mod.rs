//! Low-rank adaptation: configuration, the layer's maths, and the overlay that puts adapters and
//! trained weights on a model without touching the base.
//!
//! Source: Hu et al., "LoRA", arXiv 2106.09685; rsLoRA: Kalajdzievski, arXiv 2312.03732.

mod config;
mod inject;
mod layer;
mod overlay;

pub use config::{LoraConfig, TargetModules, scaling};
pub use inject::{fresh_parameters, overlay, parameters_of, peft_config, to_adapter};
pub use layer::LoraLayer;
pub use overlay::Overlay;
