//! Bootstrap over examples (Efron): how far would a score move with another draw of the test set?
//!
//! Examples are drawn with replacement, the statistic is recomputed on each draw, and the interval is
//! cut from the sorted results (the percentile method). Examples, not tokens, are drawn: tokens of
//! one text depend on each other, and intervals over tokens would be far too narrow.
//!
//! Base and adapted are compared on the *same* draws (paired), so that what makes an example hard
//! for both cancels out. The p-value is two-sided, by shifting the draws to no difference: the share of them
//! whose difference strays from their mean by at least the difference observed, one added to both counts so that
//! it is never 0. Under equal models it is uniform, and it agrees with approximate randomization; sacreBLEU's
//! paired bootstrap centres absolute differences instead, and so gives smaller values.
//!
//! Draws are exact integers from a seeded ChaCha stream, the same on 32-bit wasm as natively.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How to resample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BootstrapConfig {
    /// Draws of the whole test set, at least 1. Default 1000.
    pub n_resamples: usize,
    /// Share of draws inside the interval, between 0 and 1. Default 0.95.
    pub level: f64,
    /// Seed of the draws. Default 0.
    pub seed: u64,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        Self {
            n_resamples: 1000,
            level: 0.95,
            seed: 0,
        }
    }
}

/// Why there is no interval.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum BootstrapError {
    /// No examples.
    #[error("there are no examples to resample; the evaluation set is empty")]
    Empty,
    /// No draws.
    #[error("`n_resamples` is 0, expected at least 1; 1000 is usual")]
    NoResamples,
    /// The level is not a share.
    #[error("`level` is {found}, expected a number between 0 and 1, such as 0.95")]
    Level {
        /// The value given.
        found: f64,
    },
    /// The statistic is not a number on the examples or on some draw of them.
    #[error(
        "the statistic is {found} on {examples} resampled examples, expected a finite number; \
         look for examples with non-finite losses or without tokens"
    )]
    NotFinite {
        /// What it was.
        found: f64,
        /// How many examples were drawn.
        examples: usize,
    },
    /// Two lists that belong together differ in length.
    #[error("{left} values belong to {right} others, expected one each per example")]
    Lengths {
        /// Length of the first list.
        left: usize,
        /// Length of the second list.
        right: usize,
    },
}

/// A statistic and where it would lie on other draws of the test set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// On the examples as they are.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// `[low, high]`, the form of `<key>_ci` in `metrics.json`.
    pub fn bounds(&self) -> [f64; 2] {
        [self.low, self.high]
    }
}

/// Adapted minus base, on the same draws.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// The statistic of the base.
    pub base: f64,
    /// The statistic of the adapted model.
    pub adapted: f64,
    /// `adapted - base`, with its interval.
    pub difference: Interval,
    /// Two-sided: how often a difference this large would come from chance alone. At least
    /// `1 / (n_resamples + 1)`.
    pub p_value: f64,
}

/// Percentile interval of any statistic of `n` examples. `statistic` gets the indices of the examples
/// drawn (`0..n` for the estimate), with repetitions.
///
/// # Errors
/// No examples, settings out of range, a statistic that is not finite.
pub fn bootstrap(
    n: usize,
    mut statistic: impl FnMut(&[usize]) -> f64,
    config: &BootstrapConfig,
) -> Result<Interval, BootstrapError> {
    check(n, config)?;
    let mut statistic = |indices: &[usize]| finite(statistic(indices), n);
    let estimate = statistic(&(0..n).collect::<Vec<_>>())?;
    let mut values = Vec::with_capacity(config.n_resamples);
    resample(n, config, |indices| {
        values.push(statistic(indices)?);
        Ok(())
    })?;
    Ok(interval(estimate, values, config.level))
}

/// Percentile interval of the mean of `values`, one per example.
///
/// # Errors
/// As [`bootstrap`].
pub fn bootstrap_mean(
    values: &[f64],
    config: &BootstrapConfig,
) -> Result<Interval, BootstrapError> {
    bootstrap(
        values.len(),
        |indices| indices.iter().map(|&i| values[i]).sum::<f64>() / indices.len() as f64,
        config,
    )
}

/// Percentile interval of `transform(Σ numerators / Σ denominators)`, one of each per example:
/// perplexity is `exp(Σ nll / Σ tokens)`. Leave examples with a denominator of 0 out, since a draw
/// of only those has no ratio.
///
/// # Errors
/// As [`bootstrap`], and lists of different lengths.
pub fn bootstrap_ratio(
    numerators: &[f64],
    denominators: &[f64],
    transform: impl Fn(f64) -> f64,
    config: &BootstrapConfig,
) -> Result<Interval, BootstrapError> {
    same_length(numerators.len(), denominators.len())?;
    bootstrap(
        numerators.len(),
        |indices| transform(ratio(numerators, denominators, indices)),
        config,
    )
}

/// Difference `adapted - base` of a statistic of the same `n` examples, with its interval and p-value.
/// Both closures get the same indices.
///
/// # Errors
/// As [`bootstrap`].
pub fn paired_bootstrap(
    n: usize,
    mut base: impl FnMut(&[usize]) -> f64,
    mut adapted: impl FnMut(&[usize]) -> f64,
    config: &BootstrapConfig,
) -> Result<PairedDifference, BootstrapError> {
    check(n, config)?;
    let all: Vec<usize> = (0..n).collect();
    let (base_score, adapted_score) = (finite(base(&all), n)?, finite(adapted(&all), n)?);
    let observed = adapted_score - base_score;
    let mut values = Vec::with_capacity(config.n_resamples);
    resample(n, config, |indices| {
        values.push(finite(adapted(indices), n)? - finite(base(indices), n)?);
        Ok(())
    })?;
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let as_far = values
        .iter()
        .filter(|&&v| (v - mean).abs() >= observed.abs())
        .count();
    Ok(PairedDifference {
        base: base_score,
        adapted: adapted_score,
        p_value: (as_far + 1) as f64 / (values.len() + 1) as f64,
        difference: interval(observed, values, config.level),
    })
}

/// Ratio of sums over the examples drawn.
pub(super) fn ratio(numerators: &[f64], denominators: &[f64], indices: &[usize]) -> f64 {
    let (top, bottom) = indices.iter().fold((0.0, 0.0), |(top, bottom), &i| {
        (top + numerators[i], bottom + denominators[i])
    });
    top / bottom
}

pub(super) fn same_length(left: usize, right: usize) -> Result<(), BootstrapError> {
    if left == right {
        Ok(())
    } else {
        Err(BootstrapError::Lengths { left, right })
    }
}

fn check(n: usize, config: &BootstrapConfig) -> Result<(), BootstrapError> {
    if n == 0 {
        Err(BootstrapError::Empty)
    } else if config.n_resamples == 0 {
        Err(BootstrapError::NoResamples)
    } else if !(config.level > 0.0 && config.level < 1.0) {
        Err(BootstrapError::Level {
            found: config.level,
        })
    } else {
        Ok(())
    }
}

fn finite(found: f64, examples: usize) -> Result<f64, BootstrapError> {
    if found.is_finite() {
        Ok(found)
    } else {
        Err(BootstrapError::NotFinite { found, examples })
    }
}

/// Calls `each` with `n_resamples` draws of `n` indices.
fn resample(
    n: usize,
    config: &BootstrapConfig,
    mut each: impl FnMut(&[usize]) -> Result<(), BootstrapError>,
) -> Result<(), BootstrapError> {
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut indices = vec![0; n];
    for _ in 0..config.n_resamples {
        for index in &mut indices {
            // Multiply-shift maps 64 random bits to 0..n; its bias is below n / 2^64.
            *index = ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize;
        }
        each(&indices)?;
    }
    Ok(())
}

/// Cuts equal tails from the resampled values.
fn interval(estimate: f64, mut values: Vec<f64>, level: f64) -> Interval {
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Interval {
        estimate,
        low: quantile(&values, tail),
        high: quantile(&values, 1.0 - tail),
    }
}

/// Quantile of sorted values, linear between neighbours (numpy's default).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
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

    fn normals(n: usize, seed: u64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut uniform = || ((rng.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        (0..n)
            .map(|_| {
                let (a, b) = (uniform(), uniform());
                (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
            })
            .collect()
    }

    #[test]
    fn interval_of_a_mean_equals_the_closed_form() {
        let x = normals(400, 1);
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let error = (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n / n).sqrt();
        let config = BootstrapConfig {
            n_resamples: 20_000,
            ..BootstrapConfig::default()
        };
        let found = bootstrap_mean(&x, &config).unwrap();
        assert_eq!(found.estimate, mean);
        for (end, expected) in [
            (found.low, mean - 1.96 * error),
            (found.high, mean + 1.96 * error),
        ] {
            assert!(
                (end - expected).abs() < 0.05 * error,
                "{found:?} {mean} {error}"
            );
        }
    }

    #[test]
    fn intervals_cover_the_truth_as_often_as_they_say() {
        for (level, least, most) in [(0.95, 0.91, 0.98), (0.5, 0.43, 0.57)] {
            let trials = 400;
            let covered = (0..trials)
                .filter(|&seed| {
                    let config = BootstrapConfig {
                        n_resamples: 300,
                        level,
                        seed,
                    };
                    let i = bootstrap_mean(&normals(60, 1000 + seed), &config).unwrap();
                    i.low <= 0.0 && 0.0 <= i.high
                })
                .count();
            let share = covered as f64 / trials as f64;
            assert!(least <= share && share <= most, "level {level}: {share}");
        }
    }

    #[test]
    fn p_values_of_equal_models_are_uniform() {
        let trials = 300;
        let p: Vec<f64> = (0..trials)
            .map(|seed| {
                let (a, b) = (normals(50, 2 * seed), normals(50, 2 * seed + 1));
                let mean =
                    |x: &[f64], i: &[usize]| i.iter().map(|&i| x[i]).sum::<f64>() / i.len() as f64;
                let config = BootstrapConfig {
                    n_resamples: 200,
                    ..BootstrapConfig::default()
                };
                paired_bootstrap(50, |i| mean(&a, i), |i| mean(&b, i), &config)
                    .unwrap()
                    .p_value
            })
            .collect();
        for (at, tolerance) in [(0.05, 0.04), (0.5, 0.09)] {
            let share = p.iter().filter(|&&p| p <= at).count() as f64 / trials as f64;
            assert!((share - at).abs() < tolerance, "p <= {at}: {share}");
        }
    }

    #[test]
    fn a_constant_shift_is_certain_and_no_shift_is_not() {
        let a = normals(40, 7);
        let mean =
            |shift: f64| move |x: &[f64], i: &[usize]| i.iter().map(|&i| x[i] + shift).sum::<f64>();
        let config = BootstrapConfig::default();
        let shifted =
            paired_bootstrap(40, |i| mean(0.0)(&a, i), |i| mean(-1.0)(&a, i), &config).unwrap();
        // The difference is the same on every draw, so only the added one is left.
        assert!((shifted.difference.low + 40.0).abs() < 1e-9);
        assert!((shifted.difference.high + 40.0).abs() < 1e-9);
        assert_eq!(shifted.p_value, 1.0 / 1001.0);
        let same =
            paired_bootstrap(40, |i| mean(0.0)(&a, i), |i| mean(0.0)(&a, i), &config).unwrap();
        assert_eq!(same.p_value, 1.0);
        assert_eq!(same.difference.bounds(), [0.0, 0.0]);
    }

    #[test]
    fn ratio_weights_by_the_denominator() {
        let found = bootstrap_ratio(
            &[10.0, 1.0],
            &[10.0, 2.0],
            f64::exp,
            &BootstrapConfig::default(),
        )
        .unwrap();
        assert_eq!(found.estimate, (11.0f64 / 12.0).exp());
        assert_eq!(found.bounds(), [0.5f64.exp(), 1.0f64.exp()]);
    }

    #[test]
    fn draws_repeat_with_the_seed_and_are_uniform() {
        let draws = |seed| {
            let mut all = Vec::new();
            let config = BootstrapConfig {
                n_resamples: 3000,
                level: 0.9,
                seed,
            };
            resample(7, &config, |i| {
                all.extend_from_slice(i);
                Ok(())
            })
            .unwrap();
            all
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        let mut counts = [0; 7];
        for i in draws(3) {
            counts[i] += 1;
        }
        assert!(
            counts.iter().all(|c| (2750..3250).contains(c)),
            "{counts:?}"
        );
    }

    #[test]
    fn quantiles_equal_numpy() {
        assert_eq!(quantile(&[3.0], 0.3), 3.0);
        let x = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(
            [0.0, 0.25, 0.5, 1.0].map(|q| quantile(&x, q)),
            [1.0, 1.75, 3.0, 8.0]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let ok = BootstrapConfig::default();
        assert_eq!(bootstrap_mean(&[], &ok), Err(BootstrapError::Empty));
        let none = BootstrapConfig {
            n_resamples: 0,
            ..ok
        };
        assert_eq!(
            bootstrap_mean(&[1.0], &none),
            Err(BootstrapError::NoResamples)
        );
        for level in [0.0, 1.0, 95.0, f64::NAN] {
            let bad = BootstrapConfig { level, ..ok };
            assert!(matches!(
                bootstrap_mean(&[1.0], &bad),
                Err(BootstrapError::Level { .. })
            ));
        }
        assert!(matches!(
            bootstrap_mean(&[1.0, f64::NAN], &ok),
            Err(BootstrapError::NotFinite { .. })
        ));
        assert!(matches!(
            bootstrap_ratio(&[1.0], &[1.0, 2.0], |x| x, &ok),
            Err(BootstrapError::Lengths { left: 1, right: 2 })
        ));
        assert_eq!(bootstrap_mean(&[2.5], &ok).unwrap().bounds(), [2.5, 2.5]);
    }
}
