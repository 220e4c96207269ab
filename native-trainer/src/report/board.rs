//! What an evaluation leaves in a folder, and its table on the terminal.
//!
//! | file | holds |
//! |---|---|
//! | `table.md` | the table as people read it |
//! | `scores.csv` | one line per metric: values, intervals, difference, p |
//! | `scores.json` | the same and more, for programs |
//! | `per_example.csv` | one line per example: prompt, reference, answers, what each scored |
//! | `scores.png` | the bar chart |
//! | `confusion_matrix.png` | where labels were scored |

use std::path::Path;

use anyhow::{Context, Result};
pub(crate) use qloom_core::evaluation::Compared;
use qloom_core::evaluation::Interval;
use serde_json::{Map, Value, json};

use super::confusion::{self, Matrix};
use super::score_chart::{self, Panel};
use super::scores::{Metric, Score, TaskScores, score_rows};
use super::table::{self, Look};
use super::{markdown, numbers};
use crate::files::{atomic, explain};

/// A header and rows of cells.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Grid {
    /// Column names.
    pub(crate) header: Vec<String>,
    /// Cells, row by row.
    pub(crate) rows: Vec<Vec<String>>,
}

/// A whole evaluation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    /// Heading.
    pub(crate) title: String,
    /// One name, or that of the base and of the adapted model.
    pub(crate) models: Vec<String>,
    /// Examples scored.
    pub(crate) examples: usize,
    /// Metrics.
    pub(crate) rows: Vec<Compared>,
    /// One per model where labels were scored.
    pub(crate) matrices: Vec<Matrix>,
    /// Example by example.
    pub(crate) per_example: Grid,
    /// `scores.json`.
    pub(crate) json: Value,
}

/// As the tables of a run show it.
fn metric(row: &Compared) -> Metric {
    Metric {
        name: row.key.clone(),
        lower_is_better: row.lower_is_better,
        base: row.base.map(score),
        adapted: row.adapted.map(score),
        p: row.p,
    }
}

/// A value with its interval.
pub(crate) fn score(interval: Interval) -> Score {
    Score {
        value: interval.estimate,
        interval: Some((interval.low, interval.high)),
    }
}

/// `{key: {difference, difference_ci, p_value}}` of the metrics that were compared.
pub(crate) fn comparison_json(rows: &[Compared]) -> Map<String, Value> {
    let compared = rows.iter().filter_map(|row| Some((row, row.difference?)));
    compared
        .map(|(row, difference)| {
            let value = json!({
                "difference": difference.estimate,
                "difference_ci": difference.bounds(),
                "p_value": row.p,
            });
            (row.key.clone(), value)
        })
        .collect()
}

impl Board {
    /// Writes every file into `folder`, which is made if need be.
    ///
    /// # Errors
    /// A folder or file that cannot be written, a picture that cannot be drawn.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| explain(e, "create the folder", folder))?;
        let put = |name: &str, bytes: &[u8]| atomic::write_file(&folder.join(name), bytes);
        put("table.md", self.markdown().as_bytes())?;
        put("scores.csv", &csv_bytes(&self.score_grid())?)?;
        put("scores.json", &serde_json::to_vec_pretty(&self.json)?)?;
        put("per_example.csv", &csv_bytes(&self.per_example)?)?;
        let models: Vec<&str> = self.models.iter().map(String::as_str).collect();
        put(
            "scores.png",
            &score_chart::png(&self.title, &models, &self.panels())?,
        )?;
        if !self.matrices.is_empty() {
            put("confusion_matrix.png", &confusion::png(&self.matrices)?)?;
        }
        Ok(())
    }

    /// The table for the terminal.
    pub(crate) fn table(&self, look: Look) -> String {
        match self.compares() {
            true => table::scores(&[self.task_scores()], look),
            false => {
                let (header, rows) = self.plain_rows();
                table::grid(&header, &rows, look)
            }
        }
    }

    /// The metrics as the tables of a run show them.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        self.shown().map(metric).collect()
    }

    fn markdown(&self) -> String {
        let (header, rows) = match self.compares() {
            true => score_rows(&[self.task_scores()]),
            false => self.plain_rows(),
        };
        format!(
            "# {}\n\n{}\nBrackets are bootstrap intervals over examples.\n",
            markdown::inline(&self.title),
            markdown::table(&header, &rows)
        )
    }

    fn compares(&self) -> bool {
        self.models.len() > 1
    }

    fn shown(&self) -> impl Iterator<Item = &Compared> {
        self.rows.iter().filter(|row| row.shown)
    }

    fn task_scores(&self) -> TaskScores {
        TaskScores {
            task: self.title.clone(),
            examples: self.examples,
            metrics: self.metrics(),
        }
    }

    fn plain_rows(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let model = self.models.first().map_or("score", String::as_str);
        let examples = numbers::count(self.examples as u64);
        let header = vec![format!("metric ({examples} examples)"), model.to_owned()];
        let cell = |row: &Compared| {
            row.base.map_or_else(
                || "-".to_owned(),
                |i| numbers::with_interval(i.estimate, Some((i.low, i.high))),
            )
        };
        let rows = self.shown().map(|row| vec![row.key.clone(), cell(row)]);
        (header, rows.collect())
    }

    fn panels(&self) -> Vec<Panel> {
        let panel = |row: &Compared| Panel {
            name: row.key.clone(),
            lower_is_better: row.lower_is_better,
            scores: [row.base, row.adapted]
                .into_iter()
                .take(self.models.len().max(1))
                .map(|i| i.map(score))
                .collect(),
        };
        self.shown().map(panel).collect()
    }

    fn score_grid(&self) -> Grid {
        let mut header = vec!["metric".to_owned()];
        for model in &self.models {
            header.extend(["", "_low", "_high"].map(|end| format!("{model}{end}")));
        }
        if self.compares() {
            let more = ["difference", "difference_low", "difference_high", "p_value"];
            header.extend(more.map(str::to_owned));
        }
        let cells = |interval: Option<Interval>| match interval {
            Some(i) => [i.estimate, i.low, i.high].map(|v| v.to_string()),
            None => [const { String::new() }; 3],
        };
        let row = |row: &Compared| {
            let mut line = vec![row.key.clone()];
            let sides = [row.base, row.adapted];
            sides
                .into_iter()
                .take(self.models.len())
                .for_each(|side| line.extend(cells(side)));
            if self.compares() {
                line.extend(cells(row.difference));
                line.push(row.p.map_or_else(String::new, |p| p.to_string()));
            }
            line
        };
        Grid {
            rows: self.rows.iter().map(row).collect(),
            header,
        }
    }
}

fn csv_bytes(grid: &Grid) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    if !grid.header.is_empty() {
        writer.write_record(&grid.header)?;
    }
    grid.rows
        .iter()
        .try_for_each(|row| writer.write_record(row))?;
    writer
        .into_inner()
        .map_err(|e| e.into_error())
        .context("a CSV table cannot be written")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn interval(estimate: f64) -> Option<Interval> {
        Some(Interval {
            estimate,
            low: estimate - 0.1,
            high: estimate + 0.1,
        })
    }

    fn board(models: &[&str]) -> Board {
        let two = models.len() > 1;
        let row = |key: &str, shown| Compared {
            key: key.to_owned(),
            lower_is_better: false,
            shown,
            base: interval(0.25),
            adapted: interval(0.75).filter(|_| two),
            difference: interval(0.5).filter(|_| two),
            p: two.then_some(0.01),
        };
        Board {
            title: "held-out".into(),
            models: models.iter().map(|m| (*m).to_owned()).collect(),
            examples: 1200,
            rows: vec![row("rouge1", true), row("loss", false)],
            matrices: vec![Matrix {
                name: "base".into(),
                labels: vec!["a".into(), "b".into()],
                rows: vec![vec![1, 2, 0], vec![0, 3, 1]],
            }],
            per_example: Grid {
                header: vec!["prompt".into(), "base".into()],
                rows: vec![vec!["say, \"x\"\nnow".into(), "=1+1".into()]],
            },
            json: json!({ "examples": 1200 }),
        }
    }

    #[test]
    fn both_models_or_one() {
        let look = Look {
            width: 100,
            boxes: false,
        };
        let both = board(&["base", "adapted"]).table(look);
        assert!(
            both.contains("+0.500, better")
                && both.contains("(p = 0.010)")
                && !both.contains("loss"),
            "{both}"
        );
        let one = board(&["prediction"]).table(look);
        assert!(
            one.contains("0.250 [0.150, 0.350]") && one.contains("prediction"),
            "{one}"
        );
        assert!(!one.contains("better"), "{one}");
    }

    #[test]
    fn every_file_is_written_and_csv_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new/folder");
        let board = board(&["base", "adapted"]);
        board.write(&folder).unwrap();
        let mut names: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "confusion_matrix.png",
                "per_example.csv",
                "scores.csv",
                "scores.json",
                "scores.png",
                "table.md"
            ]
        );
        let mut reader = csv::Reader::from_path(folder.join("per_example.csv")).unwrap();
        let row = reader.records().next().unwrap().unwrap();
        assert_eq!(&row[0], "say, \"x\"\nnow");
        let mut reader = csv::Reader::from_path(folder.join("scores.csv")).unwrap();
        assert_eq!(reader.headers().unwrap().len(), 11);
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(
            (rows.len(), &rows[0][0], &rows[0][10]),
            (2, "rouge1", "0.01")
        );
        assert_eq!(comparison_json(&board.rows)["rouge1"]["p_value"], 0.01);
    }
}
