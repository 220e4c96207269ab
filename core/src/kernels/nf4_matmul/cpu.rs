//! The CPU backend (burn-flex): tensors to slices, and the kernels of `cpu/` on them.

mod matmul;
mod packed;
mod simd;
#[cfg(test)]
mod tests;

use burn::backend::{
    Flex,
    ops::FloatTensorOps,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, FloatDType, TensorData};
use burn_flex::FlexTensor;

use super::{Nf4Layout, Nf4Ops};
use packed::Packed;
use simd::Isa;

/// The buffers of one matrix, contiguous.
struct Buffers {
    codes: FlexTensor,
    scale_codes: FlexTensor,
    scales: FlexTensor,
    layout: Nf4Layout,
}

impl Buffers {
    fn new(
        codes: FlexTensor,
        scale_codes: FlexTensor,
        scales: FlexTensor,
        layout: Nf4Layout,
    ) -> Self {
        Self {
            codes: codes.to_contiguous(),
            scale_codes: scale_codes.to_contiguous(),
            scales: scales.to_contiguous(),
            layout,
        }
    }

    fn packed(&self) -> Packed<'_> {
        Packed {
            layout: self.layout,
            codes: bytemuck::cast_slice(self.codes.storage::<u32>()),
            scale_codes: bytemuck::cast_slice(self.scale_codes.storage::<u32>()),
            scales: self.scales.storage::<f32>(),
            isa: Isa::detect(),
        }
    }
}

#[cfg(target_endian = "big")]
compile_error!("packed codes are words read as little-endian bytes");

fn matrix(values: Vec<f32>, rows: usize, columns: usize) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, [rows, columns]))
}

/// Runs an f32 product on a matrix of any float type: `[rows, _]` to `[rows, columns]`.
fn in_f32(
    x: FlexTensor,
    columns: usize,
    product: impl FnOnce(&[f32], usize) -> Vec<f32>,
) -> FlexTensor {
    let dtype = x.dtype();
    let rows = x.layout().shape()[0];
    let x = if dtype == DType::F32 {
        x
    } else {
        Flex::float_cast(x, FloatDType::F32)
    };
    let x = x.to_contiguous();
    let y = matrix(product(x.storage::<f32>(), rows), rows, columns);
    if dtype == DType::F32 {
        y
    } else {
        Flex::float_cast(y, dtype.into())
    }
}

impl Nf4Ops for Flex {
    fn nf4_dequantize(
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: Nf4Layout,
        dtype: FloatDType,
    ) -> FloatTensor<Self> {
        let buffers = Buffers::new(codes, scale_codes, scales, layout);
        let values = matmul::dequantize(&buffers.packed());
        let dense = matrix(values, layout.out_features, layout.in_features);
        if dtype == FloatDType::F32 {
            dense
        } else {
            Self::float_cast(dense, dtype)
        }
    }

    fn nf4_forward(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self> {
        let buffers = Buffers::new(codes, scale_codes, scales, layout);
        in_f32(x, layout.out_features, |x, rows| {
            matmul::forward(&buffers.packed(), x, rows)
        })
    }

    fn nf4_backward(
        g: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self> {
        let buffers = Buffers::new(codes, scale_codes, scales, layout);
        in_f32(g, layout.in_features, |g, rows| {
            matmul::backward(&buffers.packed(), g, rows)
        })
    }
}
