//! `log.jsonl`: a row per optimizer step, and rows of evaluations while training.

use serde_json::Value;

use crate::state::chart::Series;
use crate::state::numbers;

use super::{Grid, Opened, ResultsError};

/// Points of a curve, about.
const POINTS: usize = 100;

/// Values of an evaluation's row that are no scores.
const NO_SCORES: [&str; 4] = ["step", "epoch", "tokens", "best"];

pub(super) fn open(name: &str, text: &str) -> Result<Opened, ResultsError> {
    let rows = rows(name, text)?;
    let points = |key: &str| -> Vec<(f64, f64)> {
        let point = |row: &Value| Some((row.get("step")?.as_f64()?, row.get(key)?.as_f64()?));
        rows.iter().filter_map(point).collect()
    };
    let series = |name: &str, key: &str| Series {
        name: name.to_owned(),
        points: points(key),
    };
    let curve: Vec<Series> = [
        smooth(series("Training loss", "loss")),
        series("Held-out loss", "eval_loss"),
    ]
    .into_iter()
    .filter(|s| !s.points.is_empty())
    .collect();
    if curve.is_empty() {
        return Err(ResultsError::Empty {
            name: name.to_owned(),
            expected: "steps with a loss",
        });
    }
    let mut rates: Vec<f64> = rows
        .iter()
        .filter_map(|r| r.get("tokens_per_s")?.as_f64())
        .collect();
    rates.sort_by(f64::total_cmp);
    let last = rows
        .iter()
        .filter_map(|r| r.get("step")?.as_u64())
        .max()
        .unwrap_or(0);
    let mut facts = vec![("Steps".to_owned(), numbers::count(last))];
    if let Some(median) = rates.get(rates.len() / 2) {
        facts.push((
            "Speed, median".to_owned(),
            numbers::tokens_per_second(*median),
        ));
    }
    Ok(Opened {
        kind: "the log of a run",
        facts,
        grids: evaluations(&rows).into_iter().collect(),
        curve,
        ..Opened::default()
    })
}

/// Many steps as means over neighbours, since a curve of single batches is a band of noise; the name says so.
fn smooth(series: Series) -> Series {
    let window = series.points.len() / POINTS;
    if window < 2 {
        return series;
    }
    let mean = |chunk: &[(f64, f64)]| {
        let sum: f64 = chunk.iter().map(|p| p.1).sum();
        let last = chunk.last().map_or(0.0, |p| p.0);
        (last, sum / chunk.len() as f64)
    };
    Series {
        name: format!("{}, mean of {window} steps", series.name),
        points: series.points.chunks(window).map(mean).collect(),
    }
}

/// The file's objects. A last line that was cut off by an interrupted run is passed over.
fn rows(name: &str, text: &str) -> Result<Vec<Value>, ResultsError> {
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty())
        .collect();
    let whole = text.ends_with('\n');
    let mut rows = Vec::with_capacity(lines.len());
    for (place, (at, line)) in lines.iter().enumerate() {
        match serde_json::from_str::<Value>(line) {
            Ok(row) if row.is_object() => rows.push(row),
            Err(_) if place + 1 == lines.len() && !whole => {}
            found => {
                let problem = found
                    .err()
                    .map_or("expected an object".to_owned(), |e| e.to_string());
                return Err(ResultsError::Line {
                    name: name.to_owned(),
                    line: *at as u64 + 1,
                    problem,
                });
            }
        }
    }
    Ok(rows)
}

fn evaluations(rows: &[Value]) -> Option<Grid> {
    let evaluated: Vec<&Value> = rows
        .iter()
        .filter(|r| r.get("eval_loss").is_some())
        .collect();
    let first = evaluated.first()?.as_object()?;
    let keys: Vec<&String> = first
        .keys()
        .filter(|k| !NO_SCORES.contains(&k.as_str()))
        .collect();
    let mut header = vec!["step".to_owned()];
    header.extend(keys.iter().map(|k| k.replace('_', " ")));
    let cells = |row: &&Value| {
        let mut cells = vec![row.get("step").map_or_else(String::new, Value::to_string)];
        let cell = |key: &&String| {
            row.get(key.as_str())
                .and_then(Value::as_f64)
                .map_or("-".to_owned(), numbers::score)
        };
        cells.extend(keys.iter().map(cell));
        cells
    };
    Some(Grid {
        caption: "Scored on held-out data while training".to_owned(),
        header,
        rows: evaluated.iter().map(cells).collect(),
    })
}
