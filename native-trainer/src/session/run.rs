//! The run itself: set up, train, keep, score, report.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use burn::tensor::DType;
use qloom_core::data::{BatchOptions, BatchPlan, CollateOptions, DataConfig};
use qloom_core::host::block_on;
use qloom_core::models::Architecture;
use qloom_core::models::embedding::EmbeddingPlace;
use qloom_core::models::llama::{
    self, BaseQuantization, Llama, LlamaConfig, LoadOptions, random_weights,
};
use qloom_core::tokenizer::Tokenizer;
use qloom_core::train::{Objective, Outcome, Parameters, Stop, TrainSet, Trainer};
use serde_json::{Map, Value, json};

use super::classifier;
use super::host::{BEST, RunHost};
use super::method::{self, Summary};
use super::observer::RunObserver;
use super::parameters::all_parameters;
use super::resume::{fingerprint as fingerprint_of, refuse_changes};
use super::samples::{SAMPLES, write_samples};
use super::{Artifact, Data, ModelScores, Scoring, answer, latest, long_examples};
use super::{base_scores, preflight};
use crate::base::{BaseFiles, check_vocabulary};
use crate::config::{EvalConfig, PretrainConfig, RunConfig};
use crate::device;
use crate::files::run_dir::{self, RunDir};
use crate::files::{atomic, jsonl, read};
use crate::memory;
use crate::progress::interrupt::Interrupt;
use crate::report::curve::LossCurve;
use crate::report::plot;
use crate::report::scores::{Metric, Sample};

/// What a finished run has to show.
#[derive(Debug)]
pub(crate) struct RunResult {
    /// The run's folder.
    pub(crate) folder: PathBuf,
    /// The adapter or model folder.
    pub(crate) artifact: PathBuf,
    /// How training ended.
    pub(crate) outcome: Outcome,
    /// Base against adapted.
    pub(crate) metrics: Vec<Metric>,
    /// Prompts answered by both.
    pub(crate) samples: Vec<Sample>,
    /// Held-out examples scored.
    pub(crate) examples: usize,
    /// The loss curve.
    pub(crate) curve: LossCurve,
    /// What was trained, and what it takes.
    pub(crate) summary: Summary,
    /// Tokens a second, median over steps.
    pub(crate) tokens_per_s: f64,
}

/// Fine-tunes as `config` says. `data` overrides the files it names.
pub(crate) fn train(
    config: &RunConfig,
    device_name: &str,
    resume: bool,
    data: Option<Data>,
    task: &str,
) -> Result<RunResult> {
    let chosen = device::choose(device_name)?;
    let dtype = device::compute_type(&config.model.compute, &chosen)?;
    let base = BaseFiles::open(&config.model.base)?;
    if let Architecture::Bert(bert) = base.architecture()? {
        return classifier::train(config, &chosen, dtype, resume, data, &base, &bert, task);
    }
    let llama_config = base.llama_config()?;
    let tokenizer = base.tokenizer_for(&config.data)?;
    check_vocabulary(&tokenizer, &llama_config, &base.name)?;
    let data = match data {
        Some(data) => data,
        None => Data::load(
            &config.data,
            &tokenizer,
            llama_config.max_position_embeddings,
        )?,
    };
    preflight::warn(config, &base, &tokenizer, &data)?;
    if chosen.name == "cpu" {
        memory::check_room(config, &base.architecture()?, &data)?;
    }
    let start = method::start(config, &base, &llama_config, &chosen)?;
    run_dir::refuse_occupied_unless(resume, config.output.dir.as_ref())?;
    let original = base.load(
        &chosen,
        &config.model.quantization,
        config.model.double_quant,
        dtype,
    )?;
    let mut run = Run::open(config, resume)?;
    if let Some(result) = run.stored(config, &start, task)? {
        return Ok(result);
    }
    let place = start.place(config, &base, &original, run.dir.path(), &chosen, dtype)?;
    let artifact = start
        .adapter(config, &base, &place, &tokenizer, |receipt| receipt)?
        .unwrap_or_else(|| method::whole_model(&base, &llama_config));
    let trained = run.produce(
        config,
        &place.model,
        &start,
        &data,
        &artifact,
        &tokenizer,
        &chosen,
    )?;

    let adapted = place.adapted(&start, &base, &original, &trained.folder, &chosen, dtype)?;
    let ends = base.end_ids(&llama_config, &tokenizer);
    let identity = json!([
        base.fingerprint()?,
        config.model,
        chosen.name,
        data.hash_of_eval()
    ]);
    let shown = run.score(
        config, &original, &adapted, &data, &tokenizer, &ends, task, &identity,
    )?;
    run.conclude(config, &base, &data, trained, shown, &chosen, task)
}

/// Trains a whole model from random weights.
pub(crate) fn pretrain(
    config: &RunConfig,
    shape: &PretrainConfig,
    device_name: &str,
    resume: bool,
) -> Result<RunResult> {
    let chosen = device::choose(device_name)?;
    let (tokenizer_bytes, tokenizer_config) = tokenizer_files(shape)?;
    let tokenizer = Tokenizer::from_bytes(&tokenizer_bytes, tokenizer_config.as_deref(), None)?;
    let llama_config = new_config(shape, &tokenizer)?;
    let data = Data::load(
        &config.data,
        &tokenizer,
        llama_config.max_position_embeddings,
    )?;
    preflight::print_data_notes(&data);
    let source = random_weights(&llama_config, shape.initializer_range, config.train.seed)?;
    let options = LoadOptions {
        quantization: BaseQuantization::None,
        dtype: DType::F32,
        max_positions: None,
        embedding: EmbeddingPlace::Device,
    };
    let model = llama::load(
        &llama_config,
        &source,
        options,
        &chosen.device,
        &mut |_, _| {},
    )?;
    let parameters = all_parameters(&llama_config, &source, &chosen)?;
    let trainable = parameters.count();
    let artifact = Artifact::Model {
        config: Box::new(llama_config),
        tokenizer: tokenizer_bytes,
        tokenizer_config,
        nf4: config.model.quantization == "nf4",
    };
    let mut run = Run::open(config, resume)?;
    run.command = "pretrain";
    let outcome = run.descend(config, &model, parameters, &data, &artifact, &tokenizer)?;
    run.finish_artifact(method::MODEL)?;
    let folder = run.dir.path().join(method::MODEL);
    let summary = Summary::of(config, trainable, &folder)?;
    let examples = data.eval.len();
    run.result(outcome, Vec::new(), Vec::new(), examples, summary, folder)
}

pub(super) struct Run {
    pub(super) dir: RunDir,
    /// What the result is, for `metrics.json`.
    pub(super) result: Value,
    /// Whether it continues from a checkpoint.
    pub(super) resumed: bool,
    /// The command that resumes it.
    command: &'static str,
}

impl Run {
    pub(super) fn open(config: &RunConfig, resume: bool) -> Result<Self> {
        let path = PathBuf::from(&config.output.dir);
        let dir = if resume {
            RunDir::resume(&path)?
        } else {
            RunDir::create(&path)?
        };
        for line in &dir.recovered {
            eprintln!("{line}");
        }
        if resume {
            refuse_changes(&read(&dir.config())?, config)?;
        } else {
            atomic::write_file(&dir.config(), toml::to_string_pretty(config)?.as_bytes())?;
        }
        Ok(Self {
            dir,
            result: Value::Null,
            resumed: resume,
            command: "train",
        })
    }

    /// The name of its folder.
    fn name(&self) -> String {
        let path = self.dir.path();
        path.file_name().map_or_else(
            || path.display().to_string(),
            |name| name.to_string_lossy().into_owned(),
        )
    }

    fn checkpoints(&self) -> PathBuf {
        self.dir.path().join("checkpoints")
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn descend(
        &self,
        config: &RunConfig,
        objective: &dyn Objective,
        parameters: Parameters,
        data: &Data,
        artifact: &Artifact,
        tokenizer: &Tokenizer,
    ) -> Result<Outcome> {
        let set = TrainSet {
            examples: &data.train,
            plan: BatchPlan::new(
                &data.train,
                BatchOptions::from_config(&config.data, config.train.batch_size, data.max_length),
            )?,
            collate: collate_options(&config.data, tokenizer),
        };
        let eval = (!data.eval.is_empty())
            .then(|| eval_set(config, data, tokenizer))
            .transpose()?;
        let print = fingerprint_of(config, data)?;
        let mut trainer = Trainer::new(
            objective,
            parameters,
            config.train.clone(),
            set,
            eval,
            print,
        )?;
        let mut resumed_at = None;
        if self.resumed {
            let checkpoint = latest(&self.checkpoints())?;
            if let Some(checkpoint) = &checkpoint {
                trainer.resume(checkpoint)?;
                eprintln!(
                    "resuming after step {} of {}",
                    checkpoint.state.step,
                    trainer.total_steps()
                );
            }
            resumed_at = Some(checkpoint.map_or(0, |c| c.state.step));
        }
        let interrupt = Interrupt::install()?;
        let tensorboard = config.output.formats.iter().any(|f| f == "tensorboard");
        let mut observer = RunObserver::open(
            &self.dir.log(),
            self.dir.path(),
            tensorboard,
            resumed_at,
            trainer.total_steps(),
        )?;
        let mut host = RunHost::new(
            self.checkpoints(),
            artifact,
            &interrupt,
            config.train.keep_checkpoints,
            (self.dir.log(), observer.failed()),
        );
        let outcome = block_on(trainer.run(&mut host, &mut observer));
        observer.finish()?;
        let outcome = outcome?;
        if config.output.formats.iter().any(|f| f == "png") {
            plot::write_png(&self.dir.loss_plot(), &self.name(), &self.curve()?)?;
        }
        if outcome.stop == Stop::Interrupted {
            anyhow::bail!(
                "interrupted after step {} of {}; saved. Continue with: trainer {} {} --resume",
                outcome.steps,
                trainer.total_steps(),
                self.command,
                self.dir.config().display()
            );
        }
        // Nothing looks at the key while the result is scored, and training is saved.
        interrupt.end_at_once();
        let last = self.dir.checkpoint("last")?;
        let files = block_on(artifact.files(&trainer.parameters))?;
        atomic::replace_folder(&last, |folder| files.write(folder))?;
        Ok(outcome)
    }

    /// Makes the best artifact (the last one, where nothing was held out) the run's result.
    pub(super) fn finish_artifact(&self, name: &str) -> Result<()> {
        let best = self.checkpoints().join(BEST);
        let from = if best.is_dir() {
            best
        } else {
            self.checkpoints().join("last")
        };
        atomic::replace_folder(&self.dir.path().join(name), |folder| {
            for entry in
                fs::read_dir(&from).with_context(|| format!("cannot list {}", from.display()))?
            {
                let entry = entry?;
                atomic::write_file(&folder.join(entry.file_name()), &read(&entry.path())?)?;
            }
            Ok(())
        })
    }

    #[allow(clippy::too_many_arguments)]
    fn score(
        &self,
        config: &RunConfig,
        model: &Llama,
        adapted: &Llama,
        data: &Data,
        tokenizer: &Tokenizer,
        ends: &[u32],
        task: &str,
        base_identity: &Value,
    ) -> Result<(Vec<Metric>, Vec<Sample>)> {
        if data.eval.is_empty() {
            let nothing = ModelScores::default();
            self.write_metrics(&nothing, &nothing, data)?;
            return Ok((Vec::new(), Vec::new()));
        }
        let long = long_examples(config, tokenizer)?;
        let scoring = Scoring {
            examples: &data.eval,
            long: long.as_deref(),
            tokenizer,
            metrics: &config.eval.metrics,
            labels: &data.labels,
            batch_size: eval_batch(config),
            end_ids: ends,
            settings: &config.eval,
        };
        let eval = EvalConfig {
            samples: 0,
            batch_size: 0,
            ..config.eval.clone()
        };
        let parts = json!([base_identity, eval, data.labels, ends]);
        let base = base_scores::shared(&parts, || scoring.score(model, "base"))?;
        let tuned = scoring.score(adapted, "adapted")?;
        self.write_metrics(&base, &tuned, data)?;
        let samples = samples(config, model, adapted, data, tokenizer, ends, task)?;
        write_samples(&self.dir.path().join(SAMPLES), &samples)?;
        let board = scoring.board(task, &base, Some(&tuned))?;
        board.write(self.dir.path())?;
        Ok((board.metrics(), samples))
    }

    fn write_metrics(&self, base: &ModelScores, adapted: &ModelScores, data: &Data) -> Result<()> {
        self.write_scores(base.to_json(), adapted.to_json(), data)
    }

    /// Writes `metrics.json`.
    pub(super) fn write_scores(
        &self,
        base: Map<String, Value>,
        adapted: Map<String, Value>,
        data: &Data,
    ) -> Result<()> {
        let metrics = json!({
            "base": base,
            "adapted": adapted,
            "result": self.result,
            "data": {
                "train_examples": data.train.len(),
                "eval_examples": data.eval.len(),
                "train_tokens": data.report.trained_tokens,
                "eval_tokens": data.eval_report.as_ref().map(|r| r.trained_tokens),
                "sha256": data.hash(),
                "train_sha256": data.hash_of_train(),
                "eval_sha256": data.hash_of_eval(),
            },
        });
        atomic::write_file(&self.dir.metrics(), &serde_json::to_vec_pretty(&metrics)?)
    }

    fn curve(&self) -> Result<LossCurve> {
        Ok(LossCurve::from_rows(&jsonl::read_rows(&self.dir.log())?))
    }

    pub(super) fn result(
        &self,
        outcome: Outcome,
        metrics: Vec<Metric>,
        samples: Vec<Sample>,
        examples: usize,
        summary: Summary,
        artifact: PathBuf,
    ) -> Result<RunResult> {
        let rows: Vec<Map<String, Value>> = jsonl::read_rows(&self.dir.log())?;
        let mut rates: Vec<f64> = rows
            .iter()
            .filter_map(|r| r.get("tokens_per_s")?.as_f64())
            .collect();
        rates.sort_by(f64::total_cmp);
        Ok(RunResult {
            folder: self.dir.path().to_path_buf(),
            artifact,
            outcome,
            metrics,
            samples,
            examples,
            curve: self.curve()?,
            summary,
            tokens_per_s: rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN),
        })
    }
}

fn eval_batch(config: &RunConfig) -> usize {
    if config.eval.batch_size > 0 {
        config.eval.batch_size
    } else {
        config.train.batch_size
    }
}

pub(super) fn eval_set<'a>(
    config: &RunConfig,
    data: &'a Data,
    tokenizer: &Tokenizer,
) -> Result<TrainSet<'a>> {
    Ok(TrainSet {
        examples: &data.eval,
        plan: BatchPlan::new(&data.eval, BatchOptions::sequential(eval_batch(config)))?,
        collate: collate_options(&config.data, tokenizer),
    })
}

pub(super) fn collate_options(config: &DataConfig, tokenizer: &Tokenizer) -> CollateOptions {
    CollateOptions {
        multiple_of: config.pad_to_multiple_of.max(1),
        ..CollateOptions::new(tokenizer.pad_id())
    }
}

/// Answers of base and adapted to the first held-out prompts.
fn samples(
    config: &RunConfig,
    model: &Llama,
    adapted: &Llama,
    data: &Data,
    tokenizer: &Tokenizer,
    ends: &[u32],
    task: &str,
) -> Result<Vec<Sample>> {
    let chosen = &data.eval[..config.eval.samples.min(data.eval.len())];
    if chosen.is_empty() || chosen.iter().any(|e| e.prompt_len() == 0) {
        return Ok(Vec::new());
    }
    let generation = &config.eval.generation;
    let texts = |model: &Llama| {
        answer(
            model,
            tokenizer,
            chosen,
            generation.clone(),
            ends,
            8,
            "samples",
        )
    };
    let (base, tuned) = (texts(model)?, texts(adapted)?);
    chosen
        .iter()
        .zip(base.into_iter().zip(tuned))
        .map(|(example, (base, tuned))| {
            Ok(Sample {
                task: task.to_owned(),
                prompt: tokenizer
                    .decode(&example.input_ids[..example.prompt_len()], true)?
                    .trim()
                    .to_owned(),
                reference: Some(example.reference(tokenizer)?),
                base: base.text.trim().to_owned(),
                adapted: tuned.text.trim().to_owned(),
                probabilities: None,
            })
        })
        .collect()
}

fn tokenizer_files(shape: &PretrainConfig) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
    let folder = PathBuf::from(&shape.tokenizer);
    let tokenizer = read(&folder.join("tokenizer.json"))?;
    let config = folder.join("tokenizer_config.json");
    let config = if config.is_file() {
        Some(read(&config)?)
    } else {
        None
    };
    Ok((tokenizer, config))
}

fn new_config(shape: &PretrainConfig, tokenizer: &Tokenizer) -> Result<LlamaConfig> {
    let json = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "max_position_embeddings": shape.max_position_embeddings,
        "vocab_size": tokenizer.vocab_size(),
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "bos_token_id": tokenizer.bos_id(),
        "eos_token_id": tokenizer.eos_id(),
        "pad_token_id": tokenizer.pad_id(),
        "torch_dtype": "float32",
    });
    Ok(LlamaConfig::from_json(&serde_json::to_vec(&json)?)?)
}
