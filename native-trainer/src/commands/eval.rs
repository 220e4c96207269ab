//! `trainer eval`.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use burn::tensor::DType;
use qloom_core::data::{DataConfig, Example, Format, class_names};
use qloom_core::models::Architecture;
use serde_json::{Map, Value};

use super::{Common, UsageError, classify};
use crate::base::{BaseFiles, check_vocabulary};
use crate::cli::EvalArguments;
use crate::config::{self, ModelConfig, RunConfig};
use crate::device::{self, ChosenDevice};
use crate::files::run_dir;
use crate::report::board::Board;
use crate::report::table;
use crate::session::{
    ADAPTER, Adaptable, Data, MODEL, RESIDUAL_BASE, Scoring, labels_of, locate_adapter,
    long_examples, refresh,
};

/// What is scored, and how.
pub(super) struct Task {
    /// Base, data and metrics.
    pub(super) config: RunConfig,
    /// What is held against the base.
    pub(super) subject: Subject,
    /// The run whose own result is scored.
    pub(super) run: Option<PathBuf>,
    /// Examples per batch.
    pub(super) batch_size: usize,
    /// Whether the examples are those of `--data`, not what a run holds out.
    given: bool,
    /// Where files go, where the user says.
    out: Option<PathBuf>,
    /// Of the run whose scores are written: another trainer may be writing them too.
    _lock: Option<File>,
}

/// What is held against the base.
pub(super) enum Subject {
    /// Nothing.
    Base,
    /// The adapter in a folder; it belongs to the base, or to the one named beside it.
    Adapter(PathBuf, Option<PathBuf>),
    /// A model that was trained as a whole.
    Model(PathBuf),
}

impl Subject {
    /// What the run in `folder` made.
    ///
    /// # Errors
    /// The run made nothing yet; its folder is never looked for elsewhere.
    fn of_run(folder: &Path) -> Result<Self> {
        let [adapter, model, base] = [ADAPTER, MODEL, RESIDUAL_BASE].map(|name| folder.join(name));
        match (adapter.is_dir(), model.is_dir()) {
            (true, _) => Ok(Self::Adapter(adapter, base.is_dir().then_some(base))),
            (false, true) => Ok(Self::Model(model)),
            (false, false) => bail!(
                "the run {} has no {ADAPTER}/ and no {MODEL}/: train it first, name its folder with --set output.dir=DIR, or \
                 give an adapter with --adapter",
                folder.display()
            ),
        }
    }

    /// The names of its classes, where it is a classifier that brings some: raw label to word, in class order.
    pub(super) fn label_names(&self) -> Result<Option<Map<String, Value>>> {
        match self {
            Self::Base => Ok(None),
            Self::Adapter(folder, _) => labels_of(&locate_adapter(folder)?),
            Self::Model(folder) => {
                let labels = BaseFiles::open(&folder.to_string_lossy())?.bert_config()?;
                Ok(Some(class_names(&labels.labels)))
            }
        }
    }

    /// The model to hold against `base`, whose files are `files`.
    pub(super) fn load<M: Adaptable>(
        &self,
        files: &BaseFiles,
        base: &M,
        model: &ModelConfig,
        chosen: &ChosenDevice,
        dtype: DType,
    ) -> Result<Option<M>> {
        let open = |folder: &Path| BaseFiles::open(&folder.to_string_lossy());
        let load = |files: &BaseFiles, quantization| {
            M::load(files, chosen, quantization, model.double_quant, dtype)
        };
        Ok(match self {
            Self::Base => None,
            Self::Adapter(folder, None) => Some(base.with_adapter(folder, files)?),
            Self::Adapter(folder, Some(home)) => {
                let home = open(home)?;
                Some(load(&home, "auto")?.with_adapter(folder, &home)?)
            }
            Self::Model(folder) => Some(load(&open(folder)?, "none")?),
        })
    }
}

impl Task {
    /// Writes the files where there is a folder for them, and prints the result. `data` are those that were scored.
    pub(super) fn show(&self, common: &Common, board: &Board, data: &Data) -> Result<()> {
        let folder = match (&self.out, &self.run) {
            (None, Some(run)) => self.refreshed(run, board, data)?,
            (out, _) => out.as_deref(),
        };
        show(common, board, folder)
    }

    /// What is to be scored, and what to call it.
    pub(super) fn examples<'a>(&self, data: &'a Data) -> Result<(&'static str, &'a [Example])> {
        match (self.given, data.eval.is_empty()) {
            (true, _) => Ok(("the given data", &data.train[..])),
            (false, false) => Ok(("held-out", &data.eval[..])),
            (false, true) => Err(UsageError::new(
                "nothing is held out: set data.eval or data.split, or give the examples with --data",
            )
            .into()),
        }
    }

    /// The run's folder, its `metrics.json` brought up to date; none where the scores are not the run's own.
    fn refreshed<'a>(&self, run: &'a Path, board: &Board, data: &Data) -> Result<Option<&'a Path>> {
        let held_out = !self.given && !data.eval.is_empty();
        if held_out && refresh(run, &board.json, &data.hash(), &self.config.model)? {
            return Ok(Some(run));
        }
        eprintln!(
            "{} keeps its scores: these are of other examples, or of the base in another form; name a folder with --out to keep them",
            run.display()
        );
        Ok(None)
    }
}

/// Writes the files where there is a folder for them, and prints the result.
pub(super) fn show(common: &Common, board: &Board, folder: Option<&Path>) -> Result<()> {
    if let Some(folder) = folder {
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

/// Scores base and adapter on the same held-out examples.
pub(super) fn run(common: &Common, arguments: EvalArguments) -> Result<()> {
    let task = resolve(arguments)?;
    let config = &task.config;
    let base = BaseFiles::open(&config.model.base)?;
    if let Architecture::Bert(bert) = base.architecture()? {
        return classify::eval(common, task, &base, &bert);
    }
    let chosen = device::choose(&common.device)?;
    let dtype = device::compute_type(&config.model.compute, &chosen)?;
    let llama = base.llama_config()?;
    let tokenizer = base.tokenizer_for(&config.data)?;
    check_vocabulary(&tokenizer, &llama, &base.name)?;
    let data = Data::load(&config.data, &tokenizer, llama.max_position_embeddings)?;
    let (title, examples) = task.examples(&data)?;
    let model = base.load(
        &chosen,
        &config.model.quantization,
        config.model.double_quant,
        dtype,
    )?;
    let ends = base.end_ids(&llama, &tokenizer);
    let long = long_examples(config, &tokenizer)?;
    let scoring = Scoring {
        examples,
        long: long.as_deref(),
        tokenizer: &tokenizer,
        metrics: &config.eval.metrics,
        labels: &data.labels,
        batch_size: task.batch_size,
        end_ids: &ends,
        settings: &config.eval,
    };
    let subject = task
        .subject
        .load(&base, &model, &config.model, &chosen, dtype)?;
    let base_scores = scoring.score(&model, "base")?;
    let adapted = subject
        .map(|model| scoring.score(&model, "adapted"))
        .transpose()?;
    let board = scoring.board(title, &base_scores, adapted.as_ref())?;
    task.show(common, &board, &data)
}

/// The configuration to score under, and what to score.
fn resolve(arguments: EvalArguments) -> Result<Task> {
    let given = arguments.model.adapter.clone();
    let (batch_size, out) = (arguments.batch_size, arguments.out.clone());
    let mut task = match &arguments.config {
        Some(path) => {
            let mut config = config::load(path, &arguments.set)?;
            let folder = PathBuf::from(&config.output.dir);
            let own = given.is_none() && arguments.model.base.is_none();
            override_model_and_data(&arguments, &mut config)?;
            let subject = match given {
                Some(adapter) => Subject::Adapter(adapter, None),
                None => Subject::of_run(&folder)?,
            };
            let run = (own && folder.is_dir()).then(|| folder.clone());
            let written = run.as_ref().filter(|_| out.is_none());
            Task {
                config,
                _lock: written
                    .map(|run| run_dir::lock(run, "--out DIR"))
                    .transpose()?,
                run,
                subject,
                batch_size,
                given: arguments.data.is_some(),
                out,
            }
        }
        None => Task {
            config: unconfigured(&arguments)?,
            run: None,
            subject: given.map_or(Subject::Base, |a| Subject::Adapter(a, None)),
            batch_size,
            given: true,
            out,
            _lock: None,
        },
    };
    override_eval(&arguments, &mut task.config)?;
    Ok(task)
}

/// What flags alone say.
fn unconfigured(arguments: &EvalArguments) -> Result<RunConfig> {
    if arguments.data.is_none() {
        return Err(UsageError::new("trainer eval needs a run's configuration, or --data with the examples to score (see trainer eval --help)").into());
    }
    let mut config = config::parse("", "--set", &arguments.set)?;
    let set = |key: &str| {
        let keys = arguments.set.iter().filter_map(|item| item.split_once('='));
        keys.map(|(key, _)| key.trim()).any(|found| found == key)
    };
    // Without a run, the base is kept as it is stored.
    if !set("model.quantization") {
        config.model.quantization = "auto".to_owned();
    }
    override_model_and_data(arguments, &mut config)?;
    Ok(config)
}

/// What flags say about the base and the data wins over the configuration.
fn override_model_and_data(arguments: &EvalArguments, config: &mut RunConfig) -> Result<()> {
    let given = &arguments.model;
    if let Some(base) = &given.base {
        config.model.base.clone_from(base);
    }
    // `auto` is what these flags say when they are absent.
    if given.quantization != "auto" {
        config.model.quantization.clone_from(&given.quantization);
    }
    if given.compute != "auto" {
        config.model.compute.clone_from(&given.compute);
    }
    config.data.max_length = arguments.max_length.or(config.data.max_length);
    if let Some(data) = &arguments.data {
        config.data.train = vec![data.display().to_string()];
        config.data.eval = Vec::new();
        config.data.split = DataConfig::default().split;
    }
    if let Some(format) = &arguments.format {
        if arguments.data.is_none() {
            return Err(UsageError::new(
                "--format is that of --data, which is missing; --set data.format=... is the run's",
            )
            .into());
        }
        config.data.format = Some(parse_format(format)?);
    }
    Ok(())
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
