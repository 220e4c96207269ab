//! Products with an NF4 matrix that is never dense: `y = x Wᵀ`, its gradient `dx = g W`, and `W` itself.
//!
//! | file | what |
//! |---|---|
//! | `layout.rs` | how codes and absmax lie in the device buffers |
//! | `reference.rs` | plain loops every other file is held to |
//! | `cpu.rs`, `cpu/` | the CPU: two regimes, by the number of rows of `x` |
//! | `cube.rs` | GPUs: an unpacking kernel, a fused kernel for few rows |
//! | `backward.rs` | the gradient; between forward and backward only packed weights are kept |
//!
//! NF4: QLoRA (Dettmers et al., <https://arxiv.org/abs/2305.14314>); the packed bytes are bitsandbytes'.

mod backward;
mod cpu;
mod cube;
mod layout;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use burn::backend::{
    Backend, Dispatch, backend_extension,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, Device, FloatDType, Int, Shape, Tensor, TensorData};

use crate::host::ReadError;
use crate::quantization::{Absmax, Nf4Tensor};
pub use layout::Nf4Layout;

/// The device side of [`Nf4Weight`], implemented by every backend.
///
/// `codes`, `scale_codes` (u32) and `scales` (f32) are laid out as [`Nf4Layout`] draws them.
#[backend_extension(Cube, Flex, Autodiff, Fusion)]
pub trait Nf4Ops: Backend {
    /// `W`, `[out_features, in_features]`, in `dtype`.
    #[fusion(dtype = (*dtype).into(), shape = weight_shape(layout))]
    fn nf4_dequantize(
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: Nf4Layout,
        dtype: FloatDType,
    ) -> FloatTensor<Self>;

    /// `x Wᵀ`: `[rows, in_features]` to `[rows, out_features]`, in the type of `x`.
    #[fusion(dtype = x, shape = forward_shape(x, layout))]
    fn nf4_forward(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self>;

    /// `g W`: `[rows, out_features]` to `[rows, in_features]`, in the type of `g`.
    #[fusion(dtype = g, shape = backward_shape(g, layout))]
    fn nf4_backward(
        g: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self>;
}

fn weight_shape(layout: &Nf4Layout) -> Shape {
    Shape::from([layout.out_features, layout.in_features])
}

fn forward_shape(x: &Shape, layout: &Nf4Layout) -> Shape {
    Shape::from([x[0], layout.out_features])
}

fn backward_shape(g: &Shape, layout: &Nf4Layout) -> Shape {
    Shape::from([g[0], layout.in_features])
}

/// An NF4 matrix on a device, `[out_features, in_features]` as in PyTorch.
///
/// ```text
/// y = weight.linear(x)       [m, in] -> [m, out]
/// dL/dx = dL/dy W            [m, out] -> [m, in]; the weight itself has no gradient
/// ```
#[derive(Clone, Debug)]
pub struct Nf4Weight {
    codes: Tensor<1, Int>,
    scale_codes: Tensor<1, Int>,
    scales: Tensor<1>,
    layout: Nf4Layout,
    shape: Vec<usize>,
    dtype: String,
}

impl Nf4Weight {
    /// Uploads a packed matrix. The tensor is taken to be valid ([`Nf4Tensor::validate`]); a tensor of another
    /// rank than two is seen as `[first dimension, product of the rest]`.
    pub fn from_host(t: &Nf4Tensor, device: &Device) -> Self {
        let device = device.clone().inner();
        let out_features = t.shape.first().copied().unwrap_or(1);
        let in_features = t.shape.iter().skip(1).product();
        let nested_blocksize = match &t.absmax {
            Absmax::Plain(_) => 0,
            Absmax::Double {
                nested_blocksize, ..
            } => *nested_blocksize,
        };
        let layout = Nf4Layout {
            out_features,
            in_features,
            blocksize: t.blocksize,
            nested_blocksize,
        };
        let (scale_codes, scales) = match &t.absmax {
            Absmax::Plain(absmax) => (vec![0], absmax.clone()),
            Absmax::Double {
                codes,
                nested_absmax,
                offset,
                quant_map,
                ..
            } => {
                let scales = [&[*offset], quant_map.as_slice(), nested_absmax].concat();
                (words(codes, layout.blocks().div_ceil(4)), scales)
            }
        };
        let ints = |words: Vec<u32>| {
            let length = [words.len()];
            Tensor::from_data(TensorData::new(words, length), (&device, DType::U32))
        };
        let length = [scales.len().max(1)];
        let scales = if scales.is_empty() { vec![0.0] } else { scales };
        Self {
            codes: ints(words(&t.codes, layout.words())),
            scale_codes: ints(scale_codes),
            scales: Tensor::from_data(TensorData::new(scales, length), (&device, DType::F32)),
            layout,
            shape: t.shape.clone(),
            dtype: t.dtype.clone(),
        }
    }

    /// Reads the packed matrix back, bit for bit what [`Self::from_host`] was given.
    ///
    /// # Errors
    /// The device failed.
    pub async fn to_host(&self) -> Result<Nf4Tensor, ReadError> {
        let codes = self.codes.clone().into_data_async();
        let scale_codes = self.scale_codes.clone().into_data_async();
        let scales = self.scales.clone().into_data_async();
        Ok(self.host(
            codes.await.map_err(ReadError::new)?,
            scale_codes.await.map_err(ReadError::new)?,
            scales.await.map_err(ReadError::new)?,
        ))
    }

    fn host(&self, codes: TensorData, scale_codes: TensorData, scales: TensorData) -> Nf4Tensor {
        let scales: Vec<f32> = scales.iter::<f32>().collect();
        let absmax = if self.layout.is_double() {
            let (head, nested) = scales.split_at(layout::NESTED);
            Absmax::Double {
                codes: bytes(&scale_codes, self.layout.blocks()),
                nested_absmax: nested.to_vec(),
                nested_blocksize: self.layout.nested_blocksize,
                offset: head[0],
                quant_map: head[1..].to_vec(),
            }
        } else {
            Absmax::Plain(scales[..self.layout.blocks()].to_vec())
        };
        Nf4Tensor {
            shape: self.shape.clone(),
            blocksize: self.layout.blocksize,
            codes: bytes(&codes, self.layout.elements().div_ceil(2)),
            absmax,
            dtype: self.dtype.clone(),
        }
    }

    /// Rows of the matrix.
    pub fn out_features(&self) -> usize {
        self.layout.out_features
    }

    /// Columns of the matrix.
    pub fn in_features(&self) -> usize {
        self.layout.in_features
    }

    /// Where the matrix lies (without autodiff: it never has a gradient).
    pub fn device(&self) -> Device {
        self.codes.device()
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> usize {
        4 * (self.codes.dims()[0] + self.scale_codes.dims()[0] + self.scales.dims()[0])
    }

    /// The dense matrix, `[out_features, in_features]`; never tracked by autodiff.
    pub fn dequantize(&self, dtype: FloatDType) -> Tensor<2> {
        let [codes, scale_codes, scales] = self.buffers();
        Tensor::from_dispatch(<Dispatch as Nf4Ops>::nf4_dequantize(
            codes,
            scale_codes,
            scales,
            self.layout,
            dtype,
        ))
    }

    /// `x Wᵀ`: `[m, in_features]` to `[m, out_features]`, in the type of `x`.
    ///
    /// Differentiable in `x`; what autodiff keeps for the backward pass is this packed weight, not `x` and no
    /// dense `W`.
    ///
    /// # Panics
    /// As burn's own matmul does, where `x` does not have `in_features` columns.
    pub fn linear(&self, x: Tensor<2>) -> Tensor<2> {
        let columns = x.dims()[1];
        assert_eq!(
            columns, self.layout.in_features,
            "x has {columns} columns, the weight is [{}, {}] ([out_features, in_features])",
            self.layout.out_features, self.layout.in_features
        );
        let [codes, scale_codes, scales] = self.buffers();
        Tensor::from_dispatch(<Dispatch as Nf4Ops>::nf4_forward(
            x.into_dispatch(),
            codes,
            scale_codes,
            scales,
            self.layout,
        ))
    }

    /// The device buffers and how they are laid out, for operations that unpack the matrix themselves.
    pub(crate) fn parts(&self) -> ([burn::backend::DispatchTensor; 3], Nf4Layout) {
        (self.buffers(), self.layout)
    }

    fn buffers(&self) -> [burn::backend::DispatchTensor; 3] {
        [
            self.codes.clone().into_dispatch(),
            self.scale_codes.clone().into_dispatch(),
            self.scales.clone().into_dispatch(),
        ]
    }
}

/// Bytes as little-endian words, padded with zeros to `count` words (at least one: no device has empty buffers).
fn words(bytes: &[u8], count: usize) -> Vec<u32> {
    let mut bytes = bytes.to_vec();
    bytes.resize(4 * count.max(1), 0);
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|b| u32::from_le_bytes(*b))
        .collect()
}

/// The first `count` bytes of a buffer of words.
fn bytes(words: &TensorData, count: usize) -> Vec<u8> {
    words
        .iter::<u32>()
        .flat_map(u32::to_le_bytes)
        .take(count)
        .collect()
}
