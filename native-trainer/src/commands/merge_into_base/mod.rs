//! `trainer merge-into-base`: the merged base, and how far it is from serving base and adapter unmerged.

mod compare;
mod sample;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use qloom_core::merge::{UpdateError, merge_into_base, update_errors};
use qloom_core::quantization::CheckpointReport;
use serde_json::{Map, Value, json};

use super::Common;
use super::convert::copy_companions;
use crate::base::BaseFiles;
use crate::cli::MergeIntoBaseArguments;
use crate::device;
use crate::files::atomic;
use crate::progress::{Mode, task};
use crate::report::{numbers, table};
use crate::session::read_adapter;

/// Name of the report beside the merged weights.
const FIDELITY: &str = "fidelity.json";

/// Merges, writes, loads again and compares.
pub(super) fn run(common: &Common, arguments: MergeIntoBaseArguments) -> Result<()> {
    let out = &arguments.out;
    ensure!(
        !out.exists(),
        "{} exists already; choose a new folder for --out",
        out.display()
    );
    let chosen = device::choose(&common.device)?;
    let dtype = device::compute_type(&arguments.compute, &chosen)?;
    let base = BaseFiles::open(arguments.base.as_deref().unwrap_or_default())?;
    let adapter = read_adapter(&arguments.adapter)?;
    // Loaded before anything is written, so that a wrong adapter or unusable data costs no time.
    let sample = sample::load(&arguments, &base)?;
    let unmerged = compare::Unmerged::load(&base, &arguments.adapter, &chosen, dtype)?;
    let mut report = Map::new();
    atomic::replace_folder(out, |folder| {
        let written = write(&arguments, &base, &adapter, folder)?;
        let merged = BaseFiles::open(&folder.to_string_lossy())?;
        let errors = update_errors(&base.source()?, &merged.source()?, &adapter)?;
        let found = unmerged.against(&merged, &sample, &chosen, dtype)?;
        report = json_report(&arguments, &base, &sample, &written, &errors)?;
        report.extend(as_object(serde_json::to_value(found)?));
        atomic::write_file(&folder.join(FIDELITY), &serde_json::to_vec_pretty(&report)?)
    })?;
    if common.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(out, &report);
    }
    Ok(())
}

/// Writes weights, configuration and small files into `folder`.
fn write(
    arguments: &MergeIntoBaseArguments,
    base: &BaseFiles,
    adapter: &qloom_core::adapters::Adapter,
    folder: &Path,
) -> Result<CheckpointReport> {
    let path = folder.join("model.safetensors");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut bar: Option<task::Task> = None;
    let (mut sink, written) = merge_into_base(
        &base.source()?,
        &serde_json::to_vec(&base.config)?,
        adapter,
        arguments.requantize,
        BufWriter::new(file),
        |done, total| {
            bar.get_or_insert_with(|| {
                let mode = Mode::detect(false);
                task::Task::start(mode, "merging", total as u64, task::Unit::Items)
            })
            .at(done as u64);
        },
    )
    .with_context(|| {
        format!(
            "merging adapter {} into {}",
            arguments.adapter.display(),
            base.name
        )
    })?;
    sink.flush()
        .with_context(|| format!("writing {}", path.display()))?;
    if let Some(bar) = bar {
        bar.finish();
    }
    atomic::write_file(&folder.join("config.json"), &written.config_json)?;
    for (name, bytes) in base.embedded_companions() {
        atomic::write_file(&folder.join(name), bytes)?;
    }
    copy_companions(base, folder)?;
    Ok(written)
}

fn json_report(
    arguments: &MergeIntoBaseArguments,
    base: &BaseFiles,
    sample: &sample::Sample,
    written: &CheckpointReport,
    errors: &[UpdateError],
) -> Result<Map<String, Value>> {
    let kind = |e: &UpdateError| e.module.rsplit('.').next().unwrap_or_default().to_owned();
    let mut kinds: std::collections::BTreeMap<String, Vec<UpdateError>> = Default::default();
    for error in errors {
        kinds.entry(kind(error)).or_default().push(error.clone());
    }
    let kinds: Map<String, Value> = kinds
        .into_iter()
        .map(|(kind, list)| (kind, json!(UpdateError::relative(&list))))
        .collect();
    Ok(as_object(json!({
        "base": base.name,
        "adapter": arguments.adapter,
        "out": arguments.out,
        "requantized": arguments.requantize,
        "bytes": written.total_bytes,
        "tensors_rewritten": written.converted,
        "tensors_copied": written.copied,
        "sample": sample.description,
        "examples": sample.examples.len(),
        "update_error": UpdateError::relative(errors),
        "update_error_by_kind": kinds,
    })))
}

fn as_object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn print(out: &Path, report: &Map<String, Value>) {
    let number = |key: &str| report.get(key).and_then(Value::as_f64);
    let shown = |key: &str, show: fn(f64) -> String| number(key).map_or("-".to_owned(), show);
    println!(
        "{}: {} tensors rewritten, {} kept as they were, {}",
        out.display(),
        shown("tensors_rewritten", |n| format!("{n}")),
        shown("tensors_copied", |n| format!("{n}")),
        numbers::bytes(report.get("bytes").and_then(Value::as_u64).unwrap_or(0)),
    );
    let scientific = |v: f64| match v {
        v if v.abs() >= 1e-3 || v == 0.0 => format!("{v:.4}"),
        v => format!("{v:.1e}"),
    };
    let rows = [
        (
            "KL divergence, nats per token",
            shown("kl_divergence", scientific),
        ),
        ("largest of any token", shown("kl_largest", scientific)),
        (
            "same likeliest token",
            shown("argmax_agreement", |v| format!("{:.2} %", 100.0 * v)),
        ),
        (
            "perplexity unmerged",
            shown("perplexity_reference", numbers::score),
        ),
        (
            "perplexity merged",
            shown("perplexity_other", numbers::score),
        ),
        (
            "perplexity drift",
            shown("perplexity_drift", |v| format!("{:+.3} %", 100.0 * v)),
        ),
        (
            "update lost to rounding",
            shown("update_error", |v| match v {
                v if v >= 1e-3 => format!("{:.1} %", 100.0 * v),
                v => format!("{:.1e} %", 100.0 * v),
            }),
        ),
    ];
    let header = ["merged against unmerged".to_owned(), String::new()];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    println!("{}", table::grid(&header, &rows, table::Look::stdout()));
    let text = |key: &str| report.get(key).and_then(Value::as_str).unwrap_or_default();
    println!(
        "over {} tokens of {}; also in {}",
        shown("positions", |n| format!("{n}")),
        text("sample"),
        out.join(FIDELITY).display()
    );
    if report.get("requantized") == Some(&Value::Bool(true)) && number("update_error") > Some(0.05)
    {
        println!(
            "4 bits cannot hold this update: serve base and adapter unmerged, or merge without --requantize, \
             where the difference matters"
        );
    }
}
