//! GPUs (CubeCL: CUDA, Vulkan, Metal, WebGPU): an unpacking kernel, and a fused product for few rows.
//!
//! Few rows (generation) are bounded by memory bandwidth: one cube computes [`TILE`] outputs and reads their packed
//! codes once. Many rows go to the backend's own matmul, on a weight unpacked into the type of `x` and dropped
//! after the product. No subgroup operations: sums meet in shared memory, so the kernels run wherever WebGPU does.
//! The 16 levels sit in shared memory too, in as many banks, which makes a lookup one conflict-free read.

use burn::backend::{
    TensorMetadata,
    cubecl::dtype_to_storage_type,
    ops::FloatTensorOps,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, FloatDType};
use burn_cubecl::{
    CubeBackend, kernel::into_contiguous, ops::numeric::empty_device_contiguous_dtype,
    tensor::CubeTensor,
};
use cubecl::{calculate_cube_count_elemwise, prelude::*};

use super::{Nf4Layout, Nf4Ops, backward_shape, forward_shape, weight_shape};

/// Rows of `x` up to which the fused kernel is used.
const FEW_ROWS: usize = 7;
/// Outputs of one cube of the fused kernel, for every row of `x`.
const TILE: u32 = 4;
/// Units of one cube of the fused kernel.
const UNITS: u32 = 64;
/// Elements of `x` per load of the fused kernel.
const VECTOR: usize = 4;
/// Units of one cube of the unpacking kernel.
const UNPACK_UNITS: u32 = 256;
/// Cubes in one dimension of a launch; WebGPU allows 65535.
const MAX_CUBES: u32 = 32768;

/// Level of a code, by four choices.
#[cube]
fn level(code: u32) -> f32 {
    let c0 = select(code == 0u32, -1.0f32, -0.696_192_8f32);
    let c2 = select(code == 2u32, -0.525_073_05f32, -0.394_917_5f32);
    let c4 = select(code == 4u32, -0.284_441_38f32, -0.184_773_43f32);
    let c6 = select(code == 6u32, -0.091_050_036f32, 0.0f32);
    let c8 = select(code == 8u32, 0.079_580_3f32, 0.160_930_2f32);
    let c10 = select(code == 10u32, 0.246_112_3f32, 0.337_915_24f32);
    let c12 = select(code == 12u32, 0.440_709_83f32, 0.562_617f32);
    let c14 = select(code == 14u32, 0.722_956_84f32, 1.0f32);
    let low = select(
        code < 4u32,
        select(code < 2u32, c0, c2),
        select(code < 6u32, c4, c6),
    );
    let high = select(
        code < 12u32,
        select(code < 10u32, c8, c10),
        select(code < 14u32, c12, c14),
    );
    select(code < 8u32, low, high)
}

/// Absmax of a block; see `Nf4Layout` for the buffers.
#[cube]
fn absmax(
    scale_codes: &[u32],
    scales: &[f32],
    block: usize,
    nested_blocksize: u32,
    #[comptime] double: bool,
) -> f32 {
    if comptime![double] {
        let code = (scale_codes[block / 4] >> (8u32 * (block % 4) as u32)) & 255u32;
        scales[1 + code as usize] * scales[257 + block / nested_blocksize as usize] + scales[0]
    } else {
        scales[block]
    }
}

/// Every unit writes one vector of the dense matrix.
#[cube(launch)]
fn unpack_kernel<F: Float, N: Size>(
    codes: &[u32],
    scale_codes: &[u32],
    scales: &[f32],
    out: &mut [Vector<F, N>],
    vectors: u32,
    blocksize: u32,
    nested_blocksize: u32,
    #[comptime] double: bool,
    #[define(F)] _dtype: ElemType,
) {
    let position = ABSOLUTE_POS;
    if position < vectors as usize {
        let first = position * N::value();
        let scale = absmax(
            scale_codes,
            scales,
            first / blocksize as usize,
            nested_blocksize,
            double,
        );
        let word = codes[first / 8];
        let mut values = Vector::<F, N>::empty();
        #[unroll]
        for j in 0..N::value() {
            let nibble = (first + j) as u32 % 8u32;
            // The even element of a byte is in its high half.
            let code = (word >> (4u32 * (nibble ^ 1u32))) & 15u32;
            values.insert(j, F::cast_from(level(code) * scale));
        }
        out[position] = values;
    }
}

/// `TILE` outputs for `rows` rows of `x`; `in_features` is a multiple of 8.
#[cube(launch)]
fn few_rows_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    codes: &[u32],
    scale_codes: &[u32],
    scales: &[f32],
    out: &mut [F],
    out_features: u32,
    in_features: u32,
    blocksize: u32,
    nested_blocksize: u32,
    #[comptime] rows: u32,
    #[comptime] loads: usize,
    #[comptime] double: bool,
    #[define(F)] _dtype: ElemType,
) {
    let sums = comptime![(rows * TILE) as usize];
    let rows = comptime![rows as usize];
    let tile = comptime![TILE as usize];
    let units = comptime![UNITS as usize];
    let mut levels = Shared::<[f32]>::new_slice(16usize);
    let mut partial = Shared::<[f32]>::new_slice(comptime![rows * tile * units]);
    if UNIT_POS < 16u32 {
        levels[UNIT_POS as usize] = level(UNIT_POS);
    }
    sync_cube();

    let out_features = out_features as usize;
    let words = in_features as usize / 8;
    let unit = UNIT_POS as usize;
    let first = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) as usize * tile;
    let mut total = Array::<f32>::new(sums);
    let mut weights = Array::<f32>::new(8usize);
    #[unroll]
    for i in 0..sums {
        total[i] = 0.0f32;
    }

    let mut word = unit;
    while word < words {
        #[unroll]
        for r in 0..tile {
            // Rows past the end repeat the last one and are not written.
            let row = min(first + r, out_features - 1);
            let at = row * words + word;
            let packed = codes[at];
            let block = at * 8 / blocksize as usize;
            let scale = absmax(scale_codes, scales, block, nested_blocksize, double);
            #[unroll]
            for j in 0..8u32 {
                let code = (packed >> (4u32 * (j ^ 1u32))) & 15u32;
                weights[j as usize] = levels[code as usize];
            }
            #[unroll]
            for m in 0..rows {
                let mut sum = 0.0f32;
                #[unroll]
                for v in 0..loads {
                    let values = x[(m * words + word) * loads + v];
                    #[unroll]
                    for j in 0..N::value() {
                        sum += f32::cast_from(values.extract(j)) * weights[v * N::value() + j];
                    }
                }
                total[m * tile + r] += sum * scale;
            }
        }
        word += units;
    }

    #[unroll]
    for i in 0..sums {
        partial[i * units + unit] = total[i];
    }
    sync_cube();
    #[unroll]
    for step in 1..=comptime![UNITS.ilog2()] {
        let half = comptime![units >> step];
        if unit < half {
            #[unroll]
            for i in 0..sums {
                let other = partial[i * units + unit + half];
                partial[i * units + unit] += other;
            }
        }
        sync_cube();
    }
    if unit < sums {
        let m = unit / tile;
        let row = first + unit % tile;
        if row < out_features {
            out[m * out_features + row] = F::cast_from(partial[unit * units]);
        }
    }
}

/// The widest of 4, 2, 1 that divides `elements`.
fn vector_size(elements: usize) -> usize {
    [4, 2]
        .into_iter()
        .find(|n| elements.is_multiple_of(*n))
        .unwrap_or(1)
}

fn unpack(
    codes: CubeTensor,
    scale_codes: CubeTensor,
    scales: CubeTensor,
    layout: Nf4Layout,
    dtype: DType,
) -> CubeTensor {
    let (codes, scale_codes) = (into_contiguous(codes), into_contiguous(scale_codes));
    let scales = into_contiguous(scales);
    let client = codes.client.clone();
    let device = codes.device.clone();
    let out = empty_device_contiguous_dtype(client.clone(), device, weight_shape(&layout), dtype);
    let elements = layout.elements();
    if elements == 0 {
        return out;
    }
    let size = vector_size(elements);
    let dim = CubeDim::new_1d(UNPACK_UNITS);
    let count = calculate_cube_count_elemwise(&client, elements / size, dim);
    unpack_kernel::launch(
        &client,
        count,
        dim,
        size,
        codes.into_buffer_arg(),
        scale_codes.into_buffer_arg(),
        scales.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        (elements / size) as u32,
        layout.blocksize as u32,
        layout.nested_blocksize as u32,
        layout.is_double(),
        dtype_to_storage_type(dtype),
    );
    out
}

fn few_rows(
    x: CubeTensor,
    codes: CubeTensor,
    scale_codes: CubeTensor,
    scales: CubeTensor,
    layout: Nf4Layout,
) -> CubeTensor {
    let x = into_contiguous(x);
    let (codes, scale_codes) = (into_contiguous(codes), into_contiguous(scale_codes));
    let scales = into_contiguous(scales);
    let client = x.client.clone();
    let (rows, dtype) = (x.shape()[0], x.dtype);
    let shape = forward_shape(&x.shape(), &layout);
    let out = empty_device_contiguous_dtype(client.clone(), x.device.clone(), shape, dtype);
    let cubes = layout.out_features.div_ceil(TILE as usize) as u32;
    let across = cubes.min(MAX_CUBES);
    few_rows_kernel::launch(
        &client,
        CubeCount::Static(across, cubes.div_ceil(across), 1),
        CubeDim::new_1d(UNITS),
        VECTOR,
        x.into_buffer_arg(),
        codes.into_buffer_arg(),
        scale_codes.into_buffer_arg(),
        scales.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        layout.out_features as u32,
        layout.in_features as u32,
        layout.blocksize as u32,
        layout.nested_blocksize as u32,
        rows as u32,
        8 / VECTOR,
        layout.is_double(),
        dtype_to_storage_type(dtype),
    );
    out
}

impl Nf4Ops for CubeBackend {
    fn nf4_dequantize(
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: Nf4Layout,
        dtype: FloatDType,
    ) -> FloatTensor<Self> {
        unpack(codes, scale_codes, scales, layout, dtype.into())
    }

    fn nf4_forward(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self> {
        let shape = forward_shape(&x.shape(), &layout);
        if shape.num_elements() == 0 || layout.in_features == 0 {
            return Self::float_zeros(shape, &x.device, x.dtype.into());
        }
        if shape[0] <= FEW_ROWS && layout.in_features.is_multiple_of(8) {
            return few_rows(x, codes, scale_codes, scales, layout);
        }
        let w = unpack(codes, scale_codes, scales, layout, x.dtype);
        Self::float_matmul(x, Self::float_transpose(w))
    }

    fn nf4_backward(
        g: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self> {
        let shape = backward_shape(&g.shape(), &layout);
        if shape.num_elements() == 0 || layout.out_features == 0 {
            return Self::float_zeros(shape, &g.device, g.dtype.into());
        }
        let w = unpack(codes, scale_codes, scales, layout, g.dtype);
        Self::float_matmul(g, w)
    }
}
