//! Loss and perplexity over held-out examples, weighted by token.
//!
//! `loss = Σ nll / Σ tokens` over all target tokens of all examples, `perplexity = exp(loss)`. It is not
//! the mean of per-batch or per-example losses, which would count a token of a short answer for more
//! than one of a long answer and change with the batch size. Sums are f64.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bootstrap::{
    BootstrapConfig, BootstrapError, PairedDifference, bootstrap_ratio, paired_bootstrap, ratio,
    same_length,
};
use crate::host::ReadError;

/// What a model made of one example.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ExampleLoss {
    /// Sum of the negative log-likelihoods of its target tokens, in nats.
    pub nll: f64,
    /// Number of its target tokens.
    pub tokens: u64,
}

/// Losses that have no perplexity.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PerplexityError {
    /// Nothing was scored.
    #[error(
        "none of the {examples} evaluation examples has a target token; \
         check the template and `max_length`: `trainer data` shows which tokens are scored"
    )]
    NoTokens {
        /// Number of examples.
        examples: usize,
    },
    /// A loss that cannot be one.
    #[error(
        "example {example} has a summed loss of {nll} over {tokens} target tokens, expected a \
         finite number of at least 0, and 0 where there is no token; the model's output is broken \
         there"
    )]
    BadLoss {
        /// Its index, from 0.
        example: usize,
        /// Its summed loss.
        nll: f64,
        /// Its target tokens.
        tokens: u64,
    },
    /// Base and adapter were not scored on the same tokens.
    #[error(
        "example {example} has {base} target tokens for the base and {adapted} for the adapter, \
         expected the same; score both on the same data with the same template"
    )]
    Unpaired {
        /// Its index, from 0.
        example: usize,
        /// Target tokens for the base.
        base: u64,
        /// Target tokens for the adapter.
        adapted: u64,
    },
    /// No interval.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The device failed.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Losses of a model on every example of a set, in the set's order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenLosses {
    examples: Vec<ExampleLoss>,
}

/// Loss and perplexity with their intervals, under the keys of `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerplexityReport {
    /// Mean negative log-likelihood per target token, in nats.
    pub loss: f64,
    /// Its interval.
    pub loss_ci: [f64; 2],
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Its interval.
    pub perplexity_ci: [f64; 2],
    /// Target tokens scored.
    pub tokens: u64,
    /// Examples with at least one target token.
    pub examples: usize,
}

impl TokenLosses {
    /// No examples yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next example: the sum of its target tokens' negative log-likelihoods in nats, and
    /// their number. An example without target tokens is kept, so that indices stay those of the
    /// data, and counts for nothing.
    ///
    /// # Errors
    /// A loss that is negative, not finite, or not 0 where there is no token.
    pub fn push(&mut self, nll: f64, tokens: u64) -> Result<(), PerplexityError> {
        // Rounding may leave a certain token's -ln p a hair below zero.
        let sound = nll.is_finite() && nll >= -1e-3 && (tokens > 0 || nll == 0.0);
        if !sound {
            return Err(PerplexityError::BadLoss {
                example: self.examples.len(),
                nll,
                tokens,
            });
        }
        self.examples.push(ExampleLoss {
            nll: nll.max(0.0),
            tokens,
        });
        Ok(())
    }

    /// Every example, in order.
    pub fn examples(&self) -> &[ExampleLoss] {
        &self.examples
    }

    /// Target tokens of all examples.
    pub fn tokens(&self) -> u64 {
        self.examples.iter().map(|e| e.tokens).sum()
    }

    /// Mean negative log-likelihood per target token, in nats.
    ///
    /// # Errors
    /// No target token at all.
    pub fn loss(&self) -> Result<f64, PerplexityError> {
        let (nll, tokens) = self.columns()?;
        Ok(nll.iter().sum::<f64>() / tokens.iter().sum::<f64>())
    }

    /// `exp(loss)`.
    ///
    /// # Errors
    /// No target token at all.
    pub fn perplexity(&self) -> Result<f64, PerplexityError> {
        Ok(self.loss()?.exp())
    }

    /// Loss and perplexity with bootstrap intervals over examples.
    ///
    /// # Errors
    /// No target token at all, settings out of range, a perplexity that overflows.
    pub fn report(&self, config: &BootstrapConfig) -> Result<PerplexityReport, PerplexityError> {
        let (nll, tokens) = self.columns()?;
        let loss = bootstrap_ratio(&nll, &tokens, |x| x, config)?;
        let perplexity = bootstrap_ratio(&nll, &tokens, f64::exp, config)?;
        Ok(PerplexityReport {
            loss: loss.estimate,
            loss_ci: loss.bounds(),
            perplexity: perplexity.estimate,
            perplexity_ci: perplexity.bounds(),
            tokens: self.tokens(),
            examples: nll.len(),
        })
    }

    /// Perplexity of `adapted` minus that of `self`, the base, on the same examples.
    ///
    /// # Errors
    /// Different examples, no target token at all, settings out of range.
    pub fn compare(
        &self,
        adapted: &Self,
        config: &BootstrapConfig,
    ) -> Result<PairedDifference, PerplexityError> {
        same_length(self.examples.len(), adapted.examples.len())?;
        let pairs = self.examples.iter().zip(&adapted.examples);
        if let Some((example, (base, adapted))) = pairs
            .enumerate()
            .find(|(_, (base, adapted))| base.tokens != adapted.tokens)
        {
            return Err(PerplexityError::Unpaired {
                example,
                base: base.tokens,
                adapted: adapted.tokens,
            });
        }
        let (base_nll, tokens) = self.columns()?;
        let (adapted_nll, _) = adapted.columns()?;
        Ok(paired_bootstrap(
            tokens.len(),
            |i| ratio(&base_nll, &tokens, i).exp(),
            |i| ratio(&adapted_nll, &tokens, i).exp(),
            config,
        )?)
    }

    /// Losses and token counts of the examples that have target tokens.
    fn columns(&self) -> Result<(Vec<f64>, Vec<f64>), PerplexityError> {
        let columns: (Vec<f64>, Vec<f64>) = self
            .examples
            .iter()
            .filter(|e| e.tokens > 0)
            .map(|e| (e.nll, e.tokens as f64))
            .unzip();
        if columns.0.is_empty() {
            return Err(PerplexityError::NoTokens {
                examples: self.examples.len(),
            });
        }
        Ok(columns)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp
)]
mod tests {
    use super::*;

    fn losses(of: &[(f64, u64)]) -> TokenLosses {
        let mut losses = TokenLosses::new();
        for &(nll, tokens) in of {
            losses.push(nll, tokens).unwrap();
        }
        losses
    }

    #[test]
    fn weighs_tokens_not_examples() {
        let l = losses(&[(1.0, 1), (0.0, 0), (27.0, 9)]);
        assert_eq!(l.loss().unwrap(), 2.8);
        assert_eq!(l.perplexity().unwrap(), 2.8f64.exp());
        assert_eq!((l.tokens(), l.examples().len()), (10, 3));
    }

    #[test]
    fn a_uniform_guess_has_the_perplexity_of_the_vocabulary() {
        let report = losses(&[(3.0 * 512f64.ln(), 3), (40.0 * 512f64.ln(), 40)])
            .report(&BootstrapConfig::default())
            .unwrap();
        assert!((report.perplexity - 512.0).abs() < 1e-9);
        assert!((report.perplexity_ci[0] - 512.0).abs() < 1e-9);
        assert!((report.perplexity_ci[1] - 512.0).abs() < 1e-9);
        assert_eq!((report.tokens, report.examples), (43, 2));
    }

    #[test]
    fn the_interval_holds_the_estimate_and_ends_within_the_extremes() {
        let l = losses(
            &(0..50)
                .map(|i| (f64::from(i % 7) * 2.0 + 1.0, 3 + u64::from(i % 5 == 0)))
                .collect::<Vec<_>>(),
        );
        let report = l.report(&BootstrapConfig::default()).unwrap();
        let [low, high] = report.perplexity_ci;
        assert!(low < report.perplexity && report.perplexity < high);
        assert!(report.loss_ci[0] > 0.25 && report.loss_ci[1] < 13.0 / 3.0);
        // Linear interpolation and exp do not commute exactly, but nearly so.
        assert!((report.loss_ci[0].exp() / low - 1.0).abs() < 1e-3);
    }

    #[test]
    fn compares_on_the_same_examples() {
        let base = losses(&[(30.0, 10), (0.0, 0), (80.0, 20), (12.0, 5), (9.0, 3)]);
        let better = losses(&[(15.0, 10), (0.0, 0), (30.0, 20), (5.0, 5), (4.0, 3)]);
        let d = base.compare(&better, &BootstrapConfig::default()).unwrap();
        assert_eq!(
            d.difference.estimate,
            better.perplexity().unwrap() - base.perplexity().unwrap()
        );
        assert!(d.difference.high < 0.0, "{d:?}");
        assert!(d.p_value < 0.05, "{d:?}");
        let other = losses(&[(30.0, 10), (0.0, 0), (80.0, 21), (12.0, 5), (9.0, 3)]);
        let error = base
            .compare(&other, &BootstrapConfig::default())
            .unwrap_err();
        assert!(
            matches!(error, PerplexityError::Unpaired { example: 2, .. }),
            "{error}"
        );
        assert!(
            base.compare(&losses(&[(1.0, 1)]), &BootstrapConfig::default())
                .is_err()
        );
    }

    #[test]
    fn broken_losses_are_refused_by_example() {
        for (nll, tokens) in [
            (f64::NAN, 3),
            (f64::INFINITY, 3),
            (-1.0, 3),
            (1.0, 0),
            (f64::NAN, 0),
        ] {
            let mut l = losses(&[(1.0, 1)]);
            let error = l.push(nll, tokens).unwrap_err();
            assert!(matches!(error, PerplexityError::BadLoss { example: 1, .. }));
            assert_eq!(l.examples().len(), 1);
        }
        assert_eq!(losses(&[(-1e-7, 2)]).loss().unwrap(), 0.0);
    }

    #[test]
    fn no_target_token_is_an_error() {
        for l in [losses(&[]), losses(&[(0.0, 0), (0.0, 0)])] {
            assert!(matches!(l.loss(), Err(PerplexityError::NoTokens { .. })));
            assert!(l.report(&BootstrapConfig::default()).is_err());
        }
    }
}
