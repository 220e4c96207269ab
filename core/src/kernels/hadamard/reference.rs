//! `y = x (W ⊙ (B·A))ᵀ` as the definition reads, in f64.

/// Sizes of one problem.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) rows: usize,
    pub(super) out: usize,
    pub(super) input: usize,
    pub(super) rank: usize,
}

pub(super) fn forward(sizes: Sizes, x: &[f64], w: &[f64], a: &[f64], b: &[f64]) -> Vec<f64> {
    let Sizes {
        rows,
        out,
        input,
        rank,
    } = sizes;
    let mut y = vec![0.0; rows * out];
    for row in 0..rows {
        for o in 0..out {
            for i in 0..input {
                let product: f64 = (0..rank).map(|r| b[o * rank + r] * a[r * input + i]).sum();
                y[row * out + o] += x[row * input + i] * w[o * input + i] * product;
            }
        }
    }
    y
}
