//! What a run needs of memory, predicted from shapes; `trainer plan` prints it, `trainer train` refuses by it.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use qloom_core::lora::{Method, adapter_values, head_modules};
use qloom_core::models::Architecture;
use qloom_core::train::Recompute;
use serde::Serialize;

use crate::config::RunConfig;
use crate::report::numbers;
use crate::session::{Data, with_head};

/// NF4 with double quantization: 4 bits, 8/64 for the scale, 32/(64·256) for the scale's scale.
const NF4_BYTES: f64 = 0.5 + 1.0 / 64.0 + 4.0 / (64.0 * 256.0);
const NF4_PLAIN_BYTES: f64 = 0.5 + 4.0 / 64.0;

/// Bytes a run needs, by what needs them.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    /// The base as it is kept.
    pub(crate) frozen_weights: f64,
    /// Trained values, gradient and both moments.
    pub(crate) adapter_and_optimizer: f64,
    /// Inputs of every block and the tape of one.
    pub(crate) activations_recomputed: f64,
    /// The tape of all blocks.
    pub(crate) activations_kept: f64,
    /// One chunk of logits with its gradient.
    pub(crate) loss: f64,
    /// The largest weight, unpacked for one product.
    pub(crate) one_dense_weight: f64,
}

impl Memory {
    /// The peak, with blocks recomputed or all activations kept.
    pub(crate) fn total(&self, recompute: bool) -> f64 {
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
pub(crate) struct Shape {
    /// Width of the residual stream.
    pub(crate) hidden: usize,
    /// Width of the feed-forward layer.
    pub(crate) intermediate: usize,
    /// Query heads.
    pub(crate) heads: usize,
    /// Blocks.
    pub(crate) layers: usize,
    /// Longest sequence.
    pub(crate) context: usize,
    /// Logits per target: the vocabulary, or the classes.
    pub(crate) logits: usize,
    /// Linears that can be adapted.
    pub(crate) linears: Vec<(String, [usize; 2])>,
    /// Values in the blocks' linears, which NF4 packs.
    pub(crate) packed: usize,
    /// All values.
    pub(crate) all: usize,
    /// Every tensor's name and shape.
    pub(crate) tensors: Vec<(String, Vec<usize>)>,
    /// Modules trained with every adapter: a classifier's head.
    pub(crate) head: Vec<String>,
}

impl Shape {
    /// Of a model.
    pub(crate) fn of(architecture: &Architecture) -> Self {
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

/// Values the method trains, by where they end: in the adapter's pairs, or as whole weights.
pub(crate) fn trained_values(config: &RunConfig, shape: &Shape) -> Result<usize> {
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

/// Bytes of a run over micro-batches of `rows` sequences of `length` tokens, floats of `width` bytes.
pub(crate) fn predict(
    config: &RunConfig,
    shape: &Shape,
    trained: usize,
    [rows, length]: [usize; 2],
    width: f64,
) -> Memory {
    let tokens = rows * length;
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

/// Refuses a run on the CPU that needs several times the memory that is free: there is no error to catch once the system
/// kills the process. Says so where it may be tight.
///
/// # Errors
/// What is needed, what is free, and what to change.
pub(crate) fn check_room(
    config: &RunConfig,
    architecture: &Architecture,
    data: &Data,
) -> Result<()> {
    let Some(free) = available_bytes() else {
        return Ok(());
    };
    let shape = Shape::of(architecture);
    let rows = config.train.batch_size.min(data.train.len());
    let longest = data.train.iter().map(|e| e.len()).max().unwrap_or(0);
    let length = if config.data.packing {
        data.max_length
    } else {
        longest
    };
    let recomputes = config.train.recompute != Recompute::Off;
    let trained = trained_values(config, &shape)?;
    let needed = predict(config, &shape, trained, [rows, length], 4.0).total(recomputes);
    if needed <= free {
        return Ok(());
    }
    let said = format!(
        "a micro-batch of {rows} x {length} tokens needs about {} of memory, {} are free",
        numbers::bytes(needed as u64),
        numbers::bytes(free as u64)
    );
    let cure = "lower train.batch_size (train.grad_accumulation makes up for it) or data.max_length, set \
                train.recompute = \"on\"; `trainer plan CONFIG` shows what takes how much";
    // The prediction is an upper bound, so only what is far beyond it is refused.
    if needed > 3.0 * free {
        bail!("{said}: {cure}");
    }
    eprintln!("warning: {said}: {cure}");
    Ok(())
}

/// Memory that can be had without swapping, where the system says (Linux).
fn available_bytes() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0)
}
