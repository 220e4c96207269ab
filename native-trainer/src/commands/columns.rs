//! `trainer columns`: files of one value a line, side by side, as one JSONL file.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use super::{Common, UsageError};
use crate::cli::ColumnsArguments;
use crate::files::{atomic, read_text};

/// Pairs the files' lines into rows.
pub(super) fn run(common: &Common, arguments: ColumnsArguments) -> Result<()> {
    let mut columns = Vec::with_capacity(arguments.columns.len());
    for item in &arguments.columns {
        let (name, file) = item
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| {
                UsageError::new(format!(
                    "{item}: write name=file, for example text=train_text.txt"
                ))
            })?;
        columns.push((name, Path::new(file)));
    }
    let rows = pair(&columns, &arguments.out)?;
    match common.json {
        true => println!("{}", json!({ "out": arguments.out, "rows": rows })),
        false => println!("{rows} rows in {}", arguments.out.display()),
    }
    Ok(())
}

/// Writes a row per line; returns their number. Lines may hold anything but line ends, so none is trimmed or left out.
///
/// # Errors
/// Files of different lengths, named with their line counts.
pub(crate) fn pair(columns: &[(&str, &Path)], out: &Path) -> Result<usize> {
    let texts: Vec<String> = columns
        .iter()
        .map(|(_, file)| read_text(file))
        .collect::<Result<_>>()?;
    let lines: Vec<Vec<&str>> = texts.iter().map(|text| split(text)).collect();
    let rows = lines.first().map_or(0, Vec::len);
    for ((_, file), lines) in columns.iter().zip(&lines) {
        ensure!(
            lines.len() == rows,
            "{} has {} lines and {} has {rows} lines: line N of each belongs to row N, so they must be equally long",
            file.display(),
            lines.len(),
            columns
                .first()
                .map_or(String::new(), |(_, f)| f.display().to_string())
        );
    }
    let mut text = String::new();
    for row in 0..rows {
        let record: Map<String, Value> = columns
            .iter()
            .zip(&lines)
            .map(|((name, _), lines)| ((*name).to_owned(), Value::from(lines[row])))
            .collect();
        text.push_str(&format!("{}\n", Value::Object(record)));
    }
    atomic::write_file(out, text.as_bytes())?;
    Ok(rows)
}

/// Lines by line feed only: texts may contain the other characters that Unicode counts as line ends.
fn split(text: &str) -> Vec<&str> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    match text.is_empty() {
        true => Vec::new(),
        false => text
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
            .collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_paired_and_unequal_files_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (text, label) = (
            file("t", "a \"b\"\n\nc\u{2028}d\n"),
            file("l", "0\r\n1\r\n2"),
        );
        let out = dir.path().join("o.jsonl");
        let columns = [("text", text.as_path()), ("label", label.as_path())];
        assert_eq!(pair(&columns, &out).unwrap(), 3);
        let rows = std::fs::read_to_string(&out).unwrap();
        assert_eq!(
            rows.lines().next(),
            Some(r#"{"text":"a \"b\"","label":"0"}"#)
        );
        let short = file("s", "0\n1\n");
        let error = pair(
            &[("text", text.as_path()), ("label", short.as_path())],
            &out,
        )
        .unwrap_err();
        assert!(error.to_string().contains("2 lines"), "{error}");
    }
}
