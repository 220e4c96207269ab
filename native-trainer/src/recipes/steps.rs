//! The steps of recipes, each a child process or several; what is finished is found and kept.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use qloom_core::evaluation::{Measured, Statistics};
use qloom_core::weights::sha256_hex;
use serde_json::{Map, Value, json};
use toml::Table;

use super::Merge;
use super::kitchen::{Kitchen, Model, Role};
use crate::commands::sweep;
use crate::files::{atomic, jsonl, read_text};
use crate::progress::interrupt::Interrupt;
use crate::runs::child;
use crate::runs::planned::{Planned, folder_name, in_folder};
use crate::runs::spec;

/// Scores of one model on one category; `category` is empty for all rows.
#[derive(Clone, Debug)]
pub(crate) struct Scored {
    pub(crate) model: String,
    pub(crate) category: String,
    pub(crate) examples: usize,
    pub(crate) metrics: Map<String, Value>,
}

impl Scored {
    /// As `metrics.json` has it; no category where it is of all rows.
    pub(crate) fn to_json(&self) -> Value {
        let category = (!self.category.is_empty()).then_some(&self.category);
        json!({ "model": self.model, "category": category, "examples": self.examples, "metrics": self.metrics })
    }
}

/// One run of the configuration as it stands.
pub(super) fn train(kitchen: &mut Kitchen) -> Result<()> {
    let out = kitchen.site.out.clone();
    let run = Planned::new(
        "adapter".to_owned(),
        Vec::new(),
        kitchen.config.clone(),
        &out,
    )?;
    make(kitchen, vec![run], |_| Role::Single)
}

/// Several runs over it.
pub(super) fn sweep(
    kitchen: &mut Kitchen,
    list: &[Table],
    grid: &Table,
    values: &Table,
) -> Result<()> {
    let mut own = Table::new();
    let list = list.iter().cloned().map(toml::Value::Table).collect();
    own.insert("run".into(), toml::Value::Array(list));
    own.insert("grid".into(), toml::Value::Table(grid.clone()));
    own.insert("values".into(), toml::Value::Table(values.clone()));
    let mut table = kitchen.table.clone();
    table.insert("sweep".into(), toml::Value::Table(own));
    let out = kitchen.site.out.clone();
    // Paths in the table are written as they are from here.
    let runs = spec::plan(
        table,
        &kitchen.recipe.title,
        Path::new("recipe.toml"),
        &[],
        &out,
    )?;
    make(kitchen, runs, |_| Role::Single)
}

/// A run on all rows, and one on each category's.
pub(super) fn categories(kitchen: &mut Kitchen) -> Result<()> {
    ensure!(
        !kitchen.prepared.categories.is_empty(),
        "this recipe needs rows with a category in a file here: give --data FILE, or --small for generated ones"
    );
    let out = kitchen.site.out.clone();
    let label = |name: &str| vec![("data.train".to_owned(), name.to_owned())];
    let mut runs = vec![Planned::new(
        "full".to_owned(),
        label("all rows"),
        kitchen.config.clone(),
        &out,
    )?];
    for (category, file) in &kitchen.prepared.categories {
        let mut config = kitchen.config.clone();
        config.data.train = vec![file.display().to_string()];
        runs.push(Planned::new(
            category.clone(),
            label(category),
            config,
            &out,
        )?);
    }
    make(kitchen, runs, |index| {
        if index == 0 {
            Role::Full
        } else {
            Role::Category
        }
    })
}

/// Makes the runs; here a failure ends the recipe, since later steps need them all.
fn make(kitchen: &mut Kitchen, runs: Vec<Planned>, role: impl Fn(usize) -> Role) -> Result<()> {
    let experiments = sweep::all(&kitchen.site, &kitchen.recipe.title, &runs)?;
    sweep::fail_for(&experiments)?;
    kitchen
        .models
        .extend(runs.iter().enumerate().map(|(index, run)| Model {
            name: run.name.clone(),
            role: role(index),
            adapter: run.folder().join("adapter"),
        }));
    kitchen.experiments = Some(experiments);
    Ok(())
}

/// Merges the category adapters by every method.
pub(super) fn merge(kitchen: &mut Kitchen, methods: &[Merge]) -> Result<()> {
    let parts: Vec<Model> = kitchen
        .models
        .iter()
        .filter(|m| m.role == Role::Category)
        .cloned()
        .collect();
    let adapters: Vec<String> = parts
        .iter()
        .map(|m| m.adapter.display().to_string())
        .collect();
    for way in methods {
        let name = match way.density {
            Some(density) => format!("merged {} {density}", way.method),
            None => format!("merged {}", way.method),
        };
        let weight = way.weight.unwrap_or(1.0 / adapters.len().max(1) as f64);
        let weights = vec![weight.to_string(); adapters.len()].join(",");
        let identity = short_hash(&json!([adapters, way.method, way.density, weight]));
        let out = in_folder(
            &kitchen.site.out,
            "merged",
            &format!("{}-{identity}", folder_name(&name)),
        )?;
        if !out.join("adapter_config.json").is_file() {
            eprintln!("== {name}");
            let mut arguments = vec!["merge".to_owned(), "--adapters".to_owned()];
            arguments.extend(adapters.iter().cloned());
            arguments.extend(["--weights", &weights, "--method", &way.method].map(str::to_owned));
            if let Some(density) = way.density {
                arguments.extend(["--density".to_owned(), density.to_string()]);
            }
            arguments.extend(["--out".to_owned(), out.display().to_string()]);
            child::run(&arguments, None, &kitchen.log(&folder_name(&name))?)?.output(&name)?;
        }
        kitchen.models.push(Model {
            name,
            role: Role::Merged,
            adapter: out,
        });
    }
    Ok(())
}

/// Answers of base and adapters to the held-out prompts, joined in one table.
pub(super) fn generate(kitchen: &mut Kitchen, max_new_tokens: usize) -> Result<()> {
    let Some(eval) = kitchen.prepared.eval.clone() else {
        bail!(
            "this recipe answers held-out prompts, which are a file only with --small or with --data FILE"
        );
    };
    let held = jsonl::read_rows(&eval)?;
    let column = kitchen.recipe.data.category.clone();
    for model in kitchen.models.clone() {
        eprintln!("== answers of {}", model.name);
        // Every adapter is answered against the same base: its answers come with the first.
        let with_base = kitchen.answers.is_empty();
        let rows = answers_of(kitchen, &model, &eval, max_new_tokens, with_base)?;
        ensure!(
            rows.len() == held.len(),
            "{} answers to {} prompts; delete {} and run the recipe again",
            rows.len(),
            held.len(),
            kitchen.path("answers").display()
        );
        if with_base {
            kitchen.answers = rows
                .iter()
                .zip(&held)
                .map(|(row, held)| first_columns(row, held, column.as_deref()))
                .collect();
        }
        for (all, row) in kitchen.answers.iter_mut().zip(rows) {
            let answer = row.get("adapted").cloned().unwrap_or_default();
            all.insert(model.name.clone(), answer);
        }
    }
    let lines: String = kitchen
        .answers
        .iter()
        .map(|row| format!("{}\n", Value::Object(row.clone())))
        .collect();
    atomic::write_file(&kitchen.path("answers.jsonl"), lines.as_bytes())
}

/// Prompt, reference, category, and the base's answer.
fn first_columns(
    row: &Map<String, Value>,
    held: &Map<String, Value>,
    category: Option<&str>,
) -> Map<String, Value> {
    let mut all = Map::new();
    for (key, from) in [("prompt", "question"), ("reference", "reference")] {
        all.insert(key.to_owned(), row.get(from).cloned().unwrap_or_default());
    }
    if let Some(column) = category {
        all.insert(
            "category".to_owned(),
            held.get(column).cloned().unwrap_or_default(),
        );
    }
    all.insert(
        "base".to_owned(),
        row.get("base").cloned().unwrap_or_default(),
    );
    all
}

fn answers_of(
    kitchen: &Kitchen,
    model: &Model,
    eval: &Path,
    max_new_tokens: usize,
    with_base: bool,
) -> Result<Vec<Map<String, Value>>> {
    let config = &kitchen.config;
    let eval = eval.display().to_string();
    let folder = model.adapter.display().to_string();
    let identity = json!([
        folder,
        config.model,
        config.data.system,
        read_text(Path::new(&eval))?,
        max_new_tokens,
        with_base
    ]);
    let name = format!(
        "{}-{}.jsonl",
        folder_name(&model.name),
        short_hash(&identity)
    );
    let out = in_folder(&kitchen.site.out, "answers", &name)?;
    if !out.is_file() {
        let mut arguments = vec!["generate".to_owned()];
        let mut flag =
            |name: &str, value: &str| arguments.extend([name.to_owned(), value.to_owned()]);
        if !config.model.base.is_empty() {
            flag("--base", &config.model.base);
        }
        flag("--adapter", &folder);
        flag("--quantization", &config.model.quantization);
        flag("--compute", &config.model.compute);
        flag("--data", &eval);
        if let Some(format) = config.data.format {
            flag("--format", format.name());
        }
        if let Some(system) = &config.data.system {
            flag("--system", system);
        }
        flag("--max-new-tokens", &max_new_tokens.to_string());
        flag("--batch-size", &config.eval.batch_size.max(8).to_string());
        flag("--device", &kitchen.site.device);
        flag("--out", &out.display().to_string());
        if !with_base {
            arguments.push("--no-base".to_owned());
        }
        let log = kitchen.log(&format!("generate-{}", folder_name(&model.name)))?;
        child::run(&arguments, None, &log)?.output(&format!("answers of {}", model.name))?;
    }
    jsonl::read_rows(&out)
}

/// The first digits of a hash.
fn short_hash(value: &Value) -> String {
    sha256_hex(value.to_string().as_bytes())
        .chars()
        .take(8)
        .collect()
}

/// Metrics of every model's answers, over all rows and per category.
pub(super) fn score(
    kitchen: &mut Kitchen,
    metrics: &[String],
    embedder: Option<&str>,
) -> Result<()> {
    let given = kitchen.order.embedder.clone();
    let embedder = given.or_else(|| embedder.filter(|_| !kitchen.order.small).map(str::to_owned));
    let wanted: Vec<&str> = metrics
        .iter()
        .map(String::as_str)
        .filter(|metric| *metric != "bertscore" || embedder.is_some())
        .collect();
    if wanted.len() < metrics.len() {
        kitchen.notes.push(
            "BERTScore was left out: it needs a BERT-class base, which the binary does not carry; give one with --embedder.".to_owned(),
        );
    }
    for model in kitchen.models.clone() {
        eprintln!("== scores of {}", model.name);
        let out = in_folder(&kitchen.site.out, "scores", &folder_name(&model.name))?;
        let pairs = kitchen.path("answers.jsonl").display().to_string();
        let mut arguments = vec!["score".to_owned(), "--json".to_owned()];
        let mut flag =
            |name: &str, value: &str| arguments.extend([name.to_owned(), value.to_owned()]);
        flag("--pairs", &pairs);
        flag("--metrics", &wanted.join(","));
        flag("--reference-column", "reference");
        flag("--prediction-column", "base");
        flag("--prediction-column", &model.name);
        if let Some(embedder) = embedder.as_ref().filter(|_| wanted.contains(&"bertscore")) {
            flag("--model", embedder);
        }
        flag("--device", &kitchen.site.device);
        flag("--out", &out.display().to_string());
        let log = kitchen.log(&format!("score-{}", folder_name(&model.name)))?;
        let shared = kitchen.path("base_scores");
        let said = child::run(&arguments, Some(&shared), &log)?
            .output(&format!("scores of {}", model.name))?;
        let said: Value = serde_json::from_str(&said).context("what trainer score printed")?;
        let first = kitchen.scores.is_empty();
        for name in ["base", model.name.as_str()] {
            if name == "base" && !first {
                continue;
            }
            let metrics = said[name].as_object().cloned().unwrap_or_default();
            kitchen.scores.push(Scored {
                model: name.to_owned(),
                category: String::new(),
                examples: kitchen.answers.len(),
                metrics,
            });
            let rows = by_category(&kitchen.answers, &out.join("per_example.csv"), name)?;
            kitchen.scores.extend(rows);
        }
        kitchen
            .comparisons
            .push((model.name, said["comparison"].clone()));
    }
    Ok(())
}

/// Means, with their intervals, over the prompts of each category, out of the scores of single answers.
fn by_category(answers: &[Map<String, Value>], file: &Path, model: &str) -> Result<Vec<Scored>> {
    let categories: Vec<Option<&str>> = answers
        .iter()
        .map(|row| row.get("category")?.as_str())
        .collect();
    if categories.iter().all(Option::is_none) {
        return Ok(Vec::new());
    }
    let text = read_text(file)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let prefix = format!("{model}_");
    let columns: Vec<(usize, String)> = reader
        .headers()?
        .iter()
        .enumerate()
        .filter_map(|(at, name)| Some((at, name.strip_prefix(&prefix)?.to_owned())))
        .collect();
    let mut values: BTreeMap<String, Vec<Vec<f64>>> = BTreeMap::new();
    for (row, category) in reader.records().zip(categories) {
        let row = row?;
        let entry = values
            .entry(category.unwrap_or("none").to_owned())
            .or_insert_with(|| vec![Vec::new(); columns.len()]);
        for (all, (at, name)) in entry.iter_mut().zip(&columns) {
            let cell = row.get(*at).unwrap_or_default();
            let value = cell.parse().with_context(|| {
                format!(
                    "{}: {cell:?} under {prefix}{name} is no number",
                    file.display()
                )
            })?;
            all.push(value);
        }
    }
    let statistics = Statistics::default();
    let mut scored = Vec::with_capacity(values.len());
    for (category, values) in values {
        let mut metrics = Map::new();
        for ((_, metric), values) in columns.iter().zip(&values) {
            let measured = Measured::mean(metric, values, false, &statistics)?;
            metrics.insert(metric.clone(), json!(measured.interval.estimate));
            metrics.insert(format!("{metric}_ci"), json!(measured.interval.bounds()));
        }
        scored.push(Scored {
            model: model.to_owned(),
            category,
            examples: values.first().map_or(0, Vec::len),
            metrics,
        });
    }
    Ok(scored)
}

/// Every adapter against the base before the judge. A judge that fails ends this step and not the recipe: answers and
/// scores are there, and what it said so far is kept.
pub(super) fn judge(kitchen: &mut Kitchen) -> Result<()> {
    if kitchen.order.judge.is_empty() {
        kitchen.notes.push(
            "No judge was asked: give --judge URL and --judge-model NAME for an OpenAI-compatible endpoint, or --judge-base \
             BASE for one on this machine."
                .to_owned(),
        );
        return Ok(());
    }
    let pairs = kitchen.path("answers.jsonl");
    let interrupt = Interrupt::install()?;
    for adapter in kitchen.models.clone() {
        eprintln!("== judging {} against the base", adapter.name);
        let out = in_folder(&kitchen.site.out, "judge", &folder_name(&adapter.name))?;
        let mut arguments = vec!["judge".to_owned(), "--json".to_owned()];
        arguments.extend(kitchen.order.judge.iter().cloned());
        let mut flag =
            |name: &str, value: &str| arguments.extend([name.to_owned(), value.to_owned()]);
        flag("--pairs", &pairs.display().to_string());
        flag("--a", "base");
        flag("--b", &adapter.name);
        flag("--device", &kitchen.site.device);
        flag("--out", &out.display().to_string());
        let log = kitchen.log(&format!("judge-{}", folder_name(&adapter.name)))?;
        let ended = child::run(&arguments, None, &log)?;
        if interrupt.requested() {
            bail!("interrupted; the same command continues where this one stopped");
        }
        let said = match ended.output(&adapter.name) {
            Ok(said) => said,
            Err(error) => {
                kitchen.broken = Some(format!(
                    "The judge was asked about {} of {} models and failed at {error:#}",
                    kitchen.verdicts.len(),
                    kitchen.models.len()
                ));
                return Ok(());
            }
        };
        let verdict = serde_json::from_str(&said).context("what trainer judge printed")?;
        kitchen.verdicts.push((adapter.name, verdict));
    }
    Ok(())
}
