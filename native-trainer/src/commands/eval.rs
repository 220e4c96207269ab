//! `trainer eval`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use qloom_core::data::Format;
use qloom_core::models::Architecture;

use super::{Common, UsageError, classify};
use crate::base::{BaseFiles, check_vocabulary};
use crate::cli::EvalArguments;
use crate::config::{self, RunConfig};
use crate::device;
use crate::report::board::Board;
use crate::report::table;
use crate::session::{Data, Scoring, load_adapter, long_examples};

/// Scores base and adapter on the same held-out examples.
pub(super) fn run(common: &Common, arguments: EvalArguments) -> Result<()> {
    let (config, adapter) = resolve(&arguments)?;
    let base = BaseFiles::open(&config.model.base)?;
    if let Architecture::Bert(bert) = base.architecture()? {
        let batch = arguments.batch_size;
        let out = out_folder(&arguments, &config);
        let out = out.as_deref();
        return classify::eval(common, config, adapter, batch, &base, &bert, out);
    }
    let chosen = device::choose(&common.device)?;
    let dtype = device::compute_type(&config.model.compute, &chosen)?;
    let llama = base.llama_config()?;
    let tokenizer = base.tokenizer_for(&config.data)?;
    check_vocabulary(&tokenizer, &llama, &base.name)?;
    let data = Data::load(&config.data, &tokenizer, llama.max_position_embeddings)?;
    let examples = if data.eval.is_empty() {
        &data.train
    } else {
        &data.eval
    };
    let model = base.load(
        &chosen,
        &config.model.quantization,
        config.model.double_quant,
        dtype,
    )?;
    let ends = base.end_ids(&llama, &tokenizer);
    let long = long_examples(&config, &tokenizer)?;
    let scoring = Scoring {
        examples,
        long: long.as_deref(),
        tokenizer: &tokenizer,
        metrics: &config.eval.metrics,
        labels: &data.labels,
        batch_size: arguments.batch_size,
        end_ids: &ends,
        settings: &config.eval,
    };
    let base_scores = scoring.score(&model, "base")?;
    let adapted = match &adapter {
        Some(folder) => Some(scoring.score(
            &model.with(&load_adapter(folder.as_ref(), &base, &model)?),
            "adapted",
        )?),
        None => None,
    };
    let board = scoring.board("held-out", &base_scores, adapted.as_ref())?;
    let out = out_folder(&arguments, &config);
    show(common, &board, out.as_deref())
}

/// Writes the files where there is a folder for them, and prints the result.
pub(super) fn show(common: &Common, board: &Board, out: Option<&Path>) -> Result<()> {
    if let Some(folder) = out {
        board.write(folder)?;
        eprintln!(
            "scores of {} examples in {}",
            board.examples,
            folder.display()
        );
    }
    match common.json {
        true => println!("{}", serde_json::to_string_pretty(&board.json)?),
        false => println!("{}", board.table(table::Look::stdout())),
    }
    Ok(())
}

/// Where files go: where told to, else beside the run that is scored, if it is its own adapter that is.
fn out_folder(arguments: &EvalArguments, config: &RunConfig) -> Option<PathBuf> {
    let run = || {
        let run = PathBuf::from(&config.output.dir);
        let own = arguments.config.is_some() && arguments.model.adapter.is_none();
        (own && run.is_dir()).then_some(run)
    };
    arguments.out.clone().or_else(run)
}

/// The configuration to score under, and the adapter's folder.
fn resolve(arguments: &EvalArguments) -> Result<(RunConfig, Option<String>)> {
    if let Some(path) = &arguments.config {
        let mut config = config::load(path, &arguments.set)?;
        override_eval(arguments, &mut config)?;
        let adapter = format!("{}/adapter", config.output.dir);
        let adapter = arguments
            .model
            .adapter
            .as_ref()
            .map_or(adapter, |a| a.display().to_string());
        return Ok((config, Some(adapter)));
    }
    let data = arguments.data.as_ref().ok_or_else(|| {
        UsageError::new("trainer eval needs a run's configuration, or --data with the examples to score (see trainer eval --help)")
    })?;
    let mut config = config::parse("", "--set", &arguments.set)?;
    config.model.base = arguments.model.base.clone().unwrap_or_default();
    config
        .model
        .quantization
        .clone_from(&arguments.model.quantization);
    config.model.compute.clone_from(&arguments.model.compute);
    config.data.train = vec![data.display().to_string()];
    config.data.max_length = arguments.max_length.or(config.data.max_length);
    if let Some(format) = &arguments.format {
        config.data.format = Some(parse_format(format)?);
    }
    override_eval(arguments, &mut config)?;
    Ok((
        config,
        arguments
            .model
            .adapter
            .as_ref()
            .map(|a| a.display().to_string()),
    ))
}

/// What flags say about scoring wins over the configuration.
fn override_eval(arguments: &EvalArguments, config: &mut RunConfig) -> Result<()> {
    if arguments.batch_size == 0 {
        return Err(UsageError::new("--batch-size 0: expected at least 1").into());
    }
    let eval = &mut config.eval;
    if !arguments.metrics.is_empty() {
        eval.metrics.clone_from(&arguments.metrics);
    }
    if let Some(longest) = arguments.max_new_tokens {
        eval.generation.max_new_tokens = longest;
    }
    eval.stemmer |= arguments.stemmer;
    eval.stride = arguments.stride.or(eval.stride);
    eval.window = arguments.window.or(eval.window);
    config::check_eval(eval).map_err(|reason| UsageError::new(reason).into())
}

/// A data format by name.
pub(super) fn parse_format(name: &str) -> Result<Format> {
    let known = || Format::ALL.map(Format::name).join(", ");
    Format::ALL
        .into_iter()
        .find(|format| format.name() == name)
        .with_context(|| format!("--format {name}: expected one of {}", known()))
        .map_err(|error| UsageError::new(error.to_string()).into())
}
