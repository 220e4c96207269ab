//! Root-mean-square normalization. Source: Zhang and Sennrich, arXiv 1910.07467.

use burn::tensor::{DType, Tensor};

/// `x / sqrt(mean(x²) + eps) * weight` over the last dimension of `[rows, hidden]`, computed in f32
/// and returned in `x`'s type, as the reference implementation does.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    let dtype = x.dtype();
    let x = x.cast(DType::F32);
    let variance = x.clone().square().mean_dim(1);
    let scale = variance.add_scalar(eps).sqrt().recip();
    (x * scale * weight.cast(DType::F32).unsqueeze()).cast(dtype)
}
