//! `trainer plan`: predicted memory and time, and what to change to fit.

use std::collections::BTreeSet;

use anyhow::Result;
use qloom_core::lora::{Method, adapter_values, head_modules};
use qloom_core::models::Architecture;
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

/// What of a model decides memory and time.
struct Shape {
    hidden: usize,
    intermediate: usize,
    heads: usize,
    layers: usize,
    /// Longest sequence.
    context: usize,
    /// Logits per target: the vocabulary, or the classes.
    logits: usize,
    /// Linears that can be adapted.
    linears: Vec<(String, [usize; 2])>,
    /// Values in the blocks' linears, which NF4 packs.
    packed: usize,
    /// All values.
    all: usize,
    /// Every tensor's name and shape.
    tensors: Vec<(String, Vec<usize>)>,
    /// Modules trained with every adapter: a classifier's head.
    head: Vec<String>,
}

impl Shape {
    fn of(architecture: &Architecture) -> Self {
        let linears = architecture.linear_modules();
        let (hidden, intermediate, heads, layers, logits, tensors) = match architecture {
            Architecture::Llama(c) => (
                c.hidden_size,
                c.intermediate_size,
                c.num_attention_heads,
                c.num_hidden_layers,
                c.vocab_size,
                c.expected_tensors(),
            ),
            Architecture::Bert(c) => (
                c.hidden_size,
                c.intermediate_size,
                c.num_attention_heads,
                c.num_hidden_layers,
                c.num_labels,
                c.expected_tensors(c.num_labels),
            ),
        };
        let head = match architecture {
            Architecture::Llama(_) => Vec::new(),
            Architecture::Bert(_) => head_modules(tensors.iter().map(|(name, _)| name.as_str())),
        };
        let values = tensors.iter().map(|(_, s)| s.iter().product::<usize>());
        Self {
            all: values.sum(),
            packed: in_blocks(&linears).map(|[o, i]| o * i).sum(),
            context: architecture.context(),
            hidden,
            intermediate,
            heads,
            layers,
            logits,
            linears,
            tensors,
            head,
        }
    }
}

/// Shapes of the linears of numbered blocks.
fn in_blocks(linears: &[(String, [usize; 2])]) -> impl Iterator<Item = [usize; 2]> {
    let numbered = |path: &str| path.split('.').any(|part| part.parse::<usize>().is_ok());
    linears
        .iter()
        .filter(move |(path, _)| numbered(path))
        .map(|(_, shape)| *shape)
}

/// Prints the prediction for the CPU, a 6 GB card and what else is there.
pub(super) fn run(common: &Common, arguments: PlanArguments) -> Result<()> {
    let config = config::load(&arguments.config, &arguments.set)?;
    let base = BaseFiles::open(&config.model.base)?;
    let shape = Shape::of(&base.architecture()?);
    let tokens = tokens_per_micro_batch(&config, &shape)?;
    let trained = trained_values(&config, &shape)?;
    let half = config.model.compute != "f32";
    let cpu = memory(&config, &shape, trained, tokens, 4.0);
    let gpu = memory(
        &config,
        &shape,
        trained,
        tokens,
        if half { 2.0 } else { 4.0 },
    );
    let flops = step_flops(&shape, tokens) * config.train.grad_accumulation as f64;
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

fn tokens_per_micro_batch(config: &RunConfig, shape: &Shape) -> Result<usize> {
    Ok(config.train.batch_size * config.data.resolve_max_length(shape.context)?)
}

/// Values the method trains, by where they end: in the adapter's pairs, or as whole weights.
fn trained_values(config: &RunConfig, shape: &Shape) -> Result<usize> {
    let size = |shape: &[usize]| shape.iter().product::<usize>();
    if config.lora.method == Method::Full {
        return Ok(shape.all);
    }
    let lora = with_head(&config.lora, &shape.tensors);
    let modules = lora.modules_to_save.iter().chain(&shape.head);
    let modules: BTreeSet<&str> = modules.map(String::as_str).collect();
    let saved = modules.into_iter().map(|module| {
        let inside = format!(".{module}.");
        let named = shape
            .tensors
            .iter()
            .filter(|(name, _)| format!(".{name}").contains(&inside));
        let values: usize = named.map(|(_, shape)| size(shape)).sum();
        match (module, values) {
            ("lm_head", 0) => shape.logits * shape.hidden,
            _ => values,
        }
    });
    let saved: usize = saved.sum();
    Ok(saved + adapter_values(&lora, &shape.linears)?)
}

fn memory(config: &RunConfig, shape: &Shape, trained: usize, tokens: usize, width: f64) -> Memory {
    let (packed, all) = (shape.packed, shape.all);
    let largest = in_blocks(&shape.linears)
        .map(|[o, i]| o * i)
        .max()
        .unwrap_or(0);
    let nf4 = config.model.quantization == "nf4";
    let per_packed = match (nf4, config.model.double_quant) {
        (true, true) => NF4_BYTES,
        (true, false) => NF4_PLAIN_BYTES,
        _ => width,
    };
    let length = tokens / config.train.batch_size.max(1);
    let scores = shape.heads * length;
    let per_token = 16 * shape.hidden + 6 * shape.intermediate;
    let block = tokens as f64 * (width * per_token as f64 + 12.0 * scores as f64);
    let layers = shape.layers as f64;
    let inputs = tokens as f64 * shape.hidden as f64 * width * layers;
    Memory {
        frozen_weights: packed as f64 * per_packed + (all - packed) as f64 * width,
        adapter_and_optimizer: 16.0 * trained as f64,
        activations_recomputed: inputs + block,
        activations_kept: block * layers,
        loss: 3.0 * 4.0 * shape.logits as f64 * tokens.min(512) as f64,
        one_dense_weight: if nf4 { largest as f64 * width } else { 0.0 },
    }
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
