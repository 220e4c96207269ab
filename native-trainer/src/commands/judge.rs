//! `trainer judge`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use qloom_core::evaluation::BootstrapConfig;
use qloom_core::evaluation::judge::{JudgeParameters, judge_report};
use serde_json::{Value, json};

use super::{Common, UsageError};
use crate::cli::JudgeArguments;
use crate::judge::Questions;
use crate::judge::cache::Cache;
use crate::judge::endpoint::Endpoint;
use crate::judge::local::LocalJudge;
use crate::judge::output::Judged;
use crate::judge::pairs::{Columns, read_pairs};
use crate::judge::pool::{self, Pressure};
use crate::progress::Mode;
use crate::progress::interrupt::Interrupt;
use crate::report::numbers;
use crate::report::table::Look;

const DEFAULT_KEY: &str = "OPENAI_API_KEY";
const STOPPING: &str =
    "waiting for the replies under way, which are kept; press Ctrl-C again to stop at once";

/// Longest reply of a local judge.
const LOCAL_TOKENS: usize = 256;

/// Asks a judge about every pair in both orders and reports what follows.
pub(super) fn run(common: &Common, arguments: JudgeArguments) -> Result<()> {
    let columns = Columns {
        prompt: arguments.prompt.clone(),
        reference: arguments.reference.clone(),
        base: arguments.a.clone(),
        adapted: arguments.b.clone(),
    };
    let parameters = parameters(&arguments)?;
    let pairs = read_pairs(&arguments.pairs, &columns)?;
    let judge = Judge::open(common, &arguments)?;
    let questions = Questions::new(&pairs, judge.model(), parameters)?;
    let folder = folder(&arguments);
    let mut cache = Cache::open(&folder)?;
    let asked = ask(&judge, &arguments, &questions, &mut cache)?;

    let (verdicts, cut) = questions.verdicts(&cache)?;
    let bootstrap = BootstrapConfig {
        n_resamples: arguments.resamples,
        ..BootstrapConfig::default()
    };
    let report = judge_report(&verdicts, &bootstrap)?;
    let judged = Judged {
        pairs: &pairs,
        verdicts: &verdicts,
        report: &report,
        cut,
        columns: &columns,
        judge: judge.describe(&parameters),
        asked,
    };
    let value = judged.write(&folder)?;
    if common.json {
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else {
        println!("{}", judged.table(Look::stdout()));
    }
    for warning in judged.warnings() {
        eprintln!("warning: {warning}");
    }
    eprintln!(
        "{} questions asked, {} from the cache; every pair in {}",
        numbers::count(asked as u64),
        numbers::count((questions.len() - asked) as u64),
        folder.join("judge.csv").display()
    );
    Ok(())
}

/// Asks what is not in the cache yet, and says how many questions that were.
fn ask(
    judge: &Judge,
    arguments: &JudgeArguments,
    questions: &Questions,
    cache: &mut Cache,
) -> Result<usize> {
    let open = questions.open(cache);
    let total = open.len();
    if total == 0 {
        return Ok(0);
    }
    let stop = Interrupt::install_saying(STOPPING)?;
    let mode = Mode::detect(false);
    let ended = match judge {
        Judge::Remote {
            endpoint, pressure, ..
        } => pool::ask_all(endpoint, &open, *pressure, cache, &stop, mode),
        Judge::Local(local) => {
            let batch = usize::from(arguments.concurrency);
            local.ask_all(&open, batch, cache, &stop, mode)
        }
    };
    let left = questions.open(cache).len();
    let kept = format!(
        "{} of {} questions were answered and are kept in {}; the same command asks only for the rest",
        total - left,
        total,
        cache.path().display()
    );
    ended.map_err(|error| anyhow!("{error:#}. {kept}"))?;
    if left > 0 {
        bail!("interrupted: {kept}");
    }
    Ok(total)
}

/// Who judges.
enum Judge {
    Remote {
        endpoint: Endpoint,
        pressure: Pressure,
        model: String,
    },
    Local(Box<LocalJudge>),
}

impl Judge {
    fn open(common: &Common, arguments: &JudgeArguments) -> Result<Self> {
        let Some(url) = &arguments.endpoint else {
            return Ok(Self::Local(Box::new(LocalJudge::load(
                &arguments.local,
                &common.device,
            )?)));
        };
        let timeout = seconds(arguments.timeout)
            .filter(|t| !t.is_zero())
            .ok_or_else(|| {
                UsageError::new(format!(
                    "--timeout {}: expected seconds above 0",
                    arguments.timeout
                ))
            })?;
        let (key, name) = key(arguments.key_env.as_deref())?;
        let endpoint = Endpoint::new(url, key, &name, timeout)?;
        if endpoint.exposes_key() {
            eprintln!(
                "warning: the key in {name} travels unencrypted to {}: use https",
                endpoint.shown()
            );
        }
        Ok(Self::Remote {
            endpoint,
            pressure: pressure(arguments)?,
            model: arguments.model.clone().unwrap_or_default(),
        })
    }

    fn model(&self) -> &str {
        match self {
            Self::Remote { model, .. } => model,
            Self::Local(local) => local.name(),
        }
    }

    fn describe(&self, parameters: &JudgeParameters) -> Value {
        let endpoint = match self {
            Self::Remote { endpoint, .. } => Some(endpoint.shown()),
            Self::Local(_) => None,
        };
        json!({
            "model": self.model(),
            "endpoint": endpoint,
            "temperature": parameters.temperature,
            "max_tokens": parameters.max_tokens,
        })
    }
}

fn parameters(arguments: &JudgeArguments) -> Result<JudgeParameters> {
    let text = arguments.temperature.trim();
    let temperature = match text {
        "none" => None,
        _ => Some(
            text.parse::<f64>()
                .ok()
                .filter(|t| t.is_finite() && *t >= 0.0)
                .ok_or_else(|| {
                    UsageError::new(format!(
                        "--temperature {text}: expected a number from 0, or none"
                    ))
                })?,
        ),
    };
    if arguments.max_tokens == Some(0) {
        return Err(UsageError::new("--max-tokens 0 leaves no room for a verdict").into());
    }
    if arguments.endpoint.is_some() {
        return Ok(JudgeParameters {
            temperature,
            max_tokens: arguments.max_tokens,
        });
    }
    if temperature.is_some_and(|t| t > 0.0) {
        return Err(UsageError::new("--temperature: a local judge is greedy; leave it out").into());
    }
    Ok(JudgeParameters {
        temperature: Some(0.0),
        max_tokens: Some(arguments.max_tokens.unwrap_or(LOCAL_TOKENS)),
    })
}

fn pressure(arguments: &JudgeArguments) -> Result<Pressure> {
    let gap = match arguments.rate {
        None => Duration::ZERO,
        Some(rate) => seconds(60.0 / rate).filter(|_| rate > 0.0).ok_or_else(|| {
            UsageError::new(format!(
                "--rate {rate}: expected questions a minute, above 0"
            ))
        })?,
    };
    Ok(Pressure {
        concurrency: usize::from(arguments.concurrency),
        gap,
        max_retries: arguments.max_retries,
        first_pause: Duration::from_millis(500),
    })
}

fn seconds(value: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(value).ok()
}

/// The key and the name of its variable. A variable that was asked for must be there; the usual one need not, since judges on
/// one's own machine take no key.
fn key(asked: Option<&str>) -> Result<(Option<String>, String)> {
    let name = asked.unwrap_or(DEFAULT_KEY);
    let key = std::env::var(name).ok().map(|k| k.trim().to_owned());
    let key = key.filter(|k| !k.is_empty());
    if asked.is_some() && key.is_none() {
        return Err(UsageError::new(format!(
            "--key-env {name}: there is no such environment variable, or it is empty"
        ))
        .into());
    }
    Ok((key, name.to_owned()))
}

/// `--out`, or `answers.judge` for `answers.jsonl`.
fn folder(arguments: &JudgeArguments) -> PathBuf {
    let beside = |pairs: &Path| pairs.with_extension("judge");
    arguments
        .out
        .clone()
        .unwrap_or_else(|| beside(&arguments.pairs))
}
