//! Following a recipe: its configuration at the scale asked for, its data, its check, its steps.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use toml::Table;

use super::data::{self, Prepared};
use super::{OWN, Recipe, Step, parse_with, steps, tables};
use crate::config::{self, RunConfig};
use crate::files::atomic;
use crate::runs::child;
use crate::runs::experiments::Experiments;
use crate::runs::planned::{Site, in_folder};

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    /// `--small`.
    pub(crate) small: bool,
    /// `--base`.
    pub(crate) base: Option<String>,
    /// `--data`.
    pub(crate) data: Option<String>,
    /// `--set`.
    pub(crate) set: Vec<String>,
    /// `--prepare`.
    pub(crate) prepare: bool,
    /// Flags that name a judge to `trainer judge`; empty for none.
    pub(crate) judge: Vec<String>,
    /// A BERT-class base for BERTScore.
    pub(crate) embedder: Option<String>,
}

/// What a model of a recipe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Trained on all rows.
    Full,
    /// Trained on one category.
    Category,
    /// Merged from those.
    Merged,
    /// The only one.
    Single,
}

/// An adapter a step made.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) adapter: PathBuf,
}

/// A recipe being followed.
#[derive(Debug)]
pub(crate) struct Kitchen {
    pub(crate) recipe: Recipe,
    /// The run's configuration.
    pub(crate) table: Table,
    pub(crate) config: RunConfig,
    /// `run.toml`, written out.
    pub(crate) file: PathBuf,
    pub(crate) site: Site,
    pub(crate) order: Order,
    pub(crate) prepared: Prepared,
    /// Adapters made so far.
    pub(crate) models: Vec<Model>,
    /// Runs made so far.
    pub(crate) experiments: Option<Experiments>,
    /// Answers to the held-out prompts: a row per prompt, a column per model.
    pub(crate) answers: Vec<serde_json::Map<String, Value>>,
    /// Scores: model, category (empty for all), object of metrics.
    pub(crate) scores: Vec<steps::Scored>,
    /// Base against each model, with tests: model, object.
    pub(crate) comparisons: Vec<(String, Value)>,
    /// Verdicts: model, object.
    pub(crate) verdicts: Vec<(String, Value)>,
    /// What was left out, and why.
    pub(crate) notes: Vec<String>,
    /// Why a step that nothing else needs broke off; the tables are written without what it did not get to.
    pub(crate) broken: Option<String>,
}

/// Sets what `--small` sets.
pub(crate) fn shrink(table: &mut Table, recipe: &Recipe) -> Result<()> {
    for (key, value) in &recipe.small {
        let absent = value.as_bool() == Some(false) && key != "data.packing";
        config::set(table, key, (!absent).then(|| value.clone()))?;
    }
    Ok(())
}

/// Follows the recipe in `text` to its end; returns the report that was written to `results.md`.
pub(crate) fn follow(name: &str, text: &str, site: Site, order: Order) -> Result<Kitchen> {
    let (mut table, recipe) = parse_with(text, name, &order.set)?;
    if order.small {
        shrink(&mut table, &recipe)?;
    }
    if let Some(base) = &order.base {
        config::set(&mut table, "model.base", Some(base.clone().into()))?;
    }
    for item in order.set.iter().filter(|item| !item.starts_with(OWN)) {
        config::apply(&mut table, item)?;
    }
    std::fs::create_dir_all(&site.out)
        .with_context(|| format!("cannot create {}", site.out.display()))?;
    let answer = recipe.step.iter().find_map(|step| match step {
        Step::Generate { max_new_tokens } => Some(*max_new_tokens),
        _ => None,
    });
    let prepared = data::prepare(&recipe.data, &mut table, &order, answer, &site.out)?;
    let config = config::from_table(table.clone(), name)?;
    let file = site.out.join("run.toml");
    let text = toml::to_string_pretty(&config)?;
    atomic::write_file(&file, text.as_bytes())?;
    let mut kitchen = Kitchen {
        recipe,
        table,
        config,
        file,
        site,
        order,
        prepared,
        models: Vec::new(),
        experiments: None,
        answers: Vec::new(),
        scores: Vec::new(),
        comparisons: Vec::new(),
        verdicts: Vec::new(),
        notes: Vec::new(),
        broken: None,
    };
    if kitchen.prepared.too_long > 0 {
        kitchen.notes.push(format!(
            "{} rows of the data were left out before any were chosen: they, or their prompt with an answer, are too long for \
             data.max_length or the base's context.",
            kitchen.prepared.too_long
        ));
    }
    kitchen.check()?;
    if !kitchen.order.prepare {
        kitchen.cook()?;
    }
    Ok(kitchen)
}

impl Kitchen {
    /// The pre-flight check, in a child; stops at errors.
    fn check(&self) -> Result<()> {
        let arguments = [
            "check",
            &self.file.display().to_string(),
            "--json",
            "--device",
            &self.site.device,
        ];
        let ended = child::run(&arguments, None, &self.log("check")?)?;
        let report: Value = match serde_json::from_str(&ended.stdout) {
            Ok(report) => report,
            Err(_) => bail!("the pre-flight check did not run: {}", ended.error),
        };
        atomic::write_file(&self.site.out.join("check.json"), ended.stdout.as_bytes())?;
        for finding in report["findings"].as_array().into_iter().flatten() {
            let part = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            eprintln!(
                "check, {}: {} ({}): {} {}",
                part("severity"),
                part("id"),
                part("where"),
                part("what"),
                part("fix")
            );
        }
        match ended.success {
            true => Ok(()),
            false => bail!(
                "the pre-flight check found what would make the runs worthless; nothing was trained"
            ),
        }
    }

    fn cook(&mut self) -> Result<()> {
        let all = self.recipe.step.clone();
        for (index, step) in all.iter().enumerate() {
            eprintln!("=== step {} of {}: {}", index + 1, all.len(), step.name());
            match step {
                Step::Train => steps::train(self)?,
                Step::Sweep {
                    run,
                    small,
                    grid,
                    values,
                } => {
                    let list = if self.order.small && !small.is_empty() {
                        small
                    } else {
                        run
                    };
                    steps::sweep(self, list, grid, values)?;
                }
                Step::Categories => steps::categories(self)?,
                Step::Merge { method } => steps::merge(self, method)?,
                Step::Generate { max_new_tokens } => steps::generate(self, *max_new_tokens)?,
                Step::Score { metrics, embedder } => {
                    steps::score(self, metrics, embedder.as_deref())?
                }
                Step::Judge => steps::judge(self)?,
                Step::Table { kind } => tables::write(self, *kind)?,
            }
        }
        Ok(())
    }

    /// The log of a child.
    pub(crate) fn log(&self, name: &str) -> Result<PathBuf> {
        in_folder(&self.site.out, "logs", &format!("{name}.log"))
    }

    /// Where the report is.
    pub(crate) fn results(&self) -> PathBuf {
        self.site.out.join("results.md")
    }

    /// A file of the recipe's folder.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.site.out.join(name)
    }
}

impl Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Sweep { .. } => "runs",
            Self::Categories => "an adapter on all rows, and one per category",
            Self::Merge { .. } => "merge",
            Self::Generate { .. } => "answers",
            Self::Score { .. } => "scores",
            Self::Judge => "judge",
            Self::Table { .. } => "tables",
        }
    }
}
