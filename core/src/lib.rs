//! Qloom's core: QLoRA fine-tuning and inference on burn, from bytes to bytes.
//!
//! Everything here is maths or format. The crate knows no paths, no processes, no command line and
//! no browser; it compiles natively and for `wasm32-unknown-unknown`, and every device is chosen at
//! run time. See `ARCHITECTURE.md` for the map and the invariants.

pub mod adapters;
pub mod data;
pub mod evaluation;
pub mod generation;
pub mod host;
pub mod kernels;
pub mod linalg;
pub mod lora;
pub mod merge;
pub mod models;
pub mod preflight;
pub mod quantization;
pub mod tokenizer;
pub mod train;
pub mod weights;
