//! Rotary position embedding in Hugging Face's rotate-half layout: feature `i` pairs with
//! `i + head_dim / 2`. Source: Su et al., arXiv 2104.09864.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

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

    /// The rotation for `position_ids` (`[rows, width]` flattened), each `[rows, 1, width, head_dim / 2]`.
    pub fn at(&self, position_ids: &[u32], rows: usize, width: usize) -> Rotation {
        let device = self.cos.device();
        let ids: Vec<i32> = position_ids.iter().map(|&p| p as i32).collect();
        let ids = Tensor::<1, Int>::from_data(
            TensorData::new(ids, [rows * width]),
            (&device, DType::I32),
        );
        let half = self.cos.dims()[1];
        let pick = |t: &Tensor<2>| {
            t.clone()
                .select(0, ids.clone())
                .reshape([rows, 1, width, half])
        };
        Rotation {
            cos: pick(&self.cos),
            sin: pick(&self.sin),
        }
    }
}

/// The rotation of one batch.
#[derive(Clone, Debug)]
pub struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotation {
    /// Rotates `[rows, heads, width, head_dim]`.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let dtype = x.dtype();
        let head_dim = x.dims()[3];
        let half = head_dim / 2;
        let first = x.clone().narrow(3, 0, half).cast(DType::F32);
        let second = x.narrow(3, half, half).cast(DType::F32);
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let rotated_first = first.clone() * cos.clone() - second.clone() * sin.clone();
        let rotated_second = second * cos + first * sin;
        Tensor::cat(vec![rotated_first, rotated_second], 3).cast(dtype)
    }
}
