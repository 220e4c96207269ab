//! Flags of `trainer merge` and `trainer merge-into-base`.

use std::path::PathBuf;

use clap::Args;

/// `trainer merge`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Methods: linear, cat, svd, ties, ties_svd, dare_linear, dare_ties, dare_linear_svd, dare_ties_svd,
magnitude_prune, magnitude_prune_svd. Those without _svd work on the factors and need equal ranks (cat
takes any); those with it work on the updates themselves. All but linear, cat and svd need --density.

Examples:
  trainer merge --adapters runs/a/adapter runs/b/adapter --weights 0.7,0.3 --exact --out merged
  trainer merge --adapters A B C --weights 1,1,1 --method ties --density 0.5 --out merged
  trainer merge --adapters A B --weights 1,-0.5 --method dare_ties_svd --density 0.7 --seed 1 --rank 16 --out merged")]
pub(crate) struct MergeArguments {
    /// Folders or hub ids of PEFT adapters of one base.
    #[arg(long, required = true, num_args = 1.., value_name = "ADAPTER")]
    pub(crate) adapters: Vec<PathBuf>,
    /// One weight per adapter, separated by commas; negative ones subtract. All 1 when absent.
    #[arg(
        long,
        value_delimiter = ',',
        allow_hyphen_values = true,
        value_name = "W,W,..."
    )]
    pub(crate) weights: Vec<f64>,
    /// How to combine (see below). Default: svd.
    #[arg(long)]
    pub(crate) method: Option<String>,
    /// Share of entries kept by ties, dare and magnitude_prune, above 0 and at most 1.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) density: Option<f64>,
    /// How ties elects the sign of an entry: total (of the sum) or frequency (of the majority).
    #[arg(long, default_value = "total")]
    pub(crate) sign: String,
    /// Rank of the result, for svd, the _svd methods and --exact. Default: the largest of the adapters' ranks; with
    /// --exact the rank the sum has.
    #[arg(long)]
    pub(crate) rank: Option<usize>,
    /// Clamp both factors at this quantile of their values, as PEFT's svd_clamp.
    #[arg(long, value_name = "QUANTILE")]
    pub(crate) clamp: Option<f64>,
    /// Seeds the masks of dare; the same seed gives the same adapter on any machine.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Write the weighted sum of the updates itself, truncated once. With --method, also say how far that one is.
    #[arg(long)]
    pub(crate) exact: bool,
    /// `peft` reproduces PEFT where it is wrong (merges led by an rsLoRA adapter come out sqrt(rank) times too large).
    #[arg(long, value_parser = ["peft"])]
    pub(crate) compat: Option<String>,
    /// Adapters that call their base by different names are of one base.
    #[arg(long)]
    pub(crate) same_base: bool,
    /// What to do where adapters carry different tensors trained in full (a head): refuse, average or first.
    #[arg(long, default_value = "refuse", value_parser = ["refuse", "average", "first"])]
    pub(crate) saved: String,
    /// Folder to write; must not exist.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// `trainer merge-into-base`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example:
  trainer merge-into-base --base ./TinyLlama-nf4 --adapter runs/a/adapter --out ./TinyLlama-merged --data held_out.jsonl")]
pub(crate) struct MergeIntoBaseArguments {
    /// Folder or hub id of the base, dense or NF4; the embedded one when absent.
    #[arg(long)]
    pub(crate) base: Option<String>,
    /// Folder or hub id of a PEFT adapter for it.
    #[arg(long)]
    pub(crate) adapter: PathBuf,
    /// Folder to write; must not exist.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Write NF4: adapted weights are dequantized, merged and quantized again. Loses part of the update.
    #[arg(long)]
    pub(crate) requantize: bool,
    /// Text (labelled, for an encoder) on which the merged base is held against base and adapter served unmerged. Default:
    /// a generated sample.
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Format of `--data`.
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Examples compared at most.
    #[arg(long, default_value_t = 64)]
    pub(crate) examples: usize,
    /// Longest example in tokens.
    #[arg(long)]
    pub(crate) max_length: Option<usize>,
    /// Compute type of the comparison: auto, f32, f16 or bf16.
    #[arg(long, default_value = "f32", value_parser = ["auto", "f32", "f16", "bf16"])]
    pub(crate) compute: String,
}
