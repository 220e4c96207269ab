//! The operations burn has no kernel for, each beside a plain reference that its tests hold it to.
//!
//! | kernel | reference | test |
//! |---|---|---|
//! | [`nf4_matmul`]: `x Wᵀ`, `g W` and `W` itself from packed NF4 | `nf4_matmul/reference.rs` | `nf4_matmul/tests.rs` |
//! | [`cross_entropy`]: losses and gradients of a language-model head, a chunk of logits at a time | `cross_entropy/reference.rs` | `cross_entropy/tests.rs` |
//! | [`attention`]: grouped-query softmax attention | `attention/reference.rs` | `attention/tests.rs` |
//! | [`rms_norm`], [`swiglu`], [`rope`], [`layer_norm`], [`gelu`]: one parallel pass each instead of a chain of operations | `reference.rs` beside each | `tests.rs` beside each |
//! | [`hadamard`]: the product by a weight that a low-rank matrix modulates (HiRA) | `hadamard/reference.rs` | `hadamard/tests.rs` |
//!
//! `cpu.rs` holds what the CPU versions share, `norm.rs` what the two normalizations do. On a CPU all sums are f32 and
//! their order depends on shapes (and on the instruction set) alone, never on the scheduling of threads: a run repeated on
//! the same machine gives the same bits.

pub mod attention;
pub(crate) mod cpu;
pub mod cross_entropy;
pub mod gelu;
pub mod hadamard;
pub mod layer_norm;
pub mod nf4_matmul;
mod norm;
pub mod rms_norm;
pub mod rope;
pub mod swiglu;
