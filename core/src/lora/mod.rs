//! Adaptation: configuration, the methods' maths, how a new adapter starts, and the overlay that puts adapters and
//! trained weights on a model without touching the base.
//!
//! | file | what |
//! |---|---|
//! | `config.rs`, `by_module.rs` | the `[lora]` table |
//! | `methods/` | LoRA, rsLoRA, DoRA, sparse LoRA, HiRA and the baselines, one interface |
//! | `init/` | default, gaussian, PiSSA, LoftQ |
//! | `fresh.rs` | the tensors of a new adapter and their initial values |
//! | `inject.rs` | between files, parameters and layers |
//! | `overlay.rs` | what lies over a frozen base |

mod by_module;
mod config;
mod fresh;
pub mod init;
mod inject;
pub mod methods;
mod overlay;

pub use by_module::ByModule;
pub use config::{LoraConfig, TargetModules};
pub use fresh::{Fresh, Tensors, adapter_values, fresh, fresh_parameters, layout};
pub use init::{BaseWeights, Init, Taken};
pub use inject::{overlay, parameters_of, peft_config, subtraction, to_adapter};
pub use methods::{
    AdapterLayer, AdapterMethod, DoraLayer, HiraLayer, Kind, LoraLayer, Method, SparseLayer,
    change_of_weight, head_modules, row_norms, scaling,
};
pub use overlay::Overlay;
