//! Scores before and after, as the gallery shows them, and how they come out of a run's `metrics.json`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::GalleryError;

/// A measured value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Its confidence interval, `[low, high]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
}

/// One metric of base and adapted on the same examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The task, where a run scored several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// As in `metrics.json`: `perplexity`, `macro_f1`.
    pub metric: String,
    /// Whether smaller is better.
    pub lower_is_better: bool,
    /// The base's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Estimate>,
    /// The base's with the adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapted: Option<Estimate>,
    /// Examples scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<u64>,
}

/// Metrics of which less is better, by the last word of their name.
const LOWER: [&str; 7] = ["perplexity", "loss", "nll", "ece", "brier", "error", "kl"];

impl Score {
    pub(super) fn validate(&self, file: &str) -> Result<(), GalleryError> {
        for estimate in [self.base, self.adapted].into_iter().flatten() {
            let [low, high] = estimate
                .interval
                .unwrap_or([estimate.value, estimate.value]);
            if !(estimate.value.is_finite() && low.is_finite() && high.is_finite() && low <= high) {
                return Err(GalleryError::invalid(
                    file,
                    &self.metric,
                    &format!("{} [{low}, {high}]", estimate.value),
                    "finite numbers, low before high",
                ));
            }
        }
        Ok(())
    }
}

/// The scores in a `metrics.json`: `{base, adapted}` with the same keys, or such objects by task. A key counts as a
/// score when it has an interval under `KEY_ci` on either side; the other numbers there are counts.
#[must_use]
pub fn scores_of(metrics: &Value) -> Vec<Score> {
    let Some(object) = metrics.as_object() else {
        return Vec::new();
    };
    if object.contains_key("adapted") || object.contains_key("base") {
        return of_task(object, None);
    }
    let tasks = object.iter().filter_map(|(n, v)| Some((n, v.as_object()?)));
    tasks
        .flat_map(|(name, sides)| of_task(sides, Some(name)))
        .collect()
}

fn of_task(sides: &Map<String, Value>, task: Option<&str>) -> Vec<Score> {
    let side = |name: &str| sides.get(name).and_then(Value::as_object);
    let (base, adapted) = (side("base"), side("adapted"));
    let mut names: Vec<&str> = Vec::new();
    for key in [base, adapted].into_iter().flatten().flat_map(Map::keys) {
        let name = key.strip_suffix("_ci").unwrap_or_default();
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    let examples = |side: Option<&Map<String, Value>>| side?.get("examples")?.as_u64();
    let score = |metric: &&str| Score {
        task: task.map(str::to_owned),
        metric: (*metric).to_owned(),
        lower_is_better: is_loss(metric),
        base: estimate(base, metric),
        adapted: estimate(adapted, metric),
        examples: examples(adapted).or_else(|| examples(base)),
    };
    let measured = |s: &Score| s.base.is_some() || s.adapted.is_some();
    names.iter().map(score).filter(measured).collect()
}

fn is_loss(metric: &str) -> bool {
    let last = metric.rsplit(['_', ' ']).next().unwrap_or(metric);
    LOWER.contains(&last.to_ascii_lowercase().as_str())
}

fn estimate(side: Option<&Map<String, Value>>, metric: &str) -> Option<Estimate> {
    let side = side?;
    // JSON has no infinity, so a value that was not finite is null and there is nothing to show.
    let value = side.get(metric)?.as_f64()?;
    let ends = side.get(&format!("{metric}_ci")).and_then(Value::as_array);
    let interval = ends.and_then(|ends| match ends.as_slice() {
        [low, high] => Some([low.as_f64()?, high.as_f64()?]),
        _ => None,
    });
    Some(Estimate { value, interval })
}
