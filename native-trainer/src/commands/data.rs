//! `trainer data`: what will be learned, before anything is.

use std::io::IsTerminal;

use anyhow::Result;
use qloom_core::data::{DataReport, Piece, Task, preview};

use super::Common;
use crate::base::{BaseFiles, check_rows};
use crate::cli::DataArguments;
use crate::config;
use crate::report::{numbers, table};
use crate::session::Data;

/// Marks trained text on a terminal: black on green, readable without colour through the brackets.
const TRAINED: (&str, &str) = ("\x1b[30;42m", "\x1b[0m");

/// Prints reports, warnings and the first examples.
pub(super) fn run(common: &Common, arguments: DataArguments) -> Result<()> {
    let config = config::load(&arguments.config, &arguments.set)?;
    let base = BaseFiles::open(&config.model.base)?;
    let architecture = base.architecture()?;
    let tokenizer = base.tokenizer_for(&config.data)?;
    check_rows(&tokenizer, architecture.vocab_size(), &base.name)?;
    let data = Data::load_for(
        &config.data,
        &tokenizer,
        architecture.context(),
        architecture.task(),
    )?;
    let shown: Vec<Vec<Piece>> = data
        .train
        .iter()
        .take(arguments.show)
        .map(|e| preview(e, &tokenizer))
        .collect();
    if common.json {
        let json = serde_json::json!({ "train": data.report, "eval": data.eval_report, "examples": shown });
        println!("{}", serde_json::to_string_pretty(&json)?);
        return Ok(());
    }
    let mut header = vec![String::new(), "train".to_owned()];
    let mut rows = summary(&data.report, data.task);
    if let Some(eval) = &data.eval_report {
        header.push("held out".to_owned());
        for (row, other) in rows.iter_mut().zip(summary(eval, data.task)) {
            row.extend(other.into_iter().skip(1));
        }
    }
    for label in &data.labels {
        let of = |report: &DataReport| report.labels.get(label).copied().unwrap_or(0) as u64;
        let mut row = vec![format!("label {label:?}"), numbers::count(of(&data.report))];
        row.extend(data.eval_report.iter().map(|eval| numbers::count(of(eval))));
        rows.push(row);
    }
    println!("{}", table::grid(&header, &rows, table::Look::stdout()));
    for (name, report) in [
        ("train", Some(&data.report)),
        ("held out", data.eval_report.as_ref()),
    ] {
        for warning in report.into_iter().flat_map(|r| &r.warnings) {
            println!("warning ({name}): {}", warning.message);
        }
    }
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for (number, (pieces, example)) in shown.iter().zip(&data.train).enumerate() {
        let trained = match example.class.and_then(|class| data.labels.get(class)) {
            Some(label) if data.task == Task::SequenceClassification => {
                format!("class {label:?}")
            }
            _ => format!("{} trained", example.target_tokens()),
        };
        println!(
            "\nexample {} ({}, {} tokens, {trained}):",
            number + 1,
            example.source,
            example.len(),
        );
        println!("{}", highlight(pieces, colour));
    }
    Ok(())
}

/// What a language model is trained on; an encoder is trained on every example's class, not on tokens.
const CAUSAL_ONLY: [&str; 2] = ["rows without a trained token", "trained tokens"];

fn summary(report: &DataReport, task: Task) -> Vec<Vec<String>> {
    let l = &report.lengths;
    let rows = [
        ("format", report.format.to_string()),
        ("rows", numbers::count(report.rows as u64)),
        ("examples", numbers::count(report.examples as u64)),
        (
            "bad lines left out",
            numbers::count(report.bad_lines as u64),
        ),
        (
            "rows without a trained token",
            numbers::count(report.untrained as u64),
        ),
        (
            "truncated",
            format!(
                "{} (max_length {})",
                numbers::count(report.truncated as u64),
                report.max_length
            ),
        ),
        ("dropped as too long", numbers::count(report.dropped as u64)),
        ("tokens", numbers::count(report.tokens as u64)),
        (
            "trained tokens",
            format!(
                "{} ({:.1} %)",
                numbers::count(report.trained_tokens as u64),
                100.0 * report.trained_share
            ),
        ),
        (
            "length min / median / 95 % / max",
            format!("{} / {} / {} / {}", l.min, l.p50, l.p95, l.max),
        ),
    ];
    rows.into_iter()
        .filter(|(name, _)| task == Task::Causal || !CAUSAL_ONLY.contains(name))
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect()
}

fn highlight(pieces: &[Piece], colour: bool) -> String {
    let (open, close) = if colour { TRAINED } else { ("[[", "]]") };
    pieces
        .iter()
        .map(|piece| {
            let text = table::visible(&piece.text);
            if piece.trained {
                format!("{open}{text}{close}")
            } else {
                text
            }
        })
        .collect()
}
