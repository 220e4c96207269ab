//! `tokenizer_config.json`: the few keys that decide ids and the chat template; all others are ignored.
//!
//! Special tokens come as a string or as an `AddedToken` object (`{"content": "</s>", ...}`), the chat template as a
//! string or as a list of `{"name", "template"}`. Both spellings are in use.

use serde_json::Value;

use super::TokenizerError;

/// What is kept of `tokenizer_config.json` and `chat_template.jinja`.
#[derive(Debug, Clone, Default)]
pub(super) struct TokenizerConfig {
    pub(super) bos_token: Option<String>,
    pub(super) eos_token: Option<String>,
    pub(super) pad_token: Option<String>,
    pub(super) unk_token: Option<String>,
    pub(super) add_bos_token: Option<bool>,
    pub(super) chat_template: Option<String>,
    pub(super) model_max_length: Option<usize>,
}

impl TokenizerConfig {
    pub(super) fn parse(
        json: Option<&[u8]>,
        template_file: Option<&[u8]>,
    ) -> Result<Self, TokenizerError> {
        let bad = |reason: String| TokenizerError::Config { reason };
        let value: Value = match json {
            Some(bytes) => serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?,
            None => Value::Object(serde_json::Map::new()),
        };
        let map = value
            .as_object()
            .ok_or_else(|| bad("expected a JSON object at the top".to_owned()))?;
        let token = |key: &str| match map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Object(added)) => match added.get("content").and_then(Value::as_str) {
                Some(text) => Ok(Some(text.to_owned())),
                None => Err(bad(format!("{key} is an object without \"content\""))),
            },
            Some(other) => Err(bad(format!(
                "{key} should be a string or an object with \"content\", found {other}"
            ))),
        };
        let mut chat_template = read_template(map.get("chat_template")).map_err(bad)?;
        if let Some(bytes) = template_file {
            let text = std::str::from_utf8(bytes)
                .map_err(|e| bad(format!("chat_template.jinja is not UTF-8: {e}")))?;
            chat_template = Some(text.to_owned());
        }
        Ok(Self {
            bos_token: token("bos_token")?,
            eos_token: token("eos_token")?,
            pad_token: token("pad_token")?,
            unk_token: token("unk_token")?,
            add_bos_token: map.get("add_bos_token").and_then(Value::as_bool),
            chat_template,
            model_max_length: map
                .get("model_max_length")
                .and_then(Value::as_u64)
                .filter(|&n| n < 1 << 40)
                .and_then(|n| usize::try_from(n).ok()),
        })
    }
}

/// `tokenizer_config.json` completed by the special tokens that older tools keep in `special_tokens_map.json`; `None`
/// where there is neither.
///
/// # Errors
/// A file that is no JSON object.
pub fn completed_config(
    config: Option<&[u8]>,
    special_tokens: Option<&[u8]>,
) -> Result<Option<Vec<u8>>, TokenizerError> {
    type Object = serde_json::Map<String, Value>;
    let bad = |e: serde_json::Error| TokenizerError::Config {
        reason: e.to_string(),
    };
    let object = |bytes: &[u8]| serde_json::from_slice::<Object>(bytes).map_err(bad);
    let special = special_tokens.map(object).transpose()?;
    let Some(special) = special.filter(|s| !s.is_empty()) else {
        return Ok(config.map(<[u8]>::to_vec));
    };
    let mut known = config.map(object).transpose()?.unwrap_or_default();
    for (key, value) in special {
        if known.get(&key).is_none_or(Value::is_null) {
            known.insert(key, value);
        }
    }
    Ok(Some(serde_json::to_vec(&known).map_err(bad)?))
}

/// A string, or the entry named `default` of a list (the only entry where there is one).
fn read_template(value: Option<&Value>) -> Result<Option<String>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(list)) => {
            let named = |entry: &Value, key: &str| {
                entry.get(key).and_then(Value::as_str).map(str::to_owned)
            };
            let default = list
                .iter()
                .find(|e| named(e, "name").as_deref() == Some("default"))
                .or(if list.len() == 1 { list.first() } else { None });
            match default.and_then(|e| named(e, "template")) {
                Some(text) => Ok(Some(text)),
                None => Err(format!(
                    "chat_template is a list of {} templates without one named \"default\"; found {:?}",
                    list.len(),
                    list.iter()
                        .filter_map(|e| named(e, "name"))
                        .collect::<Vec<_>>()
                )),
            }
        }
        Some(other) => Err(format!(
            "chat_template should be a string or a list of {{name, template}}, found {other}"
        )),
    }
}
