//! The command line's types; nothing below this module reads flags.

mod arguments;
mod judge;
mod merge;
mod publish;
mod score;
mod serve;
mod sweep;

pub(crate) use arguments::*;
pub(crate) use judge::JudgeArguments;
pub(crate) use merge::*;
pub(crate) use publish::PublishArguments;
pub(crate) use score::*;
pub(crate) use serve::ServeArguments;
pub(crate) use sweep::*;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// QLoRA fine-tuning of Llama models and BERT encoders from one config file, on CUDA, wgpu or a CPU.
///
/// Start with `trainer demo`: no file and no network needed.
#[derive(Debug, Parser)]
#[command(
    name = "trainer",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  trainer demo
  trainer data run.toml --show 3
  trainer train run.toml --set train.lr=1e-4
  trainer eval --base ./base --adapter runs/a/adapter --data held_out.jsonl --format alpaca
  trainer generate --base owner/name --adapter runs/a/adapter --prompt \"Name three birds.\""
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Where to compute: auto, cpu, cuda, wgpu, vulkan or metal; `cuda:1` is the second CUDA device.
    #[arg(long, global = true, default_value = "auto", value_name = "DEVICE")]
    pub(crate) device: String,

    /// Print the result as JSON on stdout.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The commands, in the order that help lists them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fine-tune the embedded base on two tasks and show before and after. No file, no network.
    Demo(DemoArguments),
    /// Run one fine-tuning from a config file.
    Train(TrainArguments),
    /// Score base and adapter on the same examples, with confidence intervals.
    Eval(EvalArguments),
    /// Score predictions against references, from files.
    Score(ScoreArguments),
    /// Generate answers, base and adapted side by side.
    Generate(GenerateArguments),
    /// Talk to a base and its adapters.
    Chat(ChatArguments),
    /// Quantize a base to NF4 in the bitsandbytes layout.
    Quantize(QuantizeArguments),
    /// Write an NF4 base as plain floats.
    Dequantize(DequantizeArguments),
    /// Merge adapters of one base into one, by PEFT's methods or exactly.
    Merge(MergeArguments),
    /// Merge an adapter into its base, and say what that costs.
    MergeIntoBase(MergeIntoBaseArguments),
    /// Show what the model will be trained on: text, trained tokens, lengths, checks.
    Data(DataArguments),
    /// Find what would make a run learn nothing, before it runs.
    Check(CheckArguments),
    /// A grid or list of runs, resumable, in one table.
    Sweep(SweepArguments),
    /// Follow a recipe: known experiments as one command each.
    Recipe(RecipeArguments),
    /// Join files of one value a line into JSONL.
    Columns(ColumnsArguments),
    /// Predict memory and time, and say what to change to fit.
    Plan(PlanArguments),
    /// Say what a base, an adapter, a checkpoint or a run holds.
    Inspect(InspectArguments),
    /// Logits, loss and adapter gradients for given token ids, to check against other programs.
    Probe(ProbeArguments),
    /// Train a whole model from random weights.
    Pretrain(TrainArguments),
    /// Write the data sets and the tokenizer the embedded base is made from.
    Corpus(CorpusArguments),
    /// Let a language model compare two answers per prompt, asked in both orders.
    Judge(JudgeArguments),
    /// Write an adapter into a static site, with card, scores, samples and hashes; or check a site.
    Publish(PublishArguments),
    /// Serve a site or a run's folder on loopback.
    Serve(ServeArguments),
    /// List the devices this machine offers.
    Devices,
    /// Measure this machine beside its floor.
    Bench(BenchArguments),
    /// Print a shell completion script.
    Completions {
        /// The shell to complete for.
        shell: clap_complete::Shell,
    },
}

/// A base and, perhaps, an adapter for it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ModelArguments {
    /// Folder or hub id (`owner/name[@revision]`) of the base; the embedded one when absent.
    #[arg(long)]
    pub(crate) base: Option<String>,
    /// Folder of a PEFT adapter.
    #[arg(long)]
    pub(crate) adapter: Option<PathBuf>,
    /// How to keep the base's linear layers: `auto` keeps them as they are stored.
    #[arg(long, default_value = "auto", value_parser = ["auto", "nf4", "none"])]
    pub(crate) quantization: String,
    /// Compute type: auto, f32, f16 or bf16.
    #[arg(long, default_value = "auto", value_parser = ["auto", "f32", "f16", "bf16"])]
    pub(crate) compute: String,
}
