//! Global-norm gradient clipping, as `torch.nn.utils.clip_grad_norm_` does it.

use burn::tensor::Tensor;

use crate::host::{ReadError, to_scalar};

/// The L2 norm of the whole gradient.
///
/// # Errors
/// The device failed.
pub async fn global_norm(gradient: &Tensor<1>) -> Result<f64, ReadError> {
    to_scalar(gradient.clone().square().sum().sqrt()).await
}

/// What to multiply the gradient with so that its norm is at most `max_norm`; 1 when `max_norm` is 0.
pub fn clip_coefficient(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 {
        (max_norm / (norm + 1e-6)).min(1.0)
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_gradients_stay_and_large_ones_shrink_to_the_limit() {
        assert_eq!(clip_coefficient(0.5, 1.0), 1.0);
        assert!((clip_coefficient(4.0, 1.0) * 4.0 - 1.0).abs() < 1e-6);
        assert_eq!(clip_coefficient(4.0, 0.0), 1.0);
    }
}
