//! Model architectures, each readable beside its paper. Loading from files is the caller's; what
//! is shared between architectures (projections, rotary embeddings) lies here.

pub mod linear;
pub mod llama;
pub mod rope;
