//! *Results*: files of a native run, opened in the page and shown with the same tables and plots as an evaluation here.
//!
//! | file | shown as |
//! |---|---|
//! | `metrics.json`, `scores.json` | scores of base and adapted, confusion matrices, what the training cost |
//! | `metrics.json` of several runs | scores of every run |
//! | `scores.csv`, `experiments.csv` | table and bars |
//! | `per_example.csv` | rows to sort and filter |
//! | `log.jsonl` | loss curve |
//! | another `.csv` | table |

mod examples;
mod log;
mod metrics;
mod sheet;
#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::protocol::EvalRow;

use super::chart::{BarInput, Series};
use super::table::View;

/// Rows of a table of text at most; the rest is counted.
const MOST_ROWS: usize = 2_000;

/// Cells under a header.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    /// What it shows.
    pub caption: String,
    /// Names of the columns.
    pub header: Vec<String>,
    /// Cells, row by row.
    pub rows: Vec<Vec<String>>,
}

/// Bars of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    /// The metric, and which way is better.
    pub title: String,
    /// One per model.
    pub bars: Vec<BarInput>,
}

/// A confusion matrix of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// Whose.
    pub name: String,
    /// The classes.
    pub labels: Vec<String>,
    /// Rows: true; columns: predicted.
    pub rows: Vec<Vec<u64>>,
}

/// Rows of examples with the models' answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Examples {
    /// Names of the models.
    pub models: Vec<String>,
    /// The rows.
    pub rows: Vec<EvalRow>,
    /// How they are shown.
    pub view: View,
}

/// An opened file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opened {
    /// Its name.
    pub name: String,
    /// What it was taken for.
    pub kind: &'static str,
    /// Name and value of what there is to know.
    pub facts: Vec<(String, String)>,
    /// Tables.
    pub grids: Vec<Grid>,
    /// Bars, a metric each.
    pub bars: Vec<Bars>,
    /// Curves over steps, drawn together.
    pub curve: Vec<Series>,
    /// Confusion matrices.
    pub confusions: Vec<Confusion>,
    /// Examples.
    pub examples: Option<Examples>,
}

/// The section's state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// Opened files, the newest first.
    pub files: Vec<Opened>,
    /// Files that could not be opened: name and why.
    pub failures: Vec<(String, String)>,
}

/// A file that cannot be shown.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ResultsError {
    /// Of no kind that is known.
    #[error(
        "{name} is no file this page can show: it reads metrics.json, scores.json, log.jsonl and CSV files of a run"
    )]
    Kind {
        /// Its name.
        name: String,
    },
    /// Not what its name says.
    #[error("{name}, line {line}: {problem}")]
    Line {
        /// Its name.
        name: String,
        /// From 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// Right in form, but without anything to show.
    #[error("{name} holds no {expected}; is it the file of a finished run?")]
    Empty {
        /// Its name.
        name: String,
        /// What was looked for.
        expected: &'static str,
    },
}

impl Results {
    /// Opens a file, in place of one of the same name.
    pub fn open(&mut self, name: &str, text: &str) {
        self.files.retain(|f| f.name != name);
        self.failures.retain(|(n, _)| n != name);
        match open(name, text) {
            Ok(opened) => self.files.insert(0, opened),
            Err(error) => self.failures.push((name.to_owned(), error.to_string())),
        }
    }

    /// Closes a file.
    pub fn close(&mut self, name: &str) {
        self.files.retain(|f| f.name != name);
        self.failures.retain(|(n, _)| n != name);
    }
}

/// Reads a file by its ending and what is in it.
///
/// # Errors
/// Files of no known kind, broken lines, files without anything to show.
pub fn open(name: &str, text: &str) -> Result<Opened, ResultsError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lower = name.to_lowercase();
    let mut opened = match lower.rsplit('.').next() {
        Some("jsonl") => log::open(name, text)?,
        Some("json") => metrics::open(name, text)?,
        Some("csv") => sheet::open(name, text)?,
        _ => {
            return Err(ResultsError::Kind {
                name: name.to_owned(),
            });
        }
    };
    opened.name = name.to_owned();
    Ok(opened)
}
