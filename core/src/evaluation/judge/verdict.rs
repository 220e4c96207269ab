//! Reading a verdict from what a judge wrote.
//!
//! Judges are asked for a last line of JSON, and not all obey. Tried in this order, each on what follows the last
//! `</think>` of models that think aloud: the last JSON object with a verdict; the last `[[A]]` of MT-Bench's form; a last line
//! that is a bare letter or a sentence naming a winner. What says neither, or several things at once, is no verdict.

use std::sync::OnceLock;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a judge chose, by the position it was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Choice {
    /// The answer shown first.
    A,
    /// The answer shown second.
    B,
    /// Neither.
    #[serde(rename = "tie")]
    Tie,
}

/// Keys under which judges put their verdict.
const KEYS: [&str; 6] = [
    "verdict",
    "winner",
    "answer",
    "choice",
    "better",
    "preference",
];

/// The verdict of `reply`, if it has one.
#[must_use]
pub fn read_choice(reply: &str) -> Option<Choice> {
    let spoken = reply.rsplit("</think>").next().unwrap_or(reply);
    from_json(spoken)
        .or_else(|| from_brackets(spoken))
        .or_else(|| from_last_line(spoken))
}

/// The last JSON object that names a verdict.
fn from_json(text: &str) -> Option<Choice> {
    let starts: Vec<usize> = text.match_indices('{').map(|(at, _)| at).collect();
    starts.into_iter().rev().find_map(|at| {
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        let Some(Ok(Value::Object(object))) = values.next() else {
            return None;
        };
        let named = |key: &&str| {
            let found = object.iter().find(|(k, _)| k.eq_ignore_ascii_case(key));
            found.and_then(|(_, value)| named_choice(value.as_str()?))
        };
        KEYS.iter().find_map(named)
    })
}

/// `[[A]]`, `[[B]]`, and `[[C]]` for a tie.
fn from_brackets(text: &str) -> Option<Choice> {
    let inner = text.rsplit_once("[[")?.1.split_once("]]")?.0;
    match inner.trim() {
        "C" | "c" => Some(Choice::Tie),
        other => named_choice(other),
    }
}

/// A last line that is a letter, or a sentence with one winner.
fn from_last_line(text: &str) -> Option<Choice> {
    let line = text.lines().rev().find(|l| !l.trim().is_empty())?;
    let line: String = line.chars().filter(|c| !"*_`#\"'".contains(*c)).collect();
    let line = line.trim().trim_end_matches(['.', '!', ')']);
    named_choice(line).or_else(|| {
        let mut found: Option<Choice> = None;
        for pattern in sentences() {
            for captured in pattern.captures_iter(line) {
                let choice = named_choice(captured.get(1)?.as_str())?;
                if found.is_some_and(|f| f != choice) {
                    return None;
                }
                found = Some(choice);
            }
        }
        found
    })
}

/// `A`, `answer b`, `tie`, `both`: a verdict in so many words.
fn named_choice(text: &str) -> Option<Choice> {
    let text = text.trim().trim_matches(['"', '\'', '.', '*', '(', ')']);
    let text = text.to_ascii_lowercase();
    let bare = ["answer ", "answer_", "response ", "assistant ", "option "]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(&text);
    match bare.trim() {
        "a" => Some(Choice::A),
        "b" => Some(Choice::B),
        "tie" | "a tie" | "draw" | "equal" | "both" | "neither" | "same" => Some(Choice::Tie),
        _ => None,
    }
}

/// Sentences that name a winner, its name in the first group.
fn sentences() -> &'static [Regex] {
    static PATTERNS: OnceLock<Vec<Regex>> = OnceLock::new();
    PATTERNS.get_or_init(|| {
        [
            r"(?i)\b(?:verdict|winner|choice|better answer|best answer|better one)\b\s*(?:is|:|=|->)\s*(?:the\s+)?((?:answer|response|assistant|option)?\s*(?:a|b|tie|a tie|draw|neither|both))\s*$",
            r"(?i)\b((?:answer|response|assistant|option)\s+[ab])\s+(?:is|was|seems)\s+(?:the\s+)?(?:clearly\s+|slightly\s+|much\s+|far\s+)?(?:better|best|superior|preferable)\b",
            r"(?i)\b((?:answer|response|assistant|option)\s+[ab])\s+wins\b",
            r"(?i)\bit(?:'s| is|s)\s+a\s+(tie|draw)\b",
        ]
        .iter()
        .filter_map(|pattern| Regex::new(pattern).ok())
        .collect()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;
    use Choice::{A, B, Tie};

    #[test]
    fn every_pattern_compiles() {
        assert_eq!(sentences().len(), 4);
    }

    #[test]
    fn verdicts_are_read_in_every_form_judges_use() {
        for (reply, expected) in [
            ("A is wrong.\n{\"verdict\": \"B\"}", B),
            ("{\"verdict\":\"tie\"}", Tie),
            (
                "```json\n{\"reason\": \"x {y}\", \"Verdict\": \"Answer A\"}\n```",
                A,
            ),
            ("{\"reason\": {\"a\": 1}, \"winner\": \"b\"} thanks", B),
            // The format repeated, then the verdict.
            (
                "I must write {\"verdict\": \"A\"} or {\"verdict\": \"B\"}.\n{\"verdict\": \"B\"}",
                B,
            ),
            (
                "<think>{\"verdict\": \"A\"}? No.</think>\n{\"verdict\": \"B\"}",
                B,
            ),
            ("Both fine. [[C]]", Tie),
            ("[[A]] no wait [[B]]", B),
            ("Some reason.\n\n**A**", A),
            ("b", B),
            ("Reason.\nVerdict: B.", B),
            ("Final verdict: **tie**", Tie),
            ("The better answer is answer A.", A),
            ("Answer B is clearly better because it is right", B),
            ("I think it's a tie.", Tie),
            ("Response A wins!", A),
            ("Neither", Tie),
        ] {
            assert_eq!(read_choice(reply), Some(expected), "{reply}");
        }
    }

    #[test]
    fn what_says_nothing_clear_is_no_verdict() {
        for reply in [
            "",
            "  \n ",
            "A good question.",
            "Answer A is better in style. Answer B is better in content.",
            "{\"verdict\": \"C\"}",
            "{\"verdict\": 1}",
            "{\"verdict\": ",
            "Both answers A and B are about birds",
            "A or B",
            "Sorry, I cannot compare these.",
            "<think>{\"verdict\": \"A\"}</think>",
            "[[D]]",
            "é{{{",
        ] {
            assert_eq!(read_choice(reply), None, "{reply}");
        }
    }
}
