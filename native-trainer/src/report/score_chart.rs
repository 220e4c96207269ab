//! `scores.png`: one panel per metric, since their scales differ; a bar per model with its interval.

use anyhow::Result;
use plotters::element::{Rectangle, Text};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::numbers;
use super::picture::{Area, Outcome, picture};
use super::plot::{FONT, INK};
use super::scores::Score;

/// Panels side by side.
const COLUMNS: usize = 4;
const PANEL: (u32, u32) = (300, 300);
const HEAD: u32 = 60;
const GRID: RGBColor = RGBColor(225, 225, 225);
/// The base and the base with its adapter, in the colours of the loss curve.
const SIDES: [RGBColor; 2] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0)];

/// A metric of one model or two.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    /// The metric.
    pub(crate) name: String,
    /// Whether smaller is better.
    pub(crate) lower_is_better: bool,
    /// Per model, in the order of the names; none where it was not measured.
    pub(crate) scores: Vec<Option<Score>>,
}

/// The picture's bytes. `models` are the bars' names.
///
/// # Errors
/// The picture cannot be drawn.
pub(crate) fn png(title: &str, models: &[&str], panels: &[Panel]) -> Result<Vec<u8>> {
    let columns = panels.len().clamp(1, COLUMNS);
    let rows = panels.len().div_ceil(columns).max(1);
    let size = (
        (PANEL.0 * columns as u32).max(480),
        HEAD + PANEL.1 * rows as u32,
    );
    picture(size, "the score chart", |root| {
        root.fill(&WHITE)?;
        let (head, body) = root.split_vertically(HEAD);
        draw_head(&head, title, models)?;
        for (area, panel) in body.split_evenly((rows, columns)).iter().zip(panels) {
            draw_panel(area, panel)?;
        }
        Ok(())
    })
}

fn text(size: i32, color: &RGBColor) -> TextStyle<'static> {
    (FONT, size).into_font().color(color)
}

fn draw_head(area: &Area<'_>, title: &str, models: &[&str]) -> Outcome {
    area.draw_text(title, &text(22, &INK), (16, 8))?;
    let mut x = 16;
    for (name, color) in models.iter().zip(SIDES.iter().cycle()) {
        let square = [(x, 38), (x + 14, 52)];
        area.draw(&Rectangle::new(square, color.filled()))?;
        area.draw_text(name, &text(18, &INK), (x + 20, 36))?;
        x += 40 + 10 * name.chars().count() as i32;
    }
    Ok(())
}

fn draw_panel(area: &Area<'_>, panel: &Panel) -> Outcome {
    let known: Vec<Score> = panel
        .scores
        .iter()
        .flatten()
        .copied()
        .filter(|s| s.value.is_finite())
        .collect();
    let ends = known
        .iter()
        .flat_map(|s| s.interval.map_or([s.value; 2], |(low, high)| [low, high]));
    let (low, high) = ends.fold((0.0f64, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    // Room above the highest bar for its number.
    let span = if high > low { high - low } else { 1.0 };
    let (low, high) = (
        if low < 0.0 { low - 0.1 * span } else { 0.0 },
        high + 0.2 * span,
    );
    let count = panel.scores.len().max(1);
    let caption = match panel.lower_is_better {
        true => format!("{} (lower is better)", panel.name),
        false => panel.name.clone(),
    };
    let mut chart = ChartBuilder::on(area)
        .caption(caption, text(18, &INK))
        .margin(10)
        .y_label_area_size(56)
        .x_label_area_size(8)
        .build_cartesian_2d(0.0..count as f64, low..high)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(5)
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .label_style(text(14, &INK))
        .y_label_formatter(&|value| numbers::score(*value))
        .draw()?;
    let bars = panel.scores.iter().zip(SIDES.iter().cycle()).enumerate();
    for (place, (score, color)) in bars {
        let (left, middle, right) = (place as f64 + 0.2, place as f64 + 0.5, place as f64 + 0.8);
        let Some(score) = score.filter(|s| s.value.is_finite()) else {
            continue;
        };
        let bar = [(left, 0.0), (right, score.value)];
        chart.draw_series([Rectangle::new(bar, color.filled())])?;
        let mut top = score.value.max(0.0);
        if let Some((from, to)) = score.interval {
            let ink = INK.stroke_width(2);
            let across =
                |y: f64| PathElement::new(vec![(middle - 0.06, y), (middle + 0.06, y)], ink);
            let line = PathElement::new(vec![(middle, from), (middle, to)], ink);
            chart.draw_series([line, across(from), across(to)])?;
            top = top.max(to);
        }
        let anchored = text(16, &INK).pos(Pos::new(HPos::Center, VPos::Bottom));
        let number = numbers::score(score.value);
        chart.draw_series([Text::new(number, (middle, top + 0.03 * span), anchored)])?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn panel(scores: Vec<Option<Score>>) -> Panel {
        Panel {
            name: "bleu".into(),
            lower_is_better: false,
            scores,
        }
    }

    fn score(value: f64, low: f64, high: f64) -> Option<Score> {
        Some(Score {
            value,
            interval: Some((low, high)),
        })
    }

    #[test]
    fn any_number_of_panels_and_any_values_are_drawn() {
        let usual = panel(vec![score(0.4, 0.3, 0.5), score(0.8, 0.7, 0.9)]);
        for count in [0, 1, 4, 5, 12] {
            let bytes = png("t", &["base", "adapted"], &vec![usual.clone(); count]).unwrap();
            assert_eq!(&bytes[1..4], b"PNG");
        }
        for odd in [
            vec![],
            vec![None, None],
            vec![score(0.0, 0.0, 0.0)],
            vec![score(-3.0, -5.0, 2.0), score(1e12, 1.0, 1e13)],
            vec![Some(Score {
                value: f64::NAN,
                interval: None,
            })],
        ] {
            png("odd", &["base", "adapted"], &[panel(odd)]).unwrap();
        }
    }

    #[test]
    fn bars_change_with_the_scores() {
        let draw =
            |value| png("t", &["prediction"], &[panel(vec![score(value, 0.1, 0.9)])]).unwrap();
        assert_eq!(draw(0.5), draw(0.5));
        assert_ne!(draw(0.5), draw(0.6));
    }
}
