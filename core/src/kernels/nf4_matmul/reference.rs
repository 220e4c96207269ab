//! What every kernel must compute, as plain loops over the unpacked matrix, summed in f64.

use crate::quantization::{NF4_CODEBOOK, Nf4Tensor};

/// `W[i] = level(code i) * absmax[i / blocksize]`, `[out * in]` row-major.
pub(super) fn dequantize(t: &Nf4Tensor) -> Vec<f32> {
    let absmax = t.absmax.to_f32();
    let elements = t.shape.iter().product();
    let code = |i: usize| match i % 2 {
        0 => t.codes[i / 2] >> 4,
        _ => t.codes[i / 2] & 15,
    };
    (0..elements)
        .map(|i| NF4_CODEBOOK[usize::from(code(i))] * absmax[i / t.blocksize])
        .collect()
}

/// `y[m, o] = Σ_k x[m, k] W[o, k]`.
pub(super) fn forward(t: &Nf4Tensor, x: &[f32], rows: usize) -> Vec<f32> {
    let (w, [outputs, width]) = (dequantize(t), [t.shape[0], t.shape[1]]);
    let mut y = Vec::with_capacity(rows * outputs);
    for m in 0..rows {
        for o in 0..outputs {
            let products =
                (0..width).map(|k| f64::from(x[m * width + k]) * f64::from(w[o * width + k]));
            y.push(products.sum::<f64>() as f32);
        }
    }
    y
}

/// `dx[m, k] = Σ_o g[m, o] W[o, k]`.
pub(super) fn backward(t: &Nf4Tensor, g: &[f32], rows: usize) -> Vec<f32> {
    let (w, [outputs, width]) = (dequantize(t), [t.shape[0], t.shape[1]]);
    let mut dx = Vec::with_capacity(rows * width);
    for m in 0..rows {
        for k in 0..width {
            let products =
                (0..outputs).map(|o| f64::from(g[m * outputs + o]) * f64::from(w[o * width + k]));
            dx.push(products.sum::<f64>() as f32);
        }
    }
    dx
}
