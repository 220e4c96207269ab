//! What recipes end with: the table their experiment had when it was made by hand, and ours beside it.

use anyhow::{Context, Result};

use super::Kind;
use super::kitchen::Kitchen;
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
    let mut text = format!(
        "# {}\n\n{}\n\n{body}",
        kitchen.recipe.title, kitchen.recipe.about
    );
    if kitchen.order.small {
        text.push_str(
            "\nThis was the small scale: a check that every part works, on a model and data too small to say more.\n",
        );
    }
    for note in &kitchen.notes {
        text.push_str(&format!("\n{note}\n"));
    }
    atomic::write_file(&kitchen.results(), text.as_bytes())
}

fn experiments(kitchen: &Kitchen) -> Result<String> {
    let experiments = kitchen
        .experiments
        .as_ref()
        .context("this table needs runs before it")?;
    experiments.write(&kitchen.site.out, "experiment_table")?;
    Ok(format!(
        "{}![runs side by side](experiment_table.png)\n",
        experiments.sections()
    ))
}
