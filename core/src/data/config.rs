//! The `[data]` section of a configuration file. Every key, its meaning and its default are documented here.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::error::DataError;

/// What the rows of a data set look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `instruction`, `input` (may be empty), `output`.
    Alpaca,
    /// `instruction`, `context` (may be empty), `response`, `category` (ignored).
    Dolly,
    /// `conversations`: a list of `{from, value}`, from being `human`, `gpt` or `system`.
    Sharegpt,
    /// `messages`: a list of `{role, content}`.
    Messages,
    /// `prompt`, `completion`; only the completion is trained.
    PromptCompletion,
    /// `text`; every token is trained.
    Text,
    /// `text`, `label`, `text_pair` (may be absent): a chat prompt answered by the label, or a class id for an encoder.
    Classification,
    /// `input_ids`, `labels` (-100 where not trained; absent: all trained). For an encoder `label`, a class, and where there
    /// are any `attention_mask` (0 at padding) and `token_type_ids`.
    Tokens,
    /// Any named fields, through the Jinja templates of `template`.
    Template,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 9] = [
        Self::Alpaca,
        Self::Dolly,
        Self::Sharegpt,
        Self::Messages,
        Self::PromptCompletion,
        Self::Text,
        Self::Classification,
        Self::Tokens,
        Self::Template,
    ];

    /// The name in configuration files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Alpaca => "alpaca",
            Self::Dolly => "dolly",
            Self::Sharegpt => "sharegpt",
            Self::Messages => "messages",
            Self::PromptCompletion => "prompt_completion",
            Self::Text => "text",
            Self::Classification => "classification",
            Self::Tokens => "tokens",
            Self::Template => "template",
        }
    }

    /// Field names, required ones first, with whether each is required.
    #[must_use]
    pub fn fields(self) -> &'static [(&'static str, bool)] {
        match self {
            Self::Alpaca => &[("instruction", true), ("output", true), ("input", false)],
            Self::Dolly => &[
                ("instruction", true),
                ("response", true),
                ("context", false),
                ("category", false),
            ],
            Self::Sharegpt => &[("conversations", true), ("from", false), ("value", false)],
            Self::Messages => &[("messages", true), ("role", false), ("content", false)],
            Self::PromptCompletion => &[("prompt", true), ("completion", true)],
            Self::Text => &[("text", true)],
            Self::Classification => &[("text", true), ("label", true), ("text_pair", false)],
            Self::Tokens => &[
                ("input_ids", true),
                ("labels", false),
                ("label", false),
                ("attention_mask", false),
                ("token_type_ids", false),
            ],
            Self::Template => &[],
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What to do with an example longer than `max_length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// Stop, naming the row.
    Error,
    /// Keep the beginning; the end-of-turn token is then cut off and not trained.
    #[default]
    Right,
    /// Keep bos and the end.
    Left,
    /// Leave the example out and count it.
    Drop,
}

/// How a row of single fields becomes text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptStyle {
    /// The chat template where there is one; else `alpaca` for instruction formats, `plain` for the others.
    #[default]
    Auto,
    /// The chat template.
    Chat,
    /// Stanford Alpaca's prompt text (for `alpaca` and `dolly`; other formats as `plain`).
    Alpaca,
    /// The fields with nothing around them.
    Plain,
}

/// Jinja templates over a row's fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldTemplates {
    /// What the model is given, for example `"Title: {{ title }}\nSummary:"`.
    pub prompt: String,
    /// What it learns to write, for example `" {{ summary }}"`. Classification: default `"{{ label }}"`.
    #[serde(default)]
    pub completion: Option<String>,
}

/// Words for raw labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LabelNames {
    /// The word of label 0, 1, 2, …
    List(Vec<String>),
    /// Raw label to word, in the order of class ids.
    Map(serde_json::Map<String, Value>),
}

/// A number of rows or a part of them: `1000`, `0.1`, or `{ count = 1000, stratify_by = "label" }`,
/// `{ fraction = 0.1, stratify_by = "label" }`. An integer is a count, so `1` is one row and `1.0` all of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Share {
    /// Rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// Part of the rows, above 0 and at most 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// A column whose values keep their proportions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stratify_by: Option<String>,
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_value(&value).map_err(D::Error::custom)
    }
}

impl Share {
    fn from_value(value: &Value) -> Result<Self, String> {
        let mut share = Self {
            count: None,
            fraction: None,
            stratify_by: None,
        };
        let form = "expected a count (1000), a fraction (0.1) or { count = 1000 | fraction = 0.1, stratify_by = \"field\" }";
        match value {
            Value::Number(n) => match n.as_u64() {
                Some(count) => share.count = usize::try_from(count).ok(),
                None => share.fraction = n.as_f64(),
            },
            Value::Object(map) => {
                for (key, item) in map {
                    match key.as_str() {
                        "count" => {
                            share.count = item.as_u64().and_then(|n| usize::try_from(n).ok())
                        }
                        "fraction" => share.fraction = item.as_f64(),
                        "stratify_by" => share.stratify_by = item.as_str().map(str::to_owned),
                        other => return Err(format!("unknown key {other:?}; {form}")),
                    }
                }
            }
            other => return Err(format!("{form}, found {other}")),
        }
        let fraction_ok = share.fraction.is_none_or(|f| f > 0.0 && f <= 1.0);
        if share.count.is_some() == share.fraction.is_some() || !fraction_ok {
            return Err(format!(
                "{form}, with a fraction above 0 and at most 1; found {value}"
            ));
        }
        Ok(share)
    }

    /// The number of rows meant, out of `total`; at least 1.
    ///
    /// # Errors
    /// [`DataError::Config`] naming `key` when more rows are wanted than there are, or none.
    pub fn resolve(&self, total: usize, key: &str) -> Result<usize, DataError> {
        let wanted = match (self.count, self.fraction) {
            (Some(count), _) => count,
            (None, Some(fraction)) => ((total as f64 * fraction).round() as usize).max(1),
            (None, None) => 0,
        };
        if wanted == 0 || wanted > total {
            return Err(DataError::Config {
                key: key.to_owned(),
                reason: format!(
                    "asks for {wanted} rows and there are {total}. Give a count between 1 and {total} or a fraction"
                ),
            });
        }
        Ok(wanted)
    }
}

/// The `[data]` section. All keys may be left out, except `train` where something is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Training files or hub data sets: one string or a list. Default: none.
    #[serde(deserialize_with = "one_or_many")]
    pub train: Vec<String>,
    /// Held-out files: one string or a list. Default: none; see `split`.
    #[serde(deserialize_with = "one_or_many")]
    pub eval: Vec<String>,
    /// What the rows look like. Default: told from the first row's fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Jinja templates for `format = "template"`, or other wording for `"classification"` (variables `text`, `label`,
    /// `labels`). Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<FieldTemplates>,
    /// How single fields become text. Default `"auto"`.
    pub prompt_style: PromptStyle,
    /// A chat template (Jinja source) instead of the base's own. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// System message of conversations that have none; without a chat template, text before every prompt. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The format's field name to the file's column name, for example `{ instruction = "question" }`. Default: the same names.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub fields: serde_json::Map<String, Value>,
    /// Column names of CSV and TSV files whose first line is already data. Default: the first line names them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Words for raw labels: `["negative", "positive"]` or `{ "0" = "negative", "1" = "positive" }`. Default: the labels themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_names: Option<LabelNames>,
    /// Rows of `train` held out for evaluation when `eval` is not given, taken before `subset`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<Share>,
    /// Rows to train on, out of those that `split` leaves. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<Share>,
    /// Longest example in tokens. Default: 1024, or the base's context length where that is shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// What happens to longer examples. Default `"right"`; the report counts them.
    pub truncation: Truncation,
    /// Several examples per row of `max_length` tokens, each attending to itself only. Default `false`.
    pub packing: bool,
    /// Batches of similar length, for less padding. Default `false`.
    pub group_by_length: bool,
    /// Pad the width of a batch to a multiple of this. Default 1; 8 or 16 suit GPU matrix units.
    pub pad_to_multiple_of: usize,
    /// A new order of examples every epoch. Default `true`.
    pub shuffle: bool,
    /// Seed of splits, subsets and orders. Default 42.
    pub seed: u64,
    /// Leave out malformed lines and rows lacking a field, and count them. Default `false`: stop at the first.
    pub skip_bad: bool,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            train: Vec::new(),
            eval: Vec::new(),
            format: None,
            template: None,
            prompt_style: PromptStyle::Auto,
            chat_template: None,
            system: None,
            fields: serde_json::Map::new(),
            columns: None,
            label_names: None,
            split: None,
            subset: None,
            max_length: None,
            truncation: Truncation::Right,
            packing: false,
            group_by_length: false,
            pad_to_multiple_of: 1,
            shuffle: true,
            seed: 42,
            skip_bad: false,
        }
    }
}

impl DataConfig {
    /// The longest example in tokens for a base of `context` positions.
    ///
    /// # Errors
    /// [`DataError::Config`] when `max_length` is below 2 (nothing to predict) or above the context.
    pub fn resolve_max_length(&self, context: usize) -> Result<usize, DataError> {
        let length = self.max_length.unwrap_or(context.min(1024));
        if length < 2 || length > context {
            return Err(DataError::Config {
                key: "max_length".to_owned(),
                reason: format!(
                    "{length} is not usable: the base has {context} positions. Choose between 2 and {context}"
                ),
            });
        }
        Ok(length)
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(one) => Ok(vec![one]),
        Value::Array(many) => many
            .into_iter()
            .map(|v| match v {
                Value::String(s) => Ok(s),
                other => Err(D::Error::custom(format!("expected a path, found {other}"))),
            })
            .collect(),
        other => Err(D::Error::custom(format!(
            "expected a path or a list of paths, found {other}"
        ))),
    }
}
