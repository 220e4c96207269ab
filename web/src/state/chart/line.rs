//! A line chart: loss curves, mostly.

use super::{Tick, ticks};
use crate::state::numbers;

/// A line's data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// `(x, y)`, x ascending; points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// A line's picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// What it is.
    pub name: String,
    /// SVG path data.
    pub path: String,
    /// Its last point, for a dot and a label.
    pub end: (f64, f64),
}

/// A chart in a box of `width` by `height`.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    /// Of the view box.
    pub width: f64,
    /// Of the view box.
    pub height: f64,
    /// Left, top, right, bottom of the plot within it.
    pub plot: [f64; 4],
    /// One per series that has points.
    pub traces: Vec<Trace>,
    /// Below: position and mark.
    pub x_ticks: Vec<(f64, Tick)>,
    /// At the left: position and mark.
    pub y_ticks: Vec<(f64, Tick)>,
    /// The same in words.
    pub summary: String,
}

const MARGIN: [f64; 4] = [52.0, 10.0, 14.0, 28.0];

impl LineChart {
    /// The chart of `series`; `None` where there is nothing to draw.
    #[must_use]
    pub fn new(series: &[Series], width: f64, height: f64, x_name: &str) -> Option<Self> {
        let series: Vec<Series> = series
            .iter()
            .map(finite)
            .filter(|s| !s.points.is_empty())
            .collect();
        let xs = range(series.iter().flat_map(|s| s.points.iter().map(|p| p.0)))?;
        let ys = range(series.iter().flat_map(|s| s.points.iter().map(|p| p.1)))?;
        let ys = widened(ys, 0.06);
        let xs = if xs[0] == xs[1] { widened(xs, 0.0) } else { xs };
        let plot = [MARGIN[0], MARGIN[1], width - MARGIN[2], height - MARGIN[3]];
        let x = |v: f64| plot[0] + (v - xs[0]) / (xs[1] - xs[0]) * (plot[2] - plot[0]);
        let y = |v: f64| plot[3] - (v - ys[0]) / (ys[1] - ys[0]) * (plot[3] - plot[1]);
        let trace = |s: &Series| {
            let place = |p: &(f64, f64)| (x(p.0), y(p.1));
            let step = |(i, p): (usize, &(f64, f64))| {
                let (px, py) = place(p);
                format!("{}{px:.1} {py:.1}", if i == 0 { "M" } else { "L" })
            };
            Trace {
                name: s.name.clone(),
                path: s.points.iter().enumerate().map(step).collect(),
                end: s.points.last().map(place).unwrap_or_default(),
            }
        };
        Some(Self {
            width,
            height,
            plot,
            traces: series.iter().map(trace).collect(),
            x_ticks: ticks(xs[0], xs[1], 5)
                .into_iter()
                .map(|t| (x(t.value), t))
                .collect(),
            y_ticks: ticks(ys[0], ys[1], 4)
                .into_iter()
                .map(|t| (y(t.value), t))
                .collect(),
            summary: series
                .iter()
                .map(|s| sentence(s, x_name))
                .collect::<Vec<_>>()
                .join(" "),
        })
    }
}

fn finite(series: &Series) -> Series {
    let keep = |p: &&(f64, f64)| p.0.is_finite() && p.1.is_finite();
    Series {
        name: series.name.clone(),
        points: series.points.iter().filter(keep).copied().collect(),
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    values.fold(None, |found, v| match found {
        None => Some([v, v]),
        Some([low, high]) => Some([low.min(v), high.max(v)]),
    })
}

/// Room above and below; a flat line gets a unit of it.
fn widened([low, high]: [f64; 2], share: f64) -> [f64; 2] {
    let room = if low == high {
        0.5
    } else {
        (high - low) * share
    };
    [low - room, high + room]
}

fn sentence(series: &Series, x_name: &str) -> String {
    let (Some(first), Some(last)) = (series.points.first(), series.points.last()) else {
        return String::new();
    };
    let lowest = series
        .points
        .iter()
        .map(|p| p.1)
        .fold(f64::INFINITY, f64::min);
    format!(
        "{} goes from {} at {x_name} {} to {} at {x_name} {}; its lowest value is {}.",
        series.name,
        numbers::score(first.1),
        first.0,
        numbers::score(last.1),
        last.0,
        numbers::score(lowest)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn series(points: &[(f64, f64)]) -> Series {
        Series {
            name: "Loss".into(),
            points: points.to_vec(),
        }
    }

    #[test]
    fn points_lie_where_they_should() {
        let chart =
            LineChart::new(&[series(&[(1.0, 4.0), (3.0, 2.0)])], 400.0, 200.0, "step").unwrap();
        assert!(
            chart.traces[0].path.starts_with("M52.0 "),
            "{}",
            chart.traces[0].path
        );
        assert_eq!(chart.traces[0].end.0, 386.0);
        let y = |i: usize| chart.y_ticks[i].0;
        assert!(y(0) > y(1), "larger values lie higher");
        assert!(chart.traces[0].end.1 < chart.plot[3] && chart.traces[0].end.1 > chart.plot[1]);
        assert_eq!(
            chart.summary,
            "Loss goes from 4.000 at step 1 to 2.000 at step 3; its lowest value is 2.000."
        );
    }

    #[test]
    fn single_and_flat_and_broken_values_draw() {
        let one = LineChart::new(&[series(&[(1.0, 2.0)])], 400.0, 200.0, "step").unwrap();
        assert!(one.traces[0].end.0.is_finite() && one.traces[0].end.1.is_finite());
        let gap = series(&[(1.0, f64::NAN), (2.0, 1.0)]);
        assert_eq!(
            LineChart::new(&[gap], 400.0, 200.0, "step")
                .unwrap()
                .traces
                .len(),
            1
        );
        assert_eq!(LineChart::new(&[series(&[])], 400.0, 200.0, "step"), None);
    }
}
