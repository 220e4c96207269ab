//! `trainer train`.

use anyhow::Result;

use super::Common;
use crate::cli::TrainArguments;
use crate::config;
use crate::report::scores::TaskScores;
use crate::report::{numbers, table};
use crate::session::{self, RunResult};

/// Fine-tunes, then prints what it came to.
pub(super) fn run(common: &Common, arguments: TrainArguments) -> Result<()> {
    let mut config = config::load(&arguments.config, &arguments.set)?;
    config.data.skip_bad |= arguments.skip_bad;
    let result = session::train(&config, &common.device, arguments.resume, None, "held-out")?;
    print(common, &result)
}

/// The summary of a run on stdout.
pub(super) fn print(common: &Common, result: &RunResult) -> Result<()> {
    if common.json {
        let json = serde_json::json!({
            "folder": result.folder, "artifact": result.artifact, "steps": result.outcome.steps,
            "tokens": result.outcome.tokens, "last_loss": result.outcome.last_loss,
            "trainable_parameters": result.summary.trained_values, "tokens_per_s": result.tokens_per_s,
            "result": result.summary.to_json(),
        });
        println!("{}", serde_json::to_string_pretty(&json)?);
        return Ok(());
    }
    let look = table::Look::stdout();
    let summary = &result.summary;
    let mut facts = vec![
        ("method", summary.method.clone()),
        ("optimizer steps", numbers::count(result.outcome.steps)),
        ("targets", numbers::count(result.outcome.tokens)),
        (
            "trained values",
            numbers::count(summary.trained_values as u64),
        ),
        ("weights file", numbers::bytes(summary.bytes)),
        ("speed", numbers::tokens_per_second(result.tokens_per_s)),
        ("last loss", numbers::score(result.outcome.last_loss)),
        ("result", result.artifact.display().to_string()),
    ];
    if let Some(sparsity) = summary.sparsity {
        let cut = format!("{:.1} % of rank-one components cut out", 100.0 * sparsity);
        facts.insert(3, ("sparsity", cut));
    }
    let rows: Vec<Vec<String>> = facts
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    println!(
        "{}",
        table::grid(
            &["run".to_owned(), result.folder.display().to_string()],
            &rows,
            look
        )
    );
    if !result.metrics.is_empty() {
        let scores = TaskScores {
            task: "held-out".into(),
            examples: result.examples,
            metrics: result.metrics.clone(),
        };
        println!("{}", table::scores(&[scores], look));
    }
    if !result.samples.is_empty() {
        println!("{}", table::samples(&result.samples, look));
    }
    Ok(())
}
