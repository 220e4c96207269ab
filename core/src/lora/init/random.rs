//! Random `A`, zero `B`: the update is nothing until the first step.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use crate::models::random::box_muller;

/// `A` uniform in `±1/sqrt(in)`: PyTorch's `kaiming_uniform_(a=sqrt(5))`, PEFT's default.
pub(crate) fn uniform(rank: usize, input: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let bound = (input as f64).sqrt().recip();
    (0..rank * input)
        .map(|_| (bound * (2.0 * unit(rng) - 1.0)) as f32)
        .collect()
}

/// `A` normal with deviation `1 / rank`.
pub(crate) fn gaussian(rank: usize, input: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let deviation = (rank as f64).recip();
    let mut values = Vec::with_capacity(rank * input + 1);
    while values.len() < rank * input {
        for normal in normal_pair(rng) {
            values.push((deviation * normal) as f32);
        }
    }
    values.truncate(rank * input);
    values
}

/// Two independent standard normal values.
pub(super) fn normal_pair(rng: &mut ChaCha8Rng) -> [f64; 2] {
    let first = 1.0 - unit(rng);
    box_muller([first, unit(rng)])
}

/// Uniform in `[0, 1)` with 53 bits.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn both_have_the_spread_they_name() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let spread = |values: &[f32]| {
            let squares: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
            (squares / values.len() as f64).sqrt()
        };
        let a = gaussian(8, 5001, &mut rng);
        assert_eq!(a.len(), 8 * 5001);
        assert!((spread(&a) * 8.0 - 1.0).abs() < 0.02, "{}", spread(&a));
        let a = uniform(8, 5000, &mut rng);
        let bound = 1.0 / 5000f64.sqrt();
        assert!((spread(&a) / (bound / 3f64.sqrt()) - 1.0).abs() < 0.02);
        assert!(a.iter().all(|v| f64::from(v.abs()) <= bound * 1.0001));
    }
}
