//! Files' bytes to rows of named fields: JSON, JSONL, CSV, TSV and plain text lines.
//!
//! Every row remembers its line. Malformed lines stop the reading, or are counted and left out.

use serde_json::Value;

use super::error::DataError;
use super::example::SourceLine;

/// Named fields, in the file's order.
pub type Record = serde_json::Map<String, Value>;

/// A record and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The fields.
    pub record: Record,
    /// File and line.
    pub source: SourceLine,
}

/// A line that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// File and line.
    pub at: SourceLine,
    /// What was wrong.
    pub reason: String,
}

/// Rows of one or more files.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// The rows, in the files' order.
    pub rows: Vec<Row>,
    /// Lines left out.
    pub bad: Vec<BadLine>,
}

impl Records {
    /// Appends another file's rows.
    pub fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.bad.extend(other.bad);
    }
}

/// How a file's bytes are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A JSON array of objects, or one object a line.
    Json,
    /// Comma-separated, quoted with `"`.
    Csv,
    /// Tab-separated, without quoting.
    Tsv,
    /// One record `{"text": line}` per line that is not blank.
    Text,
}

impl FileKind {
    /// By the name's ending; `None` for endings that are read elsewhere (parquet) or unknown.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let ending = name.rsplit('.').next()?.to_ascii_lowercase();
        match ending.as_str() {
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "txt" => Some(Self::Text),
            _ => None,
        }
    }
}

/// Options of [`parse_records`].
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Leave malformed lines out instead of stopping.
    pub skip_bad: bool,
    /// Column names for CSV and TSV without a header line.
    pub columns: Option<Vec<String>>,
}

/// Reads a file. `file` is the name used in errors.
///
/// # Errors
/// [`DataError::Malformed`] for the first bad line unless `skip_bad`; [`DataError::File`] when the file as a whole is
/// unusable (a JSON array with a syntax error cannot be read past it); [`DataError::Empty`] for no rows at all.
pub fn parse_records(
    bytes: &[u8],
    file: &str,
    kind: FileKind,
    options: &ReadOptions,
) -> Result<Records, DataError> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut reader = Reader {
        file,
        skip_bad: options.skip_bad,
        records: Records::default(),
    };
    match kind {
        FileKind::Json => match bytes.iter().find(|b| !b.is_ascii_whitespace()) {
            Some(b'[') => reader.json_array(bytes)?,
            _ => reader.json_lines(bytes)?,
        },
        FileKind::Csv => reader.separated(bytes, b',', options.columns.as_deref())?,
        FileKind::Tsv => reader.separated(bytes, b'\t', options.columns.as_deref())?,
        FileKind::Text => reader.text_lines(bytes)?,
    }
    if reader.records.rows.is_empty() && reader.records.bad.is_empty() {
        return Err(DataError::Empty {
            what: file.to_owned(),
        });
    }
    Ok(reader.records)
}

struct Reader<'a> {
    file: &'a str,
    skip_bad: bool,
    records: Records,
}

impl Reader<'_> {
    fn at(&self, line: usize) -> SourceLine {
        SourceLine {
            file: self.file.to_owned(),
            line,
        }
    }

    fn good(&mut self, line: usize, record: Record) {
        let source = self.at(line);
        self.records.rows.push(Row { record, source });
    }

    fn bad(&mut self, line: usize, reason: String) -> Result<(), DataError> {
        let at = self.at(line);
        if !self.skip_bad {
            return Err(DataError::Malformed { at, reason });
        }
        self.records.bad.push(BadLine { at, reason });
        Ok(())
    }

    fn value(&mut self, line: usize, value: Value) -> Result<(), DataError> {
        match value {
            Value::Object(record) => {
                self.good(line, record);
                Ok(())
            }
            other => self.bad(
                line,
                format!(
                    "expected a JSON object of named fields, found {}",
                    short(&other)
                ),
            ),
        }
    }

    fn json_lines(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match serde_json::from_slice::<Value>(line) {
                Ok(value) => self.value(i + 1, value)?,
                Err(e) => self.bad(
                    i + 1,
                    format!("not a JSON object (column {}): {e}", e.column()),
                )?,
            }
        }
        Ok(())
    }

    fn json_array(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        let fail = |line: usize, reason: String| DataError::File {
            file: self.file.to_owned(),
            reason: format!(
                "line {line}: {reason}. A JSON array cannot be read past a syntax error; fix it, or store one object a line (.jsonl)"
            ),
        };
        let mut elements = Vec::new();
        let mut at = bytes.iter().position(|&b| b == b'[').unwrap_or(0) + 1;
        let (mut line, mut counted) = (1, 0);
        let mut first = true;
        loop {
            at += leading_space(&bytes[at..]);
            line += newlines(&bytes[counted..at]);
            counted = at;
            match bytes.get(at) {
                Some(b']') => break,
                Some(b',') if !first => {
                    at += 1;
                    at += leading_space(&bytes[at..]);
                    line += newlines(&bytes[counted..at]);
                    counted = at;
                }
                Some(_) if first => {}
                Some(&b) => {
                    return Err(fail(
                        line,
                        format!("expected ',' or ']', found {:?}", char::from(b)),
                    ));
                }
                None => return Err(fail(line, "the array is not closed".to_owned())),
            }
            first = false;
            let mut stream =
                serde_json::Deserializer::from_slice(&bytes[at..]).into_iter::<Value>();
            match stream.next() {
                Some(Ok(value)) => {
                    elements.push((line, value));
                    at += stream.byte_offset();
                }
                Some(Err(e)) => return Err(fail(line + e.line().saturating_sub(1), e.to_string())),
                None => return Err(fail(line, "the array is not closed".to_owned())),
            }
        }
        let rest = &bytes[at + 1..];
        if leading_space(rest) < rest.len() {
            return Err(fail(line, "text follows the closing bracket".to_owned()));
        }
        for (line, value) in elements {
            self.value(line, value)?;
        }
        Ok(())
    }

    fn separated(
        &mut self,
        bytes: &[u8],
        delimiter: u8,
        columns: Option<&[String]>,
    ) -> Result<(), DataError> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .quoting(delimiter == b',')
            .has_headers(false)
            .flexible(true)
            .from_reader(bytes);
        let mut names: Option<Vec<String>> = columns.map(<[String]>::to_vec);
        let mut raw = csv::ByteRecord::new();
        let mut row = 0;
        loop {
            row += 1;
            match reader.read_byte_record(&mut raw) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(e) => {
                    return Err(DataError::File {
                        file: self.file.to_owned(),
                        reason: format!("record {row}: {e}"),
                    });
                }
            }
            let line = raw
                .position()
                .map_or(row, |p| usize::try_from(p.line()).unwrap_or(row));
            let cells: Result<Vec<String>, _> = raw
                .iter()
                .map(|cell| std::str::from_utf8(cell).map(str::to_owned))
                .collect();
            let cells = match cells {
                Ok(cells) => cells,
                Err(e) => {
                    self.bad(line, format!("not UTF-8: {e}"))?;
                    continue;
                }
            };
            match &names {
                None => names = Some(cells),
                Some(names) if names.len() != cells.len() => {
                    let reason = format!(
                        "{} cells where {} columns are named ({})",
                        cells.len(),
                        names.len(),
                        names.join(", ")
                    );
                    self.bad(line, reason)?;
                }
                Some(names) => {
                    let cells = cells.into_iter().map(Value::String);
                    let record = names.iter().cloned().zip(cells).collect();
                    self.good(line, record);
                }
            }
        }
    }

    fn text_lines(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
            match std::str::from_utf8(line) {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => {
                    let text = text.trim_end_matches('\r');
                    let record = [("text".to_owned(), Value::from(text))]
                        .into_iter()
                        .collect();
                    self.good(i + 1, record);
                }
                Err(e) => self.bad(i + 1, format!("not UTF-8: {e}"))?,
            }
        }
        Ok(())
    }
}

fn leading_space(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_whitespace()).count()
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&b| b == b'\n').count()
}

/// A value for an error message: its kind and its first characters.
pub(super) fn short(value: &Value) -> String {
    let kind = match value {
        Value::Null => return "null".to_owned(),
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    let text = value.to_string();
    let cut: String = text.chars().take(60).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{kind}: {cut}{more}")
}
