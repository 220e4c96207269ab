//! Rows longer than `max_length`: from the right the answer is cut off, from the left the question.

use super::evidence::percent;
use super::{Cause, Evidence, Finding, Severity};
use crate::data::{DataReport, Truncation};

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<Finding> {
    let sets = [
        ("training", Some(evidence.report)),
        ("held-out", evidence.held_out_report),
    ];
    sets.into_iter()
        .filter_map(|(name, report)| of(evidence.data.truncation, name, report?))
        .collect()
}

fn of(truncation: Truncation, name: &str, report: &DataReport) -> Option<Finding> {
    let (hit, rows) = match truncation {
        Truncation::Drop => (report.dropped, report.examples + report.dropped),
        _ => (report.truncated, report.examples),
    };
    if hit * 20 <= rows {
        return None;
    }
    let loses = match truncation {
        Truncation::Left => "lose the beginning of their prompt",
        Truncation::Drop => "are left out",
        _ => "lose the end of their answer and its end token",
    };
    // A cut answer still teaches its beginning; a cut question, or a missing row, teaches nothing or the wrong thing.
    let severity = match (truncation, hit * 2 > rows) {
        (Truncation::Left | Truncation::Drop, true) => Severity::Error,
        _ => Severity::Warning,
    };
    Some(Finding::new(
        Cause::Truncated,
        severity,
        "data.max_length",
        format!(
            "{hit} of {rows} {name} examples ({}) {loses}: max_length is {}, and 95 % of the rows need {} tokens",
            percent(hit, rows),
            report.max_length,
            report.lengths.p95
        ),
        format!(
            "Set data.max_length to {} or more, as far as the base's context goes, or shorten the prompts",
            report.lengths.p95
        ),
    ))
}
