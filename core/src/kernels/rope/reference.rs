//! What the kernels must compute, as a plain loop in f64.

/// Rotates `[tokens, heads, head_dim]` by `[tokens, head_dim / 2]` angles.
pub(super) fn rope(x: &[f64], heads: usize, head_dim: usize, cos: &[f64], sin: &[f64]) -> Vec<f64> {
    let half = head_dim / 2;
    let mut y = x.to_vec();
    for (t, token) in y.chunks_mut(heads * head_dim).enumerate() {
        for head in token.chunks_mut(head_dim) {
            for i in 0..half {
                let (a, b) = (head[i], head[i + half]);
                let (c, s) = (cos[t * half + i], sin[t * half + i]);
                head[i] = a * c - b * s;
                head[i + half] = b * c + a * s;
            }
        }
    }
    y
}
