//! Label words as the model meets them: pieces. Words that begin alike are told apart by later pieces only, so a score
//! of the first piece, or a decision after it, is a coin toss; a word that another begins with is never finished.

use std::collections::BTreeMap;

use super::evidence::{Answer, listed};
use super::{Cause, Evidence, Finding, Severity};

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<Finding> {
    let answers = evidence.answers(evidence.train);
    if answers.len() < 2 {
        return Vec::new();
    }
    let mut findings = Vec::new();
    findings.extend(shared_first(evidence, &answers));
    findings.extend(prefixes(&answers));
    if findings.is_empty() {
        findings.extend(many_pieces(evidence, &answers));
    }
    findings
}

fn shared_first(evidence: &Evidence<'_>, answers: &[Answer]) -> Option<Finding> {
    let mut starts: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for answer in answers {
        let first = answer.ids.first()?;
        starts.entry(*first).or_default().push(answer.text.clone());
    }
    let (piece, words) = starts.into_iter().find(|(_, words)| words.len() > 1)?;
    let piece = evidence
        .tokenizer
        .decode(&[piece], false)
        .unwrap_or_default();
    Some(Finding::new(
        Cause::LabelPieces,
        Severity::Warning,
        "data.label_names",
        format!(
            "the labels {} begin with the same piece {:?}: what the first piece says is the same for both",
            listed(&words),
            piece.trim()
        ),
        remedy(evidence, answers),
    ))
}

fn prefixes(answers: &[Answer]) -> Option<Finding> {
    let pair = answers.iter().find_map(|short| {
        let long = answers
            .iter()
            .find(|long| long.ids.len() > short.ids.len() && long.ids.starts_with(&short.ids))?;
        Some([short.text.clone(), long.text.clone()])
    })?;
    Some(Finding::new(
        Cause::LabelPieces,
        Severity::Warning,
        "data.label_names",
        format!(
            "the label {:?} begins with the whole of {:?}: only the end token tells them apart",
            pair[1], pair[0]
        ),
        "Choose words of which none begins with another",
    ))
}

fn many_pieces(evidence: &Evidence<'_>, answers: &[Answer]) -> Option<Finding> {
    let long: Vec<String> = answers
        .iter()
        .filter(|a| a.ids.len() > 1)
        .map(|a| a.text.clone())
        .collect();
    if long.is_empty() {
        return None;
    }
    let spaced = answers.iter().all(|answer| {
        let ids = evidence
            .tokenizer
            .encode(&format!(" {}", answer.text), false);
        ids.is_ok_and(|ids| ids.len() == 1)
    });
    let fix = match spaced {
        true => "With a space before it each label is one piece: completion = \" {{ label }}\"",
        false => "",
    };
    Some(Finding::new(
        Cause::LabelPieces,
        Severity::Info,
        "data.label_names",
        format!(
            "the labels {} are several pieces each; their first pieces differ, so nothing is lost but a step per piece",
            listed(&long)
        ),
        fix,
    ))
}

/// Words that would not collide, tried on this tokenizer.
fn remedy(evidence: &Evidence<'_>, answers: &[Answer]) -> String {
    type Way = (&'static str, fn(usize, &str) -> String);
    let ways: [Way; 3] = [
        (
            "a space before each label (completion = \" {{ label }}\")",
            |_, w| format!(" {w}"),
        ),
        ("capital initials in label_names", |_, w| {
            let mut letters = w.chars();
            letters
                .next()
                .map_or(String::new(), |c| c.to_uppercase().chain(letters).collect())
        }),
        ("the letters A, B, C, ... in label_names", |i, _| {
            char::from(b'A' + (i % 26) as u8).to_string()
        }),
    ];
    for (name, write) in ways {
        let mut firsts: Vec<Option<u32>> = answers
            .iter()
            .enumerate()
            .map(|(i, answer)| {
                let ids = evidence.tokenizer.encode(&write(i, &answer.text), false);
                ids.ok().and_then(|ids| ids.first().copied())
            })
            .collect();
        firsts.sort_unstable();
        firsts.dedup();
        if firsts.len() == answers.len() && firsts.iter().all(Option::is_some) {
            return format!("With {name} the first pieces differ");
        }
    }
    "Choose other words in data.label_names, or score whole answers instead of first pieces".into()
}
