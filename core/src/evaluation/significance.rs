//! Is the difference more than chance? Two tests of one statistic over the same examples.
//!
//! The paired bootstrap asks how the difference moves with another draw of examples; approximate randomization (Noreen
//! 1989; Riezler and Maxwell 2005) how often a difference this large arises when, example by example, a coin decides
//! whose answer is whose. Both work on sums of what every example contributes, so that a trial is an addition per example.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::bootstrap::{
    BootstrapConfig, BootstrapError, PairedDifference, paired_bootstrap, same_length,
};

/// Which test gives the p-value; the interval of the difference is the bootstrap's either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignificanceTest {
    /// Koehn's paired bootstrap. The default.
    #[default]
    Bootstrap,
    /// Approximate randomization.
    Randomization,
}

/// What each example adds to a statistic, `width` numbers per example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contributions {
    values: Vec<f64>,
    width: usize,
}

impl Contributions {
    /// From one row per example, all as long as the first.
    pub fn from_rows(rows: impl IntoIterator<Item = Vec<f64>>) -> Self {
        let mut all = Self {
            values: Vec::new(),
            width: 0,
        };
        for row in rows {
            if all.width == 0 {
                all.width = row.len();
            }
            all.values.extend(
                row.into_iter()
                    .chain(std::iter::repeat(0.0))
                    .take(all.width),
            );
        }
        all
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// Whether there are no examples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What example `index` adds.
    pub fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.width..(index + 1) * self.width]
    }

    /// The sum over the examples drawn.
    pub fn sum(&self, indices: impl IntoIterator<Item = usize>) -> Vec<f64> {
        let mut sum = vec![0.0; self.width];
        for index in indices {
            sum.iter_mut()
                .zip(self.row(index))
                .for_each(|(s, v)| *s += v);
        }
        sum
    }
}

/// Compares `statistic` of two models' contributions on the same examples.
///
/// # Errors
/// Different numbers of examples, or none; settings out of range; a statistic that is not finite.
pub fn compare_sums(
    base: &Contributions,
    adapted: &Contributions,
    statistic: impl Fn(&[f64]) -> f64,
    test: SignificanceTest,
    config: &BootstrapConfig,
) -> Result<PairedDifference, BootstrapError> {
    same_length(base.len(), adapted.len())?;
    let of = |all: &Contributions, indices: &[usize]| statistic(&all.sum(indices.iter().copied()));
    let mut found = paired_bootstrap(base.len(), |i| of(base, i), |i| of(adapted, i), config)?;
    if test == SignificanceTest::Randomization {
        found.p_value = randomization_p_value(base, adapted, statistic, config)?;
    }
    Ok(found)
}

/// Two-sided p-value of approximate randomization with `n_resamples` trials, one added to both counts.
///
/// # Errors
/// Different numbers of examples.
pub fn randomization_p_value(
    base: &Contributions,
    adapted: &Contributions,
    statistic: impl Fn(&[f64]) -> f64,
    config: &BootstrapConfig,
) -> Result<f64, BootstrapError> {
    same_length(base.len(), adapted.len())?;
    let n = base.len();
    let (all_base, all_adapted) = (base.sum(0..n), adapted.sum(0..n));
    let observed = (statistic(&all_adapted) - statistic(&all_base)).abs();
    // Rounding differs with the order of summing; a trial that only swaps equals must not count as less.
    let threshold = observed - 1e-9 * observed.max(1e-3);
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut as_far = 0;
    for _ in 0..config.n_resamples {
        let (mut left, mut right) = (vec![0.0; base.width], vec![0.0; base.width]);
        let mut coins = 0;
        for index in 0..n {
            if index % 64 == 0 {
                coins = rng.next_u64();
            }
            let (one, other) = (base.row(index), adapted.row(index));
            let (one, other) = if coins & 1 == 0 {
                (one, other)
            } else {
                (other, one)
            };
            coins >>= 1;
            left.iter_mut().zip(one).for_each(|(s, v)| *s += v);
            right.iter_mut().zip(other).for_each(|(s, v)| *s += v);
        }
        let difference = (statistic(&left) - statistic(&right)).abs();
        as_far += u32::from(difference >= threshold);
    }
    Ok(f64::from(as_far + 1) / (config.n_resamples + 1) as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::float_cmp)]
mod tests {
    use super::*;

    fn column(values: &[f64]) -> Contributions {
        Contributions::from_rows(values.iter().map(|v| vec![*v, 1.0]))
    }

    fn mean(sums: &[f64]) -> f64 {
        sums[0] / sums[1]
    }

    /// With few examples every swap can be tried; the sampled share must be near the exact one.
    #[test]
    fn sampled_swaps_equal_all_swaps() {
        let (a, b) = (
            [0.1, 0.4, 0.3, 0.9, 0.2, 0.5, 0.6, 0.1],
            [0.3, 0.5, 0.2, 1.0, 0.6, 0.5, 0.9, 0.2],
        );
        let difference = |mask: u32| {
            let one = |i: usize| {
                if mask >> i & 1 == 0 {
                    a[i] - b[i]
                } else {
                    b[i] - a[i]
                }
            };
            (0..a.len()).map(one).sum::<f64>().abs()
        };
        let exact = (0..256)
            .filter(|&m| difference(m) >= difference(0) - 1e-12)
            .count() as f64
            / 256.0;
        let config = BootstrapConfig {
            n_resamples: 20_000,
            ..BootstrapConfig::default()
        };
        let found = randomization_p_value(&column(&a), &column(&b), mean, &config).unwrap();
        assert!((found - exact).abs() < 0.01, "{found} {exact}");
    }

    #[test]
    fn p_values_of_equal_models_are_uniform() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut draw = || (rng.next_u64() >> 40) as f64;
        let config = BootstrapConfig {
            n_resamples: 200,
            ..BootstrapConfig::default()
        };
        let trials = 400;
        let low = (0..trials).filter(|_| {
            let (a, b): (Vec<f64>, Vec<f64>) = (0..40).map(|_| (draw(), draw())).unzip();
            randomization_p_value(&column(&a), &column(&b), mean, &config).unwrap() <= 0.1
        });
        let share = low.count() as f64 / f64::from(trials);
        assert!((share - 0.1).abs() < 0.045, "{share}");
    }

    #[test]
    fn same_and_shifted_models() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i % 7)).collect();
        let shifted: Vec<f64> = values.iter().map(|v| v + 1.0).collect();
        let config = BootstrapConfig::default();
        for test in [SignificanceTest::Bootstrap, SignificanceTest::Randomization] {
            let same =
                compare_sums(&column(&values), &column(&values), mean, test, &config).unwrap();
            assert_eq!((same.difference.estimate, same.p_value), (0.0, 1.0));
            let up =
                compare_sums(&column(&values), &column(&shifted), mean, test, &config).unwrap();
            assert!((up.difference.estimate - 1.0).abs() < 1e-12);
            assert!(up.p_value < 0.002, "{test:?} {}", up.p_value);
        }
        assert!(
            compare_sums(
                &column(&values),
                &column(&values[1..]),
                mean,
                SignificanceTest::Bootstrap,
                &config
            )
            .is_err()
        );
        let none = column(&[]);
        assert!(none.is_empty());
        assert_eq!(
            compare_sums(&none, &none, mean, SignificanceTest::Bootstrap, &config),
            Err(BootstrapError::Empty)
        );
    }
}
