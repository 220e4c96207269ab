//! Data files to examples: paths and hub references are resolved here, everything else is the core's.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use qloom_core::data::{
    DataConfig, DataReport, Encoder, Example, FileKind, Labels, ReadOptions, Record, Records, Row,
    SourceLine, Task, parse_records, split_rows,
};
use qloom_core::tokenizer::Tokenizer;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::commands::UsageError;
use crate::files::records::{Content, read_content};
use crate::hub::{fetch::Hub, reference::DatasetRef, settings::HubSettings};
use crate::progress::{Mode, task as progress};

/// Examples to train on and to hold out, and what there is to say about them.
#[derive(Debug)]
pub(crate) struct Data {
    /// What is trained on.
    pub(crate) train: Vec<Example>,
    /// What is held out; empty when the configuration holds nothing out.
    pub(crate) eval: Vec<Example>,
    /// Of the training examples.
    pub(crate) report: DataReport,
    /// Of the held-out ones.
    pub(crate) eval_report: Option<DataReport>,
    /// Label words, for classification data.
    pub(crate) labels: Vec<String>,
    /// Raw label to word, for classification data: `data.label_names` that gives these classes again.
    pub(crate) label_names: Map<String, Value>,
    /// What the examples are for.
    pub(crate) task: Task,
    /// Longest example in tokens.
    pub(crate) max_length: usize,
}

impl Data {
    /// Reads, splits and encodes what `config` names, for a language model with `context` positions.
    pub(crate) fn load(config: &DataConfig, tokenizer: &Tokenizer, context: usize) -> Result<Self> {
        Self::load_for(config, tokenizer, context, Task::Causal)
    }

    /// Reads, splits and encodes what `config` names, for a base with `context` positions that does `task`.
    pub(crate) fn load_for(
        config: &DataConfig,
        tokenizer: &Tokenizer,
        context: usize,
        task: Task,
    ) -> Result<Self> {
        if config.train.is_empty() {
            return Err(UsageError::new("data.train is empty: name the training file, for example data.train = \"train.jsonl\"").into());
        }
        let train = read_all(&config.train, config)?;
        let given = read_all(&config.eval, config)?;
        let bad = train.bad.len();
        let (train_rows, held) = split_rows(train.rows, config, !given.rows.is_empty())?;
        let eval_rows = if given.rows.is_empty() {
            held
        } else {
            given.rows
        };
        let encoder = Encoder::new(config, &train_rows, tokenizer, task, context)?;
        Self::encode_with(
            &encoder,
            task,
            &train_rows,
            bad,
            &eval_rows,
            given.bad.len(),
        )
    }

    fn encode_with(
        encoder: &Encoder<'_>,
        task: Task,
        train_rows: &[Row],
        bad: usize,
        eval_rows: &[Row],
        eval_bad: usize,
    ) -> Result<Self> {
        let total = (train_rows.len() + eval_rows.len()) as u64;
        let mut bar = progress::Task::start(
            Mode::detect(false),
            "encoding",
            total,
            progress::Unit::Items,
        );
        let train = encoder.encode(train_rows, bad, "the training set", &mut |done| {
            bar.at(done as u64)
        })?;
        let done_before = train_rows.len();
        let eval = match eval_rows.is_empty() {
            true => None,
            false => {
                Some(
                    encoder.encode(eval_rows, eval_bad, "the held-out set", &mut |done| {
                        bar.at((done_before + done) as u64);
                    })?,
                )
            }
        };
        bar.finish();
        let known = encoder.formatter().labels();
        let labels = known.map_or_else(Vec::new, |l| l.words().to_vec());
        let label_names = known.map_or_else(Map::new, Labels::to_names);
        let mut report = train.report;
        let (eval, eval_report) = match eval {
            Some(held) => {
                report.check_leakage(&train.examples, &held.examples);
                (held.examples, Some(held.report))
            }
            None => (Vec::new(), None),
        };
        let max_length = encoder.max_length();
        Ok(Self {
            train: train.examples,
            eval,
            report,
            eval_report,
            labels,
            label_names,
            task,
            max_length,
        })
    }

    /// Prints what of the data was left out or cut.
    pub(super) fn note_losses(&self) {
        for (what, report) in [
            ("training", Some(&self.report)),
            ("held-out", self.eval_report.as_ref()),
        ] {
            let Some(report) = report else { continue };
            if report.bad_lines > 0 {
                let count = report.bad_lines;
                eprintln!("skipped {count} malformed lines of the {what} data");
            }
            if report.truncated > 0 {
                eprintln!(
                    "{} of {} {what} examples were truncated to {} tokens",
                    report.truncated, report.examples, report.max_length
                );
            }
        }
    }

    /// A hash over the tokens that are trained and their order.
    pub(crate) fn hash(&self) -> String {
        hash_of(self.train.iter().chain(&self.eval), self.task)
    }

    /// The same over the training examples alone.
    pub(crate) fn hash_of_train(&self) -> String {
        hash_of(self.train.iter(), self.task)
    }

    /// The same over the held-out examples alone.
    pub(crate) fn hash_of_eval(&self) -> String {
        hash_of(self.eval.iter(), self.task)
    }
}

fn hash_of<'a>(examples: impl Iterator<Item = &'a Example>, task: Task) -> String {
    let mut hasher = Sha256::new();
    for example in examples {
        example
            .input_ids
            .iter()
            .for_each(|id| hasher.update(id.to_le_bytes()));
        example
            .labels
            .iter()
            .for_each(|label| hasher.update(label.to_le_bytes()));
        if task == Task::SequenceClassification {
            let types = example.token_type_ids.iter();
            types.for_each(|t| hasher.update(t.to_le_bytes()));
            hasher.update((example.class.unwrap_or(usize::MAX) as u64).to_le_bytes());
        }
        hasher.update([0xff]);
    }
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Rows of files and hub data sets, one after the other.
pub(crate) fn read_all(paths: &[String], config: &DataConfig) -> Result<Records> {
    let mut all = Records::default();
    for path in paths {
        for file in locate(path)? {
            all.extend(read_one(&file, config)?);
        }
    }
    Ok(all)
}

/// A file as it is, or the files of a hub data set.
fn locate(path: &str) -> Result<Vec<PathBuf>> {
    let local = PathBuf::from(path);
    if local.exists() {
        return Ok(vec![local]);
    }
    let is_file = FileKind::from_name(path).is_some() || path.ends_with(".parquet");
    if is_file && !path.starts_with("hf:") {
        anyhow::bail!(
            "data file {path} does not exist; paths are taken from the configuration's folder, then from where you are"
        );
    }
    let missing = || {
        format!(
            "data file {path} does not exist here, and it is no hub data set (hf:owner/name, or owner/name)"
        )
    };
    let reference = match path.starts_with("hf:") {
        true => DatasetRef::parse(path).with_context(missing)??,
        false => DatasetRef::parse_bare(path).with_context(missing)?,
    };
    let hub = Hub::new(HubSettings::from_env(Mode::detect(false))?)?;
    hub.dataset(&reference, None, None)
        .with_context(|| format!("data set {path}"))
}

/// Reads one data file into rows.
pub(crate) fn read_one(path: &Path, config: &DataConfig) -> Result<Records> {
    let name = path.display().to_string();
    match read_content(path)? {
        Content::Records(rows) => Ok(Records {
            rows: rows
                .into_iter()
                .map(|(line, r)| row(&name, line, r))
                .collect(),
            bad: Vec::new(),
        }),
        Content::Text(bytes) => {
            let kind = FileKind::from_name(&name).unwrap_or(FileKind::Json);
            let options = ReadOptions {
                skip_bad: config.skip_bad,
                columns: config.columns.clone(),
            };
            Ok(parse_records(&bytes, &name, kind, &options)?)
        }
    }
}

fn row(file: &str, line: usize, record: Record) -> Row {
    Row {
        record,
        source: SourceLine {
            file: file.to_owned(),
            line,
        },
    }
}
