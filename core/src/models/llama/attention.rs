//! Grouped-query self-attention with rotary positions.

use burn::tensor::{DType, Tensor, activation::softmax};

use super::{Context, LlamaConfig};
use crate::lora::Overlay;
use crate::models::linear::Linear;

/// The attention sub-layer of one block.
#[derive(Clone, Debug)]
pub struct Attention {
    /// `[num_heads * head_dim, hidden]`.
    pub q_proj: Linear,
    /// `[num_kv_heads * head_dim, hidden]`.
    pub k_proj: Linear,
    /// `[num_kv_heads * head_dim, hidden]`.
    pub v_proj: Linear,
    /// `[hidden, num_heads * head_dim]`.
    pub o_proj: Linear,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; each serves `num_heads / num_kv_heads` query heads.
    pub num_kv_heads: usize,
    /// Features per head.
    pub head_dim: usize,
}

/// Keys and values of the tokens seen so far, allocated once for the longest sequence.
#[derive(Clone, Debug)]
pub struct LayerCache {
    keys: Tensor<4>,
    values: Tensor<4>,
}

impl LayerCache {
    /// Room for `capacity` tokens of `rows` sequences.
    pub fn new(config: &LlamaConfig, rows: usize, capacity: usize, like: &Tensor<2>) -> Self {
        let shape = [rows, config.num_key_value_heads, capacity, config.head_dim];
        let options = (&like.device(), like.dtype());
        Self {
            keys: Tensor::zeros(shape, options),
            values: Tensor::zeros(shape, options),
        }
    }

    /// Writes the new tokens' keys and values at `past` and returns everything up to their end.
    fn append(
        &mut self,
        past: usize,
        keys: Tensor<4>,
        values: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        let [rows, heads, width, dim] = keys.dims();
        let place = [0..rows, 0..heads, past..past + width, 0..dim];
        self.keys
            .inplace(|cache| cache.slice_assign(place.clone(), keys));
        self.values
            .inplace(|cache| cache.slice_assign(place, values));
        let seen = past + width;
        (
            self.keys.clone().narrow(2, 0, seen),
            self.values.clone().narrow(2, 0, seen),
        )
    }

    /// Keeps the sequences `rows`, in that order: finished ones leave the batch.
    pub fn keep_rows(&mut self, rows: burn::tensor::Tensor<1, burn::tensor::Int>) {
        self.keys.inplace(|cache| cache.select(0, rows.clone()));
        self.values.inplace(|cache| cache.select(0, rows));
    }
}

impl Attention {
    /// `[rows * width, hidden]` to the same shape. With a cache, the `past` tokens in it are seen too.
    pub fn forward(
        &self,
        x: Tensor<2>,
        context: &Context,
        cache: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<2> {
        let q = context.rotation.apply(self.heads(
            self.q_proj.forward(x.clone()),
            self.num_heads,
            context,
        ));
        let k = context.rotation.apply(self.heads(
            self.k_proj.forward(x.clone()),
            self.num_kv_heads,
            context,
        ));
        let v = self.heads(self.v_proj.forward(x), self.num_kv_heads, context);
        let (k, v) = match cache {
            Some((cache, past)) => cache.append(past, k, v),
            None => (k, v),
        };
        let mixed = self.attend(q, k, v, context);
        let width = self.num_heads * self.head_dim;
        let rows = mixed
            .swap_dims(1, 2)
            .reshape([context.rows * context.width, width]);
        self.o_proj.forward(rows)
    }

    /// `[rows * width, heads * head_dim]` to `[rows, heads, width, head_dim]`.
    fn heads(&self, x: Tensor<2>, heads: usize, context: &Context) -> Tensor<4> {
        x.reshape([context.rows, context.width, heads, self.head_dim])
            .swap_dims(1, 2)
    }

    /// Softmax attention. The query heads of a group are stacked along the token axis, so keys and
    /// values are never repeated.
    fn attend(&self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, context: &Context) -> Tensor<4> {
        let (rows, width, keys) = (context.rows, context.width, k.dims()[2]);
        let (heads, kv_heads, dim) = (self.num_heads, self.num_kv_heads, self.head_dim);
        let dtype = q.dtype();
        let grouped = (heads / kv_heads) * width;
        let q = q
            .mul_scalar((dim as f64).powf(-0.5))
            .reshape([rows, kv_heads, grouped, dim]);
        let scores = q.matmul(k.swap_dims(2, 3)).cast(DType::F32);
        let scores = scores.reshape([rows, heads, width, keys]) + context.bias.clone();
        let weights = softmax(scores, 3)
            .cast(dtype)
            .reshape([rows, kv_heads, grouped, keys]);
        weights.matmul(v).reshape([rows, heads, width, dim])
    }

    /// This layer with what `overlay` holds under `prefix` (`model.layers.0.self_attn`).
    pub fn with(&self, overlay: &Overlay, prefix: &str) -> Self {
        let put = |linear: &Linear, name: &str| linear.with(overlay, &format!("{prefix}.{name}"));
        Self {
            q_proj: put(&self.q_proj, "q_proj"),
            k_proj: put(&self.k_proj, "k_proj"),
            v_proj: put(&self.v_proj, "v_proj"),
            o_proj: put(&self.o_proj, "o_proj"),
            ..*self
        }
    }
}
