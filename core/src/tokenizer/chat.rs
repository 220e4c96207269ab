//! Chat templates: a conversation to one text, and the byte ranges of that text which the assistant wrote.
//!
//! Where a template marks them with `{% generation %}`, those are the ranges. Elsewhere they are found by rendering:
//! the text up to and including an assistant turn minus the text that asks for that turn. Templates for which prefixes
//! do not line up (because they rewrite earlier turns) are rendered once more with a placeholder for every content,
//! which shows what the template writes around it.

use std::ops::Range;

use minijinja::{Environment, Value};
use serde::{Deserialize, Serialize};

use super::jinja;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or whatever else the template knows.
    pub role: String,
    /// The text.
    pub content: String,
    /// Further keys (`name`, `tool_calls`), passed on to the template as they are.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Message {
    /// A turn without further keys.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            extra: serde_json::Map::new(),
        }
    }
}

/// Why a conversation could not be rendered or masked.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template does not compile.
    #[error("the base's chat template cannot be compiled: {reason}")]
    Syntax {
        /// The engine's message, with the line.
        reason: String,
    },
    /// The template refused the conversation or failed.
    #[error("the chat template failed on the roles {roles:?}: {reason}")]
    Render {
        /// Roles of the conversation, in order.
        roles: Vec<String>,
        /// The engine's or the template's own message.
        reason: String,
    },
    /// The assistant's text is not to be found in what the template wrote.
    #[error(
        "cannot tell which part of the rendered conversation the assistant wrote in turn {turn} (of {turns}): the template rewrites its content and has no {{% generation %}} block. Expected the content {content:?} in the text; add {{% generation %}}…{{% endgeneration %}} around it in the template, or use the prompt_completion format"
    )]
    NotLocatable {
        /// Index of the assistant turn, from 0.
        turn: usize,
        /// Number of turns.
        turns: usize,
        /// The content's first 40 characters.
        content: String,
    },
}

/// A rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedChat {
    /// The whole text.
    pub text: String,
    /// Byte ranges of `text` to be trained, in order, not overlapping.
    pub spans: Vec<Range<usize>>,
    /// How the ranges were found.
    pub method: SpanMethod,
}

/// How trained ranges were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanMethod {
    /// The template's own `{% generation %}` blocks.
    Generation,
    /// Rendering prefixes of the conversation.
    Prefix,
    /// Placeholders in place of the contents.
    Located,
}

/// A compiled chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    env: Environment<'static>,
    source: String,
    has_generation: bool,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// Compiles `source`. Absent bos or eos render as nothing.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`].
    pub fn new(
        source: &str,
        bos_token: Option<String>,
        eos_token: Option<String>,
    ) -> Result<Self, TemplateError> {
        let (rewritten, has_generation) = jinja::rewrite_generation(source);
        let env = jinja::environment(&rewritten).map_err(|e| TemplateError::Syntax {
            reason: describe(&e),
        })?;
        Ok(Self {
            env,
            source: source.to_owned(),
            has_generation,
            bos_token: bos_token.unwrap_or_default(),
            eos_token: eos_token.unwrap_or_default(),
        })
    }

    /// The template as it was given: what travels with an adapter.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The conversation as text; with `add_generation_prompt`, ending where the assistant should write.
    ///
    /// # Errors
    /// [`TemplateError::Render`].
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        self.render_marked(messages, add_generation_prompt, "", "")
    }

    /// The whole conversation with the ranges to be trained: each assistant turn with its end-of-turn token.
    /// `end_tokens` are the texts of special tokens; whitespace that a template writes after one of them at the end of
    /// a turn is not trained, because generation stops there.
    ///
    /// # Errors
    /// [`TemplateError::Render`], [`TemplateError::NotLocatable`].
    pub fn render_trained(
        &self,
        messages: &[Message],
        end_tokens: &[String],
    ) -> Result<RenderedChat, TemplateError> {
        if self.has_generation {
            return self.by_generation(messages);
        }
        let text = self.render(messages, false)?;
        let (mut spans, method) = match self.by_prefix(messages, &text) {
            Some(spans) => (spans, SpanMethod::Prefix),
            None => (
                self.by_placeholder(messages, &text, end_tokens)?,
                SpanMethod::Located,
            ),
        };
        for span in &mut spans {
            let trimmed = text[span.clone()].trim_end();
            if end_tokens
                .iter()
                .any(|token| trimmed.ends_with(token.as_str()))
            {
                span.end = span.start + trimmed.len();
            }
        }
        Ok(RenderedChat {
            text,
            spans,
            method,
        })
    }

    /// The special token that this template writes after an assistant turn: what generation should stop at.
    /// `None` where it writes none of `end_tokens`.
    #[must_use]
    pub fn end_of_turn(&self, end_tokens: &[String]) -> Option<String> {
        let turns = [
            Message::new("user", "q7Qz"),
            Message::new("assistant", "a7Az"),
        ];
        let text = self.render(&turns, false).ok()?;
        let after = text.split("a7Az").last()?;
        end_tokens
            .iter()
            .filter_map(|token| Some((after.find(token.as_str())?, token)))
            .min_by_key(|&(at, token)| (at, std::cmp::Reverse(token.len())))
            .map(|(_, token)| token.clone())
    }

    fn render_marked(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        open: &str,
        close: &str,
    ) -> Result<String, TemplateError> {
        let turns: Value = messages.iter().map(message_value).collect();
        let context = Value::from_pairs([
            ("messages", turns),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("bos_token", Value::from(self.bos_token.as_str())),
            ("eos_token", Value::from(self.eos_token.as_str())),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            (jinja::OPEN, Value::from(open)),
            (jinja::CLOSE, Value::from(close)),
        ]);
        self.env
            .get_template("chat")
            .and_then(|template| template.render(context))
            .map_err(|e| TemplateError::Render {
                roles: messages.iter().map(|m| m.role.clone()).collect(),
                reason: describe(&e),
            })
    }

    fn by_generation(&self, messages: &[Message]) -> Result<RenderedChat, TemplateError> {
        let (open, close) = free_marks(&self.source, messages);
        let marked = self.render_marked(messages, false, &open, &close)?;
        let mut text = String::with_capacity(marked.len());
        let mut spans = Vec::new();
        for (i, part) in marked.split(open.as_str()).enumerate() {
            match part.split_once(close.as_str()).filter(|_| i > 0) {
                None => text.push_str(part),
                Some((body, rest)) => {
                    spans.push(text.len()..text.len() + body.len());
                    text.push_str(body);
                    text.push_str(rest);
                }
            }
        }
        Ok(RenderedChat {
            text,
            spans,
            method: SpanMethod::Generation,
        })
    }

    /// `None` where some prefix does not line up with the whole text, or the template refuses a prefix.
    fn by_prefix(&self, messages: &[Message], text: &str) -> Option<Vec<Range<usize>>> {
        let mut spans = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            if message.role != "assistant" {
                continue;
            }
            let asked = self.render(&messages[..i], true).ok()?;
            let answered = if i + 1 == messages.len() {
                text.to_owned()
            } else {
                self.render(&messages[..=i], false).ok()?
            };
            if !answered.starts_with(&asked) || !text.starts_with(&answered) {
                return None;
            }
            spans.push(asked.len()..answered.len());
        }
        Some(spans)
    }

    /// Renders with a placeholder per content, cuts the result at the placeholders, and reads the whole text as those
    /// pieces with the contents between them; where that does not fit, looks for the contents in order.
    fn by_placeholder(
        &self,
        messages: &[Message],
        text: &str,
        end_tokens: &[String],
    ) -> Result<Vec<Range<usize>>, TemplateError> {
        let places = self
            .exact_places(messages, text)
            .or_else(|| places_in_order(messages, text));
        let Some(places) = places else {
            let turn = messages
                .iter()
                .position(|m| m.role == "assistant")
                .unwrap_or(0);
            return Err(TemplateError::NotLocatable {
                turn,
                turns: messages.len(),
                content: messages
                    .get(turn)
                    .map_or(String::new(), |m| m.content.chars().take(40).collect()),
            });
        };
        let mut spans = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            if message.role == "assistant" {
                let limit = places.get(i + 1).map_or(text.len(), |next| next.start);
                let after = &text[places[i].end..limit];
                let end = end_tokens
                    .iter()
                    .filter_map(|token| Some((after.find(token.as_str())?, token.len())))
                    .min_by_key(|&(at, len)| (at, std::cmp::Reverse(len)))
                    .map_or(0, |(at, len)| at + len);
                spans.push(places[i].start..places[i].end + end);
            }
        }
        Ok(spans)
    }

    fn exact_places(&self, messages: &[Message], text: &str) -> Option<Vec<Range<usize>>> {
        let holder = |i: usize| format!("zq{i}qz");
        let replaced: Vec<Message> = messages
            .iter()
            .enumerate()
            .map(|(i, m)| Message {
                content: holder(i),
                ..m.clone()
            })
            .collect();
        let skeleton = self.render(&replaced, false).ok()?;
        let mut rest = skeleton.as_str();
        let mut at = 0;
        let mut places = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            let (before, after) = rest.split_once(&holder(i))?;
            at += text[at..].strip_prefix(before).map(|_| before.len())?;
            let next = match messages.get(i + 1) {
                Some(_) => after.split(&holder(i + 1)).next()?,
                None => after,
            };
            let content = [message.content.as_str(), message.content.trim()]
                .into_iter()
                .find(|c| {
                    text[at..]
                        .strip_prefix(c)
                        .is_some_and(|tail| tail.starts_with(next))
                })?;
            places.push(at..at + content.len());
            at += content.len();
            rest = after;
        }
        (&text[at..] == rest).then_some(places)
    }
}

/// Each content in turn, from where the last one ended.
fn places_in_order(messages: &[Message], text: &str) -> Option<Vec<Range<usize>>> {
    let mut at = 0;
    let mut places = Vec::new();
    for message in messages {
        let content = message.content.trim();
        match text[at..].find(content) {
            Some(found) => {
                places.push(at + found..at + found + content.len());
                at += found + content.len();
            }
            None if message.role != "assistant" => places.push(at..at),
            None => return None,
        }
    }
    Some(places)
}

fn message_value(message: &Message) -> Value {
    let extra = message
        .extra
        .iter()
        .map(|(k, v)| (k.as_str(), jinja::to_value(v)));
    Value::from_pairs(
        [
            ("role", Value::from(message.role.as_str())),
            ("content", Value::from(message.content.as_str())),
        ]
        .into_iter()
        .chain(extra),
    )
}

/// Two Unicode noncharacters that occur in neither the template nor the conversation.
fn free_marks(source: &str, messages: &[Message]) -> (String, String) {
    let used = |c: char| source.contains(c) || messages.iter().any(|m| m.content.contains(c));
    let mut free = ('\u{FDD0}'..='\u{FDEF}').filter(|&c| !used(c));
    let open = free.next().unwrap_or('\u{FFFE}');
    let close = free.next().unwrap_or('\u{FFFF}');
    (open.to_string(), close.to_string())
}

/// The engine's message with its line and its causes, on one line.
fn describe(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
