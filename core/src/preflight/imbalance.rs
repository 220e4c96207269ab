//! Chance level, said beforehand: what a model scores that always gives the most frequent answer.

use super::{Cause, Evidence, Finding, Severity};

/// Share of one answer from which training tends to teach that answer alone.
const LOPSIDED: f64 = 0.75;

/// Macro-F1 of the constant answer that is right in a share `p` of the cases, among `classes` labels: its own F1 is
/// `2p / (1 + p)`, the others' are 0.
#[must_use]
pub fn majority_macro_f1(p: f64, classes: usize) -> f64 {
    2.0 * p / (1.0 + p) / classes.max(1) as f64
}

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<Finding> {
    let counts = |examples, report: Option<&crate::data::DataReport>| -> Vec<(String, usize)> {
        match report
            .map(|r| &r.labels)
            .filter(|labels| !labels.is_empty())
        {
            Some(labels) => labels.iter().map(|(l, n)| (l.clone(), *n)).collect(),
            None => {
                let answers = evidence.answers(examples);
                answers.into_iter().map(|a| (a.text, a.count)).collect()
            }
        }
    };
    let train = counts(evidence.train, Some(evidence.report));
    let held = counts(evidence.held_out, evidence.held_out_report);
    [("training", train), ("held-out", held)]
        .into_iter()
        .filter_map(|(name, counts)| of(name, &counts))
        .collect()
}

fn of(name: &str, counts: &[(String, usize)]) -> Option<Finding> {
    let total: usize = counts.iter().map(|(_, n)| n).sum();
    let (label, most) = counts.iter().max_by_key(|(_, n)| *n)?;
    let (rare, least) = counts.iter().min_by_key(|(_, n)| *n)?;
    if total == 0 {
        return None;
    }
    let p = *most as f64 / total as f64;
    let constant = format!(
        "always answering {label:?} gets accuracy {p:.3} and macro-F1 {:.3} on the {name} set: a model that scores so has learned nothing",
        majority_macro_f1(p, counts.len())
    );
    let lopsided = p >= LOPSIDED || *most >= 10 * (*least).max(1);
    let (severity, what, fix) = match lopsided {
        true => (
            Severity::Warning,
            format!(
                "{most} of {total} {name} answers are {label:?} and {least} are {rare:?}; {constant}"
            ),
            "Balance the rows (data.subset with stratify_by keeps shares; leave rows of the frequent answer out), and judge by macro-F1",
        ),
        false => (Severity::Info, constant, ""),
    };
    Some(Finding::new(
        Cause::LabelImbalance,
        severity,
        if name == "training" {
            "data.train"
        } else {
            "data.eval"
        },
        what,
        fix,
    ))
}

#[cfg(test)]
#[allow(clippy::float_cmp)]
mod tests {
    use super::*;

    #[test]
    fn the_constant_answer_of_tweet_eval_scores_what_the_stuck_model_scored() {
        // Of the 12,284 test tweets 5,937 are neutral.
        let f1 = majority_macro_f1(5937.0 / 12284.0, 3);
        assert!((f1 - 0.2172).abs() < 1e-4, "{f1}");
        assert_eq!(majority_macro_f1(0.5, 2), 1.0 / 3.0);
    }

    #[test]
    fn a_balanced_set_is_only_described() {
        let even = [("a".to_owned(), 50), ("b".to_owned(), 50)];
        let found = of("training", &even).map(|f| f.severity);
        assert_eq!(found, Some(Severity::Info));
        let lopsided = [("a".to_owned(), 95), ("b".to_owned(), 5)];
        let found = of("training", &lopsided).map(|f| f.severity);
        assert_eq!(found, Some(Severity::Warning));
        assert!(of("training", &[]).is_none());
    }
}
