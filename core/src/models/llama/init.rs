//! Random weights: where pretraining starts, and what benchmarks measure on.

use super::{ConfigError, LlamaConfig};
use crate::models::random::RandomWeights;

/// The tensors of a new model: normal matrices with deviation `initializer_range`, norms of ones,
/// biases of zero. Projections back into the residual stream are scaled by `1/sqrt(2 * layers)`, as
/// GPT-2 does, so that depth does not inflate it.
pub fn random_weights(
    config: &LlamaConfig,
    initializer_range: f64,
    seed: u64,
) -> Result<RandomWeights, ConfigError> {
    let residual = (2.0 * config.num_hidden_layers as f64).sqrt().recip();
    Ok(
        RandomWeights::new(config.expected_tensors(), initializer_range, seed)
            .scaled(&["o_proj.weight", "down_proj.weight"], residual),
    )
}
