//! `samples.jsonl`: held-out prompts with both answers, a row each, in the columns of `trainer generate --out`.

use std::path::Path;

use anyhow::{Context, Result};
use qloom_core::data::{DataConfig, Row};
use serde_json::{Value, json};

use super::read_one;
use crate::files::atomic;
use crate::report::scores::Sample;

/// The file's name in a run's folder.
pub(crate) const SAMPLES: &str = "samples.jsonl";

/// Where a classifier answers: class probabilities of the base and with the adapter.
const PROBABILITIES: [&str; 2] = ["base_probabilities", "adapted_probabilities"];

/// Writes the file; none where there are no samples.
pub(crate) fn write_samples(path: &Path, samples: &[Sample]) -> Result<()> {
    if samples.is_empty() {
        return Ok(());
    }
    atomic::write_file(path, sample_lines(samples).as_bytes())
}

/// The file's text.
pub(crate) fn sample_lines(samples: &[Sample]) -> String {
    let line = |s: &Sample| {
        let mut row = json!({
            "task": s.task, "prompt": s.prompt, "reference": s.reference, "base": s.base, "adapted": s.adapted,
        });
        for (key, side) in PROBABILITIES.iter().zip(s.probabilities.iter().flatten()) {
            row[*key] = side.clone().into();
        }
        format!("{row}\n")
    };
    samples.iter().map(line).collect()
}

/// Reads at most `most` rows of such a file, or of one by `trainer generate --out`. Rows without a task get `task`.
///
/// # Errors
/// A row without prompt, base or adapted: the error names its line.
pub(crate) fn read_samples(path: &Path, task: &str, most: usize) -> Result<Vec<Sample>> {
    let rows = read_one(path, &DataConfig::default())?.rows;
    rows.iter()
        .take(most)
        .map(|row| sample(row, task))
        .collect()
}

fn sample(row: &Row, task: &str) -> Result<Sample> {
    let optional = |key: &str| Some(row.record.get(key).and_then(Value::as_str)?.to_owned());
    let text = |key: &str| {
        optional(key).with_context(|| {
            format!(
                "{}: no text in `{key}`; a sample has prompt, base and adapted, as `trainer generate --adapter A --out F` writes them",
                row.source
            )
        })
    };
    Ok(Sample {
        task: optional("task").unwrap_or_else(|| task.to_owned()),
        prompt: text("prompt")?,
        reference: optional("reference"),
        base: text("base")?,
        adapted: text("adapted")?,
        probabilities: match PROBABILITIES.map(|key| row.record.get(key).and_then(Value::as_object))
        {
            [Some(base), Some(adapted)] => Some([base.clone(), adapted.clone()]),
            _ => None,
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;
    use crate::report::scores::tests::example_samples;

    #[test]
    fn samples_survive_their_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SAMPLES);
        let samples = example_samples();
        write_samples(&path, &samples).unwrap();
        let read = read_samples(&path, "other", 99).unwrap();
        assert_eq!(read.len(), samples.len());
        for (read, sample) in read.iter().zip(&samples) {
            assert_eq!((&read.task, &read.prompt), (&sample.task, &sample.prompt));
            assert_eq!(read.reference, sample.reference);
            assert_eq!((&read.base, &read.adapted), (&sample.base, &sample.adapted));
            assert_eq!(read.probabilities, sample.probabilities);
        }
        assert_eq!(read_samples(&path, "", 1).unwrap().len(), 1);
        write_samples(&dir.path().join("none"), &[]).unwrap();
        assert!(!dir.path().join("none").exists());

        std::fs::write(
            &path,
            "{\"prompt\": \"p\", \"base\": \"b\", \"adapted\": null}\n",
        )
        .unwrap();
        let error = read_samples(&path, "", 9).unwrap_err().to_string();
        assert!(
            error.contains("line 1") && error.contains("adapted"),
            "{error}"
        );
    }
}
