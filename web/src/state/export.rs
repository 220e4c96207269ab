//! An evaluation as files: rows as CSV in the trainer's `per_example.csv` columns, everything as JSON.

use serde_json::{Map, Value, json};

use crate::protocol::EvalRow;

use super::evaluate::Evaluate;
use super::table;

/// The rows as CSV: `source, prompt, reference`, then per value the columns of every model.
///
/// # Errors
/// The writer's, which memory does not cause.
pub fn csv(evaluate: &Evaluate) -> Result<Vec<u8>, csv::Error> {
    let names = table::value_names(&evaluate.rows);
    let labels: Vec<&str> = evaluate.columns.iter().map(|c| c.label.as_str()).collect();
    let mut out = csv::Writer::from_writer(Vec::new());
    let mut header: Vec<String> = ["source", "prompt", "reference"]
        .map(str::to_owned)
        .to_vec();
    header.extend(labels.iter().map(|l| (*l).to_owned()));
    for name in &names {
        header.extend(labels.iter().map(|l| format!("{l}_{name}")));
    }
    out.write_record(&header)?;
    for row in &evaluate.rows {
        let mut cells = vec![
            format!("{} line {}", evaluate.scored_on, row.line),
            row.prompt.clone(),
            row.reference.clone(),
        ];
        let answer = |column| {
            row.answers
                .get(column)
                .cloned()
                .flatten()
                .unwrap_or_default()
        };
        cells.extend((0..labels.len()).map(answer));
        for name in &names {
            let cell = |column| {
                table::value(row, column, name).map_or_else(String::new, |v| v.to_string())
            };
            cells.extend((0..labels.len()).map(cell));
        }
        out.write_record(&cells)?;
    }
    out.into_inner()
        .map_err(|e| csv::Error::from(e.into_error()))
}

/// Scores, comparisons and rows as JSON.
#[must_use]
pub fn json(evaluate: &Evaluate) -> String {
    let columns = evaluate
        .columns
        .iter()
        .zip(&evaluate.scores)
        .map(|(column, scores)| {
            let mut object = Map::new();
            for metric in &scores.metrics {
                object.insert(metric.name.clone(), number(metric.value));
                if let Some(ci) = metric.ci {
                    object.insert(format!("{}_ci", metric.name), json!(ci.map(number)));
                }
            }
            object.insert("examples".into(), json!(scores.examples));
            object.insert("tokens".into(), json!(scores.tokens));
            if !scores.labels.is_empty() {
                object.insert(
                    "confusion_matrix".into(),
                    json!({ "labels": scores.labels, "rows": scores.confusion }),
                );
                object.insert("per_class_f1".into(), json!(scores.per_class_f1));
            }
            json!({ "name": column.label, "adapters": column.column.adapters, "scores": object })
        });
    let whole = json!({
        "data": evaluate.scored_on,
        "columns": columns.collect::<Vec<_>>(),
        "paired": evaluate.paired,
        "notes": evaluate.notes,
        "rows": evaluate.rows.iter().map(row).collect::<Vec<_>>(),
    });
    format!("{whole:#}\n")
}

fn row(row: &EvalRow) -> Value {
    let values = |v: &Vec<(String, f64)>| -> Map<String, Value> {
        v.iter()
            .map(|(name, value)| (name.clone(), number(*value)))
            .collect()
    };
    json!({
        "line": row.line,
        "prompt": row.prompt,
        "reference": row.reference,
        "answers": row.answers,
        "values": row.values.iter().map(values).collect::<Vec<_>>(),
    })
}

/// JSON has no infinity: such a value becomes a string, rather than nothing.
fn number(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None => Value::String(value.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::{Column, ColumnScores, Metric};
    use crate::state::evaluate::Scored;

    fn evaluate() -> Evaluate {
        let scored = |label: &str| Scored {
            label: label.into(),
            column: Column::default(),
        };
        let scores = ColumnScores {
            examples: 1,
            tokens: 3,
            metrics: vec![Metric {
                name: "loss".into(),
                value: 2.0,
                ci: Some([1.0, f64::INFINITY]),
            }],
            labels: Vec::new(),
            confusion: Vec::new(),
            per_class_f1: Vec::new(),
        };
        Evaluate {
            columns: vec![scored("Base"), scored("a")],
            scored_on: "eval.jsonl".into(),
            rows: vec![table::tests::row(
                2,
                "say \"x\",\nnow",
                [true, false],
                [0.5, 0.25],
            )],
            scores: vec![scores.clone(), scores],
            ..Evaluate::default()
        }
    }

    #[test]
    fn csv_has_the_trainers_columns() {
        let bytes = csv(&evaluate()).unwrap();
        let mut reader = csv::Reader::from_reader(bytes.as_slice());
        let header: Vec<String> = reader
            .headers()
            .unwrap()
            .iter()
            .map(str::to_owned)
            .collect();
        assert_eq!(
            header,
            [
                "source",
                "prompt",
                "reference",
                "Base",
                "a",
                "Base_loss",
                "a_loss",
                "Base_correct",
                "a_correct"
            ]
        );
        let record = reader.records().next().unwrap().unwrap();
        assert_eq!(&record[0], "eval.jsonl line 2");
        assert_eq!(&record[1], "say \"x\",\nnow");
        assert_eq!((&record[3], &record[6]), ("yes", "0.25"));
    }

    #[test]
    fn json_reads_back() {
        let value: Value = serde_json::from_str(&json(&evaluate())).unwrap();
        assert_eq!(value["columns"][0]["scores"]["loss"], 2.0);
        assert_eq!(value["columns"][0]["scores"]["loss_ci"][1], "inf");
        assert_eq!(value["rows"][0]["values"][1]["loss"], 0.25);
    }
}
