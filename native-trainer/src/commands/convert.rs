//! `trainer quantize` and `trainer dequantize`: a base rewritten tensor by tensor.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use qloom_core::quantization::{
    CheckpointReport, QuantizeOptions, dequantize_checkpoint, quantize_checkpoint,
};
use qloom_core::weights::Dtype;

use super::Common;
use crate::base::BaseFiles;
use crate::cli::{DequantizeArguments, QuantizeArguments};
use crate::files::atomic;
use crate::progress::interrupt::Interrupt;
use crate::progress::{Mode, task};
use crate::report::numbers;

/// Small files that travel with a base unchanged.
const COMPANIONS: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    "tokenizer.model",
    "LICENSE",
    "README.md",
];

/// Writes a base as NF4 in the bitsandbytes layout.
pub(super) fn quantize(common: &Common, arguments: QuantizeArguments) -> Result<()> {
    rewrite(
        common,
        &arguments.base,
        &arguments.out,
        "quantizing",
        |base, out, progress| {
            let options = QuantizeOptions {
                double_quant: !arguments.no_double_quant,
                source_fingerprint: Some(base.fingerprint()?),
                ..QuantizeOptions::default()
            };
            let config = serde_json::to_vec(&base.config)?;
            Ok(quantize_checkpoint(
                &base.source()?,
                &config,
                &options,
                out,
                progress,
            )?)
        },
    )
}

/// Writes an NF4 base as plain floats.
pub(super) fn dequantize(common: &Common, arguments: DequantizeArguments) -> Result<()> {
    let dtype = match arguments.dtype.as_str() {
        "f16" => Dtype::F16,
        "bf16" => Dtype::BF16,
        _ => Dtype::F32,
    };
    rewrite(
        common,
        &arguments.base,
        &arguments.out,
        "dequantizing",
        |base, out, progress| {
            let config = serde_json::to_vec(&base.config)?;
            Ok(dequantize_checkpoint(
                &base.source()?,
                &config,
                Some(dtype),
                out,
                progress,
            )?)
        },
    )
}

type Sink = BufWriter<Stoppable>;

/// A file that takes no more once the user pressed Ctrl-C, so that what was begun is removed like after any failure.
#[derive(Debug)]
struct Stoppable {
    file: File,
    interrupt: Interrupt,
}

impl Write for Stoppable {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.interrupt.requested() {
            // Not `ErrorKind::Interrupted`, which asks for another try.
            true => Err(io::Error::other("interrupted; nothing was kept")),
            false => self.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn rewrite(
    common: &Common,
    base: &str,
    out: &Path,
    label: &str,
    convert: impl FnOnce(
        &BaseFiles,
        Sink,
        &mut dyn FnMut(usize, usize),
    ) -> Result<(Sink, CheckpointReport)>,
) -> Result<()> {
    ensure!(
        !out.exists(),
        "{} exists already; choose a new folder for --out",
        out.display()
    );
    for left in atomic::leftovers(out) {
        eprintln!(
            "note: {} was left by a command that was killed; delete it unless one is running",
            left.display()
        );
    }
    let files = BaseFiles::open(base)?;
    let interrupt = Interrupt::install_saying("stopping; press Ctrl-C again to stop at once")?;
    let mut report = None;
    atomic::replace_folder(out, |folder| {
        let path = folder.join("model.safetensors");
        let file =
            File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let sink = BufWriter::new(Stoppable { file, interrupt });
        let mut bar: Option<task::Task> = None;
        let (mut sink, done) = convert(&files, sink, &mut |done, total| {
            bar.get_or_insert_with(|| {
                task::Task::start(Mode::detect(false), label, total as u64, task::Unit::Items)
            })
            .at(done as u64);
        })?;
        sink.flush()
            .with_context(|| format!("writing {}", path.display()))?;
        if let Some(bar) = bar {
            bar.finish();
        }
        atomic::write_file(&folder.join("config.json"), &done.config_json)?;
        copy_companions(&files, folder)?;
        report = Some(done);
        Ok(())
    })?;
    let Some(report) = report else { return Ok(()) };
    if common.json {
        let json = serde_json::json!({
            "out": out, "converted": report.converted, "copied": report.copied, "bytes": report.total_bytes,
        });
        println!("{}", serde_json::to_string_pretty(&json)?);
    } else {
        println!(
            "{}: {} tensors converted, {} kept as they were, {}",
            out.display(),
            report.converted,
            report.copied,
            numbers::bytes(report.total_bytes)
        );
    }
    Ok(())
}

/// Writes the small files that travel with a base: copies those of its folder, or the embedded base's own.
pub(super) fn copy_companions(files: &BaseFiles, folder: &Path) -> Result<()> {
    for (name, bytes) in files.embedded_companions() {
        atomic::write_file(&folder.join(name), bytes)?;
    }
    let Some(source) = files.path() else {
        return Ok(());
    };
    for name in COMPANIONS {
        let from = source.join(name);
        if from.is_file() {
            std::fs::copy(&from, folder.join(name))
                .with_context(|| format!("copying {}", from.display()))?;
        }
    }
    Ok(())
}
