//! Grouped-query self-attention with rotary positions.

use burn::tensor::{DType, Device, Int, Tensor};

use super::{Context, LlamaConfig};
use crate::kernels::attention::attention;
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
    pub fn new(
        config: &LlamaConfig,
        rows: usize,
        capacity: usize,
        options: (&Device, DType),
    ) -> Self {
        let shape = [rows, capacity, config.num_key_value_heads, config.head_dim];
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
        let [rows, width, heads, dim] = keys.dims();
        let place = [0..rows, past..past + width, 0..heads, 0..dim];
        self.keys
            .inplace(|cache| cache.slice_assign(place.clone(), keys));
        self.values
            .inplace(|cache| cache.slice_assign(place, values));
        let seen = past + width;
        (
            self.keys.clone().narrow(1, 0, seen),
            self.values.clone().narrow(1, 0, seen),
        )
    }

    /// Keeps the sequences `rows`, in that order: finished ones leave the batch.
    pub fn keep_rows(&mut self, rows: Tensor<1, Int>) {
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
        let heads = |x: Tensor<2>, heads: usize| {
            x.reshape([context.rows, context.width, heads, self.head_dim])
        };
        let q = heads(self.q_proj.forward(x.clone()), self.num_heads);
        let k = heads(self.k_proj.forward(x.clone()), self.num_kv_heads);
        let v = heads(self.v_proj.forward(x), self.num_kv_heads);
        let (q, k) = (context.rotation.apply(q), context.rotation.apply(k));
        let (k, v) = match cache {
            Some((cache, past)) => cache.append(past, k, v),
            None => (k, v),
        };
        let scale = (self.head_dim as f64).powf(-0.5);
        let mixed = attention(q, k, v, context.bias.clone(), scale);
        let width = self.num_heads * self.head_dim;
        self.o_proj
            .forward(mixed.reshape([context.rows * context.width, width]))
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
