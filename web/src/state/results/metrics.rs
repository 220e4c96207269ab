//! `metrics.json` and `scores.json`: `{base, adapted, ...}`, such objects by task, or the runs of an experiment.

use qloom_core::adapters::gallery::{Score, scores_of};
use serde_json::{Map, Value, json};

use crate::state::chart::BarInput;
use crate::state::evaluate::metric_title;
use crate::state::numbers;

use super::{Bars, Confusion, Grid, Opened, ResultsError};

pub(super) fn open(name: &str, text: &str) -> Result<Opened, ResultsError> {
    let value: Value = serde_json::from_str(text).map_err(|e| ResultsError::Line {
        name: name.to_owned(),
        line: e.line() as u64,
        problem: e.to_string(),
    })?;
    if let Some(runs) = value.get("runs").and_then(Value::as_array) {
        return experiments(name, runs);
    }
    let scores = scores_of(&value);
    if scores.is_empty() {
        return Err(ResultsError::Empty {
            name: name.to_owned(),
            expected: "scores with intervals",
        });
    }
    Ok(Opened {
        kind: "scores before and after",
        facts: facts(&value),
        grids: vec![grid(&scores, value.get("comparison"))],
        bars: scores.iter().map(bars).collect(),
        confusions: confusions(&value),
        ..Opened::default()
    })
}

fn title(score: &Score) -> String {
    let metric = metric_title(&score.metric);
    match &score.task {
        Some(task) => format!("{task}: {metric}"),
        None => metric,
    }
}

fn better(lower: bool) -> &'static str {
    if lower {
        "lower is better"
    } else {
        "higher is better"
    }
}

fn grid(scores: &[Score], comparison: Option<&Value>) -> Grid {
    let show = |e: &Option<qloom_core::adapters::gallery::Estimate>| {
        e.map_or("-".to_owned(), |e| {
            numbers::with_interval(e.value, e.interval)
        })
    };
    let row = |score: &Score| {
        let change = match (score.base, score.adapted) {
            (Some(base), Some(adapted)) => numbers::signed(adapted.value - base.value),
            _ => "-".to_owned(),
        };
        let p = comparison.and_then(|c| c.get(&score.metric)?.get("p_value")?.as_f64());
        vec![
            title(score),
            show(&score.base),
            show(&score.adapted),
            change,
            p.map_or("-".to_owned(), numbers::p_value),
            better(score.lower_is_better).to_owned(),
        ]
    };
    Grid {
        caption: "Scores of base and adapted; brackets are bootstrap intervals".to_owned(),
        header: [
            "metric",
            "base",
            "adapted",
            "difference",
            "paired test",
            "which way",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: scores.iter().map(row).collect(),
    }
}

fn bars(score: &Score) -> Bars {
    let bar = |name: &str, kind, e: Option<qloom_core::adapters::gallery::Estimate>| {
        e.map(|e| BarInput {
            name: name.to_owned(),
            value: e.value,
            interval: e.interval,
            kind,
        })
    };
    Bars {
        title: format!("{} ({})", title(score), better(score.lower_is_better)),
        bars: [bar("base", 0, score.base), bar("adapted", 1, score.adapted)]
            .into_iter()
            .flatten()
            .collect(),
    }
}

/// Matrices of `{base, adapted}`, or of such objects by task.
fn confusions(value: &Value) -> Vec<Confusion> {
    let Some(object) = value.as_object() else {
        return Vec::new();
    };
    let of = |sides: &Map<String, Value>, prefix: &str| -> Vec<Confusion> {
        let side = |name: &str| {
            matrix(
                sides.get(name)?.get("confusion_matrix")?,
                format!("{prefix}{name}"),
            )
        };
        ["base", "adapted"].into_iter().filter_map(side).collect()
    };
    if object.contains_key("base") || object.contains_key("adapted") {
        return of(object, "");
    }
    let tasks = object
        .iter()
        .filter_map(|(name, v)| Some((name, v.as_object()?)));
    tasks
        .flat_map(|(name, sides)| of(sides, &format!("{name}, ")))
        .collect()
}

fn matrix(value: &Value, name: String) -> Option<Confusion> {
    Some(Confusion {
        name,
        labels: serde_json::from_value(value.get("labels")?.clone()).ok()?,
        rows: serde_json::from_value(value.get("rows")?.clone()).ok()?,
    })
}

/// What the training cost and what it was made of, where the file says so.
fn facts(value: &Value) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let mut fact = |name: &str, text: Option<String>| {
        if let Some(text) = text {
            facts.push((name.to_owned(), text));
        }
    };
    let at = |a: &str, b: &str| value.get(a).and_then(|v| v.get(b));
    let whole = |a: &str, b: &str| at(a, b).and_then(Value::as_u64);
    fact(
        "Training examples",
        whole("data", "train_examples").map(numbers::count),
    );
    fact(
        "Held-out examples",
        whole("data", "eval_examples").map(numbers::count),
    );
    fact("Steps", whole("training", "steps").map(numbers::count));
    fact(
        "Trained values",
        whole("training", "trainable_parameters").map(numbers::count),
    );
    fact(
        "Adapter",
        whole("training", "adapter_bytes").map(numbers::bytes),
    );
    fact(
        "Peak memory",
        whole("training", "peak_memory_bytes").map(numbers::bytes),
    );
    let float = |b: &str| at("training", b).and_then(Value::as_f64);
    fact("Time", float("seconds").map(numbers::duration));
    fact(
        "Speed",
        float("tokens_per_s").map(numbers::tokens_per_second),
    );
    fact(
        "Device",
        at("training", "device")
            .and_then(Value::as_str)
            .map(str::to_owned),
    );
    facts
}

/// The runs of an experiment: one row each, the base first.
fn experiments(name: &str, runs: &[Value]) -> Result<Opened, ResultsError> {
    let mut models: Vec<(String, Vec<Score>)> = Vec::new();
    for run in runs {
        let scores = scores_of(&json!({ "base": run.get("base"), "adapted": run.get("adapted") }));
        let called = run.get("name").and_then(Value::as_str).unwrap_or("run");
        if models.is_empty() && scores.iter().any(|s| s.base.is_some()) {
            let base = scores.iter().map(|s| Score {
                adapted: s.base,
                ..s.clone()
            });
            models.push(("base".to_owned(), base.collect()));
        }
        models.push((called.to_owned(), scores));
    }
    let mut metrics: Vec<&str> = Vec::new();
    for score in models.iter().flat_map(|(_, scores)| scores) {
        if !metrics.contains(&score.metric.as_str()) {
            metrics.push(&score.metric);
        }
    }
    if metrics.is_empty() {
        return Err(ResultsError::Empty {
            name: name.to_owned(),
            expected: "runs with scores",
        });
    }
    let found = |scores: &[Score], metric: &str| {
        scores
            .iter()
            .find(|s| s.metric == metric)
            .and_then(|s| s.adapted)
    };
    let row = |(called, scores): &(String, Vec<Score>)| {
        let cell = |metric: &&str| {
            found(scores, metric).map_or("-".to_owned(), |e| {
                numbers::with_interval(e.value, e.interval)
            })
        };
        std::iter::once(called.clone())
            .chain(metrics.iter().map(cell))
            .collect()
    };
    let bars = |metric: &&str| Bars {
        title: format!(
            "{} ({})",
            metric_title(metric),
            better(numbers::lower_is_better(metric))
        ),
        bars: models
            .iter()
            .enumerate()
            .filter_map(|(at, (called, scores))| {
                let e = found(scores, metric)?;
                Some(BarInput {
                    name: called.clone(),
                    value: e.value,
                    interval: e.interval,
                    kind: at.min(1),
                })
            })
            .collect(),
    };
    Ok(Opened {
        kind: "several runs",
        facts: vec![("Runs".to_owned(), numbers::count(runs.len() as u64))],
        grids: vec![Grid {
            caption: "Scores of every run; brackets are bootstrap intervals".to_owned(),
            header: std::iter::once("run".to_owned())
                .chain(metrics.iter().map(|m| metric_title(m)))
                .collect(),
            rows: models.iter().map(row).collect(),
        }],
        bars: metrics.iter().map(bars).collect(),
        ..Opened::default()
    })
}
