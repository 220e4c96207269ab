//! TIES: elect a sign for every entry and average the values that agree with it. Source: Yadav et al., "TIES-Merging",
//! arXiv 2306.01708, with PEFT's conventions: signs are elected on the unweighted values, a tie is positive, a zero agrees
//! with nothing, and the sum of the weighted values is divided by their number.

use super::Sign;

/// Merges `tensors`, all of one length.
pub(super) fn elect_and_average(tensors: &[Vec<f32>], weights: &[f32], sign: Sign) -> Vec<f32> {
    let len = tensors.first().map_or(0, Vec::len);
    (0..len)
        .map(|at| {
            let values = tensors.iter().map(|t| t[at]);
            let vote: f32 = match sign {
                Sign::Total => values.clone().sum(),
                Sign::Frequency => values.clone().map(sign_of).sum(),
            };
            let majority = if vote >= 0.0 { 1.0 } else { -1.0 };
            let (mut sum, mut count) = (0.0f32, 0.0f32);
            for (value, weight) in values.zip(weights) {
                if sign_of(value) == majority {
                    sum += value * weight;
                    count += 1.0;
                }
            }
            sum / count.max(1.0)
        })
        .collect()
}

fn sign_of(value: f32) -> f32 {
    match value {
        v if v > 0.0 => 1.0,
        v if v < 0.0 => -1.0,
        _ => 0.0,
    }
}
