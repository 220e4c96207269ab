//! Model architectures, each readable beside its paper. Loading from files is the caller's; what
//! is shared between architectures (projections, rotary embeddings, loading one tensor) lies here.

pub mod architecture;
pub mod bert;
pub mod dropout;
pub mod embedding;
pub mod linear;
pub mod llama;
pub mod load;
pub mod parts;
pub mod random;
pub mod rope;

pub use architecture::{Architecture, ArchitectureError};
