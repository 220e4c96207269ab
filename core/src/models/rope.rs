//! Rotary position embedding in Hugging Face's rotate-half layout: feature `i` pairs with
//! `i + head_dim / 2`. Source: Su et al., arXiv 2104.09864.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::kernels::rope::rope;

/// Cosines and sines of every position up to a length, `[positions, head_dim / 2]`, f32.
#[derive(Clone, Debug)]
pub struct RopeTable {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl RopeTable {
    /// Tabulates angles `position * inv_freq`, both scaled by `attention_scaling`.
    pub fn new(
        inv_freq: &[f32],
        attention_scaling: f32,
        positions: usize,
        device: &Device,
    ) -> Self {
        let table = |f: fn(f32) -> f32| {
            let values: Vec<f32> = (0..positions)
                .flat_map(|p| {
                    inv_freq
                        .iter()
                        .map(move |w| f(p as f32 * w) * attention_scaling)
                })
                .collect();
            Tensor::from_data(TensorData::new(values, [positions, inv_freq.len()]), device)
        };
        Self {
            cos: table(f32::cos),
            sin: table(f32::sin),
        }
    }

    /// Positions in the table.
    pub fn len(&self) -> usize {
        self.cos.dims()[0]
    }

    /// Whether the table holds no position.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rotation for `position_ids`, row-major `[rows, width]`.
    pub fn at(&self, position_ids: &[u32]) -> Rotation {
        let device = self.cos.device();
        let ids: Vec<i32> = position_ids.iter().map(|&p| p as i32).collect();
        let count = ids.len();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), (&device, DType::I32));
        Rotation {
            cos: self.cos.clone().select(0, ids.clone()),
            sin: self.sin.clone().select(0, ids),
        }
    }
}

/// The angles of one batch's tokens, `[rows * width, head_dim / 2]` each.
#[derive(Clone, Debug)]
pub struct Rotation {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl Rotation {
    /// Rotates `[rows, width, heads, head_dim]`.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        rope(x, self.cos.clone(), self.sin.clone())
    }
}
