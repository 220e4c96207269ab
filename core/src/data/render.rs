//! Samples to text with trained ranges; the field's prompt texts; templates over named fields.

use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, Value as Jinja};
use serde_json::Value;

use super::config::{DataConfig, Format};
use super::error::DataError;
use super::example::{IGNORE, SourceLine};
use super::formats::{Body, Formatter, Prompt, Sample, missing};
use super::records::Row;
use crate::tokenizer::Message;

/// A document as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Byte ranges to be trained.
    pub spans: Vec<Range<usize>>,
    /// Whether eos follows, trained: for documents whose template does not write it.
    pub append_eos: bool,
}

/// Stanford Alpaca's prompt, with and without a context. A system message takes the place of its first sentences.
pub(super) fn alpaca_prompt(instruction: &str, context: &str, system: Option<&str>) -> String {
    if context.trim().is_empty() {
        let opening = system.unwrap_or(
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
        );
        return format!("{opening}\n\n### Instruction:\n{instruction}\n\n### Response:\n");
    }
    let opening = system.unwrap_or(
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.",
    );
    format!(
        "{opening}\n\n### Instruction:\n{instruction}\n\n### Input:\n{context}\n\n### Response:\n"
    )
}

impl Formatter<'_> {
    /// The sample as text with its trained ranges; `None` for tokens made elsewhere. `at` is named in errors.
    ///
    /// # Errors
    /// [`DataError::Chat`] when the template fails or the assistant's text cannot be found.
    pub fn render(&self, sample: &Sample, at: &SourceLine) -> Result<Option<Rendered>, DataError> {
        let (text, spans) = match &sample.body {
            Body::Tokens { .. } => return Ok(None),
            Body::Text(text) => (text.clone(), std::iter::once(0..text.len()).collect()),
            Body::Pair { prompt, completion } => {
                let text = format!("{prompt}{completion}");
                let spans = std::iter::once(prompt.len()..text.len()).collect();
                (text, spans)
            }
            Body::Chat(turns) => {
                let chat = self
                    .chat
                    .as_ref()
                    .ok_or_else(|| DataError::NoChatTemplate {
                        what: at.to_string(),
                    })?;
                let rendered = chat
                    .render_trained(turns, &self.end_tokens)
                    .map_err(Self::chat_error(at))?;
                return Ok(Some(Rendered {
                    text: rendered.text,
                    spans: rendered.spans,
                    append_eos: false,
                }));
            }
        };
        let eos = self.tokenizer.eos_token();
        let append_eos = eos.is_some_and(|eos| !text.ends_with(&eos));
        Ok(Some(Rendered {
            text,
            spans,
            append_eos,
        }))
    }

    /// What the model is given for a row at generation, and the answer that the row holds: of a conversation its last
    /// assistant turn.
    ///
    /// # Errors
    /// As [`Formatter::sample`] and [`Formatter::render`]; [`DataError::Tokenize`].
    pub fn prompt(&self, row: &Row) -> Result<Prompt, DataError> {
        let sample = self.sample(row)?;
        let tokenize = |error| DataError::Tokenize {
            at: row.source.clone(),
            error,
        };
        let (text, question, reference) = match sample.body {
            Body::Tokens { input_ids, labels } => {
                let cut = labels.iter().skip(1).position(|&l| l != IGNORE);
                let (given, rest) = input_ids.split_at(cut.map_or(input_ids.len(), |c| c + 1));
                return Ok(Prompt {
                    text: self.tokenizer.decode(given, false).map_err(tokenize)?,
                    question: self.tokenizer.decode(given, true).map_err(tokenize)?,
                    ids: given.to_vec(),
                    reference: self.tokenizer.decode(rest, true).map_err(tokenize)?,
                    class: None,
                });
            }
            Body::Text(text) => (String::new(), String::new(), text),
            Body::Pair { prompt, completion } => {
                (prompt.clone(), prompt, completion.trim_start().to_owned())
            }
            Body::Chat(turns) => {
                let last = turns.iter().rposition(|m| m.role == "assistant");
                let reference = last.map_or(String::new(), |i| turns[i].content.clone());
                let before = &turns[..last.unwrap_or(turns.len())];
                let text = self.chat_prompt(before, &row.source)?;
                (text, question(before), reference)
            }
        };
        let encoded = self.tokenizer.encode_document(&text).map_err(tokenize)?;
        Ok(Prompt {
            text,
            question,
            ids: encoded.ids,
            reference,
            class: sample.class,
        })
    }

    fn chat_prompt(&self, turns: &[Message], at: &SourceLine) -> Result<String, DataError> {
        let chat = self
            .chat
            .as_ref()
            .ok_or_else(|| DataError::NoChatTemplate {
                what: at.to_string(),
            })?;
        chat.render(turns, true).map_err(Self::chat_error(at))
    }
}

/// Compiled `data.template`.
#[derive(Debug)]
pub(super) struct FieldEngine {
    env: Environment<'static>,
    format: Format,
}

impl FieldEngine {
    /// `None` for formats whose wording is fixed.
    pub(super) fn new(config: &DataConfig, format: Format) -> Result<Option<Self>, DataError> {
        let bad = |reason: String| DataError::Config {
            key: "template".to_owned(),
            reason,
        };
        let given = config.template.as_ref();
        let (prompt, completion) = match (format, given) {
            (Format::Template, None) => {
                return Err(bad(
                    "format = \"template\" needs template = { prompt = \"…\", completion = \"…\" }".to_owned(),
                ));
            }
            (Format::Template, Some(t)) => match &t.completion {
                Some(completion) => (t.prompt.as_str(), completion.as_str()),
                None => return Err(bad("completion is missing: what should be learned?".to_owned())),
            },
            (Format::Classification, _) => (
                given.map_or(
                    "Classify the text as one of: {{ labels | join(', ') }}. Answer with one word.\n\n{{ text }}",
                    |t| t.prompt.as_str(),
                ),
                given
                    .and_then(|t| t.completion.as_deref())
                    .unwrap_or("{{ label }}"),
            ),
            (_, None) => return Ok(None),
            (_, Some(_)) => {
                return Err(bad(format!(
                    "is used with format = \"template\" or \"classification\", not with {format}; remove it or change the format"
                )));
            }
        };
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        // A prompt's last newline is part of it.
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        env.set_syntax(syntax.map_err(|e| bad(e.to_string()))?);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        for (name, source) in [("prompt", prompt), ("completion", completion)] {
            env.add_template_owned(name, source.to_owned())
                .map_err(|e| bad(format!("{name}: {e}")))?;
        }
        Ok(Some(Self { env, format }))
    }

    /// Prompt and completion of a row. `own` are further variables, `fields` maps variable names to columns.
    pub(super) fn render(
        &self,
        row: &Row,
        own: &[(&str, Value)],
        fields: &serde_json::Map<String, Value>,
    ) -> Result<(String, String), DataError> {
        let columns = row.record.iter().map(|(k, v)| (k.as_str(), v));
        let mapped = fields
            .iter()
            .filter_map(|(name, column)| Some((name.as_str(), row.record.get(column.as_str()?)?)));
        let own = own.iter().map(|(k, v)| (*k, v));
        let context = Jinja::from_pairs(
            columns
                .chain(mapped)
                .chain(own)
                .map(|(k, v)| (k, crate::tokenizer::to_template_value(v))),
        );
        let one = |name: &str| {
            let template = self.env.get_template(name);
            let made = template.and_then(|t| t.render(context.clone()));
            made.map_err(|e| self.explain(row, name, &context, &e))
        };
        Ok((one("prompt")?, one("completion")?))
    }

    fn explain(&self, row: &Row, name: &str, context: &Jinja, e: &minijinja::Error) -> DataError {
        let used = self
            .env
            .get_template(name)
            .map(|t| t.undeclared_variables(false));
        let mut absent: Vec<String> = used.into_iter().flatten().collect();
        absent.retain(|v| context.get_attr(v).is_ok_and(|found| found.is_undefined()));
        absent.sort();
        match absent
            .first()
            .filter(|_| e.kind() == minijinja::ErrorKind::UndefinedError)
        {
            Some(field) => missing(row, self.format, field),
            None => DataError::BadField {
                at: row.source.clone(),
                field: format!("template.{name}"),
                expected: "a template that renders for every row".to_owned(),
                found: e.to_string(),
            },
        }
    }
}

/// What the turns ask: a single user's words, or, of a longer conversation, every turn under its role.
fn question(turns: &[Message]) -> String {
    let said: Vec<&Message> = turns.iter().filter(|m| m.role != "system").collect();
    match said[..] {
        [one] => one.content.clone(),
        _ => said
            .iter()
            .map(|m| format!("{}: {}", m.role, m.content))
            .collect::<Vec<_>>()
            .join("\n\n"),
    }
}
