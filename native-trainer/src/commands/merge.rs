//! `trainer merge`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use qloom_core::adapters::RECEIPT;
use qloom_core::merge::{
    Fidelity, FidelityReport, MergeError, MergeOptions, Merged, Method, SavedModules, Source, merge,
};
use serde_json::{Value, json};

use super::{Common, UsageError};
use crate::cli::MergeArguments;
use crate::files::{atomic, read};
use crate::progress::{Mode, task};
use crate::report::{numbers, table};
use crate::session::locate_adapter;

/// Merges adapters into one and says how far it is from the weighted sum of their updates.
pub(super) fn run(common: &Common, arguments: MergeArguments) -> Result<()> {
    let options = options(&arguments)?;
    ensure!(
        !arguments.out.exists(),
        "{} exists already; choose a new folder for --out",
        arguments.out.display()
    );
    let sources: Vec<Source> = arguments
        .adapters
        .iter()
        .map(|folder| open(folder))
        .collect::<Result<_>>()?;
    let merged = merge_shown(&sources, &options, "merging")?;
    // What was named beside --exact is measured too, not written.
    let named = match (options.exact, &arguments.method) {
        (true, Some(_)) => {
            let named = MergeOptions {
                exact: false,
                rank: options.rank.filter(|_| options.method.truncates()),
                clamp: options.clamp.filter(|_| options.method.truncates()),
                ..options.clone()
            };
            Some(merge_shown(&sources, &named, options.method.name())?.fidelity)
        }
        _ => None,
    };
    let bytes = write(&merged, &arguments.out)?;
    for note in &merged.notes {
        eprintln!("note: {note}");
    }
    if common.json {
        let json = to_json(&merged, &arguments.out, bytes, named.as_ref(), &options);
        println!("{}", serde_json::to_string_pretty(&json)?);
    } else {
        print(&merged, &arguments.out, bytes, named.as_ref(), &options);
    }
    Ok(())
}

/// The flags as the core's options; what cannot be meant is wrong usage.
fn options(arguments: &MergeArguments) -> Result<MergeOptions> {
    let usage = |e: MergeError| UsageError::new(format!("trainer merge: {e}"));
    let method: Option<Method> = arguments
        .method
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(usage)?;
    let count = arguments.adapters.len();
    let options = MergeOptions {
        method: method.unwrap_or(Method::Svd),
        weights: match arguments.weights.is_empty() {
            true => vec![1.0; count],
            false => arguments.weights.clone(),
        },
        density: arguments.density,
        sign: arguments.sign.parse().map_err(usage)?,
        rank: arguments.rank,
        clamp: arguments.clamp,
        seed: arguments.seed,
        exact: arguments.exact,
        peft: arguments.compat.is_some(),
        same_base: arguments.same_base,
        saved: match arguments.saved.as_str() {
            "average" => SavedModules::Average,
            "first" => SavedModules::First,
            _ => SavedModules::Refuse,
        },
    };
    options.check(count).map_err(usage)?;
    if options.exact && method.is_some() {
        // The method named beside --exact is measured, so it must be possible.
        MergeOptions {
            exact: false,
            rank: None,
            clamp: None,
            ..options.clone()
        }
        .check(count)
        .map_err(usage)?;
    }
    Ok(options)
}

fn open(folder: &Path) -> Result<Source> {
    let path = locate_adapter(folder)?;
    let receipt = path.join(RECEIPT);
    let receipt = match receipt.is_file() {
        true => Some(read(&receipt)?),
        false => None,
    };
    Ok(Source::from_bytes(
        &folder.display().to_string(),
        &read(&path.join("adapter_config.json"))?,
        &read(&path.join("adapter_model.safetensors"))?,
        receipt.as_deref(),
    )?)
}

fn merge_shown(sources: &[Source], options: &MergeOptions, label: &str) -> Result<Merged> {
    let mut bar: Option<task::Task> = None;
    let merged = merge(sources, options, |done, total| {
        bar.get_or_insert_with(|| {
            task::Task::start(Mode::detect(false), label, total as u64, task::Unit::Items)
        })
        .at(done as u64);
    })?;
    if let Some(bar) = bar {
        bar.finish();
    }
    Ok(merged)
}

/// Writes the adapter's folder; returns the bytes of its tensors.
fn write(merged: &Merged, out: &Path) -> Result<u64> {
    let (config, tensors) = merged.adapter.to_bytes()?;
    let receipt = merged.receipt.to_json()?;
    atomic::replace_folder(out, |folder| {
        for (name, bytes) in [
            ("adapter_config.json", &config),
            ("adapter_model.safetensors", &tensors),
            (RECEIPT, &receipt),
        ] {
            atomic::write_file(&folder.join(name), bytes)?;
        }
        Ok(())
    })
    .with_context(|| format!("writing {}", out.display()))?;
    Ok(tensors.len() as u64)
}

fn to_json(
    merged: &Merged,
    out: &Path,
    bytes: u64,
    named: Option<&FidelityReport>,
    options: &MergeOptions,
) -> Value {
    let mut json = json!({
        "out": out,
        "method": merged.record.method,
        "rank": merged.record.rank,
        "modules": merged.fidelity.modules.len(),
        "bytes": bytes,
        "merge": merged.record,
        "fidelity": merged.fidelity,
        "notes": merged.notes,
    });
    if let Some(named) = named {
        json["compared_with"] = json!({ "method": options.method, "fidelity": named });
    }
    json
}

fn print(
    merged: &Merged,
    out: &Path,
    bytes: u64,
    named: Option<&FidelityReport>,
    options: &MergeOptions,
) {
    let sources = merged.record.sources.len();
    println!(
        "{}: {sources} adapter{} merged by {}, rank {}, {} modules, {}",
        out.display(),
        if sources == 1 { "" } else { "s" },
        merged.record.method,
        merged.record.rank,
        merged.fidelity.modules.len(),
        numbers::bytes(bytes)
    );
    let mut header = ["", "modules", "distance", "cosine"]
        .map(String::from)
        .to_vec();
    if named.is_some() {
        header.push(format!("distance of {}", options.method));
    }
    let count = |kind: &str| {
        merged
            .fidelity
            .modules
            .iter()
            .filter(|m| m.kind == kind)
            .count()
    };
    let mut rows: Vec<Vec<String>> = merged
        .fidelity
        .kinds
        .iter()
        .map(|(kind, f)| row(kind, count(kind), f, named.and_then(|n| n.kinds.get(kind))))
        .collect();
    let all = merged.fidelity.modules.len();
    let overall = &merged.fidelity.overall;
    rows.push(row("overall", all, overall, named.map(|n| &n.overall)));
    println!("{}", table::grid(&header, &rows, table::Look::stdout()));
    println!(
        "distance: relative Frobenius norm of merged minus the true weighted sum of the updates; 0 is exact"
    );
}

fn row(name: &str, modules: usize, f: &Fidelity, named: Option<&Fidelity>) -> Vec<String> {
    let mut cells = vec![
        name.to_owned(),
        modules.to_string(),
        distance(f),
        f.cosine
            .map_or_else(|| "-".to_owned(), |c| format!("{c:.4}")),
    ];
    cells.extend(named.map(distance));
    cells
}

/// `0.123`, `3.1e-8`, or a dash where the true sum is zero.
fn distance(f: &Fidelity) -> String {
    match f.relative_error {
        None => "-".to_owned(),
        Some(d) if d == 0.0 || d >= 1e-3 => format!("{d:.3}"),
        Some(d) => format!("{d:.1e}"),
    }
}
