//! The head in f64, logits and all.

/// Losses `[n]`, gradient of hidden `[n, d]` and of the weight `[vocab, d]`, both times `scale`.
pub(super) fn linear_cross_entropy(
    hidden: &[f32],
    weight: &[f32],
    targets: &[u32],
    scale: f32,
    d: usize,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let vocab = weight.len() / d;
    let mut losses = Vec::new();
    let mut grad_hidden = vec![0f64; hidden.len()];
    let mut grad_weight = vec![0f64; weight.len()];
    for (n, &target) in targets.iter().enumerate() {
        let h = &hidden[n * d..(n + 1) * d];
        let logit = |v: usize| -> f64 {
            h.iter()
                .zip(&weight[v * d..])
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum()
        };
        let logits: Vec<f64> = (0..vocab).map(logit).collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|l| (l - max).exp()).sum();
        losses.push(max + sum.ln() - logits[target as usize]);
        for (v, l) in logits.iter().enumerate() {
            let onehot = if v == target as usize { 1.0 } else { 0.0 };
            let error = f64::from(scale) * ((l - max).exp() / sum - onehot);
            for k in 0..d {
                grad_hidden[n * d + k] += error * f64::from(weight[v * d + k]);
                grad_weight[v * d + k] += error * f64::from(h[k]);
            }
        }
    }
    (losses, grad_hidden, grad_weight)
}
