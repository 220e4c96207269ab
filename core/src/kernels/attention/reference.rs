//! What the kernels must compute, as plain loops in f64.

/// Shapes of one problem, in the order of the interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) keys: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) dim: usize,
}

/// `softmax(scale q kᵀ + bias) v`; `bias` is `[rows or 1, width, keys]`.
pub(super) fn attention(
    s: Shape,
    q: &[f64],
    k: &[f64],
    v: &[f64],
    bias: &[f64],
    scale: f64,
) -> Vec<f64> {
    let all = vec![1.0; s.rows * s.heads * s.width * s.keys];
    dropped(s, q, k, v, bias, scale, &all)
}

/// The same with the probabilities multiplied by `mask`, `[rows, heads, width, keys]`.
pub(super) fn dropped(
    s: Shape,
    q: &[f64],
    k: &[f64],
    v: &[f64],
    bias: &[f64],
    scale: f64,
    mask: &[f64],
) -> Vec<f64> {
    let mut y = vec![0.0; q.len()];
    for row in 0..s.rows {
        let bias_row = if bias.len() == s.width * s.keys {
            0
        } else {
            row
        };
        for t in 0..s.width {
            for head in 0..s.heads {
                let kv_head = head / (s.heads / s.kv_heads);
                let query = ((row * s.width + t) * s.heads + head) * s.dim;
                let key = |j: usize| ((row * s.keys + j) * s.kv_heads + kv_head) * s.dim;
                let score = |j: usize| {
                    let dot: f64 = (0..s.dim).map(|d| q[query + d] * k[key(j) + d]).sum();
                    dot * scale + bias[(bias_row * s.width + t) * s.keys + j]
                };
                let scores: Vec<f64> = (0..s.keys).map(score).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|x| (x - max).exp()).sum();
                for (j, x) in scores.iter().enumerate() {
                    let kept = mask[((row * s.heads + head) * s.width + t) * s.keys + j];
                    let p = (x - max).exp() / sum * kept;
                    for d in 0..s.dim {
                        y[query + d] += p * v[key(j) + d];
                    }
                }
            }
        }
    }
    y
}
