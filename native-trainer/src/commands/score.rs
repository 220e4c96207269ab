//! `trainer score`.

use anyhow::{Context, Result};
use qloom_core::evaluation::{
    Baseline, BertScoreConfig, BleuConfig, BleuTokenizer, BootstrapConfig, ClassMetric, Measured,
    Predictions, SignificanceTest, Statistics, TextMetric, TextOptions, TextScores, bert_score,
    compare,
};
use serde_json::{Map, Value, json};

use super::eval::show;
use super::{Common, UsageError};
use crate::base::BaseFiles;
use crate::cli::{BertScoreArguments, ScoreArguments, StatisticsArguments, TextArguments};
use crate::files::read_text;
use crate::progress::{Mode, task};
use crate::report::board::{Board, Compared, Grid, comparison_json};
use crate::runs::child;
use crate::scoring::pairs::{self, Columns, Pairs};
use crate::scoring::{encoder, labels, metric_names};
use crate::session::base_scores;

/// BERTScore's three numbers.
const BERTSCORE: [&str; 3] = ["bertscore_precision", "bertscore_recall", "bertscore_f1"];

/// The metrics that can be asked for.
fn known_metrics() -> Vec<&'static str> {
    let text = TextMetric::ALL.map(TextMetric::name);
    let classes = ClassMetric::OF_CLASSES.map(ClassMetric::name);
    text.into_iter()
        .chain(["bertscore"])
        .chain(classes)
        .collect()
}

/// Scores the predictions of a file.
pub(super) fn run(common: &Common, arguments: ScoreArguments) -> Result<()> {
    let metrics = metric_names(&arguments.metrics, &known_metrics())
        .map_err(|e| UsageError::new(e.to_string()))?;
    let statistics = statistics(&arguments.statistics)?;
    let options = text_options(&arguments.text)?;
    if arguments.prediction_column.len() > 2 {
        return Err(UsageError::new(
            "--prediction-column may be given twice at most: a base and its adapted model",
        )
        .into());
    }
    let pairs = read(&arguments)?;
    let scorer = Scorer {
        common,
        arguments: &arguments,
        metrics,
        statistics,
        options,
        pairs,
    };
    let board = scorer.board()?;
    show(common, &board, arguments.out.as_deref())
}

struct Scorer<'a> {
    common: &'a Common,
    arguments: &'a ScoreArguments,
    metrics: Vec<String>,
    statistics: Statistics,
    options: TextOptions,
    pairs: Pairs,
}

/// What one model's predictions came to.
#[derive(Default)]
struct Scored {
    measured: Vec<Measured>,
    classes: Option<Predictions>,
}

impl Scorer<'_> {
    fn board(&self) -> Result<Board> {
        let scored: Vec<Scored> = self
            .pairs
            .models
            .iter()
            .map(|(name, predictions)| self.score(name, predictions))
            .collect::<Result<_>>()?;
        let rows: Vec<Compared> = match &scored[..] {
            [base, adapted] => compare(&base.measured, &adapted.measured, &self.statistics)?,
            others => others
                .iter()
                .flat_map(|s| s.measured.iter().map(Measured::alone))
                .collect(),
        };
        let models: Vec<String> = self
            .pairs
            .models
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        let with_classes = models.iter().zip(&scored);
        let matrices = with_classes
            .filter_map(|(name, scored)| Some(labels::matrix_of(name, scored.classes.as_ref()?)))
            .collect::<Result<_>>()?;
        Ok(Board {
            title: "scores".to_owned(),
            examples: self.pairs.references.len(),
            matrices,
            per_example: self.per_example(&scored),
            json: self.json(&scored, &rows)?,
            models,
            rows,
        })
    }

    fn score(&self, name: &str, predictions: &[String]) -> Result<Scored> {
        let mut scored = Scored::default();
        for metric in &self.metrics {
            if let Some(metric) = TextMetric::from_name(metric) {
                let scores = metric.score(predictions, &self.pairs.references, &self.options)?;
                let measured = Measured::text(metric.name(), scores, &self.statistics)?;
                scored.measured.push(measured);
            } else if let Some(metric) = ClassMetric::from_name(metric) {
                let classes = match scored.classes.take() {
                    Some(classes) => classes,
                    None => self.classes(predictions)?,
                };
                let measured = Measured::classes("", metric, &classes, &self.statistics)?;
                scored.measured.push(measured);
                scored.classes = Some(classes);
            } else {
                scored.measured.extend(self.bertscore(name, predictions)?);
            }
        }
        Ok(scored)
    }

    /// Labels read from the predictions; the first reference is the one that counts.
    fn classes(&self, predictions: &[String]) -> Result<Predictions> {
        let references: Vec<String> = self
            .pairs
            .references
            .iter()
            .filter_map(|r| r.first().cloned())
            .collect();
        let labels = labels::label_set(&self.arguments.labels, &references)?;
        let place = |i: usize| self.pairs.places.get(i).cloned().unwrap_or_default();
        let gold = labels::gold_classes(&labels, &references, place)?;
        labels::read_answers(&labels, gold, predictions)
    }

    fn bertscore(&self, name: &str, predictions: &[String]) -> Result<Vec<Measured>> {
        let given = &self.arguments.bertscore;
        let model = given.model.as_ref().ok_or_else(|| {
            UsageError::new(
                "bertscore needs --model with a BERT-class base (see trainer score --help)",
            )
        })?;
        let config = BertScoreConfig {
            idf: given.idf,
            baseline: baseline(given)?,
        };
        let measure = || -> Result<Vec<[f32; 3]>> {
            let embedder = encoder::open(model, given.layer, &self.common.device)?;
            let total = predictions.len() as u64;
            let label = format!("bertscore, {name}");
            let mut bar = task::Task::start(Mode::detect(false), &label, total, task::Unit::Items);
            let progress = |done: usize| bar.at(done as u64);
            let references = &self.pairs.references;
            let scores = bert_score(
                embedder.as_ref(),
                predictions,
                references,
                &config,
                progress,
            )?;
            bar.finish();
            let numbers = scores.iter().map(|s| [s.precision, s.recall, s.f1]);
            Ok(numbers.collect())
        };
        // The same predictions come again where a recipe scores its base beside every adapter.
        let base = child::base_scores().map(|_| BaseFiles::open(&model.to_string_lossy()));
        let fingerprint = base.transpose()?.map(|b| b.fingerprint()).transpose()?;
        let parts = json!([
            "bertscore",
            fingerprint,
            given.layer,
            config.idf,
            given.baseline.as_deref().map(read_text).transpose()?,
            predictions,
            self.pairs.references,
            self.common.device
        ]);
        let scores = base_scores::shared(&parts, measure)?;
        BERTSCORE
            .into_iter()
            .enumerate()
            .map(|(part, key)| {
                let values = scores.iter().map(|s| f64::from(s[part]));
                let measured = Measured::text(key, TextScores::mean(values), &self.statistics)?;
                // F1 is the score; the other two are there to read it by.
                Ok(if part < 2 {
                    measured.hidden()
                } else {
                    measured
                })
            })
            .collect()
    }

    fn json(&self, scored: &[Scored], rows: &[Compared]) -> Result<Value> {
        let mut out = Map::new();
        for ((name, _), scored) in self.pairs.models.iter().zip(scored) {
            let mut side = Map::new();
            for measured in &scored.measured {
                side.insert(measured.key.clone(), json!(measured.interval.estimate));
                side.insert(
                    format!("{}_ci", measured.key),
                    json!(measured.interval.bounds()),
                );
            }
            if let Some(classes) = &scored.classes {
                side.extend(labels::class_facts(classes)?);
            }
            out.insert(name.clone(), Value::Object(side));
        }
        if scored.len() > 1 {
            out.insert(
                "comparison".to_owned(),
                Value::Object(comparison_json(rows)),
            );
        }
        out.insert("examples".to_owned(), json!(self.pairs.references.len()));
        if self.metrics.iter().any(|m| m == "bleu") {
            let mut counts = self.pairs.references.iter().map(Vec::len);
            let first = counts.next();
            let same = first.filter(|n| counts.all(|m| m == *n));
            out.insert(
                "bleu_signature".to_owned(),
                json!(self.options.bleu.signature(same)),
            );
        }
        if self.metrics.iter().any(|m| m.starts_with("rouge")) {
            out.insert("rouge_stemmer".to_owned(), json!(self.options.stemmer));
        }
        Ok(Value::Object(out))
    }

    fn per_example(&self, scored: &[Scored]) -> Grid {
        let mut header = Vec::new();
        let mut columns: Vec<Vec<String>> = Vec::new();
        let mut put = |name: &str, column: Vec<String>| {
            header.push(name.to_owned());
            columns.push(column);
        };
        if let Some(prompts) = &self.pairs.prompts {
            put("prompt", prompts.clone());
        }
        put(
            "reference",
            self.pairs
                .references
                .iter()
                .map(|r| r.join(" | "))
                .collect(),
        );
        for (name, predictions) in &self.pairs.models {
            put(name, predictions.clone());
        }
        for ((name, _), scored) in self.pairs.models.iter().zip(scored) {
            if let Some(classes) = &scored.classes {
                let right = classes.correct().iter().map(bool::to_string).collect();
                put(&format!("{name}_correct"), right);
            }
            for measured in &scored.measured {
                if let Some(values) = measured.per_example() {
                    let cells = values.iter().map(f64::to_string).collect();
                    put(&format!("{name}_{}", measured.key), cells);
                }
            }
        }
        let rows = (0..self.pairs.references.len())
            .map(|i| {
                columns
                    .iter()
                    .map(|c| c.get(i).cloned().unwrap_or_default())
                    .collect()
            })
            .collect();
        Grid { header, rows }
    }
}

fn read(arguments: &ScoreArguments) -> Result<Pairs> {
    match (
        &arguments.pairs,
        &arguments.predictions,
        &arguments.references,
    ) {
        (Some(path), _, _) => pairs::read_rows(
            path,
            &Columns {
                predictions: arguments.prediction_column.clone(),
                reference: arguments.reference_column.clone(),
            },
        ),
        (None, Some(predictions), Some(references)) => pairs::read_lines(predictions, references),
        _ => Err(
            UsageError::new("trainer score needs --pairs, or --predictions and --references")
                .into(),
        ),
    }
}

fn statistics(flags: &StatisticsArguments) -> Result<Statistics> {
    if flags.resamples == 0 {
        return Err(UsageError::new("--resamples 0: expected at least 1; 1000 is usual").into());
    }
    if !(flags.level > 0.0 && flags.level < 1.0) {
        return Err(UsageError::new(format!(
            "--level {}: expected a number between 0 and 1",
            flags.level
        ))
        .into());
    }
    Ok(Statistics {
        bootstrap: BootstrapConfig {
            n_resamples: flags.resamples,
            level: flags.level,
            seed: flags.seed,
        },
        test: match flags.test.as_str() {
            "randomization" => SignificanceTest::Randomization,
            _ => SignificanceTest::Bootstrap,
        },
    })
}

fn text_options(flags: &TextArguments) -> Result<TextOptions> {
    let tokenizer = BleuTokenizer::from_name(&flags.bleu_tokenizer)
        .with_context(|| format!("no BLEU tokenizer {}", flags.bleu_tokenizer))?;
    Ok(TextOptions {
        bleu: BleuConfig {
            tokenizer,
            lowercase: flags.bleu_lowercase,
            ..BleuConfig::default()
        },
        stemmer: flags.stemmer,
    })
}

fn baseline(given: &BertScoreArguments) -> Result<Option<Baseline>> {
    let (Some(path), Some(layer)) = (&given.baseline, given.layer) else {
        return Ok(None);
    };
    let parsed = Baseline::parse(&read_text(path)?, layer);
    parsed.with_context(|| path.display().to_string()).map(Some)
}
