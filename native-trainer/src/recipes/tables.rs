//! What recipes end with: the table their experiment had when it was made by hand, and ours beside it.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Kind;
use super::kitchen::Kitchen;
use super::steps::Scored;
use crate::files::atomic;

mod categories;
mod classification;
mod generation;

/// Writes `results.md` and what belongs to it.
pub(super) fn write(kitchen: &mut Kitchen, kind: Kind) -> Result<()> {
    let body = match kind {
        Kind::Experiments => experiments(kitchen)?,
        Kind::Classification => classification::table(kitchen)?,
        Kind::Categories => categories::table(kitchen)?,
        Kind::Generation => generation::table(kitchen)?,
    };
    write_metrics(kitchen)?;
    let mut text = format!(
        "# {}\n\n{}\n\n{body}",
        kitchen.recipe.title, kitchen.recipe.about
    );
    if kitchen.order.small {
        text.push_str(
            "\nThis was the small scale: a check that every part works, on a model and data too small to say more.\n",
        );
        let own_base = kitchen.order.base.is_none();
        if let Some(note) = kitchen.recipe.small_note.as_ref().filter(|_| own_base) {
            text.push_str(&format!("\n{note}\n"));
        }
    }
    for note in kitchen.notes.iter().chain(&kitchen.broken) {
        text.push_str(&format!("\n{note}\n"));
    }
    atomic::write_file(&kitchen.results(), text.as_bytes())
}

/// Puts scores of answers and the judge's verdicts beside the runs in `metrics.json`.
fn write_metrics(kitchen: &Kitchen) -> Result<()> {
    let Some(experiments) = &kitchen.experiments else {
        return Ok(());
    };
    let mut all = experiments.to_json();
    if !kitchen.scores.is_empty() {
        all["answers"] = kitchen.scores.iter().map(Scored::to_json).collect();
        all["comparisons"] = pairs(&kitchen.comparisons);
    }
    if !kitchen.verdicts.is_empty() {
        all["judge"] = pairs(&kitchen.verdicts);
    }
    let json = serde_json::to_vec_pretty(&all)?;
    atomic::write_file(&kitchen.path("metrics.json"), &json)
}

fn pairs(all: &[(String, Value)]) -> Value {
    Value::Object(all.iter().cloned().collect())
}

fn experiments(kitchen: &Kitchen) -> Result<String> {
    let experiments = kitchen
        .experiments
        .as_ref()
        .context("this table needs runs before it")?;
    experiments.write(&kitchen.site.out, "experiment_table")?;
    Ok(format!(
        "{}\n![runs side by side](experiment_table.png)\n",
        experiments.sections()
    ))
}
