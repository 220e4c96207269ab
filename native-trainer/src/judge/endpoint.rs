//! One question over an OpenAI-compatible `/v1/chat/completions` endpoint.
//!
//! The key comes from an environment variable, goes into one header, and appears in no message, file or debug text.

use std::fmt;
use std::time::{Duration, SystemTime};

use anyhow::{Error, Result, anyhow};
use qloom_core::evaluation::judge::JudgeRequest;
use serde_json::Value;

use super::cache::Reply;
use crate::commands::UsageError;

/// Longest reply read.
const MOST_BYTES: u64 = 16 << 20;

/// A judge behind an address.
pub(crate) struct Endpoint {
    url: String,
    key: Option<String>,
    key_name: String,
    agent: ureq::Agent,
}

/// Leaves the key out.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.url)
            .field("key", &self.key.as_ref().map(|_| "set"))
            .finish_non_exhaustive()
    }
}

/// Why there is no reply.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It may come if asked again, not before `after` where the judge said so.
    Passing {
        /// What happened.
        reason: String,
        /// How long the judge asks to be left alone.
        after: Option<Duration>,
    },
    /// Asking again would not help.
    Lasting(Error),
}

impl Endpoint {
    /// A judge at `url`: the address of the server, of its `/v1`, or of the completions themselves. `key` is sent as a
    /// bearer token; `key_name` is the variable it came from.
    ///
    /// # Errors
    /// No `http` or `https` address, or one that carries credentials.
    pub(crate) fn new(
        url: &str,
        key: Option<String>,
        key_name: &str,
        timeout: Duration,
    ) -> Result<Self> {
        let url = completions(url)?;
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            // A judge that moved is named instead of followed: the key and the texts go where the user said.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("qloom/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            url,
            key: key.filter(|k| !k.is_empty()),
            key_name: key_name.to_owned(),
            agent: config.into(),
        })
    }

    /// The address for files and messages: without a query, which may hold anything.
    pub(crate) fn shown(&self) -> &str {
        self.url.split('?').next().unwrap_or(&self.url)
    }

    /// Whether the key would cross a network unencrypted.
    pub(crate) fn exposes_key(&self) -> bool {
        let Some(rest) = self.url.strip_prefix("http://") else {
            return false;
        };
        let authority = rest.split(['/', '?']).next().unwrap_or(rest);
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
            _ => authority,
        };
        let local = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
        self.key.is_some() && !local
    }

    /// Asks once.
    pub(crate) fn ask(&self, request: &JudgeRequest) -> Result<Reply, Failure> {
        let body = serde_json::to_vec(request).map_err(|e| Failure::Lasting(e.into()))?;
        let mut post = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/json");
        if let Some(key) = &self.key {
            post = post.header("Authorization", format!("Bearer {key}"));
        }
        let mut answer = post.send(body.as_slice()).map_err(|e| self.transport(&e))?;
        let status = answer.status().as_u16();
        let header = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
        let (pause, moved) = (header("retry-after"), header("location"));
        let text = answer
            .body_mut()
            .with_config()
            .limit(MOST_BYTES)
            .read_to_string()
            .map_err(|e| self.transport(&e))?;
        if status != 200 {
            let after = pause.and_then(|text| retry_after(&text, SystemTime::now()));
            return self.refusal(status, after, moved.as_deref(), &text);
        }
        reply(&text).ok_or_else(|| Failure::Passing {
            reason: format!(
                "it does not answer as a chat completion does (no choices[0].message): {}",
                self.safe(&text)
            ),
            after: None,
        })
    }

    /// What a status other than 200 means.
    fn refusal(
        &self,
        status: u16,
        after: Option<Duration>,
        moved: Option<&str>,
        text: &str,
    ) -> Result<Reply, Failure> {
        let body: Value = serde_json::from_str(text).unwrap_or_default();
        let code = ["code", "type"]
            .iter()
            .find_map(|k| body["error"][k].as_str())
            .unwrap_or_default();
        if code == "content_filter" || code == "content_policy_violation" {
            // The judge declines this pair and would again: a reply without a verdict.
            return Ok(Reply {
                text: String::new(),
                finish: Some("content_filter".to_owned()),
            });
        }
        let said = body["error"]["message"].as_str().unwrap_or(text);
        let said = self.safe(said);
        let name = &self.key_name;
        let advice = match status {
            _ if code == "insufficient_quota" => "the account has no quota left: add some, or name another judge".to_owned(),
            408 | 409 | 425 | 429 | 500.. => {
                let reason = format!("status {status}: {said}");
                return Err(Failure::Passing { reason, after });
            }
            300..=399 => format!("it has moved to {}: name that address if you trust it", moved.unwrap_or("another address")),
            401 | 403 if self.key.is_none() => format!("it wants a key: set {name}, or name the variable that holds it with --key-env"),
            401 | 403 => format!("it refuses the key in {name}: check that it is valid for this endpoint and model"),
            404 => "it has no such path or model: check --endpoint (the address up to /v1) and --model".to_owned(),
            _ => "check --model, --temperature (`none` leaves it out) and --max-tokens against what this judge takes".to_owned(),
        };
        Err(Failure::Lasting(anyhow!(
            "the judge at {} answered status {status}: {advice}; it says: {said}",
            self.shown()
        )))
    }

    fn transport(&self, error: &ureq::Error) -> Failure {
        let said = self.safe(&error.to_string());
        match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                Failure::Lasting(anyhow!(
                    "{} cannot be asked: {said}; check --endpoint and the proxy settings",
                    self.shown()
                ))
            }
            _ => Failure::Passing {
                reason: format!("no answer: {said}"),
                after: None,
            },
        }
    }

    /// A judge's words for a message: one line, short, without the key, which some servers repeat.
    fn safe(&self, text: &str) -> String {
        let text = match &self.key {
            Some(key) => text.replace(key.as_str(), "(the key)"),
            None => text.to_owned(),
        };
        let line: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(300)
            .collect();
        match line.trim() {
            "" => "(nothing)".to_owned(),
            said => said.to_owned(),
        }
    }
}

/// The address of the completions.
fn completions(url: &str) -> Result<String> {
    let usage = |why: &str| UsageError::new(format!("--endpoint {}: {why}", hidden(url)));
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if !["http", "https"].contains(&scheme) || host.is_empty() {
        return Err(usage("expected an address such as http://127.0.0.1:8000/v1").into());
    }
    if host.contains('@') {
        return Err(usage(
            "an address holds no credentials; the key comes from the variable that --key-env names",
        )
        .into());
    }
    let (address, query) = match url.split_once('?') {
        Some((address, query)) => (address, format!("?{query}")),
        None => (url, String::new()),
    };
    let address = address.trim_end_matches('/');
    let path = &address[(scheme.len() + 3 + host.len()).min(address.len())..];
    let address = match path {
        "" => format!("{address}/v1/chat/completions"),
        path if path.ends_with("/chat/completions") => address.to_owned(),
        _ => format!("{address}/chat/completions"),
    };
    Ok(address + &query)
}

/// An address without what stands before `@`.
fn hidden(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, rest)) => format!("(credentials)@{rest}"),
        None => url.to_owned(),
    }
}

/// The reply in a completion's body. A message without content (a refusal, a tool call) is an empty reply.
fn reply(body: &str) -> Option<Reply> {
    let body: Value = serde_json::from_str(body).ok()?;
    let choice = body.get("choices")?.get(0)?;
    let content = choice.get("message")?.as_object()?.get("content");
    let text = match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().filter_map(|p| p["text"].as_str()).collect(),
        _ => String::new(),
    };
    let finish = choice.get("finish_reason").and_then(Value::as_str);
    Some(Reply {
        text,
        finish: finish.map(str::to_owned),
    })
}

/// `Retry-After`: seconds, or a date.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_address_leads_to_the_completions() {
        for (given, asked) in [
            ("http://h", "http://h/v1/chat/completions"),
            ("http://h:8000/", "http://h:8000/v1/chat/completions"),
            ("https://h/v1", "https://h/v1/chat/completions"),
            ("https://h/api/v1/", "https://h/api/v1/chat/completions"),
            (
                "https://h/v1/chat/completions",
                "https://h/v1/chat/completions",
            ),
            (
                "https://h/d/chat/completions?api-version=1",
                "https://h/d/chat/completions?api-version=1",
            ),
        ] {
            assert_eq!(completions(given).unwrap(), asked);
        }
        for bad in ["", "h/v1", "ftp://h", "http://", "https:///v1"] {
            assert!(completions(bad).unwrap_err().is::<UsageError>(), "{bad}");
        }
        let error = completions("https://me:secret@h/v1")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("credentials") && !error.contains("secret"),
            "{error}"
        );
    }

    fn endpoint(url: &str, key: Option<&str>) -> Endpoint {
        let key = key.map(str::to_owned);
        Endpoint::new(url, key, "JUDGE_KEY", Duration::from_secs(1)).unwrap()
    }

    #[test]
    fn the_key_shows_nowhere() {
        let endpoint = endpoint("https://h/v1", Some("sk-secret"));
        assert!(!format!("{endpoint:?}").contains("sk-secret"));
        let body = r#"{"error": {"message": "Incorrect key sk-secret\nprovided"}}"#;
        let Err(Failure::Lasting(error)) = endpoint.refusal(401, None, None, body) else {
            panic!("401 lasts")
        };
        let text = error.to_string();
        assert!(
            text.contains("JUDGE_KEY") && text.contains("(the key)"),
            "{text}"
        );
        assert!(!text.contains("sk-secret"), "{text}");
    }

    #[test]
    fn a_key_over_plain_http_is_noticed_unless_it_stays_here() {
        for (url, key, exposed) in [
            ("http://example.org/v1", Some("k"), true),
            ("http://example.org/v1", None, false),
            ("http://localhost.example.org", Some("k"), true),
            ("https://example.org/v1", Some("k"), false),
            ("http://127.0.0.1:8000/v1", Some("k"), false),
            ("http://[::1]:8000/v1", Some("k"), false),
            ("http://localhost/v1", Some("k"), false),
        ] {
            assert_eq!(endpoint(url, key).exposes_key(), exposed, "{url}");
        }
    }

    #[test]
    fn refusals_pass_or_last() {
        let endpoint = endpoint("http://h/v1?secret=1", None);
        for status in [408, 429, 500, 502, 503, 529] {
            let after = Some(Duration::from_secs(3));
            let failure = endpoint.refusal(status, after, None, "busy").unwrap_err();
            assert!(
                matches!(&failure, Failure::Passing { after: Some(a), reason } if a.as_secs() == 3 && reason.contains("busy")),
                "{failure:?}"
            );
        }
        for (status, word) in [
            (301, "moved to http://new"),
            (400, "--max-tokens"),
            (401, "--key-env"),
            (404, "--model"),
        ] {
            let Err(Failure::Lasting(error)) =
                endpoint.refusal(status, None, Some("http://new"), "")
            else {
                panic!("{status} lasts")
            };
            let text = error.to_string();
            assert!(text.contains(word) && !text.contains("secret"), "{text}");
        }
        let quota = r#"{"error": {"code": "insufficient_quota", "message": "m"}}"#;
        assert!(matches!(
            endpoint.refusal(429, None, None, quota),
            Err(Failure::Lasting(_))
        ));
        let filtered = r#"{"error": {"code": "content_filter"}}"#;
        let reply = endpoint.refusal(400, None, None, filtered).unwrap();
        assert_eq!(reply.text, "");
    }

    #[test]
    fn replies_of_every_shape() {
        let text = |body: &str| reply(body).map(|r| (r.text, r.finish));
        let body = r#"{"choices": [{"message": {"content": "A"}, "finish_reason": "length"}]}"#;
        assert_eq!(text(body), Some(("A".into(), Some("length".into()))));
        let parts = r#"{"choices": [{"message": {"content": [{"text": "a"}, {"text": "b"}]}}]}"#;
        assert_eq!(text(parts), Some(("ab".into(), None)));
        let refusal = r#"{"choices": [{"message": {"content": null, "refusal": "no"}}]}"#;
        assert_eq!(text(refusal), Some((String::new(), None)));
        for bad in [
            "",
            "<html>",
            "{}",
            r#"{"choices": []}"#,
            r#"{"choices": [{}]}"#,
        ] {
            assert_eq!(text(bad), None, "{bad}");
        }
    }

    #[test]
    fn pauses_in_seconds_and_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, expected) in [
            ("7", Some(7.0)),
            (" 0.5 ", Some(0.5)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10.0)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0.0)),
            ("-3", None),
            ("soon", None),
        ] {
            let found = retry_after(text, now).map(|d| d.as_secs_f64());
            assert_eq!(found, expected, "{text}");
        }
    }
}
