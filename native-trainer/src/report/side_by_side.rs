//! Runs side by side: horizontal bars with their intervals, a panel per metric. A base is drawn hollow.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::numbers;
use super::picture::{Area, Outcome, picture};
use super::plot::{FONT, INK};
use super::scores::Score;
use crate::files::atomic;

const WIDTH: u32 = 1200;
const BAR: u32 = 34;
const HEAD: u32 = 70;
const FOOT: u32 = 26;
/// Pixels for names on the left and numbers on the right.
const NAMES: u32 = 420;
const NUMBERS: u32 = 250;
/// Characters of a name that fit.
const NAME_LENGTH: usize = 44;
const FILL: RGBColor = RGBColor(86, 180, 233);
const WHISKER: RGBColor = RGBColor(0, 60, 100);

/// One bar.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    /// Its name.
    pub(crate) name: String,
    /// Its length, with interval.
    pub(crate) score: Score,
    /// Whether it is the model that was not trained.
    pub(crate) base: bool,
}

/// One metric.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    /// What it shows.
    pub(crate) title: String,
    /// In order, from the top.
    pub(crate) bars: Vec<Bar>,
}

impl Panel {
    fn height(&self) -> u32 {
        HEAD + FOOT + BAR * self.bars.len() as u32
    }

    /// What the full width stands for: the longest bar or whisker, but where a base dwarfs the runs (a perplexity of
    /// thousands against one of five) twice the longest run, and the base's bar is cut.
    fn longest(&self) -> f64 {
        let longest = |base: Option<bool>| {
            let bars = self
                .bars
                .iter()
                .filter(|bar| base.is_none_or(|b| bar.base == b));
            let ends = bars.map(|bar| {
                bar.score
                    .interval
                    .map_or(bar.score.value, |i| i.1.max(bar.score.value))
            });
            ends.filter(|end| end.is_finite()).fold(0.0, f64::max)
        };
        let (all, runs) = (longest(None), longest(Some(false)));
        match (all > 0.0, runs > 0.0 && all > 4.0 * runs) {
            (_, true) => 2.0 * runs,
            (true, false) => all,
            (false, false) => 1.0,
        }
    }
}

/// Draws `panels` below each other to `path`, atomically.
///
/// # Errors
/// The picture cannot be drawn or written.
pub(crate) fn write_png(path: &Path, title: &str, panels: &[Panel]) -> Result<()> {
    let height = 60 + panels.iter().map(Panel::height).sum::<u32>();
    let bytes = picture((WIDTH, height), "the bars", |root| {
        draw(root, title, panels)
    })?;
    atomic::write_file(path, &bytes)
}

fn draw(root: &Area<'_>, title: &str, panels: &[Panel]) -> Outcome {
    root.fill(&WHITE)?;
    let heading = (FONT, 30).into_font().color(&INK);
    root.draw_text(title, &heading, (24, 18))?;
    let mut top = 60;
    for panel in panels {
        draw_panel(root, panel, top)?;
        top += panel.height() as i32;
    }
    Ok(())
}

fn draw_panel(root: &Area<'_>, panel: &Panel, top: i32) -> Outcome {
    let text = |size: i32| (FONT, size).into_font().color(&INK);
    root.draw_text(&panel.title, &text(24), (24, top + 24))?;
    let longest = panel.longest();
    let room = f64::from(WIDTH - NAMES - NUMBERS);
    let x = |value: f64| NAMES as i32 + (value.clamp(0.0, longest) / longest * room) as i32;
    let right = text(20).pos(Pos::new(HPos::Right, VPos::Center));
    let left = text(20).pos(Pos::new(HPos::Left, VPos::Center));
    for (index, bar) in panel.bars.iter().enumerate() {
        let middle = top + HEAD as i32 + index as i32 * BAR as i32 + BAR as i32 / 2;
        let value = bar.score.value;
        root.draw_text(&shortened(&bar.name), &right, (NAMES as i32 - 12, middle))?;
        let shape = [
            (x(0.0), middle - 11),
            (
                x(if value.is_finite() { value } else { longest }),
                middle + 11,
            ),
        ];
        match bar.base {
            true => root.draw(&Rectangle::new(shape, INK.stroke_width(2)))?,
            false => root.draw(&Rectangle::new(shape, FILL.filled()))?,
        }
        if let Some((low, high)) = bar
            .score
            .interval
            .filter(|(a, b)| a.is_finite() && b.is_finite())
        {
            let style = WHISKER.stroke_width(2);
            root.draw(&PathElement::new(
                vec![(x(low), middle), (x(high), middle)],
                style,
            ))?;
            for end in [x(low), x(high)] {
                root.draw(&PathElement::new(
                    vec![(end, middle - 6), (end, middle + 6)],
                    style,
                ))?;
            }
        }
        let mut number = numbers::with_interval(value, bar.score.interval);
        if value > longest {
            number.push_str(" (cut)");
        }
        root.draw_text(&number, &left, ((WIDTH - NUMBERS) as i32 + 10, middle))?;
    }
    Ok(())
}

fn shortened(name: &str) -> String {
    match name.chars().count() {
        n if n <= NAME_LENGTH => name.to_owned(),
        _ => format!(
            "{}...",
            name.chars().take(NAME_LENGTH - 3).collect::<String>()
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn bars_of_every_kind_are_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bars.png");
        let bar = |value: f64, interval, base| Bar {
            name: "a name that is far too long to stand beside its bar".into(),
            score: Score { value, interval },
            base,
        };
        let odd = Panel {
            title: "perplexity".into(),
            bars: vec![
                bar(f64::INFINITY, None, true),
                bar(0.0, Some((0.0, 0.0)), false),
                bar(3.0, Some((2.0, f64::INFINITY)), false),
            ],
        };
        write_png(&path, "odd", std::slice::from_ref(&odd)).unwrap();
        let one = std::fs::metadata(&path).unwrap().len();
        write_png(&path, "odd", &[odd.clone(), odd]).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() > one);
    }
}
