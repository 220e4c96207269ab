//! What is known of a run once it is over: scores of base and adapted, and what it cost.

use serde::Serialize;
use serde_json::{Map, Value};

use super::planned::Planned;
use crate::report::scores::Score;
use crate::session::cost::{self, Cost};

/// Metrics in the order they are shown; others follow in the order they are found.
const ORDER: [&str; 16] = [
    "macro_f1",
    "accuracy",
    "macro_recall",
    "perplexity",
    "bleu",
    "rouge1",
    "rouge2",
    "rougeL",
    "rougeLsum",
    "bertscore_f1",
    "exact_match",
    "token_f1",
    "loss",
    "f1",
    "precision",
    "recall",
];

/// Whether a smaller value of `metric` is better.
pub(crate) fn lower_is_better(metric: &str) -> bool {
    // By likelihood the same metrics come under a prefix.
    let ends = |name: &str| metric == name || metric.ends_with(&format!("_{name}"));
    ["perplexity", "loss", "ece", "brier"].into_iter().any(ends)
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    /// Its name.
    pub(crate) name: String,
    /// What distinguishes it: key to label.
    pub(crate) labels: Vec<(String, String)>,
    /// Its folder.
    pub(crate) folder: String,
    /// The hash of its configuration and data.
    pub(crate) key: String,
    /// Why there are no scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
    /// The base's scores, as in the run's `metrics.json`.
    pub(crate) base: Map<String, Value>,
    /// The adapted model's.
    pub(crate) adapted: Map<String, Value>,
    /// What it cost.
    pub(crate) training: Option<Cost>,
}

impl Record {
    /// Of a run that was made, or of one that failed for `failure`.
    pub(crate) fn of(run: &Planned, failure: Option<String>) -> Self {
        let metrics = run.metrics().unwrap_or_default();
        let part = |key: &str| metrics.get(key).and_then(Value::as_object).cloned();
        Self {
            name: run.name.clone(),
            labels: run.labels.clone(),
            folder: run.config.output.dir.clone(),
            key: run.key.clone(),
            failure,
            base: part("base").unwrap_or_default(),
            adapted: part("adapted").unwrap_or_default(),
            training: metrics
                .get(cost::KEY)
                .and_then(|value| serde_json::from_value(value.clone()).ok()),
        }
    }

    /// The label of `key`, where it has one.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(k, _)| k == key);
        found.map(|(_, label)| label.as_str())
    }
}

/// A metric of a `base` or `adapted` object, with its interval.
pub(crate) fn score(scores: &Map<String, Value>, metric: &str) -> Option<Score> {
    let value = scores.get(metric)?.as_f64()?;
    let interval = scores
        .get(&format!("{metric}_ci"))
        .and_then(|ci| Some((ci.get(0)?.as_f64()?, ci.get(1)?.as_f64()?)));
    Some(Score { value, interval })
}

/// Metrics that carry an interval in any of `records`, in the order to show them.
pub(crate) fn metrics(records: &[Record]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for scores in records.iter().flat_map(|r| [&r.base, &r.adapted]) {
        for key in scores.keys().filter_map(|key| key.strip_suffix("_ci")) {
            if scores.get(key).is_some_and(Value::is_number) && !found.iter().any(|k| k == key) {
                found.push(key.to_owned());
            }
        }
    }
    let place = |metric: &str| {
        ORDER
            .iter()
            .position(|m| *m == metric)
            .unwrap_or(ORDER.len())
    };
    found.sort_by_key(|metric| place(metric));
    found
}

/// Keys by which the records differ, in the order they were given.
pub(crate) fn keys(records: &[Record]) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for (key, _) in records.iter().flat_map(|r| &r.labels) {
        if !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    keys.retain(|key| {
        let mut labels = records.iter().map(|r| r.label(key));
        let first = labels.next();
        labels.any(|label| Some(label) != first)
    });
    keys
}

/// The last part of a key: `rank` of `lora.rank`.
pub(crate) fn short(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A finished run with the given labels, macro-F1 and perplexity.
    pub(crate) fn record(labels: &[(&str, &str)], macro_f1: f64, base_f1: f64) -> Record {
        let scores = |f1: f64| {
            let object = json!({
                "macro_f1": f1, "macro_f1_ci": [f1 - 0.05, f1 + 0.05],
                "perplexity": 4.0 - f1, "perplexity_ci": [3.0 - f1, 5.0 - f1], "examples": 100,
            });
            object.as_object().cloned().unwrap_or_default()
        };
        Record {
            name: labels.iter().map(|(_, l)| *l).collect::<Vec<_>>().join("-"),
            labels: labels
                .iter()
                .map(|(k, l)| ((*k).to_owned(), (*l).to_owned()))
                .collect(),
            folder: "runs/x".into(),
            key: "0123456789".into(),
            failure: None,
            base: scores(base_f1),
            adapted: scores(macro_f1),
            training: Some(Cost {
                steps: 10,
                target_tokens: 1000,
                trainable_parameters: 12_288,
                adapter_bytes: 51_200,
                sparsity: None,
                seconds: 12.5,
                resumed: false,
                tokens_per_s: 1234.0,
                peak_memory_bytes: Some(300 << 20),
                device: "cpu".into(),
            }),
        }
    }

    #[test]
    fn metrics_are_those_with_intervals_in_a_fixed_order() {
        let records = [record(&[("lora.rank", "8")], 0.5, 0.2)];
        assert_eq!(metrics(&records), ["macro_f1", "perplexity"]);
        let found = score(&records[0].adapted, "macro_f1");
        assert_eq!(found.and_then(|s| s.interval), Some((0.45, 0.55)));
    }

    #[test]
    fn keys_are_those_that_differ() {
        let records = [
            record(&[("lora.rank", "8"), ("train.lr", "1")], 0.5, 0.2),
            record(&[("lora.rank", "16"), ("train.lr", "1")], 0.5, 0.2),
        ];
        assert_eq!(keys(&records), ["lora.rank"]);
    }
}
