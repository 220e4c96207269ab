//! Flags of the commands that check, sweep and follow recipes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `trainer check`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Looks for what makes a fine-tuned model answer at chance level: a template that is not the base's, a dropped system \
message, label words that begin alike, an end of turn that is never trained, prompts or answers cut off, lopsided labels, \
a learning rate at which the loss grows (measured by a few steps on the base). Exits 1 where training would be in vain.

Examples:
  trainer check run.toml
  trainer check run.toml --set train.lr=1e-3 --no-probe --json")]
pub(crate) struct CheckArguments {
    /// The run's configuration.
    pub(crate) config: PathBuf,
    /// Override one value: `table.key=value`. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Leave out the learning-rate probe, which loads the base and takes about twenty steps.
    #[arg(long)]
    pub(crate) no_probe: bool,
    /// Exit 1 on warnings too.
    #[arg(long)]
    pub(crate) strict: bool,
}

/// `trainer sweep`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A sweep file names a base configuration, a grid and a list:
  [sweep]
  base = \"run.toml\"
  [sweep.grid]
  \"lora.rank\" = [8, 16]
  \"train.seed\" = [1, 2, 3]
  \"data.system\" = [\"none\", \"terse\"]
  [sweep.values.\"data.system\"]
  none = false
  terse = \"Answer with one word.\"
Finished runs are skipped, a killed run continues from its checkpoint: just repeat the command.

Examples:
  trainer sweep sweep.toml --dry-run
  trainer sweep sweep.toml --out runs/ranks --set train.max_steps=200")]
pub(crate) struct SweepArguments {
    /// The sweep (TOML).
    pub(crate) sweep: PathBuf,
    /// Override one value in every run. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Where runs and tables go; `runs/<file name>` when absent.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// List the runs and how far each is, and stop.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `trainer columns`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example:
  trainer columns text=train_text.txt label=train_labels.txt --out train.jsonl")]
pub(crate) struct ColumnsArguments {
    /// `name=file`: line N of the file is the value in row N.
    #[arg(required = true, value_name = "NAME=FILE")]
    pub(crate) columns: Vec<String>,
    /// The JSONL file to write.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// `trainer recipe`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RecipeArguments {
    /// What to do with it.
    #[command(subcommand)]
    pub(crate) action: RecipeAction,
}

/// What can be done with recipes.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum RecipeAction {
    /// List the recipes.
    List,
    /// Print a recipe: a configuration with comments, to read or to copy.
    Show {
        /// A recipe's name.
        name: String,
    },
    /// Follow a recipe from its data to its tables. Repeat the command to continue.
    Run(RecipeRunArguments),
}

/// `trainer recipe run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  trainer recipe run tweet_sentiment --small
  trainer recipe run dolly_sizes --base TinyLlama/TinyLlama-1.1B-Chat-v1.0 --data dolly.jsonl --out runs/dolly
  trainer recipe run alpaca_1k --small --base ./stories260K --data alpaca.json")]
pub(crate) struct RecipeRunArguments {
    /// A recipe's name (see `trainer recipe list`), or a recipe file.
    pub(crate) name: String,
    /// The scale that runs in minutes; on the embedded base and generated data where --base and --data are not given.
    #[arg(long)]
    pub(crate) small: bool,
    /// Folder or hub id of the base, instead of the recipe's.
    #[arg(long)]
    pub(crate) base: Option<String>,
    /// The data: a file, a hub data set, or a folder in the layout the recipe names.
    #[arg(long)]
    pub(crate) data: Option<String>,
    /// Where everything goes; `runs/<recipe>` (with `-small`) when absent.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Override one value of the configuration. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Write data and configurations, check them, and stop before training.
    #[arg(long)]
    pub(crate) prepare: bool,
    /// OpenAI-compatible endpoint for recipes with a judge; without one that step is left out, and said to be.
    #[arg(long, value_name = "URL")]
    pub(crate) judge: Option<String>,
    /// The judge's model.
    #[arg(long, value_name = "MODEL")]
    pub(crate) judge_model: Option<String>,
    /// A judge on this machine, instead of an endpoint: folder or hub id of a base.
    #[arg(long, value_name = "BASE")]
    pub(crate) judge_base: Option<String>,
    /// A BERT-class base for BERTScore, instead of the recipe's.
    #[arg(long, value_name = "BASE")]
    pub(crate) embedder: Option<String>,
}
