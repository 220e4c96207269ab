//! `confusion_matrix.png`: gold labels down, answers across, one matrix per model side by side.
//!
//! Colour is the share of the row, so that a rare class is as easy to read as a frequent one; numbers are counts. The last
//! column is "no label".

use anyhow::Result;
use plotters::element::Rectangle;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::picture::{Area, Outcome, picture};
use super::plot::{FONT, INK};

const SIDE: i32 = 560;
const LEFT: i32 = 130;
const TOP: i32 = 170;
const MARGIN: i32 = 24;
/// More classes than this leave no room for numbers in the cells.
const MOST_NUMBERS: usize = 20;
const DARK: RGBColor = RGBColor(8, 64, 129);

/// The counts of one model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix {
    /// Whose answers they are.
    pub(crate) name: String,
    /// Class names.
    pub(crate) labels: Vec<String>,
    /// One row per gold class: counts per answered class, then "no label".
    pub(crate) rows: Vec<Vec<u64>>,
}

/// The picture's bytes.
///
/// # Errors
/// The picture cannot be drawn.
pub(crate) fn png(matrices: &[Matrix]) -> Result<Vec<u8>> {
    let width = LEFT + SIDE + MARGIN;
    let size = (
        (width * matrices.len().max(1) as i32) as u32,
        (TOP + SIDE + MARGIN) as u32,
    );
    picture(size, "the confusion matrix", |root| {
        root.fill(&WHITE)?;
        let areas = root.split_evenly((1, matrices.len().max(1)));
        areas
            .iter()
            .zip(matrices)
            .try_for_each(|(area, matrix)| draw(area, matrix))
    })
}

fn text(size: f64, color: &RGBColor, horizontal: HPos) -> TextStyle<'static> {
    let style = (FONT, size).into_font().color(color);
    style.pos(Pos::new(horizontal, VPos::Center))
}

fn draw(area: &Area<'_>, matrix: &Matrix) -> Outcome {
    let classes = matrix.labels.len();
    let (columns, rows) = (classes + 1, classes.max(1));
    let column = |k: usize| LEFT + SIDE * k as i32 / columns as i32;
    let row = |k: usize| TOP + SIDE * k as i32 / rows as i32;
    let size = (SIDE as f64 / columns as f64 * 0.3).clamp(7.0, 20.0);
    let centre = LEFT + SIDE / 2;
    area.draw_text(
        &format!("{}: gold down, answer across", matrix.name),
        &text(22.0, &INK, HPos::Center),
        (centre, 24),
    )?;
    for (i, counts) in matrix.rows.iter().enumerate() {
        let total: u64 = counts.iter().sum();
        let label = matrix.labels.get(i).map_or("", String::as_str);
        let at = (LEFT - 8, (row(i) + row(i + 1)) / 2);
        area.draw_text(&short(label), &text(size, &INK, HPos::Right), at)?;
        for (k, count) in counts.iter().enumerate() {
            let share = *count as f64 / total.max(1) as f64;
            let cell = [(column(k), row(i)), (column(k + 1), row(i + 1))];
            area.draw(&Rectangle::new(cell, shade(share).filled()))?;
            area.draw(&Rectangle::new(cell, WHITE.stroke_width(1)))?;
            if classes <= MOST_NUMBERS {
                let ink = if share > 0.5 { WHITE } else { INK };
                let at = ((column(k) + column(k + 1)) / 2, (row(i) + row(i + 1)) / 2);
                area.draw_text(&count.to_string(), &text(size, &ink, HPos::Center), at)?;
            }
        }
    }
    let names = matrix.labels.iter().map(String::as_str);
    for (k, name) in names.chain(std::iter::once("no label")).enumerate() {
        // Names across are turned, so that neighbours do not run into each other.
        let style = text(size, &INK, HPos::Left).transform(FontTransform::Rotate270);
        area.draw_text(
            &short(name),
            &style,
            ((column(k) + column(k + 1)) / 2, TOP - 8),
        )?;
    }
    Ok(())
}

/// White to dark blue.
fn shade(share: f64) -> RGBColor {
    let mix = |dark: u8| (255.0 + (f64::from(dark) - 255.0) * share.clamp(0.0, 1.0)) as u8;
    RGBColor(mix(DARK.0), mix(DARK.1), mix(DARK.2))
}

fn short(label: &str) -> String {
    match label.chars().count() {
        0..=12 => label.to_owned(),
        _ => format!("{}…", label.chars().take(11).collect::<String>()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn matrix(classes: usize) -> Matrix {
        Matrix {
            name: "base".into(),
            labels: (0..classes).map(|i| format!("label number {i}")).collect(),
            rows: (0..classes)
                .map(|i| (0..=classes).map(|k| (i * k) as u64).collect())
                .collect(),
        }
    }

    #[test]
    fn matrices_of_every_size_are_drawn() {
        for classes in [0, 1, 2, 3, 20, 32] {
            let one = png(&[matrix(classes)]).unwrap();
            let two = png(&[matrix(classes), matrix(classes)]).unwrap();
            assert_eq!(&one[1..4], b"PNG");
            assert_ne!(one, two);
        }
        png(&[]).unwrap();
    }

    #[test]
    fn long_names_are_cut_by_characters() {
        assert_eq!(short("größer als alles"), "größer als …");
        assert_eq!(short("positive"), "positive");
        assert_eq!((shade(0.0), shade(1.0)), (WHITE, DARK));
    }
}
