//! `trainer plan`: predicted memory and time, and what to change to fit.

use anyhow::Result;
use qloom_core::lora::Method;

use super::Common;
use crate::base::BaseFiles;
use crate::cli::PlanArguments;
use crate::config::{self, RunConfig};
use crate::memory::{Memory, Shape, predict, trained_values};
use crate::report::{numbers, table};

/// Prints the prediction for the CPU, a 6 GB card and what else is there.
pub(super) fn run(common: &Common, arguments: PlanArguments) -> Result<()> {
    let config = config::load(&arguments.config, &arguments.set)?;
    let base = BaseFiles::open(&config.model.base)?;
    let shape = Shape::of(&base.architecture()?);
    let length = config.data.resolve_max_length(shape.context)?;
    let rows = config.train.batch_size;
    let tokens = rows * length;
    let trained = trained_values(&config, &shape)?;
    let half = config.model.compute != "f32";
    let cpu = predict(&config, &shape, trained, [rows, length], 4.0);
    let width = if half { 2.0 } else { 4.0 };
    let gpu = predict(&config, &shape, trained, [rows, length], width);
    let flops = step_flops(&shape, tokens) * config.train.grad_accumulation as f64;
    if common.json {
        let json = serde_json::json!({
            "tokens_per_micro_batch": tokens, "method": config.lora.method.to_string(), "trained_values": trained,
            "result_bytes": 4 * trained, "step_flops": flops,
            "cpu_f32": cpu, "cpu_f32_bytes": cpu.total(true), "compute": if half { "16-bit" } else { "f32" },
            "gpu": gpu, "gpu_bytes": gpu.total(true),
        });
        println!("{}", serde_json::to_string_pretty(&json)?);
        return Ok(());
    }
    let bytes = |value: f64| numbers::bytes(value as u64);
    let rows = [
        ("frozen weights", cpu.frozen_weights, gpu.frozen_weights),
        (
            "adapter, gradient, AdamW",
            cpu.adapter_and_optimizer,
            gpu.adapter_and_optimizer,
        ),
        (
            "activations, blocks recomputed",
            cpu.activations_recomputed,
            gpu.activations_recomputed,
        ),
        (
            "activations, all kept",
            cpu.activations_kept,
            gpu.activations_kept,
        ),
        ("loss, in chunks", cpu.loss, gpu.loss),
        (
            "one weight dequantized",
            cpu.one_dense_weight,
            gpu.one_dense_weight,
        ),
        ("total, blocks recomputed", cpu.total(true), gpu.total(true)),
        ("total, all kept", cpu.total(false), gpu.total(false)),
    ];
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|(name, c, g)| vec![(*name).to_owned(), bytes(*c), bytes(*g)])
        .collect();
    let gpu_column = if half {
        "GPU, 16-bit compute"
    } else {
        "GPU, f32 compute"
    };
    let header = [
        "memory".to_owned(),
        "CPU, f32".to_owned(),
        gpu_column.to_owned(),
    ];
    println!("{}", table::grid(&header, &rows, table::Look::stdout()));
    println!(
        "{}: {} trained values, a weights file of {}{}; {tokens} tokens a micro-batch; {:.2} TFLOP a step, recomputed: {} at 150 GFLOP/s (two CPU \
         cores), {} at 10 TFLOP/s (a small GPU)",
        config.lora.method,
        numbers::count(trained as u64),
        numbers::bytes(4 * trained as u64),
        if config.lora.method == Method::Sparse {
            format!(
                " before closed components are cut out, about {:.0} % of it after",
                100.0 * config.lora.density
            )
        } else {
            String::new()
        },
        flops / 1e12,
        numbers::duration(std::time::Duration::from_secs_f64(flops / 150e9)),
        numbers::duration(std::time::Duration::from_secs_f64(flops / 10e12)),
    );
    for line in advice(&config, &gpu) {
        println!("{line}");
    }
    Ok(())
}

/// Multiply-adds count two: forward, recomputed forward, and the input gradient.
fn step_flops(shape: &Shape, tokens: usize) -> f64 {
    let head = shape.logits * shape.hidden;
    2.0 * tokens as f64 * (3.0 * shape.packed as f64 + 2.0 * head as f64)
}

/// What to change for a 6 GB card.
fn advice(config: &RunConfig, gpu: &Memory) -> Vec<String> {
    const CARD: f64 = 5.5e9;
    let mut lines = Vec::new();
    if gpu.total(false) < CARD {
        lines.push(
            "fits a 6 GB card with all activations kept: train.recompute = \"off\" is fastest"
                .to_owned(),
        );
    } else if gpu.total(true) < CARD {
        lines
            .push("fits a 6 GB card with train.recompute = \"on\" (\"auto\" does this)".to_owned());
    } else {
        lines.push("does not fit a 6 GB card. In order of effect:".to_owned());
        if config.model.quantization != "nf4" {
            lines.push(
                "  model.quantization = \"nf4\" shrinks the weights about fourfold".to_owned(),
            );
        }
        if config.train.batch_size > 1 {
            lines.push(format!(
                "  train.batch_size = 1 with train.grad_accumulation = {} trains the same",
                config.train.batch_size * config.train.grad_accumulation
            ));
        }
        lines.push("  a smaller data.max_length".to_owned());
    }
    lines
}
