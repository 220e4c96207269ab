//! Tables on the terminal.
//!
//! Boxes and the terminal's width on a terminal; plain ASCII and no box drawing where stdout goes to a file or
//! `NO_COLOR` asks for plain output. What models write is shown, not obeyed: control characters are spelt out.

use std::io::IsTerminal;

use comfy_table::presets::{ASCII_FULL, ASCII_MARKDOWN, UTF8_FULL, UTF8_FULL_CONDENSED};
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};

use super::scores::{Sample, TaskScores, score_rows};

/// Columns of text narrower than this are unreadable beside each other, so they go below each other.
const SIDE_BY_SIDE_FROM: u16 = 72;

/// How tables look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Characters per line.
    pub(crate) width: u16,
    /// Box-drawing characters.
    pub(crate) boxes: bool,
}

impl Look {
    /// What suits stdout.
    pub(crate) fn stdout() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let terminal = std::io::stdout().is_terminal();
        let width = Table::new().width().filter(|_| terminal).unwrap_or(100);
        Self {
            width: width.max(20),
            boxes: terminal && !plain,
        }
    }
}

/// A table of `header` and `rows`, wrapped to the look's width.
pub(crate) fn grid(header: &[String], rows: &[Vec<String>], look: Look) -> String {
    let mut table = new_table(look);
    table.set_header(header.iter().map(|cell| visible(cell)));
    for row in rows {
        table.add_row(row.iter().map(|cell| visible(cell)));
    }
    keep_words_whole(&mut table, header, rows, look);
    table.trim_fmt()
}

/// Gives each column room for its longest word, where all of them fit; otherwise words are broken to fit.
fn keep_words_whole(table: &mut Table, header: &[String], rows: &[Vec<String>], look: Look) {
    const PADDING_AND_BORDER: usize = 3;
    let word = |cell: &String| cell.split([' ', '\n']).map(|w| w.chars().count()).max();
    let longest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .chain(header.get(column))
            .filter_map(word)
            .max()
            .unwrap_or(0)
            + PADDING_AND_BORDER
    };
    let widths: Vec<usize> = (0..header.len()).map(longest).collect();
    if widths.iter().sum::<usize>() < usize::from(look.width) {
        table.set_constraints(widths.iter().map(|width| {
            let least = u16::try_from(width - 1).unwrap_or(u16::MAX);
            ColumnConstraint::LowerBoundary(Width::Fixed(least))
        }));
    }
}

/// Base against adapted, every metric.
pub(crate) fn scores(tasks: &[TaskScores], look: Look) -> String {
    let (header, mut rows) = score_rows(tasks);
    // Lines break between words, but not within "[0.155, 0.180]" or "(p < 0.001)".
    rows.iter_mut()
        .flatten()
        .for_each(|cell| *cell = bound(cell));
    grid(&header, &rows, look).replace(NO_BREAK, " ")
}

const NO_BREAK: char = '\u{a0}';

/// Makes the spaces within brackets unbreakable.
fn bound(cell: &str) -> String {
    let mut depth = 0;
    let keep = |c: char| {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => {}
        }
        if c == ' ' && depth > 0 { NO_BREAK } else { c }
    };
    cell.chars().map(keep).collect()
}

/// Prompts with both answers side by side, or below each other where the terminal is narrow.
pub(crate) fn samples(samples: &[Sample], look: Look) -> String {
    if look.width < SIDE_BY_SIDE_FROM {
        return stacked(samples);
    }
    let mut table = new_table(look);
    // Answers run over several lines, so rules between the rows.
    table.load_style(if look.boxes { UTF8_FULL } else { ASCII_FULL });
    table.set_header(["prompt", "reference", "base", "adapted"]);
    table.set_constraints(
        [24, 22, 27, 27].map(|part| ColumnConstraint::UpperBoundary(Width::Percentage(part))),
    );
    for sample in samples {
        let reference = sample.reference.as_deref().unwrap_or("-");
        table.add_row([&sample.prompt, reference, &sample.base, &sample.adapted].map(visible));
    }
    table.trim_fmt()
}

fn stacked(samples: &[Sample]) -> String {
    let mut text = String::new();
    for sample in samples {
        let reference = sample.reference.as_deref().unwrap_or("-");
        let parts = [
            ("prompt", sample.prompt.as_str()),
            ("reference", reference),
            ("base", &sample.base),
            ("adapted", &sample.adapted),
        ];
        for (name, value) in parts {
            text.push_str(&format!(
                "{name}: {}\n",
                visible(value).replace('\n', "\n  ")
            ));
        }
        text.push('\n');
    }
    text.trim_end().to_owned()
}

fn new_table(look: Look) -> Table {
    let mut table = Table::new();
    table.force_no_tty(); // the width is given, and there is no colour
    table.load_style(if look.boxes {
        UTF8_FULL_CONDENSED
    } else {
        ASCII_MARKDOWN
    });
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(look.width);
    table
}

/// Spells out control characters, so that generated text cannot move the cursor or recolour the terminal.
pub(crate) fn visible(text: &str) -> String {
    spelled_out(text.trim())
}

/// Text of a model as stdout takes it: as it is for a program, its control characters spelled out for a terminal.
pub(crate) fn for_terminal(text: &str) -> String {
    match std::io::stdout().is_terminal() {
        true => spelled_out(text),
        false => text.to_owned(),
    }
}

fn spelled_out(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push('\n'),
            '\t' => shown.push_str("    "),
            '\r' => {}
            c if c.is_control() || is_bidi_control(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

/// Marks that reorder the text around them.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;
    use crate::report::scores::tests::{example_samples, example_scores};

    const PLAIN: Look = Look {
        width: 100,
        boxes: false,
    };

    #[test]
    fn plain_tables_are_ascii_and_keep_every_word() {
        let text = scores(&example_scores(), PLAIN);
        assert!(text.is_ascii(), "{text}");
        for word in [
            "macro_f1",
            "[0.889, 0.934]",
            "[0.155, 0.180]",
            "(p < 0.001)",
        ] {
            assert!(text.contains(word), "{text}");
        }
        assert!(
            scores(
                &example_scores(),
                Look {
                    boxes: true,
                    ..PLAIN
                }
            )
            .contains('│')
        );
    }

    #[test]
    fn intervals_are_not_torn_on_a_narrow_terminal() {
        let text = scores(&example_scores(), Look { width: 80, ..PLAIN });
        for whole in [
            "[0.155, 0.180]",
            "[0.889, 0.934]",
            "(p < 0.001)",
            "instructions",
        ] {
            assert!(text.contains(whole), "{text}");
        }
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }

    #[test]
    fn samples_fit_the_width() {
        for width in [72, 80, 100, 160] {
            let text = samples(&example_samples(), Look { width, boxes: true });
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= usize::from(width), "{widest} > {width}\n{text}");
        }
        let narrow = samples(
            &example_samples(),
            Look {
                width: 40,
                boxes: true,
            },
        );
        assert!(narrow.contains("adapted: negative"), "{narrow}");
    }

    #[test]
    fn escape_sequences_of_a_model_are_spelt_out() {
        let text = samples(&example_samples(), PLAIN);
        assert!(!text.contains('\u{1b}'));
        assert_eq!(
            visible("a\u{1b}[31m\u{202e}\tb\r\n"),
            "a\\u{1b}[31m\\u{202e}    b"
        );
    }
}
