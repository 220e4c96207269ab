//! Some templates write no system message, or only the newest one: the instruction then never reaches the model.

use super::{Cause, Evidence, Finding, Severity};
use crate::tokenizer::Message;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<Finding> {
    let (Some(system), Some(template)) = (&evidence.data.system, evidence.template()) else {
        return Vec::new();
    };
    let turns = [
        Message::new("system", system.as_str()),
        Message::new("user", "q7Qz"),
    ];
    let (what, severity) = match template.render(&turns, true) {
        Ok(text) if text.contains(system.trim()) => return Vec::new(),
        Ok(_) => (
            "the chat template leaves the system message out: the model never sees it".to_owned(),
            Severity::Error,
        ),
        Err(error) => (
            format!("the chat template refuses a system message: {error}"),
            Severity::Error,
        ),
    };
    vec![Finding::new(
        Cause::SystemDropped,
        severity,
        "data.system",
        what,
        "Put its text into the prompt (data.template), and remove data.system",
    )]
}
