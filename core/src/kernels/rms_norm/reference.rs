//! What the kernels must compute, as a plain loop in f64.

/// `x / sqrt(mean(x²) + eps) * weight`, row by row.
pub(super) fn rms_norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks(weight.len()) {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        let rms = (mean + eps).sqrt();
        y.extend(row.iter().zip(weight).map(|(x, w)| x / rms * w));
    }
    y
}
