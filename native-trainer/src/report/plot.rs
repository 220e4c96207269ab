//! `loss.png`: the training curve as a picture, 1200 x 700.
//!
//! Fonts are embedded, so it looks the same on a machine without any. Colours are Okabe and Ito's, which stay apart
//! under the common colour blindnesses; evaluation also differs by its markers.

use std::path::Path;
use std::sync::Once;

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::register_font;

use super::curve::{LossCurve, digits};
use super::picture::{Area, Outcome, picture};
use crate::files::atomic;

const SIZE: (u32, u32) = (1200, 700);
pub(super) const FONT: &str = "sans-serif";
pub(super) const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);
const TRAIN_RAW: RGBColor = RGBColor(86, 180, 233);
const TRAIN: RGBColor = RGBColor(0, 114, 178);
const EVAL: RGBColor = RGBColor(213, 94, 0);

/// Draws `curve` to `path`, atomically.
///
/// # Errors
/// The picture cannot be drawn or written.
pub(crate) fn write_png(path: &Path, title: &str, curve: &LossCurve) -> Result<()> {
    atomic::write_file(path, &png(title, curve)?)
}

/// The picture's bytes.
///
/// # Errors
/// The picture cannot be drawn.
pub(crate) fn png(title: &str, curve: &LossCurve) -> Result<Vec<u8>> {
    picture(SIZE, "the loss curve", |root| draw(root, title, curve))
}

pub(super) fn register_fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails for a file that is no font, which the embedded one is; drawing would then report it.
        let _ = register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    });
}

fn draw(root: &Area<'_>, title: &str, curve: &LossCurve) -> Outcome {
    root.fill(&WHITE)?;
    let text = |size: i32| (FONT, size).into_font().color(&INK);
    let (first, last) = curve.steps();
    let (low, high) = curve.range();
    let places = digits((high - low) / 10.0);
    let mut chart = ChartBuilder::on(root)
        .caption(title, text(30))
        .margin(24)
        .x_label_area_size(64)
        .y_label_area_size(86)
        .build_cartesian_2d(first..last, low..high)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .label_style(text(20))
        .axis_desc_style(text(24))
        .x_desc("optimizer step")
        .y_desc("loss (nats per target token)")
        .x_labels(10)
        .y_labels(8)
        .y_label_formatter(&|value| format!("{value:.places$}"))
        .draw()?;

    // Values outside the range are drawn on its edge instead of across the labels.
    let inside = |points: &[(u64, f64)]| -> Vec<(u64, f64)> {
        points
            .iter()
            .map(|(step, loss)| (*step, loss.clamp(low, high)))
            .collect()
    };
    let sample = |style: ShapeStyle| {
        move |(x, y): (i32, i32)| PathElement::new(vec![(x, y), (x + 28, y)], style)
    };
    let strong = TRAIN.stroke_width(3);
    if let Some(smooth) = curve.smoothed() {
        let faint = TRAIN_RAW.mix(0.7).stroke_width(1);
        chart
            .draw_series(LineSeries::new(inside(&curve.train), faint))?
            .label("training, each step")
            .legend(sample(faint));
        chart
            .draw_series(LineSeries::new(inside(&smooth), strong))?
            .label("training, smoothed")
            .legend(sample(strong));
    } else if !curve.train.is_empty() {
        let dots = inside(&curve.train);
        chart
            .draw_series(LineSeries::new(dots.clone(), strong))?
            .label("training")
            .legend(sample(strong));
        chart.draw_series(
            dots.into_iter()
                .map(|at| Circle::new(at, 4, TRAIN.filled())),
        )?;
    }
    if !curve.eval.is_empty() {
        let style = EVAL.stroke_width(2);
        chart.draw_series(LineSeries::new(inside(&curve.eval), style))?;
        chart
            .draw_series(
                inside(&curve.eval)
                    .into_iter()
                    .map(|at| Circle::new(at, 6, EVAL.filled())),
            )?
            .label("held out")
            .legend(|(x, y)| Circle::new((x + 14, y), 6, EVAL.filled()));
    }
    if curve.is_empty() {
        let (x, y) = root.dim_in_pixel();
        root.draw_text(
            "no step has been logged yet",
            &text(26),
            (x as i32 / 2 - 150, y as i32 / 2),
        )?;
        return Ok(());
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(16)
        .legend_area_size(40)
        .background_style(WHITE.mix(0.9))
        .border_style(GRID)
        .label_font(text(22))
        .draw()?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;
    use crate::report::curve::tests::example_curve;

    /// Width and height from a PNG's header.
    fn size(png: &[u8]) -> (u32, u32) {
        assert_eq!(&png[1..4], b"PNG");
        let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
        (number(16), number(20))
    }

    #[test]
    fn curves_of_every_length_are_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let empty = png("empty", &LossCurve::default()).unwrap();
        for steps in [1, 2, 19, 20, 300] {
            let path = dir.path().join("loss.png");
            write_png(&path, "demo: sentiment", &example_curve(steps)).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(size(&bytes), SIZE);
            assert_ne!(bytes, empty);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn values_that_break_scales_do_not() {
        let flat = LossCurve {
            train: vec![(1, 0.0), (2, 0.0)],
            eval: vec![(2, 0.0)],
        };
        png("zero", &flat).unwrap();
        let wide = LossCurve {
            train: vec![(1, 1e30), (u64::MAX / 2, 1e-30)],
            eval: vec![],
        };
        png("wide", &wide).unwrap();
    }
}
