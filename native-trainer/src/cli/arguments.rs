//! Flags of the single commands.

use std::path::PathBuf;

use clap::Args;

use super::ModelArguments;

/// `trainer demo`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  trainer demo --no-serve --out runs/demo")]
pub(crate) struct DemoArguments {
    /// Where the runs, the adapters and the report go.
    #[arg(long, default_value = "runs/demo")]
    pub(crate) out: PathBuf,
    /// Stop after writing the report instead of serving it on loopback, as --json does.
    #[arg(long)]
    pub(crate) no_serve: bool,
    /// Seeds adapter initialization and data order.
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
}

/// `trainer train` and `trainer pretrain`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  trainer train run.toml
  trainer train run.toml --set train.lr=1e-4 --set lora.rank=16 --set output.dir=\"runs/r16\"
  trainer train run.toml --resume")]
pub(crate) struct TrainArguments {
    /// The run's configuration (TOML).
    pub(crate) config: PathBuf,
    /// Override one value: `table.key=value`. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Continue the run in its output folder from its last checkpoint.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Leave malformed data lines out, and count them, instead of stopping.
    #[arg(long)]
    pub(crate) skip_bad: bool,
}

/// `trainer eval`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  trainer eval run.toml
  trainer eval --base ./base --adapter runs/a/adapter --data held_out.jsonl --format dolly
  trainer eval run.toml --metrics bleu,rouge,token_f1 --max-new-tokens 64 --out scores
  trainer eval run.toml --metrics accuracy,macro_f1,label_likelihood,calibration
  trainer eval --base ./base --data book.jsonl --format text --stride 256 --window 512")]
pub(crate) struct EvalArguments {
    /// A run's configuration: its base, what it trained and its held-out data.
    pub(crate) config: Option<PathBuf>,
    /// Override one value of the configuration.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    /// Examples to score.
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Format of `--data`.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Metrics: perplexity, accuracy, macro_f1, macro_recall (labels by generated answer), label_likelihood, calibration
    /// (labels by likelihood), bleu, rouge (or rouge1, rouge2, rougeL, rougeLsum), exact_match, token_f1. Those of the
    /// configuration, or perplexity, when absent.
    #[arg(long, value_delimiter = ',')]
    pub(crate) metrics: Vec<String>,
    /// Longest generated answer in tokens; `--set eval.generation.KEY=VALUE` for everything else.
    #[arg(long)]
    pub(crate) max_new_tokens: Option<usize>,
    /// ROUGE on word stems.
    #[arg(long)]
    pub(crate) stemmer: bool,
    /// Perplexity of long texts in windows that move by this many tokens.
    #[arg(long)]
    pub(crate) stride: Option<usize>,
    /// Tokens per window, with --stride; the base's context when absent.
    #[arg(long, requires = "stride")]
    pub(crate) window: Option<usize>,
    /// Folder for table.md, scores.csv, scores.json, per_example.csv and pictures. Default, after a run: its own folder,
    /// where metrics.json is brought up to date too; but of other examples than the run's nothing is kept.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Longest example in tokens.
    #[arg(long)]
    pub(crate) max_length: Option<usize>,
    /// Examples per batch.
    #[arg(long, default_value_t = 8)]
    pub(crate) batch_size: usize,
}

/// `trainer generate`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  trainer generate --base ./base --prompt \"Once upon a time\" --raw
  trainer generate --base ./base --adapter runs/a/adapter --data prompts.jsonl --out answers.jsonl")]
pub(crate) struct GenerateArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    /// A prompt; may be given several times.
    #[arg(long, conflicts_with = "data")]
    pub(crate) prompt: Vec<String>,
    /// Prompts from a data file.
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Format of `--data`.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Answer with the adapter only, where the base has answered before.
    #[arg(long, requires = "adapter")]
    pub(crate) no_base: bool,
    /// Write `prompt, reference, base, adapted` rows here (JSONL).
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// System message put before every prompt.
    #[arg(long)]
    pub(crate) system: Option<String>,
    /// Feed the prompt as it is, without the chat template.
    #[arg(long, conflicts_with = "data")]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
    /// Prompts per batch.
    #[arg(long, default_value_t = 8)]
    pub(crate) batch_size: usize,
}

/// How tokens are chosen.
#[derive(Debug, Clone, Args)]
pub(crate) struct SamplingArguments {
    /// Longest answer in tokens.
    #[arg(long, default_value_t = 128)]
    pub(crate) max_new_tokens: usize,
    /// 0 takes the likeliest token.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) temperature: f64,
    /// Sample among the K likeliest tokens; 0 for all.
    #[arg(long, default_value_t = 50)]
    pub(crate) top_k: usize,
    /// Sample among the likeliest tokens that hold this probability mass.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) top_p: f64,
    /// Drop tokens less likely than this share of the likeliest.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) min_p: f64,
    /// Above 1 makes tokens already used less likely.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) repetition_penalty: f64,
    /// Seeds sampling; the same seed gives the same text.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Write on past the model's end token.
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// End an answer at this text; may be given several times.
    #[arg(long)]
    pub(crate) stop: Vec<String>,
}

/// `trainer chat`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Commands while chatting: /adapter NAME, /base, /compare TEXT, /reset, /quit

Example:
  trainer chat --base ./base --adapter runs/a/adapter --adapter runs/b/adapter")]
pub(crate) struct ChatArguments {
    /// Folder or hub id of the base; the embedded one when absent.
    #[arg(long)]
    pub(crate) base: Option<String>,
    /// Folders of PEFT adapters; several share one base.
    #[arg(long)]
    pub(crate) adapter: Vec<PathBuf>,
    /// System message.
    #[arg(long)]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
}

/// `trainer quantize`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  trainer quantize --base ./TinyLlama --out ./TinyLlama-nf4")]
pub(crate) struct QuantizeArguments {
    /// Folder or hub id of a plain base.
    #[arg(long)]
    pub(crate) base: String,
    /// Folder to write; must not exist.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Keep the scales in f32 instead of quantizing them too.
    #[arg(long)]
    pub(crate) no_double_quant: bool,
}

/// `trainer dequantize`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  trainer dequantize --base ./TinyLlama-nf4 --out ./TinyLlama-dense --dtype bf16"
)]
pub(crate) struct DequantizeArguments {
    /// Folder or hub id of an NF4 base.
    #[arg(long)]
    pub(crate) base: String,
    /// Folder to write; must not exist.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Type to write: f32, f16 or bf16.
    #[arg(long, default_value = "f32", value_parser = ["f32", "f16", "bf16"])]
    pub(crate) dtype: String,
}

/// `trainer data`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  trainer data run.toml --show 5")]
pub(crate) struct DataArguments {
    /// The run's configuration.
    pub(crate) config: PathBuf,
    /// Override one value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Examples to print in full.
    #[arg(long, default_value_t = 2)]
    pub(crate) show: usize,
}

/// `trainer plan`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  trainer plan run.toml")]
pub(crate) struct PlanArguments {
    /// The run's configuration.
    pub(crate) config: PathBuf,
    /// Override one value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// `trainer inspect`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  trainer inspect runs/demo/sentiment/adapter")]
pub(crate) struct InspectArguments {
    /// The folder of a base, an adapter, a checkpoint or a run.
    pub(crate) path: PathBuf,
    /// Write an adapter again here, unchanged in its tensors.
    #[arg(long)]
    pub(crate) resave: Option<PathBuf>,
}

/// `trainer probe`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example:
  trainer probe --base ./base --adapter ./adapter --ids ids.json --labels labels.json --grads --out out.safetensors")]
pub(crate) struct ProbeArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    /// JSON array of rows of token ids; -1 marks padding at a row's right.
    #[arg(long)]
    pub(crate) ids: PathBuf,
    /// JSON array of rows of labels, -100 where not trained.
    #[arg(long)]
    pub(crate) labels: Option<PathBuf>,
    /// Also write the gradients of the adapter's tensors (needs `--labels` and `--adapter`).
    #[arg(long)]
    pub(crate) grads: bool,
    /// Safetensors file to write.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Recompute blocks in the backward pass.
    #[arg(long)]
    pub(crate) recompute: bool,
}

/// `trainer corpus`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  trainer corpus --out corpus --seed 1")]
pub(crate) struct CorpusArguments {
    /// Folder to write; must not exist.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Seeds every text.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// `trainer bench`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  trainer bench
  trainer bench --what step --dims tinyllama --batch 1 --seq 128 --json")]
pub(crate) struct BenchArguments {
    /// kernels, step (a QLoRA training step) or decode.
    #[arg(long, default_value = "kernels", value_parser = ["kernels", "step", "decode"])]
    pub(crate) what: String,
    /// Model dimensions with random weights: tinyllama or stories15m.
    #[arg(long, default_value = "tinyllama", value_parser = ["tinyllama", "stories15m"])]
    pub(crate) dims: String,
    /// Compute type: auto, f32, f16 or bf16.
    #[arg(long, default_value = "auto", value_parser = ["auto", "f32", "f16", "bf16"])]
    pub(crate) dtype: String,
    /// Quantization of the random base: nf4 or none.
    #[arg(long, default_value = "nf4", value_parser = ["nf4", "none"])]
    pub(crate) quantization: String,
    /// Sequences per step.
    #[arg(long, default_value_t = 1)]
    pub(crate) batch: usize,
    /// Tokens per sequence.
    #[arg(long, default_value_t = 128)]
    pub(crate) seq: usize,
    /// Measured steps after one warm-up.
    #[arg(long, default_value_t = 3)]
    pub(crate) steps: usize,
    /// Recompute blocks: auto, on or off.
    #[arg(long, default_value = "auto", value_parser = ["auto", "on", "off"])]
    pub(crate) recompute: String,
}
