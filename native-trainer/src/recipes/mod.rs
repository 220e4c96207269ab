//! Recipes: known experiments, each one command from its data to its tables.
//!
//! A recipe is a run's configuration with a `[recipe]` table beside it: what `--small` changes, where data come from,
//! and a list of steps. The steps run this binary's other commands as child processes, so a recipe does nothing that
//! its user could not type. What is finished is not done again.

pub(crate) mod data;
pub(crate) mod kitchen;
mod steps;
mod tables;

use std::path::Path;

use anyhow::Result;
use serde::Deserialize;
use toml::Table;

use crate::commands::UsageError;
use crate::config;
use crate::files::read_text;

/// The recipes inside the binary: name and text.
const EMBEDDED: [(&str, &str); 5] = [
    (
        "tweet_sentiment",
        include_str!("../../recipes/tweet_sentiment.toml"),
    ),
    (
        "sst2_methods",
        include_str!("../../recipes/sst2_methods.toml"),
    ),
    (
        "dolly_sizes",
        include_str!("../../recipes/dolly_sizes.toml"),
    ),
    (
        "category_merge",
        include_str!("../../recipes/category_merge.toml"),
    ),
    ("alpaca_1k", include_str!("../../recipes/alpaca_1k.toml")),
];

/// How a recipe's own keys begin, as opposed to its run's.
pub(crate) const OWN: &str = "recipe.";

/// The `[recipe]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    /// What it is called on its tables.
    pub(crate) title: String,
    /// What it does, in a sentence.
    pub(crate) about: String,
    /// Where data come from.
    pub(crate) data: data::Source,
    /// Keys that `--small` sets instead; `false` takes a key out.
    #[serde(default)]
    pub(crate) small: Table,
    /// What there is to know of the results at `--small`.
    pub(crate) small_note: Option<String>,
    /// What is done, in order.
    pub(crate) step: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Step {
    /// One run: the recipe's configuration as it stands.
    Train,
    /// Several runs over it, as in a sweep file.
    Sweep {
        /// The list.
        #[serde(default)]
        run: Vec<Table>,
        /// The list at `--small`, where it differs.
        #[serde(default)]
        small: Vec<Table>,
        /// The grid.
        #[serde(default)]
        grid: Table,
        /// Named values.
        #[serde(default)]
        values: Table,
    },
    /// A run on all rows, and one on each category found in the data.
    Categories,
    /// Merges the category adapters, once for each method.
    Merge {
        /// `linear`, `ties`, ...
        method: Vec<Merge>,
    },
    /// Answers of the base and every adapter to the held-out prompts.
    Generate {
        /// Longest answer.
        max_new_tokens: usize,
    },
    /// Metrics over the answers.
    Score {
        /// `bleu`, `rouge`, `bertscore`, ...
        metrics: Vec<String>,
        /// The BERT-class base of BERTScore.
        embedder: Option<String>,
    },
    /// Every adapter against the base before a judge.
    Judge,
    /// The tables.
    Table {
        /// Which.
        kind: Kind,
    },
}

/// A way of merging.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Merge {
    /// As `trainer merge --method` has it.
    pub(crate) method: String,
    /// Share of values kept.
    pub(crate) density: Option<f64>,
    /// Weight of each adapter; the mean of all (one over their number) when absent. TIES divides by itself.
    pub(crate) weight: Option<f64>,
}

/// Tables a recipe can end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Accuracy, macro-F1 and each class, base against adapted.
    Classification,
    /// The runs of a sweep.
    Experiments,
    /// Every model's scores, by category.
    Categories,
    /// Text metrics, loss curve and samples, before against after.
    Generation,
}

/// Names, with what each does.
pub(crate) fn list() -> Result<Vec<(String, String)>> {
    EMBEDDED
        .iter()
        .map(|(name, text)| Ok(((*name).to_owned(), parse(text, name)?.1.about)))
        .collect()
}

/// A recipe's name and text: one of the binary's own, or a file.
pub(crate) fn text(name: &str) -> Result<(String, String)> {
    if let Some((known, text)) = EMBEDDED.iter().find(|(known, _)| *known == name) {
        return Ok(((*known).to_owned(), (*text).to_owned()));
    }
    let path = Path::new(name);
    if path.is_file() {
        let stem = path
            .file_stem()
            .map_or("recipe".into(), |s| s.to_string_lossy());
        return Ok((stem.into_owned(), read_text(path)?));
    }
    let known: Vec<&str> = EMBEDDED.iter().map(|(name, _)| *name).collect();
    Err(UsageError::new(format!(
        "{name} is no recipe and no file; recipes: {}",
        known.join(", ")
    ))
    .into())
}

/// A run's configuration, still as a table, and the recipe beside it.
pub(crate) fn parse(text: &str, name: &str) -> Result<(Table, Recipe)> {
    parse_with(text, name, &[])
}

/// The same with those of `overrides` that are the recipe's own (`recipe.data.rows=[100,20]`).
pub(crate) fn parse_with(text: &str, name: &str, overrides: &[String]) -> Result<(Table, Recipe)> {
    let mut table = config::parse_table(text, name)?;
    for item in overrides.iter().filter(|item| item.starts_with(OWN)) {
        config::apply(&mut table, item)?;
    }
    let own = table
        .remove("recipe")
        .ok_or_else(|| UsageError::new(format!("{name}: no [recipe] table")))?;
    let recipe: Recipe = own
        .try_into()
        .map_err(|e: toml::de::Error| UsageError::new(format!("{name}: [recipe]: {e}")))?;
    Ok((table, recipe))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_is_a_valid_run_at_both_scales() {
        for (name, text) in EMBEDDED {
            let (mut table, recipe) = parse(text, name).unwrap();
            config::from_table(table.clone(), name).unwrap();
            kitchen::shrink(&mut table, &recipe).unwrap();
            let small = config::from_table(table, name).unwrap();
            assert!(
                small.model.base.is_empty(),
                "{name}: --small is on the embedded base"
            );
        }
    }

    #[test]
    fn a_recipe_must_exist() {
        let error = text("tweets").unwrap_err().to_string();
        assert!(error.contains("tweet_sentiment"), "{error}");
        assert_eq!(list().unwrap().len(), 5);
    }
}
