//! A model that is never shown where an answer ends writes on, and what it writes is read as its answer.

use super::{Cause, Evidence, Finding, Severity};
use crate::data::{Format, IGNORE};

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<Finding> {
    if !evidence.generates || evidence.format() == Format::Tokens {
        return Vec::new();
    }
    // Cut examples have lost their end to max_length, which is another check's matter.
    let whole: Vec<_> = evidence.train.iter().filter(|e| !e.truncated).collect();
    let open: Vec<_> = whole
        .iter()
        .filter(|example| {
            let last = example.labels.iter().rposition(|&label| label != IGNORE);
            !last.is_some_and(|at| evidence.end_ids.contains(&example.input_ids[at]))
        })
        .collect();
    let Some(first) = open.first() else {
        return Vec::new();
    };
    let last = first.labels.iter().rposition(|&label| label != IGNORE);
    let piece = last
        .and_then(|at| {
            evidence
                .tokenizer
                .decode(&[first.input_ids[at]], false)
                .ok()
        })
        .unwrap_or_default();
    let ends: Vec<String> = evidence
        .end_ids
        .iter()
        .filter_map(|id| evidence.tokenizer.id_to_token(*id))
        .collect();
    let stops = match ends.is_empty() {
        true => "generation knows no end token for this base".to_owned(),
        false => format!("generation stops at {}", ends.join(", ")),
    };
    let severity = match open.len() * 2 > whole.len() {
        true => Severity::Error,
        false => Severity::Warning,
    };
    let fix = match (&evidence.data.chat_template, ends.first()) {
        (Some(_), Some(end)) => format!(
            "Let data.chat_template write {end} after the assistant's text (inside {{% generation %}} where it has one)"
        ),
        (_, Some(end)) => {
            format!("Let the text end with {end}, or name eos_token in tokenizer_config.json")
        }
        (_, None) => "Name eos_token in tokenizer_config.json".to_owned(),
    };
    vec![Finding::new(
        Cause::EndUntrained,
        severity,
        if evidence.data.chat_template.is_some() {
            "data.chat_template"
        } else {
            "tokenizer_config.json"
        },
        format!(
            "{} of {} answers end with {:?}, and no end token is trained after them ({stops}): the model will not learn to stop",
            open.len(),
            whole.len(),
            piece
        ),
        fix,
    )]
}
