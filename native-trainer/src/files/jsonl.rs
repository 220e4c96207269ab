//! `log.jsonl`: one JSON object per line, appended while a run goes on.
//!
//! Each row is one `write`, so a crash tears at most the last line. Opening for resume repairs that line and
//! drops the rows past the step the checkpoint holds: the resumed run writes them again, and the finished log
//! equals that of a run that was never interrupted.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use super::explain;

/// Appends rows to a JSONL file.
#[derive(Debug)]
pub(crate) struct JsonlWriter {
    path: PathBuf,
    file: File,
}

impl JsonlWriter {
    /// Starts an empty log, replacing one that is there.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        Self::open(path, 0)
    }

    /// Opens a log to continue after optimizer step `last_step`: rows with a larger `step` are dropped, and so is
    /// a torn last line.
    ///
    /// # Errors
    /// A line other than the last that is not a JSON object: the error numbers it, and the file is left alone.
    pub(crate) fn resume(path: &Path, last_step: u64) -> Result<Self> {
        if !path.exists() {
            return Self::open(path, 0);
        }
        let keep = kept_length(path, last_step)?;
        Self::open(path, keep)
    }

    fn open(path: &Path, keep: u64) -> Result<Self> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| explain(e, "open", path))?;
        file.set_len(keep)
            .and_then(|()| file.seek(SeekFrom::Start(keep)))
            .map_err(|e| explain(e, "shorten", path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
        })
    }

    /// Appends one row and hands it to the operating system at once, so that `tail -f` shows it.
    pub(crate) fn append(&mut self, row: &Map<String, Value>) -> Result<()> {
        let mut line = serde_json::to_string(row).with_context(|| {
            format!(
                "a row for {} cannot be written as JSON",
                self.path.display()
            )
        })?;
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .map_err(|e| explain(e, "append to", &self.path))
    }

    /// Flushes to the disk.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|e| explain(e, "flush", &self.path))
    }
}

/// Flushes the log at `path`, which another handle writes, to the disk.
pub(crate) fn sync(path: &Path) -> Result<()> {
    OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|file| file.sync_data())
        .map_err(|e| explain(e, "flush", path))
}

/// Bytes of the leading rows whose `step` is at most `last_step`.
fn kept_length(path: &Path, last_step: u64) -> Result<u64> {
    let file = File::open(path).map_err(|e| explain(e, "open", path))?;
    let mut reader = BufReader::new(file);
    let (mut keep, mut number, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        let read = reader
            .read_until(b'\n', &mut line)
            .map_err(|e| explain(e, "read", path))?;
        number += 1;
        if read == 0 || line.last() != Some(&b'\n') {
            return Ok(keep); // the end, or a line torn by a crash
        }
        match serde_json::from_slice::<Value>(&line) {
            Ok(Value::Object(row)) => {
                if row
                    .get("step")
                    .and_then(Value::as_u64)
                    .is_some_and(|step| step > last_step)
                {
                    return Ok(keep);
                }
            }
            _ if is_last(&mut reader)? => return Ok(keep),
            _ => bail!(
                "{} line {number} is not a JSON object: the log was edited or damaged; repair or delete that line, then resume",
                path.display()
            ),
        }
        keep += read as u64;
    }
}

fn is_last(reader: &mut BufReader<File>) -> Result<bool> {
    Ok(reader.fill_buf()?.is_empty())
}

/// Reads every whole row of a log; a torn last line is left out.
///
/// # Errors
/// A line other than the last that is not a JSON object, by number.
pub(crate) fn read_rows(path: &Path) -> Result<Vec<Map<String, Value>>> {
    let text = super::read_text(path)?;
    let lines: Vec<&str> = text.lines().collect();
    let mut rows = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        match serde_json::from_str(line) {
            Ok(Value::Object(row)) => rows.push(row),
            _ if index + 1 == lines.len() => break,
            _ => bail!("{} line {} is not a JSON object", path.display(), index + 1),
        }
    }
    Ok(rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn row(step: u64) -> Map<String, Value> {
        let Value::Object(row) = serde_json::json!({"step": step, "loss": 1.5}) else {
            unreachable!()
        };
        row
    }

    #[test]
    fn resumed_log_equals_the_uninterrupted_one() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
        let mut log = JsonlWriter::create(&whole).unwrap();
        (1..=6).for_each(|s| log.append(&row(s)).unwrap());
        let mut log = JsonlWriter::create(&cut).unwrap();
        (1..=5).for_each(|s| log.append(&row(s)).unwrap());
        drop(log);
        let mut log = JsonlWriter::resume(&cut, 3).unwrap();
        (4..=6).for_each(|s| log.append(&row(s)).unwrap());
        log.sync().unwrap();
        assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&cut).unwrap());
    }

    #[test]
    fn a_torn_last_line_is_repaired_wherever_it_is_torn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let good = "{\"step\":1}\n{\"step\":2}\n";
        let torn = "{\"step\":3,\"loss\":0.5}";
        for cut in 0..=torn.len() {
            std::fs::write(&path, format!("{good}{}", &torn[..cut])).unwrap();
            drop(JsonlWriter::resume(&path, 9).unwrap());
            assert_eq!(
                std::fs::read_to_string(&path).unwrap(),
                good,
                "cut at {cut}"
            );
        }
        // A newline reached the disk, the middle of the row did not.
        std::fs::write(&path, format!("{good}\0\0\0\n")).unwrap();
        drop(JsonlWriter::resume(&path, 9).unwrap());
        assert_eq!(read_rows(&path).unwrap().len(), 2);
    }

    #[test]
    fn damage_in_the_middle_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let text = "{\"step\":1}\nnot json\n{\"step\":2}\n";
        std::fs::write(&path, text).unwrap();
        let error = JsonlWriter::resume(&path, 9).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert!(read_rows(&path).is_err());
    }

    #[test]
    fn resuming_from_step_zero_or_a_missing_log_starts_afresh() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        drop(JsonlWriter::resume(&path, 4).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        std::fs::write(&path, "{\"step\":1}\n").unwrap();
        drop(JsonlWriter::resume(&path, 0).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }
}
