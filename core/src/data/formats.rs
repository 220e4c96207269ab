//! Rows to samples: what each format's fields mean, told apart from how they are rendered.

use serde_json::Value;

use super::config::{DataConfig, Format, PromptStyle};
use super::error::DataError;
use super::example::SourceLine;
use super::labels::{Labels, label_text};
use super::records::{Record, Row, short};
use super::render::{self, FieldEngine};
use crate::tokenizer::{ChatTemplate, Message, Tokenizer};

/// A row's content, before it becomes text.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The content.
    pub body: Body,
    /// Class id, for classification.
    pub class: Option<usize>,
    /// The text to classify, for encoders.
    pub text: Option<String>,
    /// The second text, where a pair is classified.
    pub text_pair: Option<String>,
}

/// See [`Sample`].
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A conversation; the assistant's turns are trained.
    Chat(Vec<Message>),
    /// Text given and text to be written, without a chat template.
    Pair {
        /// Given.
        prompt: String,
        /// Trained, followed by eos.
        completion: String,
    },
    /// Text trained as a whole, followed by eos.
    Text(String),
    /// Tokens made elsewhere.
    Tokens {
        /// Ids.
        input_ids: Vec<u32>,
        /// Labels, same length.
        labels: Vec<i32>,
    },
}

/// What a model is given for a row, and what the row says it should answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The text given.
    pub text: String,
    /// What is asked, for people and judges: the text without the template's markup and the system message.
    pub question: String,
    /// Its tokens, bos included: a prefix of the training example's.
    pub ids: Vec<u32>,
    /// The expected answer.
    pub reference: String,
    /// Class id of the answer, for classification.
    pub class: Option<usize>,
}

/// Turns rows of one format into samples, texts and prompts.
#[derive(Debug)]
pub struct Formatter<'t> {
    pub(super) tokenizer: &'t Tokenizer,
    pub(super) format: Format,
    pub(super) chat: Option<ChatTemplate>,
    pub(super) end_tokens: Vec<String>,
    pub(super) system: Option<String>,
    labels: Option<Labels>,
    engine: Option<FieldEngine>,
    /// Instruction formats without a chat template use Alpaca's wording.
    alpaca_text: bool,
    fields: serde_json::Map<String, Value>,
}

/// The format whose required fields `record` has, trying the more specific ones first.
#[must_use]
pub fn detect_format(record: &Record) -> Option<Format> {
    [
        Format::Messages,
        Format::Sharegpt,
        Format::Tokens,
        Format::Alpaca,
        Format::Dolly,
        Format::PromptCompletion,
        Format::Classification,
        Format::Text,
    ]
    .into_iter()
    .find(|format| {
        let mut required = format.fields().iter().filter(|(_, required)| *required);
        required.all(|(name, _)| record.contains_key(*name))
    })
}

impl<'t> Formatter<'t> {
    /// Checks the configuration against the format and the base. `labels` is needed for classification.
    ///
    /// # Errors
    /// [`DataError::Config`] and [`DataError::NoChatTemplate`].
    pub fn new(
        config: &DataConfig,
        format: Format,
        tokenizer: &'t Tokenizer,
        labels: Option<Labels>,
    ) -> Result<Self, DataError> {
        check_fields(config, format)?;
        let chat = match &config.chat_template {
            Some(source) => {
                let made = ChatTemplate::new(source, tokenizer.bos_token(), tokenizer.eos_token());
                made.map(Some)
            }
            None => tokenizer.chat_template(),
        };
        let chat = chat.map_err(|e| DataError::Config {
            key: "chat_template".to_owned(),
            reason: e.to_string(),
        })?;
        let conversation = matches!(format, Format::Messages | Format::Sharegpt);
        if chat.is_none() && (conversation || config.prompt_style == PromptStyle::Chat) {
            return Err(DataError::NoChatTemplate {
                what: if conversation {
                    format!("format = \"{format}\"")
                } else {
                    "prompt_style = \"chat\"".to_owned()
                },
            });
        }
        let use_chat =
            conversation || matches!(config.prompt_style, PromptStyle::Auto | PromptStyle::Chat);
        let engine = FieldEngine::new(config, format)?;
        if format == Format::Classification && labels.is_none() {
            return Err(DataError::Config {
                key: "format".to_owned(),
                reason: "classification needs its label set".to_owned(),
            });
        }
        let mut end_tokens: Vec<String> = tokenizer.special_texts().collect();
        end_tokens.sort();
        end_tokens.dedup();
        Ok(Self {
            tokenizer,
            format,
            chat: chat.filter(|_| use_chat),
            end_tokens,
            system: config.system.clone(),
            labels,
            engine,
            alpaca_text: config.prompt_style != PromptStyle::Plain,
            fields: config.fields.clone(),
        })
    }

    /// The format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The chat template in use; `None` where rows become plain text.
    #[must_use]
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat.as_ref()
    }

    /// The label set, for classification.
    #[must_use]
    pub fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }

    /// The row's content.
    ///
    /// # Errors
    /// [`DataError::MissingField`], [`DataError::BadField`], [`DataError::UnknownLabel`].
    pub fn sample(&self, row: &Row) -> Result<Sample, DataError> {
        let mut class = None;
        let mut text = None;
        let mut text_pair = None;
        let body = match self.format {
            Format::Alpaca => self.instruction(row, "input", "output")?,
            Format::Dolly => self.instruction(row, "context", "response")?,
            Format::PromptCompletion => {
                self.pair(self.text(row, "prompt")?, self.text(row, "completion")?, "")
            }
            Format::Text => Body::Text(self.text(row, "text")?),
            Format::Sharegpt => self.turns(row, "conversations", "from", "value")?,
            Format::Messages => self.turns(row, "messages", "role", "content")?,
            Format::Tokens => self.tokens(row)?,
            Format::Template => {
                let (prompt, completion) = self.rendered_fields(row, &[])?;
                self.pair(prompt, completion, "")
            }
            Format::Classification => {
                let (id, label) = self.class(row, "label")?;
                let labels = self.labels.as_ref();
                let words = labels.map_or(&[][..], |l| l.words());
                let word = words.get(id).cloned().unwrap_or(label);
                let content = self.text(row, "text")?;
                let pair = self.optional_text(row, "text_pair")?;
                let own = [
                    ("text", Value::from(content.as_str())),
                    ("text_pair", Value::from(pair.as_str())),
                    ("label", Value::from(word.as_str())),
                    ("labels", Value::from(words.to_vec())),
                ];
                let (prompt, completion) = self.rendered_fields(row, &own)?;
                class = Some(id);
                text = Some(content);
                text_pair = Some(pair).filter(|pair| !pair.is_empty());
                self.pair(prompt, completion, "\nAnswer: ")
            }
        };
        Ok(Sample {
            body,
            class,
            text,
            text_pair,
        })
    }

    /// A conversation where there is a chat template, else two texts; `cue` closes the prompt of the latter, its last
    /// space going to the completion, where tokenizers keep it.
    fn pair(&self, prompt: String, completion: String, cue: &str) -> Body {
        if self.chat.is_some() {
            let turns = vec![
                Message::new("user", prompt),
                Message::new("assistant", completion),
            ];
            return Body::Chat(self.with_system(turns));
        }
        let before = self
            .system
            .as_ref()
            .map_or(String::new(), |s| format!("{s}\n\n"));
        let cut = cue.trim_end_matches(' ');
        let space = &cue[cut.len()..];
        Body::Pair {
            prompt: format!("{before}{prompt}{cut}"),
            completion: format!("{space}{completion}"),
        }
    }

    fn with_system(&self, mut turns: Vec<Message>) -> Vec<Message> {
        if let Some(system) = &self.system
            && turns.iter().all(|m| m.role != "system")
        {
            turns.insert(0, Message::new("system", system.as_str()));
        }
        turns
    }

    fn instruction(&self, row: &Row, context: &str, answer: &str) -> Result<Body, DataError> {
        let instruction = self.text(row, "instruction")?;
        let context = self.optional_text(row, context)?;
        let answer = self.text(row, answer)?;
        if self.chat.is_none() && self.alpaca_text {
            return Ok(Body::Pair {
                prompt: render::alpaca_prompt(&instruction, &context, self.system.as_deref()),
                completion: answer,
            });
        }
        let asked = if context.trim().is_empty() {
            instruction
        } else {
            format!("{instruction}\n\n{context}")
        };
        Ok(self.pair(asked, answer, "\n\n"))
    }

    fn turns(&self, row: &Row, list: &str, role: &str, content: &str) -> Result<Body, DataError> {
        let value = self.require(row, list)?;
        let expected = format!(
            "a list of objects with {:?} and {:?}",
            self.column(role),
            self.column(content)
        );
        let entries = value
            .as_array()
            .filter(|entries| !entries.is_empty())
            .ok_or_else(|| self.bad(row, list, &expected, value))?;
        let mut turns = Vec::new();
        for entry in entries {
            let wrong = || self.bad(row, list, &expected, entry);
            let map = entry.as_object().ok_or_else(wrong)?;
            let who = map
                .get(self.column(role))
                .and_then(Value::as_str)
                .ok_or_else(wrong)?;
            let said = map
                .get(self.column(content))
                .and_then(content_text)
                .ok_or_else(wrong)?;
            let who = match (self.format, who) {
                (Format::Sharegpt, "human" | "user") => "user",
                (Format::Sharegpt, "gpt" | "assistant" | "chatgpt" | "bot" | "model") => {
                    "assistant"
                }
                (Format::Sharegpt, "system") => "system",
                (Format::Sharegpt, "tool" | "function" | "observation") => "tool",
                (Format::Sharegpt, _) => {
                    return Err(self.bad(
                        row,
                        list,
                        "turns from human, gpt, system or tool",
                        entry,
                    ));
                }
                (_, other) => other,
            };
            let mut message = Message::new(who, said);
            let known = [self.column(role), self.column(content), "role", "content"];
            let others = map
                .iter()
                .filter(|(key, v)| !known.contains(&key.as_str()) && !v.is_null());
            message.extra = others.map(|(k, v)| (k.clone(), v.clone())).collect();
            turns.push(message);
        }
        Ok(Body::Chat(self.with_system(turns)))
    }

    /// A row's class and the label it is given as.
    pub(super) fn class(&self, row: &Row, field: &str) -> Result<(usize, String), DataError> {
        let raw = self.require(row, field)?;
        let label = label_text(raw)
            .ok_or_else(|| self.bad(row, field, "a label (text or a number)", raw))?;
        let labels = self.labels.as_ref();
        match labels.and_then(|l| l.class_of(&label)) {
            Some(id) => Ok((id, label)),
            None => Err(DataError::UnknownLabel {
                at: row.source.clone(),
                label,
                known: labels.map_or(Vec::new(), |l| l.words().to_vec()),
            }),
        }
    }

    /// A row's list of whole numbers; `None` where it has none.
    pub(super) fn numbers(&self, row: &Row, name: &str) -> Result<Option<Vec<i64>>, DataError> {
        let value = row.record.get(self.column(name));
        let Some(value) = value.filter(|v| !v.is_null()) else {
            return Ok(None);
        };
        let numbers: Option<Vec<i64>> = value
            .as_array()
            .and_then(|list| list.iter().map(Value::as_i64).collect());
        numbers
            .map(Some)
            .ok_or_else(|| self.bad(row, name, "a list of whole numbers", value))
    }

    /// A row's token ids, each one of the vocabulary's.
    pub(super) fn input_ids(&self, row: &Row) -> Result<Vec<u32>, DataError> {
        self.require(row, "input_ids")?;
        let vocab = self.tokenizer.vocab_size();
        let expected = format!("ids from 0 to {}", vocab.saturating_sub(1));
        let ids = self.numbers(row, "input_ids")?.unwrap_or_default();
        ids.into_iter()
            .map(|id| {
                u32::try_from(id)
                    .ok()
                    .filter(|&id| (id as usize) < vocab)
                    .ok_or_else(|| self.bad(row, "input_ids", &expected, &Value::from(id)))
            })
            .collect()
    }

    fn tokens(&self, row: &Row) -> Result<Body, DataError> {
        let input_ids = self.input_ids(row)?;
        let labels = match row
            .record
            .get(self.column("labels"))
            .filter(|v| !v.is_null())
        {
            None => input_ids.iter().map(|&id| id as i32).collect(),
            Some(value) => {
                let labels = self.numbers(row, "labels")?.unwrap_or_default();
                let fits = labels.len() == input_ids.len()
                    && labels
                        .iter()
                        .zip(&input_ids)
                        .all(|(&l, &id)| l == -100 || l == i64::from(id));
                if !fits {
                    let expected = format!(
                        "{} labels, each -100 or the id at its place (labels are not shifted)",
                        input_ids.len()
                    );
                    return Err(self.bad(row, "labels", &expected, value));
                }
                labels.into_iter().map(|l| l as i32).collect()
            }
        };
        Ok(Body::Tokens { input_ids, labels })
    }

    fn rendered_fields(
        &self,
        row: &Row,
        own: &[(&str, Value)],
    ) -> Result<(String, String), DataError> {
        let Some(engine) = &self.engine else {
            return Ok(Default::default());
        };
        engine.render(row, own, &self.fields)
    }

    pub(super) fn column<'a>(&'a self, name: &'a str) -> &'a str {
        self.fields
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or(name)
    }

    fn require<'r>(&self, row: &'r Row, name: &str) -> Result<&'r Value, DataError> {
        match row.record.get(self.column(name)) {
            Some(value) if !value.is_null() => Ok(value),
            _ => Err(missing(row, self.format, self.column(name))),
        }
    }

    fn text(&self, row: &Row, name: &str) -> Result<String, DataError> {
        let value = self.require(row, name)?;
        scalar_text(value).ok_or_else(|| self.bad(row, name, "text", value))
    }

    fn optional_text(&self, row: &Row, name: &str) -> Result<String, DataError> {
        match row.record.get(self.column(name)) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(value) => scalar_text(value).ok_or_else(|| self.bad(row, name, "text", value)),
        }
    }

    pub(super) fn bad(&self, row: &Row, name: &str, expected: &str, found: &Value) -> DataError {
        DataError::BadField {
            at: row.source.clone(),
            field: self.column(name).to_owned(),
            expected: expected.to_owned(),
            found: short(found),
        }
    }

    pub(super) fn chat_error(
        at: &SourceLine,
    ) -> impl Fn(crate::tokenizer::TemplateError) -> DataError {
        move |error| DataError::Chat {
            at: at.clone(),
            error,
        }
    }
}

/// The error for an absent field, with the advice that fits the row.
pub(super) fn missing(row: &Row, format: Format, column: &str) -> DataError {
    let hint = match detect_format(&row.record).filter(|&f| f != format) {
        Some(other) => format!("These fields fit format = \"{other}\""),
        None => format!(
            "Name the column in data.fields, for example fields = {{ {} = \"…\" }}; for a CSV or TSV file whose first line is data, name its columns in data.columns",
            format.fields().first().map_or(column, |(name, _)| name)
        ),
    };
    DataError::MissingField {
        at: row.source.clone(),
        format: format.name(),
        field: column.to_owned(),
        found: row.record.keys().cloned().collect(),
        hint: hint.into(),
    }
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

/// A content: text, absent, or a list of `{"type": "text", "text": …}` parts.
fn content_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts
            .iter()
            .map(|part| part.get("text").and_then(Value::as_str))
            .collect(),
        _ => None,
    }
}

/// `data.fields` must name fields of the format, and columns as text.
fn check_fields(config: &DataConfig, format: Format) -> Result<(), DataError> {
    let bad = |reason: String| DataError::Config {
        key: "fields".to_owned(),
        reason,
    };
    for (name, column) in &config.fields {
        if !column.is_string() {
            return Err(bad(format!("{name} should name a column, found {column}")));
        }
        let known: Vec<&str> = format.fields().iter().map(|(field, _)| *field).collect();
        if format != Format::Template && !known.contains(&name.as_str()) {
            let near = known
                .iter()
                .max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
            return Err(bad(format!(
                "the {format} format has no field {name:?}; nearest: {:?}. Its fields are {known:?}",
                near.copied().unwrap_or_default()
            )));
        }
    }
    Ok(())
}
