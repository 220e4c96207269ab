//! The tables of several runs: on the terminal, `experiments.md`, `experiments.csv`, `metrics.json`, and the plot.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::aggregate::{OverPrompts, OverSeeds, over_prompts, over_seeds};
use super::record::{Record, keys, lower_is_better, metrics, score, short};
use crate::files::atomic;
use crate::report::side_by_side::{self, Bar, Panel};
use crate::report::{markdown, numbers, table};

/// Most bars that a picture can show legibly.
const MOST_BARS: usize = 60;

/// Columns of what a run cost; the last ones of the table.
const COST: [&str; 5] = ["trainable", "adapter", "peak memory", "tokens/s", "time"];

/// Several runs, ready to be shown.
#[derive(Debug)]
pub(crate) struct Experiments {
    /// What the page is called.
    pub(crate) title: String,
    records: Vec<Record>,
    metrics: Vec<String>,
    keys: Vec<String>,
    seeds: Vec<OverSeeds>,
    prompts: Vec<OverPrompts>,
}

impl Experiments {
    /// Of runs that are over.
    pub(crate) fn new(title: &str, records: Vec<Record>) -> Self {
        let metrics = metrics(&records);
        Self {
            title: title.to_owned(),
            keys: keys(&records),
            seeds: over_seeds(&records, &metrics),
            prompts: over_prompts(&records, &metrics),
            metrics,
            records,
        }
    }

    /// Every run with its scores and cost.
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    /// `metrics.json`: every run, and the tables over seeds and prompts.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "runs": self.records, "seeds": self.seeds, "prompts": self.prompts })
    }

    /// Writes all of it into `out`; `table` names the table's file (`experiments` or `experiment_table`).
    pub(crate) fn write(&self, out: &Path, table: &str) -> Result<()> {
        atomic::write_file(&out.join(format!("{table}.md")), self.markdown().as_bytes())?;
        atomic::write_file(&out.join(format!("{table}.csv")), self.csv()?.as_slice())?;
        let json = serde_json::to_vec_pretty(&self.to_json())?;
        atomic::write_file(&out.join("metrics.json"), &json)?;
        let panels = self.panels();
        if !panels.is_empty() {
            side_by_side::write_png(&out.join(format!("{table}.png")), &self.title, &panels)?;
        }
        Ok(())
    }

    /// The tables for the terminal: scores and costs apart, since one table of both is too wide for it.
    pub(crate) fn terminal(&self, look: table::Look) -> String {
        let mut tables = self.tables();
        if !tables.is_empty() {
            let (title, header, rows) = tables.remove(0);
            let loss = header.iter().position(|cell| cell == "loss");
            let loss = loss.filter(|_| header.iter().any(|cell| cell == "perplexity"));
            let costs = header.len() - COST.len();
            let part = |keep: &dyn Fn(usize) -> bool| {
                let pick = |row: &Vec<String>| -> Vec<String> {
                    let kept = row.iter().enumerate().filter(|(at, _)| keep(*at));
                    kept.map(|(_, cell)| cell.clone()).collect()
                };
                (pick(&header), rows.iter().map(pick).collect::<Vec<_>>())
            };
            let (scores, score_rows) = part(&|at| at < costs && Some(at) != loss);
            let (cost, cost_rows) = part(&|at| at == 0 || at >= costs);
            let trained = cost_rows.into_iter().skip(self.bases().len()).collect();
            tables.insert(0, ("Cost".to_owned(), cost, trained));
            tables.insert(0, (title, scores, score_rows));
        }
        let shown: Vec<String> = tables
            .iter()
            .map(|(title, header, rows)| format!("{title}\n{}", table::grid(header, rows, look)))
            .collect();
        shown.join("\n\n")
    }

    fn markdown(&self) -> String {
        format!("# {}\n\n{}", self.title, self.sections())
    }

    /// The tables as markdown, without a title of their own.
    pub(crate) fn sections(&self) -> String {
        let mut text = String::new();
        for (title, header, rows) in self.tables() {
            text.push_str(&format!(
                "## {title}\n\n{}\n",
                markdown::table(&header, &rows)
            ));
        }
        text.push_str(
            "Scores are on the same held-out examples; brackets are bootstrap intervals over examples. Memory is the \
             process's peak while training, the base included. A resumed run's seconds are those since it was resumed.\n",
        );
        text
    }

    /// Title, header and rows of each table.
    fn tables(&self) -> Vec<(String, Vec<String>, Vec<Vec<String>>)> {
        let mut tables = vec![("Runs".to_owned(), self.header(), self.rows())];
        if !self.seeds.is_empty() {
            let header = [
                "runs with",
                "metric",
                "seeds",
                "mean ± deviation",
                "lowest to highest",
            ];
            let rows = self.seeds.iter().map(|row| {
                vec![
                    row.group.clone(),
                    row.metric.clone(),
                    row.runs.to_string(),
                    format!(
                        "{} ± {}",
                        numbers::score(row.mean),
                        numbers::score(row.deviation)
                    ),
                    format!(
                        "{} to {}",
                        numbers::score(row.range[0]),
                        numbers::score(row.range[1])
                    ),
                ]
            });
            tables.push(("Over seeds".to_owned(), owned(&header), rows.collect()));
        }
        if !self.prompts.is_empty() {
            let header = [
                "runs with",
                "model",
                "metric",
                "prompts",
                "best",
                "worst",
                "spread",
            ];
            let scored =
                |(name, value): &(String, f64)| format!("{} ({name})", numbers::score(*value));
            let rows = self.prompts.iter().map(|row| {
                vec![
                    row.group.clone(),
                    row.model.clone(),
                    row.metric.clone(),
                    row.prompts.to_string(),
                    scored(&row.best),
                    scored(&row.worst),
                    numbers::score(row.spread),
                ]
            });
            tables.push(("Over prompts".to_owned(), owned(&header), rows.collect()));
        }
        tables
    }

    fn header(&self) -> Vec<String> {
        std::iter::once("run".to_owned())
            .chain(self.keys.iter().map(|key| short(key).to_owned()))
            .chain(self.metrics.iter().cloned())
            .chain(owned(&COST))
            .collect()
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let mut rows: Vec<Vec<String>> = self.bases().iter().map(|r| self.base_row(r)).collect();
        rows.extend(self.records.iter().map(|record| {
            let mut row = vec![record.name.clone()];
            row.extend(
                self.keys
                    .iter()
                    .map(|key| record.label(key).unwrap_or("-").to_owned()),
            );
            row.extend(self.scores(&record.adapted));
            row.extend(cost_cells(record));
            if let Some(failure) = &record.failure {
                row[0] = format!("{} (failed: {failure})", record.name);
            }
            row
        }));
        rows
    }

    /// One record for each distinct base.
    fn bases(&self) -> Vec<&Record> {
        let mut found: Vec<&Record> = Vec::new();
        for record in self.records.iter().filter(|r| !r.base.is_empty()) {
            if !found.iter().any(|known| known.base == record.base) {
                found.push(record);
            }
        }
        found
    }

    /// `base`, with what its prompts differ by where there are several.
    fn base_name(&self, record: &Record) -> String {
        let several = self.bases().len() > 1;
        let labels = self
            .keys
            .iter()
            .filter(|key| several && decides_base(key, record));
        let labels = labels.filter_map(|key| record.label(key));
        std::iter::once("base")
            .chain(labels)
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn base_row(&self, record: &Record) -> Vec<String> {
        let several = self.bases().len() > 1;
        let mut row = vec!["base, not trained".to_owned()];
        row.extend(
            self.keys
                .iter()
                .map(|key| match several && decides_base(key, record) {
                    true => record.label(key).unwrap_or("-").to_owned(),
                    false => "-".to_owned(),
                }),
        );
        row.extend(self.scores(&record.base));
        row.extend(std::iter::repeat_n("-".to_owned(), COST.len()));
        row
    }

    fn scores(&self, of: &Map<String, Value>) -> Vec<String> {
        let cell = |metric: &String| match score(of, metric) {
            Some(score) => numbers::with_interval(score.value, score.interval),
            None => "-".to_owned(),
        };
        self.metrics.iter().map(cell).collect()
    }

    fn csv(&self) -> Result<Vec<u8>> {
        let mut out = csv::Writer::from_writer(Vec::new());
        let mut header: Vec<String> = owned(&["run", "model"]);
        header.extend(self.keys.iter().cloned());
        for metric in &self.metrics {
            header.extend([
                metric.clone(),
                format!("{metric}_low"),
                format!("{metric}_high"),
            ]);
        }
        header.extend(owned(&[
            "trainable_parameters",
            "adapter_bytes",
            "peak_memory_bytes",
            "tokens_per_s",
            "seconds",
            "steps",
            "failure",
            "folder",
        ]));
        out.write_record(&header)?;
        for record in self.bases() {
            out.write_record(self.csv_row(record, "base"))?;
        }
        for record in &self.records {
            out.write_record(self.csv_row(record, "adapted"))?;
        }
        Ok(out.into_inner()?)
    }

    fn csv_row(&self, record: &Record, model: &str) -> Vec<String> {
        let (name, scores) = match model {
            "base" => ("base", &record.base),
            _ => (record.name.as_str(), &record.adapted),
        };
        let mut row = owned(&[name, model]);
        row.extend(
            self.keys
                .iter()
                .map(|key| record.label(key).unwrap_or("").to_owned()),
        );
        for metric in &self.metrics {
            let found = score(scores, metric);
            let interval = found.and_then(|s| s.interval);
            let cells = [
                found.map(|s| s.value),
                interval.map(|i| i.0),
                interval.map(|i| i.1),
            ];
            row.extend(cells.map(|cell| cell.map_or(String::new(), |v| v.to_string())));
        }
        let cost = record.training.as_ref().filter(|_| model != "base");
        row.extend(match cost {
            Some(c) => vec![
                c.trainable_parameters.to_string(),
                c.adapter_bytes.to_string(),
                c.peak_memory_bytes.map_or(String::new(), |b| b.to_string()),
                c.tokens_per_s.to_string(),
                c.seconds.to_string(),
                c.steps.to_string(),
            ],
            None => vec![String::new(); 6],
        });
        row.push(record.failure.clone().unwrap_or_default());
        row.push(record.folder.clone());
        row
    }

    /// A panel per metric (but the loss, which perplexity shows): the bases, then the runs.
    fn panels(&self) -> Vec<Panel> {
        let shown = self.metrics.iter().filter(|m| *m != "loss");
        let panels = shown.take(4).map(|metric| {
            let bar = |name: String, scores: &Map<String, Value>, base: bool| {
                Some(Bar {
                    name,
                    score: score(scores, metric)?,
                    base,
                })
            };
            let bases = self.bases();
            let bases = bases
                .iter()
                .filter_map(|r| bar(self.base_name(r), &r.base, true));
            let runs = self
                .records
                .iter()
                .filter_map(|r| bar(r.name.clone(), &r.adapted, false));
            let better = if lower_is_better(metric) {
                "lower"
            } else {
                "higher"
            };
            Panel {
                title: format!("{metric} ({better} is better)"),
                bars: bases.chain(runs).take(MOST_BARS).collect(),
            }
        });
        panels.filter(|panel| !panel.bars.is_empty()).collect()
    }
}

/// Whether a base's scores depend on `key`: model and data, not how training goes; but an untrained head is drawn.
fn decides_base(key: &str, record: &Record) -> bool {
    let drawn = record.base.get("head").is_some() && key == "train.seed";
    key.starts_with("data.") && key != "data.seed" || key.starts_with("model.") || drawn
}

fn cost_cells(record: &Record) -> Vec<String> {
    let Some(cost) = &record.training else {
        return vec!["-".to_owned(); COST.len()];
    };
    let seconds = numbers::duration(Duration::from_secs_f64(cost.seconds.max(0.0)));
    vec![
        numbers::count(cost.trainable_parameters),
        match cost.sparsity {
            Some(share) => format!(
                "{} ({:.0} % sparse)",
                numbers::bytes(cost.adapter_bytes),
                100.0 * share
            ),
            None => numbers::bytes(cost.adapter_bytes),
        },
        cost.peak_memory_bytes
            .map_or("-".to_owned(), numbers::bytes),
        numbers::tokens_per_second(cost.tokens_per_s).replace(" tok/s", ""),
        if cost.resumed {
            format!("{seconds} (resumed)")
        } else {
            seconds
        },
    ]
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    fn experiments() -> Experiments {
        let run = |rank, seed, f1| record(&[("lora.rank", rank), ("train.seed", seed)], f1, 0.2);
        let mut failed = run("16", "2", 0.0);
        failed.failure = Some("step 3: the loss is not finite".into());
        failed.adapted = Map::new();
        failed.training = None;
        Experiments::new(
            "ranks",
            vec![
                run("8", "1", 0.5),
                run("8", "2", 0.7),
                run("16", "1", 0.9),
                failed,
            ],
        )
    }

    #[test]
    fn one_table_holds_quality_and_cost() {
        let text = experiments().markdown();
        assert!(
            text.contains("| run | rank | seed | macro_f1 | perplexity | trainable |"),
            "{text}"
        );
        assert!(
            text.contains("| base, not trained | - | - | 0.200 \\[0.150, 0.250\\]"),
            "{text}"
        );
        assert!(
            text.contains("12,288 | 50.0 KiB | 300.0 MiB | 1,234 | 12.5 s |"),
            "{text}"
        );
        assert!(text.contains("failed: step 3"), "{text}");
        assert!(
            text.contains("| rank 8 | macro_f1 | 2 | 0.600 ± 0.141 | 0.500 to 0.700 |"),
            "{text}"
        );
    }

    #[test]
    fn the_csv_has_a_row_per_run_and_one_for_the_shared_base() {
        let bytes = experiments().csv().unwrap();
        let mut reader = csv::Reader::from_reader(bytes.as_slice());
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 5);
        assert_eq!(&rows[0][1], "base");
        assert_eq!(
            (&rows[1][4], &rows[1][5], &rows[1][6]),
            ("0.5", "0.45", "0.55")
        );
    }

    #[test]
    fn everything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        experiments().write(dir.path(), "experiments").unwrap();
        for file in [
            "experiments.md",
            "experiments.csv",
            "metrics.json",
            "experiments.png",
        ] {
            assert!(dir.path().join(file).is_file(), "{file}");
        }
    }
}
