//! Flags of `trainer publish`.

use std::path::PathBuf;

use clap::Args;

/// `trainer publish`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Writes adapters/SLUG/ (adapter, model card, configuration, scores, samples, loss curve, and
entry.json with the hash of every file) and its row in adapters/index.json. Publishing the same
slug again replaces it. The site is static: any host will do.

Examples:
  trainer publish runs/demo/sentiment/adapter --site www --name \"Sentiment\" --licence MIT
  trainer publish ./adapter --run runs/a --site www --base-name TinyLlama/TinyLlama-1.1B-Chat-v1.0
  trainer publish --check --site www")]
pub(crate) struct PublishArguments {
    /// Folder or hub id of a PEFT adapter.
    #[arg(required_unless_present = "check", conflicts_with = "check")]
    pub(crate) adapter: Option<PathBuf>,
    /// The site's folder; made when missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) site: PathBuf,
    /// Check the site instead: names, sizes, hashes, receipts.
    #[arg(long)]
    pub(crate) check: bool,
    /// The run that made the adapter; found by itself where the adapter lies in its folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: Option<PathBuf>,
    /// Name to show; the run's or the adapter's folder when absent.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The entry's folder name; made from the name when absent.
    #[arg(long)]
    pub(crate) slug: Option<String>,
    /// What it was trained to do, in a word or two; the name when absent.
    #[arg(long)]
    pub(crate) task: Option<String>,
    /// A sentence about it.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// SPDX identifier or name of its licence.
    #[arg(long, visible_alias = "license", value_name = "SPDX")]
    pub(crate) licence: Option<String>,
    /// Day of publishing, YYYY-MM-DD; today (UTC) when absent.
    #[arg(long, value_name = "DATE")]
    pub(crate) created: Option<String>,
    /// The base's public name, where the adapter knows it as a folder.
    #[arg(long, value_name = "OWNER/NAME")]
    pub(crate) base_name: Option<String>,
    /// Samples (`prompt, reference, base, adapted` rows) instead of the run's.
    #[arg(long, value_name = "FILE")]
    pub(crate) samples: Option<PathBuf>,
}
