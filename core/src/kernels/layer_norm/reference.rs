//! What the kernels must compute, as a plain loop in f64.

/// `(x - mean) / sqrt(variance + eps) * weight + bias`, row by row.
pub(super) fn layer_norm(x: &[f64], weight: &[f64], bias: &[f64], eps: f64) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks(weight.len()) {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
        let deviation = (variance + eps).sqrt();
        let affine = weight.iter().zip(bias);
        y.extend(
            row.iter()
                .zip(affine)
                .map(|(x, (w, b))| (x - mean) / deviation * w + b),
        );
    }
    y
}
