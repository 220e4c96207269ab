//! What a check has to say.

use std::fmt;

use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing when the scores are read.
    Info,
    /// Likely to cost quality.
    Warning,
    /// Training as configured is in vain.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// The cause a finding names; its name is the finding's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Another chat template than the base was tuned with, or none.
    WrongTemplate,
    /// The template leaves the system message out.
    SystemDropped,
    /// Labels that begin with the same piece, or of which one begins with another.
    LabelPieces,
    /// Answers end without a trained token at which generation stops.
    EndUntrained,
    /// `max_length` cuts prompts or answers.
    Truncated,
    /// One answer is far more frequent than the others.
    LabelImbalance,
    /// Steps so large that the loss grows.
    LearningRate,
    /// Not one token is trained.
    NothingTrained,
    /// Held-out examples that are trained on.
    Leakage,
    /// The same example several times.
    Duplicates,
    /// Texts the tokenizer cannot write, two beginnings of a sequence, tokens across the border of prompt and answer.
    Tokens,
}

impl Cause {
    /// The id, as in `--json`.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::WrongTemplate => "wrong_template",
            Self::SystemDropped => "system_dropped",
            Self::LabelPieces => "label_pieces",
            Self::EndUntrained => "end_untrained",
            Self::Truncated => "truncated",
            Self::LabelImbalance => "label_imbalance",
            Self::LearningRate => "learning_rate",
            Self::NothingTrained => "nothing_trained",
            Self::Leakage => "leakage",
            Self::Duplicates => "duplicates",
            Self::Tokens => "tokens",
        }
    }
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The cause.
    pub id: Cause,
    /// How much it matters.
    pub severity: Severity,
    /// What was found, with numbers.
    pub what: String,
    /// The key of the configuration, or the file, that it is about.
    #[serde(rename = "where")]
    pub place: String,
    /// What to write instead; empty where there is nothing to do.
    pub fix: String,
}

impl Finding {
    /// A finding.
    pub fn new(
        id: Cause,
        severity: Severity,
        place: impl Into<String>,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            id,
            severity,
            what: what.into(),
            place: place.into(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.id.id(), self.place, self.what)?;
        match self.fix.is_empty() {
            true => Ok(()),
            false => write!(f, ". {}", self.fix),
        }
    }
}
