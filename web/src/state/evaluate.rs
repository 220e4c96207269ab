//! An evaluation: what is scored on what, how far it is, its rows and scores.

use crate::protocol::{
    Column, ColumnScores, DataSource, EvalOptions, EvalRow, Failure, Paired, Request,
};

use super::adapters::{Adapters, MERGE_NAME};
use super::table::View;

/// A column that is scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scored {
    /// What it is called.
    pub label: String,
    /// Its adapters.
    pub column: Column,
}

/// The section's state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluate {
    /// The file to score on.
    pub data: Option<DataSource>,
    /// What to call it.
    pub data_name: String,
    /// Adapters that are left out, by name.
    pub left_out: Vec<String>,
    /// What to measure.
    pub options: EvalOptions,
    /// The request under way.
    pub running: Option<u64>,
    /// Column, examples done in it, examples in all.
    pub progress: Option<(usize, usize, usize)>,
    /// What is or was scored.
    pub columns: Vec<Scored>,
    /// The file that is or was scored on.
    pub scored_on: String,
    /// Examples.
    pub rows: Vec<EvalRow>,
    /// One per column.
    pub scores: Vec<ColumnScores>,
    /// Against the first.
    pub paired: Vec<Paired>,
    /// A sentence each.
    pub notes: Vec<String>,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// How the rows are shown.
    pub view: View,
}

impl Evaluate {
    /// What would be scored: the base, then every adapter that is not left out, then the merge.
    #[must_use]
    pub fn planned(&self, adapters: &Adapters) -> Vec<Scored> {
        let scored = |label: &str, names: Vec<String>| Scored {
            label: label.to_owned(),
            column: Column { adapters: names },
        };
        let mut planned = vec![scored("Base", Vec::new())];
        let mut names = adapters.names();
        if adapters.merged() {
            names.push(MERGE_NAME.to_owned());
        }
        let wanted = names.into_iter().filter(|n| !self.left_out.contains(n));
        planned.extend(
            wanted.map(|n| scored(if n == MERGE_NAME { "Merge" } else { &n }, vec![n.clone()])),
        );
        planned
    }

    /// Takes an adapter in, or leaves it out.
    pub fn toggle(&mut self, name: &str) {
        match self.left_out.iter().position(|n| n == name) {
            Some(at) => {
                self.left_out.remove(at);
            }
            None => self.left_out.push(name.to_owned()),
        }
    }

    /// Takes a metric in or out.
    pub fn toggle_metric(&mut self, name: &str) {
        let metrics = &mut self.options.metrics;
        match metrics.iter().position(|n| n == name) {
            Some(at) => {
                metrics.remove(at);
            }
            None => metrics.push(name.to_owned()),
        }
    }

    /// The request, where there is a file; the last results are emptied for it.
    pub(super) fn start(&mut self, adapters: &Adapters) -> Option<Request> {
        let data = self.data.clone().filter(|_| self.running.is_none())?;
        self.columns = self.planned(adapters);
        self.scored_on = self.data_name.clone();
        self.rows.clear();
        self.scores.clear();
        self.paired.clear();
        self.notes.clear();
        self.progress = None;
        self.failure = None;
        self.stopped = false;
        self.view = View::default();
        Some(Request::Evaluate {
            data,
            columns: self.columns.iter().map(|c| c.column.clone()).collect(),
            options: self.options.clone(),
        })
    }

    /// `Base: 12 of 100 examples`, and the share of all columns that is done.
    #[must_use]
    pub fn progress_words(&self) -> Option<(String, f64)> {
        let (column, done, total) = self.progress?;
        let label = self.columns.get(column).map_or("", |c| c.label.as_str());
        let all = (self.columns.len().max(1) * total.max(1)) as f64;
        let share = ((column * total + done) as f64 / all).clamp(0.0, 1.0);
        Some((format!("{label}: {done} of {total} examples"), share))
    }

    /// Names of the metrics that were computed, in the order of the first column that has them.
    #[must_use]
    pub fn metric_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for metric in self.scores.iter().flat_map(|s| &s.metrics) {
            if !names.contains(&metric.name) {
                names.push(metric.name.clone());
            }
        }
        names
    }

    /// The comparison of `column` with the first on `metric`.
    #[must_use]
    pub fn pair(&self, column: usize, metric: &str) -> Option<&Paired> {
        self.paired
            .iter()
            .find(|p| p.column == column && p.metric == metric)
    }
}

/// The metrics that can be asked for, and what they are called on the page.
pub const METRICS: [(&str, &str); 10] = [
    ("perplexity", "Perplexity"),
    ("accuracy", "Accuracy"),
    ("macro_f1", "Macro-F1"),
    ("exact_match", "Exact match"),
    ("token_f1", "Token F1"),
    ("bleu", "BLEU"),
    ("rouge1", "ROUGE-1"),
    ("rouge2", "ROUGE-2"),
    ("rougeL", "ROUGE-L"),
    ("rougeLsum", "ROUGE-Lsum"),
];

/// Metrics that cannot be asked for, but that files of a run hold.
const OTHERS: [(&str, &str); 5] = [
    ("ece", "Calibration error (ECE)"),
    ("brier", "Brier score"),
    ("mcc", "MCC"),
    ("bertscore_f1", "BERTScore F1"),
    ("loss", "Loss"),
];

/// A metric's name on the page; the trainer's in plain words where it is none that is known.
#[must_use]
pub fn metric_title(name: &str) -> String {
    let known = METRICS.iter().chain(&OTHERS).find(|(n, _)| *n == name);
    if let Some((_, title)) = known {
        return (*title).to_owned();
    }
    let words = name.replace('_', " ");
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::adapter;
    use super::*;

    #[test]
    fn metrics_have_names() {
        assert_eq!(metric_title("rougeL"), "ROUGE-L");
        assert_eq!(metric_title("macro_recall"), "Macro recall");
        assert_eq!(metric_title(""), "");
    }

    #[test]
    fn the_base_comes_first_and_choices_hold() {
        let mut adapters = Adapters::default();
        for name in ["a", MERGE_NAME, "b"] {
            adapters.insert(adapter(name), None);
        }
        let mut evaluate = Evaluate::default();
        evaluate.toggle("a");
        let labels: Vec<String> = evaluate
            .planned(&adapters)
            .into_iter()
            .map(|c| c.label)
            .collect();
        assert_eq!(labels, ["Base", "b", "Merge"]);
        assert!(evaluate.start(&adapters).is_none(), "there is no file");
        evaluate.data = Some(DataSource::Url { url: "u".into() });
        evaluate.rows.push(EvalRow {
            line: 1,
            prompt: String::new(),
            reference: String::new(),
            answers: Vec::new(),
            values: Vec::new(),
        });
        assert!(
            matches!(evaluate.start(&adapters), Some(Request::Evaluate { columns, .. }) if columns.len() == 3)
        );
        assert!(evaluate.rows.is_empty());
        evaluate.progress = Some((1, 5, 10));
        assert_eq!(
            evaluate.progress_words(),
            Some(("b: 5 of 10 examples".into(), 0.5))
        );
    }
}
