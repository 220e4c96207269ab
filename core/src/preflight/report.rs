//! What encoding the data found already, as findings; those that a check of its own says better are left to it.

use super::{Cause, Evidence, Finding, Severity};
use crate::data::{DataError, WarningKind};

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<Finding> {
    let sets = [
        ("data.train", Some(evidence.report)),
        ("data.eval", evidence.held_out_report),
    ];
    sets.into_iter()
        .filter_map(|(place, report)| Some((place, report?)))
        .flat_map(|(place, report)| report.warnings.iter().map(move |warning| (place, warning)))
        .filter_map(|(place, warning)| {
            let (id, severity) = match warning.kind {
                WarningKind::Leakage => (Cause::Leakage, Severity::Warning),
                WarningKind::Duplicates => (Cause::Duplicates, Severity::Info),
                WarningKind::DoubleBos
                | WarningKind::StraddlingToken
                | WarningKind::UnknownTokens => (Cause::Tokens, Severity::Warning),
                WarningKind::Untrained => (Cause::NothingTrained, Severity::Warning),
                WarningKind::NoEndOfTurn
                | WarningKind::LabelsShareFirstToken
                | WarningKind::LabelImbalance
                | WarningKind::Truncated => return None,
            };
            Some(Finding::new(
                id,
                severity,
                place,
                warning.message.as_str(),
                "",
            ))
        })
        .collect()
}

/// An error of the data pipeline as a finding, where it is one of the causes looked for.
#[must_use]
pub fn from_data_error(error: &DataError) -> Option<Finding> {
    let (id, place) = match error {
        DataError::Emptied { .. } | DataError::TooLong { .. } | DataError::PackTooLong { .. } => {
            (Cause::Truncated, "data.max_length")
        }
        DataError::NothingTrained { .. } => (Cause::NothingTrained, "data.train"),
        DataError::NoChatTemplate { .. } => (Cause::WrongTemplate, "data.format"),
        _ => return None,
    };
    Some(Finding::new(
        id,
        Severity::Error,
        place,
        error.to_string(),
        "",
    ))
}
