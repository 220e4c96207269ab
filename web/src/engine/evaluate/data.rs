//! The examples of a data file, read and encoded as the trainer reads and encodes them.

use qloom_core::data::{
    DataConfig, Encoder, Example, FileKind, Format, LabelNames, ReadOptions, Task, parse_records,
};
use serde_json::{Map, Value};

use super::super::base::{Base, whole};
use super::super::{Surroundings, attached};
use crate::protocol::{DataSource, EvalOptions, Failure, FailureKind};

/// Most bytes of a data file.
const MOST_BYTES: u64 = 256 << 20;

/// What is scored.
pub(super) struct Data {
    pub(super) examples: Vec<Example>,
    /// Label words, for classification data.
    pub(super) labels: Vec<String>,
    /// What to know, a sentence each.
    pub(super) notes: Vec<String>,
}

/// Name and bytes of the file.
pub(super) async fn read<S: Surroundings>(
    around: &S,
    source: DataSource,
    files: Vec<S::File>,
) -> Result<(String, Vec<u8>), Failure> {
    match source {
        DataSource::Url { url } => {
            let file = around.open(&url, false).await?;
            let missing = || Failure::new(FailureKind::Network, format!("{url} is not there"));
            let path = url.split(['?', '#']).next().unwrap_or(&url);
            let name = path.rsplit('/').next().unwrap_or(path).to_owned();
            let bytes = whole(&file.ok_or_else(missing)?, &name, MOST_BYTES).await?;
            Ok((name, bytes))
        }
        DataSource::File { file } => {
            let mut files = attached(vec![file], files)?;
            let Some((name, file)) = files.pop() else {
                return Err(Failure::request("no data file came with the request"));
            };
            let bytes = whole(&file, &name, MOST_BYTES).await?;
            Ok((name, bytes))
        }
    }
}

impl Data {
    /// Parses and encodes the file for `base`. `known` are the classes of a classifier, raw label to word.
    ///
    /// # Errors
    /// A format or a row that cannot be read; settings that do not go together.
    pub(super) fn encode(
        base: &Base,
        name: &str,
        bytes: &[u8],
        options: &EvalOptions,
        known: Option<Map<String, Value>>,
    ) -> Result<Self, Failure> {
        let task = base.architecture.task();
        let context = base.info.context;
        let given = (!options.labels.is_empty()).then(|| LabelNames::List(options.labels.clone()));
        let config = DataConfig {
            train: vec![name.to_owned()],
            format: options.format.as_deref().map(format).transpose()?,
            label_names: given.or(known.map(LabelNames::Map)),
            max_length: Some(options.max_length.min(context)),
            skip_bad: true,
            ..DataConfig::default()
        };
        let read = ReadOptions {
            skip_bad: true,
            columns: None,
        };
        let kind = FileKind::from_name(name).unwrap_or(FileKind::Json);
        let records = parse_records(bytes, name, kind, &read)?;
        let (mut rows, bad) = (records.rows, records.bad);
        // Format and labels are those of the whole file, however few of its rows are scored.
        let encoder = Encoder::new(&config, &rows, &base.tokenizer, task, context)?;
        rows.truncate(options.limit.unwrap_or(usize::MAX));
        let set = encoder.encode(&rows, bad.len(), name, &mut |_| {})?;
        let report = &set.report;
        let mut notes = Vec::new();
        if let Some(first) = bad.first() {
            notes.push(format!(
                "{} lines are no rows and were left out, the first at {}: {}",
                bad.len(),
                first.at,
                first.reason
            ));
        }
        let unread = report.bad_lines.saturating_sub(bad.len());
        if unread > 0 {
            notes.push(format!("{unread} rows lack a field and were left out"));
        }
        if report.truncated > 0 {
            notes.push(format!(
                "{} of {} examples were cut to {} tokens",
                report.truncated, report.examples, report.max_length
            ));
        }
        notes.extend(report.warnings.iter().map(|w| w.message.clone()));
        let labels = match (encoder.formatter().labels(), task) {
            (Some(labels), _) => labels.words().to_vec(),
            (None, Task::Causal) => options.labels.clone(),
            (None, Task::SequenceClassification) => Vec::new(),
        };
        Ok(Self {
            examples: set.examples,
            labels,
            notes,
        })
    }
}

fn format(name: &str) -> Result<Format, Failure> {
    let found = Format::ALL.into_iter().find(|f| f.name() == name);
    found.ok_or_else(|| {
        Failure::request(format!(
            "{name:?} is no data format; expected one of {}",
            Format::ALL.map(Format::name).join(", ")
        ))
    })
}
