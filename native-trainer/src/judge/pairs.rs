//! Rows of a file to pairs of answers.

use std::path::Path;

use anyhow::{Result, bail};
use qloom_core::data::{DataConfig, Row};
use qloom_core::evaluation::judge::JudgePair;
use serde_json::Value;

use crate::session::read_one;

/// Which column holds what.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    /// What was asked.
    pub(crate) prompt: String,
    /// What the data says; may be absent or null.
    pub(crate) reference: String,
    /// The base's answer.
    pub(crate) base: String,
    /// The adapted model's answer.
    pub(crate) adapted: String,
}

/// Reads the pairs of `path`: JSON, JSONL, CSV, TSV or parquet.
///
/// # Errors
/// No rows; a row without one of the columns, or with something else than text there: the error names file, line and column.
pub(crate) fn read_pairs(path: &Path, columns: &Columns) -> Result<Vec<JudgePair>> {
    let rows = read_one(path, &DataConfig::default())?.rows;
    if rows.is_empty() {
        bail!("{} has no rows: nothing to judge", path.display());
    }
    rows.iter().map(|row| pair(row, columns)).collect()
}

fn pair(row: &Row, columns: &Columns) -> Result<JudgePair> {
    Ok(JudgePair {
        prompt: text(row, &columns.prompt, "--prompt")?,
        reference: match row.record.get(&columns.reference) {
            None | Some(Value::Null) => None,
            Some(_) => Some(text(row, &columns.reference, "--reference")?),
        },
        base: text(row, &columns.base, "--a")?,
        adapted: text(row, &columns.adapted, "--b")?,
    })
}

fn text(row: &Row, column: &str, option: &str) -> Result<String> {
    let at = &row.source;
    match row.record.get(column) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Null) => bail!(
            "{at}: `{column}` is null, text was expected; `trainer generate` fills `adapted` only with --adapter, and {option} \
             names another column"
        ),
        Some(other) => bail!("{at}: `{column}` is {other}, text was expected"),
        None => bail!(
            "{at}: there is no `{column}`, only {}; name the column with {option}",
            row.record.keys().cloned().collect::<Vec<_>>().join(", ")
        ),
    }
}
