//! Horizontal bars with intervals: scores of several models, class probabilities.

use super::{Tick, ticks};
use crate::state::numbers;

/// A value to show.
#[derive(Clone, Debug, PartialEq)]
pub struct BarInput {
    /// What it belongs to.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its interval.
    pub interval: Option<[f64; 2]>,
    /// Which thread of the page's pattern it is drawn with: 0 is the base.
    pub kind: usize,
}

/// A bar; positions are shares of the width in percent, so that the component needs no size.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What it belongs to.
    pub name: String,
    /// Its left end.
    pub start: f64,
    /// Its length.
    pub length: f64,
    /// The ends of its interval.
    pub whisker: Option<[f64; 2]>,
    /// The value in words.
    pub label: String,
    /// As given.
    pub kind: usize,
}

/// Bars over one axis.
#[derive(Clone, Debug, PartialEq)]
pub struct BarChart {
    /// As given.
    pub bars: Vec<Bar>,
    /// Position in percent, and mark.
    pub ticks: Vec<(f64, Tick)>,
    /// The same in words.
    pub summary: String,
}

impl BarChart {
    /// The chart of `inputs`; values that are not finite are left out. The axis contains 0, and is exactly `[0, 1]` where
    /// everything lies within.
    #[must_use]
    pub fn new(title: &str, inputs: &[BarInput]) -> Option<Self> {
        let inputs: Vec<&BarInput> = inputs.iter().filter(|i| i.value.is_finite()).collect();
        let ends = |i: &&BarInput| {
            let [low, high] = i
                .interval
                .filter(|ci| ci.iter().all(|v| v.is_finite()))
                .unwrap_or([i.value; 2]);
            [low.min(i.value), high.max(i.value)]
        };
        let ends: Vec<[f64; 2]> = inputs.iter().map(ends).collect();
        let low = ends.iter().map(|e| e[0]).fold(0.0, f64::min);
        let high = ends.iter().map(|e| e[1]).fold(0.0, f64::max);
        if inputs.is_empty() {
            return None;
        }
        let (low, high) = match (low, high) {
            (l, h) if l >= 0.0 && h <= 1.0 => (0.0, 1.0),
            (l, h) => (l, h),
        };
        let at = |v: f64| (v - low) / (high - low) * 100.0;
        let bar = |(i, [from, to]): (&&BarInput, &[f64; 2])| Bar {
            name: i.name.clone(),
            start: at(i.value.min(0.0)),
            length: at(i.value.max(0.0)) - at(i.value.min(0.0)),
            whisker: i.interval.is_some().then(|| [at(*from), at(*to)]),
            label: numbers::with_interval(i.value, i.interval),
            kind: i.kind,
        };
        let said: Vec<String> = inputs
            .iter()
            .map(|i| format!("{} {}", i.name, numbers::with_interval(i.value, i.interval)))
            .collect();
        Some(Self {
            bars: inputs.iter().zip(&ends).map(bar).collect(),
            ticks: ticks(low, high, 4)
                .into_iter()
                .map(|t| (at(t.value), t))
                .collect(),
            summary: format!("{title}: {}.", said.join(", ")),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn input(name: &str, value: f64, interval: Option<[f64; 2]>) -> BarInput {
        BarInput {
            name: name.into(),
            value,
            interval,
            kind: 0,
        }
    }

    #[test]
    fn shares_use_the_whole_unit() {
        let chart = BarChart::new("accuracy", &[input("base", 0.25, Some([0.2, 0.3]))]).unwrap();
        let bar = &chart.bars[0];
        assert_eq!((bar.start, bar.length), (0.0, 25.0));
        assert_eq!(bar.whisker, Some([20.0, 30.0]));
        assert_eq!(chart.summary, "accuracy: base 0.250 [0.200, 0.300].");
    }

    #[test]
    fn larger_and_negative_values_fit() {
        let chart = BarChart::new("x", &[input("a", -1.0, None), input("b", 3.0, None)]).unwrap();
        assert_eq!((chart.bars[0].start, chart.bars[0].length), (0.0, 25.0));
        assert_eq!((chart.bars[1].start, chart.bars[1].length), (25.0, 75.0));
        assert_eq!(BarChart::new("x", &[input("a", f64::NAN, None)]), None);
    }
}
