//! Weighted sums. Source: Ilharco et al., "Editing Models with Task Arithmetic", arXiv 2212.04089.

/// `Σ wᵢ tᵢ` over tensors of one length.
pub(super) fn weighted_sum(tensors: &[Vec<f32>], weights: &[f32]) -> Vec<f32> {
    let len = tensors.first().map_or(0, Vec::len);
    let mut sum = vec![0.0f32; len];
    for (tensor, weight) in tensors.iter().zip(weights) {
        for (s, t) in sum.iter_mut().zip(tensor) {
            *s += t * weight;
        }
    }
    sum
}
