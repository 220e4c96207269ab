//! Rows of a data file.
//!
//! Parquet is binary and needs random access, so it is decoded here, to the same JSON objects a JSONL file would
//! give; JSON, JSONL, CSV and TSV are text that the core parses itself, so they are handed on as bytes.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value};

use super::{explain, read};

/// A data file's content, as far as it is decoded here.
#[derive(Debug)]
pub(crate) enum Content {
    /// Rows with their number, counted from 1.
    Records(Vec<(usize, Map<String, Value>)>),
    /// The bytes of a text format.
    Text(Vec<u8>),
}

/// Reads a data file: parquet to records, anything else as it is.
///
/// # Errors
/// An absent or unreadable file; a parquet file that is cut off or uses a codec this build lacks.
pub(crate) fn read_content(path: &Path) -> Result<Content> {
    match is_parquet(path)? {
        true => read_records(path).map(Content::Records),
        false => read(path).map(Content::Text),
    }
}

/// Every row of a parquet file as a JSON object, numbered from 1.
///
/// # Errors
/// As for [`read_content`]; the row that cannot be decoded is named.
pub(crate) fn read_records(path: &Path) -> Result<Vec<(usize, Map<String, Value>)>> {
    let file = File::open(path).map_err(|e| explain(e, "open", path))?;
    let reader = SerializedFileReader::new(file).with_context(|| {
        format!(
            "{} is not a whole parquet file: download or write it again",
            path.display()
        )
    })?;
    let expected = reader.metadata().file_metadata().num_rows();
    let rows = reader
        .get_row_iter(None)
        .with_context(|| format!("{} cannot be read as rows", path.display()))?;
    let mut records = Vec::with_capacity(usize::try_from(expected).unwrap_or(0).min(1 << 20));
    for (index, row) in rows.enumerate() {
        let row = row.with_context(|| {
            format!(
                "{} row {}: cannot be decoded (damaged, or compressed with a codec other than snappy, gzip or zstd)",
                path.display(),
                index + 1
            )
        })?;
        match row.to_json_value() {
            Value::Object(record) => records.push((index + 1, record)),
            other => bail!("{} row {}: {other} is no record", path.display(), index + 1),
        }
    }
    if usize::try_from(expected) != Ok(records.len()) {
        bail!(
            "{} promises {expected} rows and gave {}: it is damaged, write it again",
            path.display(),
            records.len()
        );
    }
    Ok(records)
}

/// By content where there is any (hub caches name files by hash), else by extension.
fn is_parquet(path: &Path) -> Result<bool> {
    use std::io::Read;
    let mut start = [0; 4];
    let mut file = File::open(path).map_err(|e| explain(e, "open", path))?;
    let magic = file.read_exact(&mut start).is_ok() && start == *b"PAR1";
    Ok(magic
        || path
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("parquet")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
pub(crate) mod tests {
    use super::*;
    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    /// Two columns, `text` with a null in the middle, and a list of ids.
    pub(crate) fn write(path: &Path, compression: Compression) {
        let schema = "message row { OPTIONAL BYTE_ARRAY text (UTF8); REQUIRED INT64 label;
            OPTIONAL group ids (LIST) { REPEATED group list { REQUIRED INT64 element; } } }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .build();
        let file = File::create(path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let text = [ByteArray::from("été \"q\"\n"), ByteArray::from("b")];
        column
            .typed::<ByteArrayType>()
            .write_batch(&text, Some(&[1, 0, 1]), None)
            .unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<Int64Type>()
            .write_batch(&[1, -2, i64::MAX], None, None)
            .unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<Int64Type>()
            .write_batch(&[5, 6, 7], Some(&[2, 2, 1, 2]), Some(&[0, 1, 0, 0]))
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn rows_come_out_as_json_under_every_codec() {
        let dir = tempfile::tempdir().unwrap();
        for codec in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(Default::default()),
            Compression::ZSTD(Default::default()),
        ] {
            let path = dir.path().join("blob-without-extension");
            write(&path, codec);
            let Content::Records(rows) = read_content(&path).unwrap() else {
                panic!("not seen as parquet")
            };
            let rows: Vec<Value> = rows
                .into_iter()
                .enumerate()
                .map(|(i, (line, row))| {
                    assert_eq!(line, i + 1);
                    Value::Object(row)
                })
                .collect();
            let expected = serde_json::json!([
                {"text": "été \"q\"\n", "label": 1, "ids": [5, 6]},
                {"text": null, "label": -2, "ids": []},
                {"text": "b", "label": i64::MAX, "ids": [7]}
            ]);
            assert_eq!(Value::Array(rows), expected, "{codec:?}");
        }
    }

    #[test]
    fn a_truncated_parquet_file_is_an_error_at_every_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        write(&path, Compression::SNAPPY);
        let whole = std::fs::read(&path).unwrap();
        for length in [0, 3, 4, 8, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = format!("{:#}", read_content(&path).unwrap_err());
            assert!(error.contains("x.parquet"), "{length}: {error}");
        }
    }

    #[test]
    fn text_is_handed_on_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        std::fs::write(&path, b"{\"a\":1}\r\n").unwrap();
        let Content::Text(bytes) = read_content(&path).unwrap() else {
            panic!("decoded")
        };
        assert_eq!(bytes, b"{\"a\":1}\r\n");
        assert!(read_content(&dir.path().join("none.parquet")).is_err());
    }
}
