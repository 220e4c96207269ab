//! Attention from burn's own operations. The query heads of a group are stacked along the token axis, so keys and
//! values are never repeated.

use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{FloatDType, Shape, TensorData};

use super::{Dropout, Wanted};

/// Sizes of one problem.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    width: usize,
    keys: usize,
    heads: usize,
    kv_heads: usize,
    dim: usize,
}

impl Sizes {
    fn of<B: Backend>(q: &FloatTensor<B>, k: &FloatTensor<B>) -> Self {
        let (q, k) = (q.shape(), k.shape());
        Self {
            rows: q[0],
            width: q[1],
            keys: k[1],
            heads: q[2],
            kv_heads: k[2],
            dim: q[3],
        }
    }

    /// Queries per key head.
    fn grouped(&self) -> usize {
        self.heads / self.kv_heads * self.width
    }

    /// `[rows, width, heads, dim]` to `[rows, kv_heads, grouped, dim]`.
    fn group<B: Backend>(&self, q: FloatTensor<B>) -> FloatTensor<B> {
        let q = B::float_swap_dims(q, 1, 2);
        B::float_reshape(
            q,
            Shape::from([self.rows, self.kv_heads, self.grouped(), self.dim]),
        )
    }

    /// The way back.
    fn ungroup<B: Backend>(&self, q: FloatTensor<B>) -> FloatTensor<B> {
        let shape = Shape::from([self.rows, self.heads, self.width, self.dim]);
        B::float_swap_dims(B::float_reshape(q, shape), 1, 2)
    }
}

/// Probabilities `[rows, kv_heads, grouped, keys]`, f32.
fn probabilities<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    bias: FloatTensor<B>,
    scale: f64,
) -> FloatTensor<B> {
    let n = Sizes::of::<B>(&q, &k);
    let q = n.group::<B>(B::float_mul_scalar(q, scale.into()));
    let scores = B::float_matmul(q, B::float_permute(k, &[0, 2, 3, 1]));
    let scores = B::float_cast(scores, FloatDType::F32);
    let by_head = Shape::from([n.rows, n.heads, n.width, n.keys]);
    let scores = B::float_add(
        B::float_reshape(scores, by_head),
        B::float_cast(bias, FloatDType::F32),
    );
    let grouped = Shape::from([n.rows, n.kv_heads, n.grouped(), n.keys]);
    B::float_reshape(B::softmax(scores, 3), grouped)
}

/// `x`, `[rows, kv_heads, grouped, keys]`, times the mask.
fn dropped<B: Backend>(x: FloatTensor<B>, n: Sizes, dropout: Dropout) -> FloatTensor<B> {
    if dropout.is_none() {
        return x;
    }
    let mask = dropout.mask(n.rows, n.heads, n.width, n.keys);
    let shape = [n.rows, n.kv_heads, n.grouped(), n.keys];
    let mask = B::float_from_data(TensorData::new(mask, shape), &x.device());
    B::float_mul(x, mask)
}

/// See [`super::AttentionOps::grouped_attention`].
pub(super) fn attention<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    bias: FloatTensor<B>,
    scale: f64,
    dropout: Dropout,
) -> FloatTensor<B> {
    let (n, dtype) = (Sizes::of::<B>(&q, &k), q.dtype());
    let p = dropped::<B>(probabilities::<B>(q, k, bias, scale), n, dropout);
    let p = B::float_cast(p, dtype.into());
    let y = n.ungroup::<B>(B::float_matmul(p, B::float_swap_dims(v, 1, 2)));
    B::float_reshape(y, Shape::from([n.rows, n.width, n.heads * n.dim]))
}

/// See [`super::AttentionOps::grouped_attention_gradients`]. With `P` the probabilities, `M` the mask of dropout
/// and `dP = M (dy vᵀ)`: `dv = (M P)ᵀ dy`,
/// `dS = P (dP - sum(P dP))`, `dq = scale dS k`, `dk = scale dSᵀ q`.
#[allow(clippy::too_many_arguments)]
pub(super) fn gradients<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    bias: FloatTensor<B>,
    dy: FloatTensor<B>,
    scale: f64,
    dropout: Dropout,
    wanted: Wanted,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (n, dtype, device) = (Sizes::of::<B>(&q, &k), q.dtype(), q.device());
    let nothing = |shape: Shape| B::float_zeros(shape, &device, dtype.into());
    let (q_shape, kv_shape) = (q.shape(), k.shape());
    let dy = n.group::<B>(B::float_reshape(dy, q_shape.clone()));
    let p = probabilities::<B>(q.clone(), k.clone(), bias, scale);
    let dv = if wanted.v {
        let p = dropped::<B>(p.clone(), n, dropout);
        let p = B::float_swap_dims(B::float_cast(p, dtype.into()), 2, 3);
        B::float_swap_dims(B::float_matmul(p, dy.clone()), 1, 2)
    } else {
        nothing(kv_shape.clone())
    };
    if !wanted.q && !wanted.k {
        return (nothing(q_shape), nothing(kv_shape), dv);
    }
    let dp = B::float_matmul(dy, B::float_permute(v, &[0, 2, 3, 1]));
    let dp = dropped::<B>(B::float_cast(dp, FloatDType::F32), n, dropout);
    let mean = B::float_sum_dim(B::float_mul(p.clone(), dp.clone()), 3);
    let ds = B::float_mul_scalar(B::float_mul(p, B::float_sub(dp, mean)), scale.into());
    let ds = B::float_cast(ds, dtype.into());
    let dk = if wanted.k {
        let ds = B::float_swap_dims(ds.clone(), 2, 3);
        B::float_swap_dims(B::float_matmul(ds, n.group::<B>(q)), 1, 2)
    } else {
        nothing(kv_shape)
    };
    let dq = if wanted.q {
        n.ungroup::<B>(B::float_matmul(ds, B::float_swap_dims(k, 1, 2)))
    } else {
        nothing(q_shape)
    };
    (dq, dk, dv)
}
