//! The pre-flight check: what makes a fine-tuned model answer at chance level, found before it is trained.
//!
//! Each file holds one check: a plain function from [`Evidence`] (what will be trained, by which tokenizer, in which
//! template, at which learning rate) to [`Finding`]s, which say what is wrong, where, and what to write instead.
//! Nothing here computes on a device; the learning-rate probe gets the measured losses from its caller.
//!
//! A score to recognize: a model that gives the most frequent of three answers every time has a macro-F1 of
//! `2p / (1 + p) / 3`, where `p` is that answer's share: 0.217 at `p = 0.48`. No wording of the prompt repairs that; its
//! causes are the ones below.

mod ending;
mod evidence;
mod families;
mod finding;
mod imbalance;
mod labels;
mod learning_rate;
mod report;
mod system;
mod template;
mod truncation;

pub use evidence::{Evidence, LearningRate};
pub use finding::{Cause, Finding, Severity};
pub use imbalance::majority_macro_f1;
pub use learning_rate::{Probe, ProbePoint, judge_probe, ladder, usual_learning_rate};
pub use report::from_data_error;

/// Every check that needs no device, in the order its findings are shown.
const CHECKS: [fn(&Evidence<'_>) -> Vec<Finding>; 8] = [
    template::check,
    system::check,
    labels::check,
    ending::check,
    truncation::check,
    imbalance::check,
    learning_rate::check,
    report::check,
];

/// Runs all of them; the gravest findings come first.
#[must_use]
pub fn check(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = CHECKS.iter().flat_map(|run| run(evidence)).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

#[cfg(test)]
mod tests;
