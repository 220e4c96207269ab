//! Flags of `trainer judge`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::ModelArguments;

/// `trainer judge`.
#[derive(Debug, Clone, Args)]
#[command(
    group = ArgGroup::new("who").required(true).args(["endpoint", "base"]),
    after_help = "\
The key is read from the environment (OPENAI_API_KEY, or what --key-env names) and kept nowhere.
Every reply goes to cache.jsonl at once: the same command asks nothing twice and continues
what was interrupted.

Examples:
  trainer generate --base ./base --adapter runs/a/adapter --data held_out.jsonl --out answers.jsonl
  trainer judge --pairs answers.jsonl --endpoint http://127.0.0.1:8000/v1 --model my-judge
  trainer judge --pairs answers.jsonl --endpoint https://api.openai.com/v1 --model gpt-4o --rate 60
  trainer judge --pairs answers.jsonl --base ./strong-base"
)]
pub(crate) struct JudgeArguments {
    /// Rows with `prompt`, `base`, `adapted` and perhaps `reference`, as `trainer generate --out` writes them.
    #[arg(long, value_name = "FILE")]
    pub(crate) pairs: PathBuf,
    /// An OpenAI-compatible endpoint: its address up to `/v1`.
    #[arg(long, value_name = "URL", requires = "model")]
    pub(crate) endpoint: Option<String>,
    /// The judge's name at the endpoint.
    #[arg(long, value_name = "NAME", conflicts_with = "base")]
    pub(crate) model: Option<String>,
    /// A judge on this machine, instead of an endpoint.
    #[command(flatten)]
    pub(crate) local: ModelArguments,
    /// Folder for cache.jsonl, judge.csv and judge.json; `PAIRS.judge` beside the pairs when absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Column of the first answer, the one to improve on.
    #[arg(long, value_name = "COLUMN", default_value = "base")]
    pub(crate) a: String,
    /// Column of the second answer, whose win rate is reported.
    #[arg(long, value_name = "COLUMN", default_value = "adapted")]
    pub(crate) b: String,
    /// Column of the prompt.
    #[arg(long, value_name = "COLUMN", default_value = "prompt")]
    pub(crate) prompt: String,
    /// Column of the reference answer; may be missing in the file.
    #[arg(long, value_name = "COLUMN", default_value = "reference")]
    pub(crate) reference: String,
    /// Environment variable that holds the key.
    #[arg(long, value_name = "NAME")]
    pub(crate) key_env: Option<String>,
    /// Questions in flight at a time (endpoint), or in a batch (base).
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) concurrency: u16,
    /// Most questions a minute; no limit when absent.
    #[arg(long, value_name = "PER_MINUTE")]
    pub(crate) rate: Option<f64>,
    /// Tries after the first, on timeouts and on the statuses 408, 409, 425, 429 and 5xx.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) max_retries: u32,
    /// Seconds to wait for one reply.
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0)]
    pub(crate) timeout: f64,
    /// 0 for the likeliest verdict; `none` leaves it to the endpoint, for judges that take no temperature.
    #[arg(long, value_name = "T", default_value = "0")]
    pub(crate) temperature: String,
    /// Longest reply in tokens; the endpoint's own limit when absent, 256 with --base.
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
    /// Draws of the bootstrap intervals.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) resamples: usize,
}
