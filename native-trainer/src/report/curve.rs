//! A run's losses, made ready to draw: smoothed, with a range that one spike does not flatten, and round ticks.

use serde_json::{Map, Value};

/// Losses by optimizer step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LossCurve {
    /// `(step, loss)` of training, by step.
    pub(crate) train: Vec<(u64, f64)>,
    /// `(step, loss)` on held-out examples.
    pub(crate) eval: Vec<(u64, f64)>,
}

impl LossCurve {
    /// Takes the rows of `log.jsonl`. Rows without a finite loss are left out: they cannot be drawn.
    pub(crate) fn from_rows(rows: &[Map<String, Value>]) -> Self {
        let pick = |key: &str| {
            rows.iter()
                .filter_map(|row| Some((row.get("step")?.as_u64()?, row.get(key)?.as_f64()?)))
                .filter(|(_, loss)| loss.is_finite())
                .collect()
        };
        Self {
            train: pick("loss"),
            eval: pick("eval_loss"),
        }
    }

    /// Whether there is nothing to draw.
    pub(crate) fn is_empty(&self) -> bool {
        self.train.is_empty() && self.eval.is_empty()
    }

    /// The training loss smoothed by an exponential mean without a bias towards zero at the start (as Adam corrects
    /// its moments), over about a twentieth of the run; none for runs too short to need it.
    pub(crate) fn smoothed(&self) -> Option<Vec<(u64, f64)>> {
        let count = self.train.len();
        if count < 20 {
            return None;
        }
        let keep = 1.0 - 2.0 / ((count as f64 / 20.0).max(4.0) + 1.0);
        let (mut mean, mut weight) = (0.0, 0.0);
        let smooth = self.train.iter().map(|(step, loss)| {
            mean = keep * mean + (1.0 - keep) * loss;
            weight = keep * weight + (1.0 - keep);
            (*step, mean / weight)
        });
        Some(smooth.collect())
    }

    /// First and last step, at least one apart.
    pub(crate) fn steps(&self) -> (u64, u64) {
        let steps = || self.train.iter().chain(&self.eval).map(|(step, _)| *step);
        let first = steps().min().unwrap_or(0);
        let last = steps().max().unwrap_or(1);
        (first, last.max(first + 1))
    }

    /// The losses to show, with a margin: all evaluations, all smoothed values, and the raw ones but for the
    /// outermost hundredth at each end.
    pub(crate) fn range(&self) -> (f64, f64) {
        let mut raw: Vec<f64> = self.train.iter().map(|(_, loss)| *loss).collect();
        raw.sort_by(f64::total_cmp);
        let cut = raw.len() / 100;
        let mut shown: Vec<f64> = raw[cut..raw.len() - cut].to_vec();
        shown.extend(self.eval.iter().map(|(_, loss)| *loss));
        shown.extend(self.smoothed().into_iter().flatten().map(|(_, loss)| loss));
        let low = shown.iter().copied().fold(f64::INFINITY, f64::min);
        let high = shown.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if !low.is_finite() || !high.is_finite() {
            return (0.0, 1.0);
        }
        let margin = ((high - low) * 0.06).max(high.abs() * 1e-3).max(1e-9);
        // Losses are not negative, so an axis below zero would mislead.
        let floor = if low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
        ((low - margin).max(floor), high + margin)
    }
}

/// Between three and about `wanted` round values within `low..=high`: multiples of 1, 2 or 5 times a power of ten.
pub(crate) fn ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let span = high - low;
    if !(span.is_finite() && span > 0.0) || wanted == 0 {
        return vec![low];
    }
    let rough = span / wanted as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let unit = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|u| u * power >= 0.7 * rough)
        .unwrap_or(10.0)
        * power;
    let first = (low / unit).ceil() as i64;
    let last = (high / unit).floor() as i64;
    (first..=last).map(|index| index as f64 * unit).collect()
}

/// Decimal places that tell values `gap` apart from each other.
pub(crate) fn digits(gap: f64) -> usize {
    match gap.is_finite() && gap > 0.0 {
        // A little more than the gap, so that 0.05 computed as 0.049... keeps its two places.
        true => (-(gap * 1.000_001).log10().floor()).clamp(0.0, 9.0) as usize,
        false => 2,
    }
}

/// Writes a tick with the digits its neighbours need to differ.
pub(crate) fn tick_label(value: f64, all: &[f64]) -> String {
    let gap = all
        .windows(2)
        .map(|w| w[1] - w[0])
        .fold(f64::INFINITY, f64::min);
    format!("{value:.0$}", digits(gap))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
pub(crate) mod tests {
    use super::*;

    /// A run that looks like one: falling, noisy, with a spike.
    pub(crate) fn example_curve(steps: u64) -> LossCurve {
        let mut state = 7_u64;
        let mut noise = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f64 / (1_u64 << 24) as f64 - 0.5
        };
        let fall = |step: u64| 1.25 + 2.1 * (-(step as f64) / 60.0).exp();
        LossCurve {
            train: (1..=steps)
                .map(|s| {
                    (
                        s,
                        fall(s) + 0.35 * noise() + if s == 120 { 9.0 } else { 0.0 },
                    )
                })
                .collect(),
            eval: (0..=steps)
                .step_by(40)
                .map(|s| (s, fall(s) + 0.08))
                .collect(),
        }
    }

    #[test]
    fn rows_of_both_kinds_are_told_apart() {
        let rows: Vec<Map<String, Value>> = [
            r#"{"step":0,"eval_loss":3.0}"#,
            r#"{"step":1,"loss":2.5,"lr":0.1}"#,
            r#"{"step":2,"loss":null}"#,
            r#"{"note":"x"}"#,
        ]
        .iter()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect();
        let curve = LossCurve::from_rows(&rows);
        assert_eq!(curve.train, [(1, 2.5)]);
        assert_eq!(curve.eval, [(0, 3.0)]);
    }

    #[test]
    fn smoothing_keeps_a_constant_and_the_first_value() {
        let flat = LossCurve {
            train: (1..=50).map(|s| (s, 2.0)).collect(),
            eval: vec![],
        };
        assert!(
            flat.smoothed()
                .unwrap()
                .iter()
                .all(|(_, l)| (l - 2.0).abs() < 1e-12)
        );
        let curve = example_curve(300);
        assert_eq!(curve.smoothed().unwrap()[0], curve.train[0]);
        assert_eq!(example_curve(10).smoothed(), None);
    }

    #[test]
    fn a_spike_does_not_flatten_the_rest() {
        let (low, high) = example_curve(300).range();
        assert!(low > 0.5 && high < 5.0, "{low} {high}");
    }

    #[test]
    fn degenerate_curves_have_a_range() {
        assert_eq!(LossCurve::default().range(), (0.0, 1.0));
        assert_eq!(LossCurve::default().steps(), (0, 1));
        let one = LossCurve {
            train: vec![(5, 2.0)],
            eval: vec![],
        };
        assert_eq!(one.steps(), (5, 6));
        let (low, high) = one.range();
        assert!(low < 2.0 && high > 2.0);
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let fine = ticks(1.01, 1.19, 4);
        assert_eq!(fine.len(), 3);
        assert_eq!(tick_label(fine[0], &fine), "1.05");
        assert_eq!(
            (digits(0.05), digits(0.1), digits(20.0), digits(f64::NAN)),
            (2, 1, 0, 2)
        );
        assert_eq!(ticks(1.0, 1.0, 4), [1.0]);
        assert_eq!(ticks(f64::NAN, 1.0, 4).len(), 1);
    }
}
