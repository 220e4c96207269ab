//! Round numbers along an axis: steps of 1, 2 or 5 times a power of ten.

use crate::state::numbers;

/// A mark on an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// Its value.
    pub value: f64,
    /// What stands beside it.
    pub label: String,
}

/// About `wanted` round values within `[low, high]`.
#[must_use]
pub fn ticks(low: f64, high: f64, wanted: usize) -> Vec<Tick> {
    let span = high - low;
    if !(span > 0.0 && span.is_finite()) || wanted == 0 {
        return Vec::new();
    }
    let rough = span / wanted as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|s| *s >= rough * 0.999)
        .unwrap_or(10.0 * power);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last)
        .map(|n| {
            let value = n as f64 * step;
            Tick {
                value,
                label: label(value, step),
            }
        })
        .collect()
}

fn label(value: f64, step: f64) -> String {
    if value.abs() >= 1e4 || (step < 1e-4 && value != 0.0) {
        return match value.fract() == 0.0 && value.abs() < 1e15 && value >= 0.0 {
            true => numbers::count(value as u64),
            false => format!("{value:.1e}"),
        };
    }
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, wanted: usize) -> Vec<String> {
        ticks(low, high, wanted)
            .into_iter()
            .map(|t| t.label)
            .collect()
    }

    #[test]
    fn round_numbers() {
        assert_eq!(
            labels(0.0, 1.0, 5),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(labels(0.0, 40.0, 4), ["0", "10", "20", "30", "40"]);
        assert_eq!(labels(2.31, 2.34, 3), ["2.31", "2.32", "2.33", "2.34"]);
        assert_eq!(labels(-1.0, 1.0, 2), ["-1", "0", "1"]);
        assert_eq!(labels(0.0, 50_000.0, 2), ["0", "50,000"]);
    }

    #[test]
    fn nothing_to_mark() {
        assert!(ticks(1.0, 1.0, 4).is_empty());
        assert!(ticks(0.0, f64::NAN, 4).is_empty());
        assert!(ticks(0.0, 1.0, 0).is_empty());
    }
}
