//! `trainer plan`: predicted memory and time, and what to change to fit.

use anyhow::Result;
use qloom_core::lora::{Method, adapter_values};
use qloom_core::models::llama::LlamaConfig;
use serde::Serialize;

use super::Common;
use crate::base::BaseFiles;
use crate::cli::PlanArguments;
use crate::config::{self, RunConfig};
use crate::report::{numbers, table};
use crate::session::with_head;

/// NF4 with double quantization: 4 bits, 8/64 for the scale, 32/(64·256) for the scale's scale.
const NF4_BYTES: f64 = 0.5 + 1.0 / 64.0 + 4.0 / (64.0 * 256.0);
const NF4_PLAIN_BYTES: f64 = 0.5 + 4.0 / 64.0;

/// Bytes a run needs, by what needs them.
#[derive(Clone, Copy, Debug, Serialize)]
struct Memory {
    frozen_weights: f64,
    adapter_and_optimizer: f64,
    activations_recomputed: f64,
    activations_kept: f64,
    loss: f64,
    one_dense_weight: f64,
}

impl Memory {
    fn total(&self, recompute: bool) -> f64 {
        let activations = if recompute {
            self.activations_recomputed
        } else {
            self.activations_kept
        };
        self.frozen_weights
            + self.adapter_and_optimizer
            + activations
            + self.loss
            + self.one_dense_weight
    }
}

/// Prints the prediction for the CPU, a 6 GB card and what else is there.
pub(super) fn run(common: &Common, arguments: PlanArguments) -> Result<()> {
    let config = config::load(&arguments.config, &arguments.set)?;
    let base = BaseFiles::open(&config.model.base)?;
    let llama = base.llama_config()?;
    let tokens = tokens_per_micro_batch(&config, &llama)?;
    let trained = trained_values(&config, &llama)?;
    let half = config.model.compute != "f32";
    let cpu = memory(&config, &llama, trained, tokens, 4.0);
    let gpu = memory(
        &config,
        &llama,
        trained,
        tokens,
        if half { 2.0 } else { 4.0 },
    );
    let flops = step_flops(&llama, tokens) * config.train.grad_accumulation as f64;
    if common.json {
        let json = serde_json::json!({
            "tokens_per_micro_batch": tokens, "method": config.lora.method.to_string(), "trained_values": trained,
            "result_bytes": 4 * trained, "step_flops": flops,
            "cpu_f32": cpu, "cpu_f32_bytes": cpu.total(true), "gpu_16bit": gpu, "gpu_16bit_bytes": gpu.total(true),
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

fn tokens_per_micro_batch(config: &RunConfig, llama: &LlamaConfig) -> Result<usize> {
    Ok(config.train.batch_size
        * config
            .data
            .resolve_max_length(llama.max_position_embeddings)?)
}

/// Values the method trains, by where they end: in the adapter's pairs, or as whole weights.
fn trained_values(config: &RunConfig, llama: &LlamaConfig) -> Result<usize> {
    let tensors = llama.expected_tensors();
    let size = |shape: &[usize]| shape.iter().product::<usize>();
    if config.lora.method == Method::Full {
        return Ok(tensors.iter().map(|(_, shape)| size(shape)).sum());
    }
    let lora = with_head(&config.lora, llama);
    let saved = lora.modules_to_save.iter().map(|module| {
        let suffix = format!(".{module}.weight");
        let named = tensors
            .iter()
            .filter(|(name, _)| format!(".{name}").ends_with(&suffix));
        let values: usize = named.map(|(_, shape)| size(shape)).sum();
        match (module.as_str(), values) {
            ("lm_head", 0) => llama.vocab_size * llama.hidden_size,
            _ => values,
        }
    });
    let saved: usize = saved.sum();
    Ok(saved + adapter_values(&lora, &llama.linear_modules())?)
}

fn memory(
    config: &RunConfig,
    llama: &LlamaConfig,
    trained: usize,
    tokens: usize,
    width: f64,
) -> Memory {
    let linears = llama.linear_modules();
    let packed: usize = linears
        .iter()
        .filter(|(p, _)| p.contains("layers"))
        .map(|(_, [o, i])| o * i)
        .sum();
    let largest = linears
        .iter()
        .filter(|(p, _)| p.contains("layers"))
        .map(|(_, [o, i])| o * i)
        .max()
        .unwrap_or(0);
    let all: usize = llama
        .expected_tensors()
        .iter()
        .map(|(_, s)| s.iter().product::<usize>())
        .sum();
    let nf4 = config.model.quantization == "nf4";
    let per_packed = match (nf4, config.model.double_quant) {
        (true, true) => NF4_BYTES,
        (true, false) => NF4_PLAIN_BYTES,
        _ => width,
    };
    let length = tokens / config.train.batch_size.max(1);
    let scores = llama.num_attention_heads * length;
    let per_token = 16 * llama.hidden_size + 6 * llama.intermediate_size;
    let block = tokens as f64 * (width * per_token as f64 + 12.0 * scores as f64);
    let layers = llama.num_hidden_layers as f64;
    let inputs = tokens as f64 * llama.hidden_size as f64 * width * layers;
    Memory {
        frozen_weights: packed as f64 * per_packed + (all - packed) as f64 * width,
        adapter_and_optimizer: 16.0 * trained as f64,
        activations_recomputed: inputs + block,
        activations_kept: block * layers,
        loss: 3.0 * 4.0 * llama.vocab_size as f64 * tokens.min(512) as f64,
        one_dense_weight: if nf4 { largest as f64 * width } else { 0.0 },
    }
}

/// Multiply-adds count two: forward, recomputed forward, and the input gradient.
fn step_flops(llama: &LlamaConfig, tokens: usize) -> f64 {
    let blocks: usize = llama
        .linear_modules()
        .iter()
        .filter(|(p, _)| p.contains("layers"))
        .map(|(_, [o, i])| o * i)
        .sum();
    let head = llama.vocab_size * llama.hidden_size;
    2.0 * tokens as f64 * (3.0 * blocks as f64 + 2.0 * head as f64)
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
