//! Rows to examples: text tokenized once as a whole, character ranges mapped to tokens, lengths limited, all counted.

use super::config::{DataConfig, Format, Truncation};
use super::error::DataError;
use super::example::{Example, IGNORE};
use super::formats::{Body, Formatter, detect_format};
use super::labels::Labels;
use super::records::Row;
use super::render::Rendered;
use super::report::{DataReport, Tally};
use crate::tokenizer::Tokenizer;

/// What the examples are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Next-token prediction.
    Causal,
    /// A class per text for an encoder: `labels` stay empty of targets, [`Example::class`] holds the answer.
    SequenceClassification,
}

/// Examples and what there is to say about them.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The examples, in the rows' order.
    pub examples: Vec<Example>,
    /// The report.
    pub report: DataReport,
}

/// Encodes rows of one format for one base.
#[derive(Debug)]
pub struct Encoder<'t> {
    formatter: Formatter<'t>,
    task: Task,
    max_length: usize,
    truncation: Truncation,
    skip_bad: bool,
}

impl<'t> Encoder<'t> {
    /// Settles format and label set on the training rows (`rows`); the same encoder then serves the held-out ones.
    /// `context` is the number of positions of the base.
    ///
    /// # Errors
    /// [`DataError::Empty`] without rows; [`DataError::Config`] for settings that do not go together, or a format that
    /// cannot be told from the first row; [`DataError::NoChatTemplate`].
    pub fn new(
        config: &DataConfig,
        rows: &[Row],
        tokenizer: &'t Tokenizer,
        task: Task,
        context: usize,
    ) -> Result<Self, DataError> {
        let first = rows.first().ok_or_else(|| DataError::Empty {
            what: match config.train.is_empty() {
                true => "the data set".to_owned(),
                false => config.train.join(", "),
            },
        })?;
        let format = match (config.format, &config.template) {
            (Some(format), _) => format,
            (None, Some(_)) => Format::Template,
            (None, None) => detect_format(&first.record).ok_or_else(|| DataError::Config {
                key: "format".to_owned(),
                reason: format!(
                    "cannot be told from the fields {:?} of {}. Set it to one of {:?}, with data.fields for other column names",
                    first.record.keys().collect::<Vec<_>>(),
                    first.source,
                    Format::ALL.map(Format::name)
                ),
            })?,
        };
        let classifies = task == Task::SequenceClassification;
        if classifies && !matches!(format, Format::Classification | Format::Tokens) {
            return Err(DataError::Config {
                key: "format".to_owned(),
                reason: format!(
                    "an encoder needs format = \"classification\" (or \"tokens\"), found {format}"
                ),
            });
        }
        let labels = match classifies || format == Format::Classification {
            true => Some(Labels::collect(rows, config)?),
            false => None,
        };
        Ok(Self {
            formatter: Formatter::new(config, format, tokenizer, labels)?,
            task,
            max_length: config.resolve_max_length(context)?,
            truncation: config.truncation,
            skip_bad: config.skip_bad,
        })
    }

    /// The formatter, for prompts.
    #[must_use]
    pub fn formatter(&self) -> &Formatter<'t> {
        &self.formatter
    }

    /// Longest example in tokens.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Encodes all rows. `what` names them in errors; `bad_lines` were left out while reading; `progress` is called
    /// with the number of rows done.
    ///
    /// # Errors
    /// The first bad row's error unless `skip_bad`; [`DataError::TooLong`] and [`DataError::Emptied`] for lengths;
    /// [`DataError::Empty`] and [`DataError::NothingTrained`] for the set as a whole.
    pub fn encode(
        &self,
        rows: &[Row],
        bad_lines: usize,
        what: &str,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Dataset, DataError> {
        if rows.is_empty() {
            return Err(DataError::Empty {
                what: what.to_owned(),
            });
        }
        let mut tally = Tally {
            bad: bad_lines,
            ..Tally::default()
        };
        let mut examples = Vec::with_capacity(rows.len());
        let mut emptied = None;
        for (done, row) in rows.iter().enumerate() {
            match self.row(row, &mut tally) {
                Ok(example) => examples.extend(example),
                Err(e) if self.skip_bad && is_bad_row(&e) => tally.bad += 1,
                // Said once for all such rows: whoever sets max_length wants to know how many there are.
                Err(e @ DataError::Emptied { .. }) => match &mut emptied {
                    Some(DataError::Emptied { rows, .. }) => *rows += 1,
                    _ => emptied = Some(e),
                },
                Err(e) => return Err(e),
            }
            progress(done + 1);
        }
        if let Some(error) = emptied {
            return Err(error);
        }
        if examples.is_empty() {
            return Err(DataError::NothingTrained {
                what: what.to_owned(),
                rows: rows.len(),
                untrained: tally.untrained,
                dropped: tally.dropped,
            });
        }
        let report = tally.finish(
            self.formatter.format(),
            rows.len(),
            self.max_length,
            &examples,
        );
        Ok(Dataset { examples, report })
    }

    /// `None` for a row that is left out, which has then been counted.
    fn row(&self, row: &Row, tally: &mut Tally) -> Result<Option<Example>, DataError> {
        if self.task == Task::SequenceClassification {
            return match self.formatter.format() {
                Format::Tokens => self.given_sequence(row, tally),
                _ => self.sequences(row, tally),
            };
        }
        let sample = self.formatter.sample(row)?;
        let tokenize = |error| DataError::Tokenize {
            at: row.source.clone(),
            error,
        };
        let mut straddles = false;
        let (input_ids, labels) = match &sample.body {
            Body::Tokens { input_ids, labels } => (input_ids.clone(), labels.clone()),
            _ => match self.formatter.render(&sample, &row.source)? {
                None => return Ok(None),
                Some(rendered) => {
                    let (ids, labels, straddling) = self.tokens(&rendered).map_err(tokenize)?;
                    straddles = straddling;
                    (ids, labels)
                }
            },
        };
        let mut example = Example {
            input_ids,
            labels,
            token_type_ids: Vec::new(),
            source: row.source.clone(),
            class: sample.class,
            truncated: false,
        };
        if let Some(first) = example.labels.first_mut() {
            *first = IGNORE;
        }
        if example.target_tokens() == 0 {
            tally.untrained += 1;
            return Ok(None);
        }
        let length = example.len();
        tally.lengths.push(length);
        if length > self.max_length {
            if self.truncation == Truncation::Drop {
                tally.dropped += 1;
                return Ok(None);
            }
            self.truncate(&mut example)?;
        }
        self.count(&example, straddles, tally);
        Ok(Some(example))
    }

    /// A text, or a pair of them, between the tokenizer's special tokens, for an encoder. What is too long is cut from
    /// the texts, the longer of a pair first, so that the special tokens stay.
    fn sequences(&self, row: &Row, tally: &mut Tally) -> Result<Option<Example>, DataError> {
        let sample = self.formatter.sample(row)?;
        let too_long = |length| DataError::TooLong {
            at: row.source.clone(),
            length,
            max_length: self.max_length,
        };
        let encoded = self
            .formatter
            .tokenizer
            .encode_sequences(
                sample.text.as_deref().unwrap_or_default(),
                sample.text_pair.as_deref(),
                self.max_length,
                self.truncation == Truncation::Left,
            )
            .map_err(|error| DataError::Tokenize {
                at: row.source.clone(),
                error,
            })?;
        tally.lengths.push(encoded.whole_length);
        let truncated = encoded.whole_length > self.max_length;
        match self.truncation {
            Truncation::Drop if truncated => {
                tally.dropped += 1;
                return Ok(None);
            }
            Truncation::Error if truncated => return Err(too_long(encoded.whole_length)),
            _ => {}
        }
        let example = Example {
            labels: vec![IGNORE; encoded.ids.len()],
            input_ids: encoded.ids,
            token_type_ids: encoded.type_ids,
            source: row.source.clone(),
            class: sample.class,
            truncated,
        };
        // Not even special tokens fit: an encoder reads its answer from the first.
        if example.is_empty() || example.len() > self.max_length {
            return Err(too_long(example.len()));
        }
        self.count(&example, false, tally);
        Ok(Some(example))
    }

    /// Token ids made elsewhere, with their class, for an encoder. Padding marked in `attention_mask` is left out.
    fn given_sequence(&self, row: &Row, tally: &mut Tally) -> Result<Option<Example>, DataError> {
        let formatter = &self.formatter;
        let ids = formatter.input_ids(row)?;
        let labelled = row.record.contains_key(formatter.column("label"));
        let (class, _) = formatter.class(row, if labelled { "label" } else { "labels" })?;
        let list = |name: &str| -> Result<Option<Vec<i64>>, DataError> {
            let Some(list) = formatter.numbers(row, name)? else {
                return Ok(None);
            };
            if list.len() != ids.len() || list.iter().any(|&v| !(0..=1).contains(&v)) {
                let expected = format!("{} numbers, each 0 or 1", ids.len());
                return Err(formatter.bad(row, name, &expected, &list.into()));
            }
            Ok(Some(list))
        };
        let mask = list("attention_mask")?;
        let types = list("token_type_ids")?;
        let kept = |i: &usize| mask.as_ref().is_none_or(|mask| mask[*i] == 1);
        let kept: Vec<usize> = (0..ids.len()).filter(kept).collect();
        let example = Example {
            input_ids: kept.iter().map(|&i| ids[i]).collect(),
            labels: vec![IGNORE; kept.len()],
            token_type_ids: types.map_or_else(Vec::new, |types| {
                kept.iter().map(|&i| types[i] as u32).collect()
            }),
            source: row.source.clone(),
            class: Some(class),
            truncated: false,
        };
        tally.lengths.push(example.len());
        if example.is_empty() || example.len() > self.max_length {
            return Err(DataError::TooLong {
                at: row.source.clone(),
                length: example.len(),
                max_length: self.max_length,
            });
        }
        self.count(&example, false, tally);
        Ok(Some(example))
    }

    /// Ids, labels, and whether a token straddles the beginning of a trained range.
    #[allow(clippy::type_complexity)]
    fn tokens(
        &self,
        rendered: &Rendered,
    ) -> Result<(Vec<u32>, Vec<i32>, bool), crate::tokenizer::TokenizerError> {
        let encoded = self.formatter.tokenizer.encode_document(&rendered.text)?;
        let mut straddles = false;
        let mut spans = rendered.spans.iter().filter(|s| !s.is_empty()).peekable();
        let mut labels = Vec::with_capacity(encoded.ids.len() + 1);
        for (&id, range) in encoded.ids.iter().zip(&encoded.offsets) {
            while spans.next_if(|span| span.end <= range.start).is_some() {}
            let trained = match spans.peek() {
                // A token belongs to the side it starts on: what precedes the range is given, not learned.
                Some(span) => {
                    straddles |= range.start < span.start && range.end > span.start;
                    span.contains(&range.start)
                }
                None => false,
            };
            labels.push(if trained { id as i32 } else { IGNORE });
        }
        let mut ids = encoded.ids;
        if let Some(eos) = self
            .formatter
            .tokenizer
            .eos_id()
            .filter(|_| rendered.append_eos)
        {
            ids.push(eos);
            labels.push(eos as i32);
        }
        Ok((ids, labels, straddles))
    }

    fn truncate(&self, example: &mut Example) -> Result<(), DataError> {
        let (length, max) = (example.len(), self.max_length);
        let first_trained = example.prompt_len();
        let tokenizer = self.formatter.tokenizer;
        match self.truncation {
            Truncation::Error | Truncation::Drop => {
                return Err(DataError::TooLong {
                    at: example.source.clone(),
                    length,
                    max_length: max,
                });
            }
            Truncation::Right => {
                example.input_ids.truncate(max);
                example.labels.truncate(max);
            }
            Truncation::Left => {
                let first = example.input_ids.first().copied();
                let opens = first.is_some_and(|id| tokenizer.is_special(id));
                let keep = usize::from(opens);
                example.input_ids.drain(keep..length - max + keep);
                example.labels.drain(keep..length - max + keep);
                if let Some(label) = example.labels.first_mut() {
                    *label = IGNORE;
                }
            }
        }
        example.truncated = true;
        if example.target_tokens() == 0 {
            return Err(DataError::Emptied {
                at: example.source.clone(),
                length,
                first_trained,
                rows: 1,
                max_length: max,
            });
        }
        Ok(())
    }

    fn count(&self, example: &Example, straddles: bool, tally: &mut Tally) {
        let tokenizer = self.formatter.tokenizer;
        let (ids, labels) = (&example.input_ids, &example.labels);
        tally.straddling += usize::from(straddles);
        let unknown = |&&id: &&u32| Some(id) == tokenizer.unk_id();
        tally.unknown += ids.iter().filter(unknown).count();
        let bos = tokenizer.bos_id();
        tally.double_bos +=
            usize::from(bos.is_some() && ids.len() > 1 && ids[..2].iter().all(|&i| Some(i) == bos));
        if self.task == Task::Causal {
            let last = labels.iter().rposition(|&l| l != IGNORE);
            let ends = last.is_some_and(|at| tokenizer.is_special(ids[at]));
            let foreign = self.formatter.format() == Format::Tokens;
            tally.open_ended += usize::from(!ends && !example.truncated && !foreign);
        }
        if let (Some(class), Some(set)) = (example.class, self.formatter.labels()) {
            let word = set.words().get(class).cloned().unwrap_or_default();
            if self.task == Task::Causal
                && let Some(&first) = ids.get(example.prompt_len())
            {
                let starts = tally.label_starts.entry(first).or_default();
                if !starts.contains(&word) {
                    starts.push(word.clone());
                }
            }
            *tally.labels.entry(word).or_default() += 1;
        }
    }
}

/// Errors of a row's content, which `skip_bad` may pass over; lengths and settings are not among them.
fn is_bad_row(error: &DataError) -> bool {
    matches!(
        error,
        DataError::MissingField { .. }
            | DataError::BadField { .. }
            | DataError::UnknownLabel { .. }
            | DataError::Chat { .. }
            | DataError::Tokenize { .. }
    )
}
