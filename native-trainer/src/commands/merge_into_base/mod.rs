//! `trainer merge-into-base`: the merged base, and how far it is from serving base and adapter unmerged.

mod classes;
mod compare;
mod sample;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::DType;
use qloom_core::adapters::Adapter;
use qloom_core::merge::{UpdateError, merge_into_base, update_errors};
use qloom_core::models::Architecture;
use qloom_core::models::bert::Prefixed;
use qloom_core::quantization::CheckpointReport;
use qloom_core::weights::WeightSource;
use serde_json::{Map, Value, json};

use super::Common;
use super::convert::copy_companions;
use crate::base::BaseFiles;
use crate::cli::MergeIntoBaseArguments;
use crate::device::{self, ChosenDevice};
use crate::files::atomic;
use crate::progress::{Mode, task};
use crate::report::{numbers, table};
use crate::session::{classifier_config, read_adapter};

/// Name of the report beside the merged weights.
const FIDELITY: &str = "fidelity.json";

/// Examples per batch.
const BATCH: usize = 4;

/// Base and adapter unmerged, and a sample to compare on.
enum Unmerged {
    Text(Box<compare::Unmerged>, sample::Sample),
    Classes(Box<classes::Unmerged>),
}

impl Unmerged {
    fn load(
        arguments: &MergeIntoBaseArguments,
        base: &BaseFiles,
        chosen: &ChosenDevice,
        dtype: DType,
    ) -> Result<Self> {
        if let Architecture::Bert(bert) = base.architecture()? {
            let loaded = classes::Unmerged::load(arguments, base, &bert, chosen, dtype)?;
            return Ok(Self::Classes(Box::new(loaded)));
        }
        let sample = sample::load(arguments, base)?;
        let unmerged = compare::Unmerged::load(base, &arguments.adapter, chosen, dtype)?;
        Ok(Self::Text(Box::new(unmerged), sample))
    }

    /// The `config.json` to merge under: a classifier's names its classes.
    fn config(&self, base: &BaseFiles) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Text(..) => serde_json::to_vec(&base.config)?,
            Self::Classes(c) => serde_json::to_vec(&classifier_config(base, &c.labels)?)?,
        })
    }

    /// What it is compared on, and how many examples that is.
    fn sample(&self) -> (&str, usize) {
        match self {
            Self::Text(_, sample) => (&sample.description, sample.examples.len()),
            Self::Classes(c) => (&c.description, c.examples.len()),
        }
    }

    /// What of it `merged` has kept.
    fn against(
        &self,
        merged: &BaseFiles,
        chosen: &ChosenDevice,
        dtype: DType,
    ) -> Result<Map<String, Value>> {
        match self {
            Self::Text(unmerged, sample) => {
                let found = unmerged.against(merged, sample, chosen, dtype)?;
                Ok(as_object(serde_json::to_value(found)?))
            }
            Self::Classes(unmerged) => unmerged.against(merged, chosen, dtype),
        }
    }
}

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
    let unmerged = Unmerged::load(&arguments, &base, &chosen, dtype)?;
    let files = base.source()?;
    let prefixed;
    let source: &dyn WeightSource = match base.architecture()? {
        Architecture::Llama(_) => &files,
        Architecture::Bert(bert) => {
            prefixed = Prefixed::new(&files, bert.family);
            &prefixed
        }
    };
    let mut report = Map::new();
    atomic::replace_folder(out, |folder| {
        let config = unmerged.config(&base)?;
        let written = write(&arguments, &base, source, &config, &adapter, folder)?;
        let merged = BaseFiles::open(&folder.to_string_lossy())?;
        let errors = update_errors(source, &merged.source()?, &adapter)?;
        report = json_report(&arguments, &base, &unmerged, &written, &errors)?;
        report.extend(unmerged.against(&merged, &chosen, dtype)?);
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
    source: &dyn WeightSource,
    config: &[u8],
    adapter: &Adapter,
    folder: &Path,
) -> Result<CheckpointReport> {
    let path = folder.join("model.safetensors");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut bar: Option<task::Task> = None;
    let (mut sink, written) = merge_into_base(
        source,
        config,
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
    unmerged: &Unmerged,
    written: &CheckpointReport,
    errors: &[UpdateError],
) -> Result<Map<String, Value>> {
    let (sample, examples) = unmerged.sample();
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
        "sample": sample,
        "examples": examples,
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
    let percent = |v: f64| format!("{:.2} %", 100.0 * v);
    let lost = |v: f64| match v {
        v if v >= 1e-3 => format!("{:.1} %", 100.0 * v),
        v => format!("{:.1e} %", 100.0 * v),
    };
    let classes = report.contains_key("accuracy_drift");
    let (unit, answer) = match classes {
        true => ("text", "class"),
        false => ("token", "token"),
    };
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row(
            &format!("KL divergence, nats per {unit}"),
            shown("kl_divergence", scientific),
        ),
        row(
            &format!("largest of any {unit}"),
            shown("kl_largest", scientific),
        ),
        row(
            &format!("same likeliest {answer}"),
            shown("argmax_agreement", percent),
        ),
    ];
    rows.extend(match classes {
        true => [
            row(
                "accuracy unmerged",
                shown("accuracy_reference", numbers::score),
            ),
            row("accuracy merged", shown("accuracy_other", numbers::score)),
            row(
                "accuracy drift",
                shown("accuracy_drift", |v| format!("{v:+.4}")),
            ),
        ],
        false => [
            row(
                "perplexity unmerged",
                shown("perplexity_reference", numbers::score),
            ),
            row(
                "perplexity merged",
                shown("perplexity_other", numbers::score),
            ),
            row(
                "perplexity drift",
                shown("perplexity_drift", |v| format!("{:+.3} %", 100.0 * v)),
            ),
        ],
    });
    rows.push(row("update lost to rounding", shown("update_error", lost)));
    let header = ["merged against unmerged".to_owned(), String::new()];
    println!("{}", table::grid(&header, &rows, table::Look::stdout()));
    let text = |key: &str| report.get(key).and_then(Value::as_str).unwrap_or_default();
    println!(
        "over {} {unit}s of {}; also in {}",
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
