//! Grouped-query softmax attention on tensors as the projections leave them, `[rows, tokens, heads, head_dim]`:
//! no transposes, no repeated keys, and nothing of size `width * keys` kept for the backward pass.
//!
//! | file | what |
//! |---|---|
//! | `reference.rs` | the formula in f64 |
//! | `generic.rs` | the same from burn's own operations, for GPUs |
//! | `cpu.rs` | query tiles against the keys their bias lets them see; hidden blocks are skipped |
//! | `layout.rs`, `matmul.rs`, `softmax.rs`, `output.rs` | its parts: where numbers lie, products of views, rows of scores, results in disjoint places |
//! | `dropout.rs` | dropping probabilities while training |
//! | `backward.rs` | the gradients; `q`, `k`, `v` and the bias are kept, the probabilities computed again |
//!
//! Sources: Ainslie et al., <https://arxiv.org/abs/2305.13245> (grouped queries); Dao et al.,
//! <https://arxiv.org/abs/2205.14135> (recomputation in the backward pass).

mod backward;
mod cpu;
mod dropout;
mod generic;
mod layout;
mod matmul;
mod output;
#[cfg(test)]
mod reference;
mod softmax;
#[cfg(test)]
mod tests;

use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::{Shape, Tensor};
use burn_cubecl::CubeBackend;

pub use dropout::Dropout;

/// A bias at or below this hides its key altogether.
pub(crate) const HIDDEN: f32 = -1e29;

/// Which gradients are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// That of the queries.
    pub q: bool,
    /// That of the keys.
    pub k: bool,
    /// That of the values.
    pub v: bool,
}

/// The device side of [`attention`]. The default bodies are burn operations. Fusion is kept out of them: fusing
/// softmax into the product after it gave wrong numbers under it (burn 0.22.1, SwiftShader).
#[backend_extension(Cube, Flex, Autodiff, Fusion)]
pub trait AttentionOps: Backend {
    /// `dropout(softmax(scale q kᵀ + bias)) v`, see [`attention`].
    #[fusion(dtype = q, shape = mixed_shape(q))]
    fn grouped_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        scale: f64,
        dropout: Dropout,
    ) -> FloatTensor<Self> {
        generic::attention::<Self>(q, k, v, bias, scale, dropout)
    }

    /// The gradients for `q`, `k` and `v`, given that of the result; those not `wanted` may come back as zeros.
    #[allow(clippy::too_many_arguments)]
    #[fusion(meta = |q, k, v, _bias, _dy, _scale, _dropout, _wanted| (q.clone(), k.clone(), v.clone()))]
    fn grouped_attention_gradients(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        scale: f64,
        dropout: Dropout,
        wanted: Wanted,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        generic::gradients::<Self>(q, k, v, bias, dy, scale, dropout, wanted)
    }
}

fn mixed_shape(q: &Shape) -> Shape {
    Shape::from([q[0], q[1], q[2] * q[3]])
}

impl AttentionOps for CubeBackend {}

impl AttentionOps for Flex {
    fn grouped_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        scale: f64,
        dropout: Dropout,
    ) -> FloatTensor<Self> {
        cpu::attention(q, k, v, bias, scale, dropout)
    }

    fn grouped_attention_gradients(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        scale: f64,
        dropout: Dropout,
        wanted: Wanted,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        cpu::gradients(q, k, v, bias, dy, scale, dropout, wanted)
    }
}

/// `softmax(scale q kᵀ + bias) v`, head by head.
///
/// ```text
/// q     [rows, width, heads, head_dim]
/// k, v  [rows, keys, kv_heads, head_dim]    head h reads key head h / (heads / kv_heads)
/// bias  [rows or 1, 1, width, keys]         f32, added to the scores; -1e30 hides a key; not differentiated
///       [rows, width, heads * head_dim]     the result, in the type of q
/// ```
///
/// The softmax is f32, and on a CPU the scores too; elsewhere the scores are products in the type of `q`, cast to f32
/// before the bias is added. A query that sees no key at all gets an unspecified finite result. On a CPU any
/// strides with adjacent features are read as they are, so a narrowed or permuted cache costs no copy.
///
/// # Panics
/// Where the shapes do not fit together.
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Tensor<4>,
    scale: f64,
) -> Tensor<3> {
    attention_with_dropout(q, k, v, bias, scale, Dropout::NONE)
}

/// As [`attention`], with probabilities dropped.
///
/// # Panics
/// Where the shapes do not fit together.
pub fn attention_with_dropout(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Tensor<4>,
    scale: f64,
    dropout: Dropout,
) -> Tensor<3> {
    let [rows, width, heads, dim] = q.dims();
    let [_, keys, kv_heads, _] = k.dims();
    assert_eq!(
        k.dims(),
        [rows, keys, kv_heads, dim],
        "attention: shape of k"
    );
    assert_eq!(v.dims(), k.dims(), "attention: shape of v");
    assert!(
        kv_heads > 0 && heads.is_multiple_of(kv_heads),
        "attention: {heads} heads cannot share {kv_heads} key heads evenly"
    );
    let bias_rows = bias.dims()[0];
    assert!(
        bias_rows == rows || bias_rows == 1,
        "attention: bias has {bias_rows} rows, q {rows}"
    );
    assert_eq!(
        bias.dims(),
        [bias_rows, 1, width, keys],
        "attention: shape of bias"
    );
    Tensor::from_dispatch(<Dispatch as AttentionOps>::grouped_attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        bias.into_dispatch(),
        scale,
        dropout,
    ))
}
