//! What was read, what will be learned, and what looks wrong about it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Serialize;

use super::config::Format;
use super::example::Example;

/// Counts and warnings of one encoded data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataReport {
    /// Format of the rows.
    pub format: Format,
    /// Rows given.
    pub rows: usize,
    /// Examples made of them.
    pub examples: usize,
    /// Examples cut to `max_length`.
    pub truncated: usize,
    /// Rows left out because they were too long (`truncation = "drop"`).
    pub dropped: usize,
    /// Rows left out because nothing in them is trained (no assistant text).
    pub untrained: usize,
    /// Malformed lines and rows left out under `skip_bad`.
    pub bad_lines: usize,
    /// The limit in tokens.
    pub max_length: usize,
    /// Tokens of all examples.
    pub tokens: usize,
    /// Targets among them.
    pub trained_tokens: usize,
    /// `trained_tokens / tokens`.
    pub trained_share: f64,
    /// Lengths in tokens before truncation, of dropped examples too.
    pub lengths: Lengths,
    /// Examples per label word, for classification.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, usize>,
    /// What looks wrong.
    pub warnings: Vec<Warning>,
}

/// Distribution of lengths.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Lengths {
    /// Shortest.
    pub min: usize,
    /// Median.
    pub p50: usize,
    /// 90 % are at most this long.
    pub p90: usize,
    /// 95 %.
    pub p95: usize,
    /// 99 %.
    pub p99: usize,
    /// Longest.
    pub max: usize,
    /// Mean.
    pub mean: f64,
    /// `(upper bound, examples)` of bins whose bounds double from 16 on.
    pub histogram: Vec<(usize, usize)>,
}

impl Lengths {
    /// Of a list of lengths (nearest-rank quantiles).
    #[must_use]
    pub fn of(lengths: &[usize]) -> Self {
        let mut sorted = lengths.to_vec();
        sorted.sort_unstable();
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else {
            return Self::default();
        };
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
        let mut histogram = Vec::new();
        let (mut bound, mut counted) = (16, 0);
        while counted < sorted.len() {
            let upto = sorted.partition_point(|&l| l <= bound);
            histogram.push((bound, upto - counted));
            counted = upto;
            bound *= 2;
        }
        Self {
            min,
            p50: rank(50),
            p90: rank(90),
            p95: rank(95),
            p99: rank(99),
            max,
            mean: sorted.iter().sum::<usize>() as f64 / sorted.len() as f64,
            histogram,
        }
    }
}

/// A warning: its kind for scripts, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Which check.
    pub kind: WarningKind,
    /// What was found and what to do.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
    /// Answers end without a trained end-of-turn token.
    NoEndOfTurn,
    /// Documents begin with two bos tokens.
    DoubleBos,
    /// Different labels begin with the same token.
    LabelsShareFirstToken,
    /// One label is far more frequent than another.
    LabelImbalance,
    /// Many examples were cut.
    Truncated,
    /// A token straddles the boundary of prompt and answer.
    StraddlingToken,
    /// Unknown tokens.
    UnknownTokens,
    /// The same example several times.
    Duplicates,
    /// Rows without trained text.
    Untrained,
    /// Held-out examples that are also trained on.
    Leakage,
}

impl DataReport {
    /// Adds a warning when held-out examples occur among the training examples.
    pub fn check_leakage(&mut self, train: &[Example], held: &[Example]) {
        let seen: HashSet<&[u32]> = train.iter().map(|e| e.input_ids.as_slice()).collect();
        let leaked = held
            .iter()
            .filter(|e| seen.contains(e.input_ids.as_slice()))
            .count();
        if leaked > 0 {
            self.warnings.push(Warning {
                kind: WarningKind::Leakage,
                message: format!(
                    "{leaked} of {} held-out examples are also training examples: scores on them measure memory. Remove the duplicates",
                    held.len()
                ),
            });
        }
    }
}

/// What the encoder counts on its way; [`finish`](Tally::finish) turns it into a report.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) dropped: usize,
    pub(super) untrained: usize,
    pub(super) bad: usize,
    pub(super) lengths: Vec<usize>,
    pub(super) open_ended: usize,
    pub(super) double_bos: usize,
    pub(super) straddling: usize,
    pub(super) unknown: usize,
    pub(super) labels: BTreeMap<String, usize>,
    /// First trained token -> label words that begin with it.
    pub(super) label_starts: BTreeMap<u32, Vec<String>>,
}

impl Tally {
    pub(super) fn finish(
        self,
        format: Format,
        rows: usize,
        max_length: usize,
        examples: &[Example],
    ) -> DataReport {
        let tokens: usize = examples.iter().map(Example::len).sum();
        let trained_tokens: usize = examples.iter().map(Example::target_tokens).sum();
        let truncated = examples.iter().filter(|e| e.truncated).count();
        let distinct: HashSet<&[u32]> = examples.iter().map(|e| e.input_ids.as_slice()).collect();
        let duplicates = examples.len() - distinct.len();
        let n = examples.len();
        let mut warnings = Vec::new();
        let mut warn = |when: bool, kind: WarningKind, message: String| {
            if when {
                warnings.push(Warning { kind, message });
            }
        };
        warn(
            self.open_ended > 0,
            WarningKind::NoEndOfTurn,
            format!(
                "{} of {n} examples end without a trained end-of-turn token: the model will not learn to stop. Check the chat template, and that tokenizer_config.json names eos_token",
                self.open_ended
            ),
        );
        warn(
            self.double_bos > 0,
            WarningKind::DoubleBos,
            format!(
                "{} of {n} examples begin with two bos tokens: template or text writes it twice",
                self.double_bos
            ),
        );
        for words in self.label_starts.values().filter(|words| words.len() > 1) {
            warn(
                true,
                WarningKind::LabelsShareFirstToken,
                format!(
                    "the labels {words:?} begin with the same token: a score of the first token cannot tell them apart. Choose other words in label_names"
                ),
            );
        }
        let most = self.labels.iter().max_by_key(|&(_, &count)| count);
        let least = self.labels.iter().min_by_key(|&(_, &count)| count);
        if let (Some((frequent, &max)), Some((rare, &min))) = (most, least) {
            warn(
                max >= 10 * min.max(1),
                WarningKind::LabelImbalance,
                format!(
                    "{max} examples are {frequent:?} and {min} are {rare:?}: report macro-F1 beside accuracy, or balance the rows"
                ),
            );
        }
        warn(
            truncated * 20 > n,
            WarningKind::Truncated,
            format!(
                "{truncated} of {n} examples were cut to {max_length} tokens. Raise max_length, or set truncation"
            ),
        );
        warn(
            self.straddling > 0,
            WarningKind::StraddlingToken,
            format!(
                "in {} of {n} examples a token joins the end of the prompt with the beginning of the answer and is not trained. End prompts without a space and begin completions with it",
                self.straddling
            ),
        );
        warn(
            self.unknown > 0,
            WarningKind::UnknownTokens,
            format!(
                "{} of {tokens} tokens are unknown to the tokenizer",
                self.unknown
            ),
        );
        warn(
            duplicates > 0,
            WarningKind::Duplicates,
            format!("{duplicates} of {n} examples repeat another one"),
        );
        warn(
            self.untrained > 0,
            WarningKind::Untrained,
            format!(
                "{} of {rows} rows have no text to train on and were left out",
                self.untrained
            ),
        );
        DataReport {
            format,
            rows,
            examples: n,
            truncated,
            dropped: self.dropped,
            untrained: self.untrained,
            bad_lines: self.bad,
            max_length,
            tokens,
            trained_tokens,
            trained_share: trained_tokens as f64 / tokens.max(1) as f64,
            lengths: Lengths::of(&self.lengths),
            labels: self.labels,
            warnings,
        }
    }
}
