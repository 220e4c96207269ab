//! `trainer sweep`: a grid or list of runs, one table.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::json;

use super::Common;
use crate::cli::SweepArguments;
use crate::report::table::{self, Look};
use crate::runs::experiments::Experiments;
use crate::runs::planned::{Planned, Site, State};
use crate::runs::record::Record;
use crate::runs::spec;

/// Runs what is not finished, then writes the tables.
pub(super) fn run(common: &Common, arguments: SweepArguments) -> Result<()> {
    let stem = arguments
        .sweep
        .file_stem()
        .map_or_else(|| "sweep".to_owned(), |s| s.to_string_lossy().into_owned());
    let out = arguments
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("runs").join(&stem));
    let runs = spec::load(&arguments.sweep, &arguments.set, &out)?;
    if arguments.dry_run {
        return list(common, &runs);
    }
    let site = Site {
        out,
        device: common.device.clone(),
    };
    let experiments = all(&site, &stem, &runs)?;
    experiments.write(&site.out, "experiments")?;
    if common.json {
        println!("{}", serde_json::to_string_pretty(&experiments.to_json())?);
    } else {
        println!("{}", experiments.terminal(Look::stdout()));
        println!(
            "tables and plot: {}",
            site.out.join("experiments.md").display()
        );
    }
    fail_for(&experiments)
}

/// Runs every run; failures are kept as records.
pub(crate) fn all(site: &Site, title: &str, runs: &[Planned]) -> Result<Experiments> {
    let mut records = Vec::with_capacity(runs.len());
    for (index, run) in runs.iter().enumerate() {
        let word = match run.state() {
            State::New => "starting",
            State::Begun => "continuing",
            State::Finished => "finished before",
        };
        eprintln!(
            "== run {} of {}: {} ({word})",
            index + 1,
            runs.len(),
            run.name
        );
        let failure = run.ensure(site)?.err();
        if let Some(failure) = &failure {
            eprintln!("run {} failed: {failure}", run.name);
        }
        records.push(Record::of(run, failure));
    }
    Ok(Experiments::new(title, records))
}

/// An error that names the runs that failed.
pub(crate) fn fail_for(experiments: &Experiments) -> Result<()> {
    let failed: Vec<String> = experiments
        .records()
        .iter()
        .filter_map(|r| Some(format!("{}: {}", r.name, r.failure.as_ref()?)))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!(
        "{} of {} runs failed ({}); the same command tries them again",
        failed.len(),
        experiments.records().len(),
        failed.join("; ")
    )
}

fn list(common: &Common, runs: &[Planned]) -> Result<()> {
    let state = |run: &Planned| match run.state() {
        State::New => "to run",
        State::Begun => "to continue",
        State::Finished => "finished",
    };
    if common.json {
        let rows: Vec<_> = runs
            .iter()
            .map(|run| json!({ "name": run.name, "labels": run.labels, "state": state(run), "folder": run.folder(), "key": run.key }))
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    let header = ["run", "differs by", "state", "folder"].map(str::to_owned);
    let rows: Vec<Vec<String>> = runs
        .iter()
        .map(|run| {
            let labels: Vec<String> = run
                .labels
                .iter()
                .map(|(k, l)| format!("{k} = {l}"))
                .collect();
            vec![
                run.name.clone(),
                labels.join(", "),
                state(run).to_owned(),
                run.folder().display().to_string(),
            ]
        })
        .collect();
    println!("{}", table::grid(&header, &rows, Look::stdout()));
    Ok(())
}
