//! A short run on examples that the visitor typed: the core's trainer, watched step by step.

use qloom_core::adapters::Receipt;
use qloom_core::data::{
    BatchOptions, BatchPlan, CollateOptions, DataConfig, Encoder, Example, Format, Record, Row,
    SourceLine, Task as DataTask,
};
use qloom_core::host::LocalFuture;
use qloom_core::lora::{LoraConfig, TargetModules, fresh_parameters, peft_config, to_adapter};
use qloom_core::train::{
    Checkpoint, Host, Observer, Parameters, StepRecord, Stop, TrainConfig, TrainSet, Trainer,
};

use super::Surroundings;
use super::adapters::Resident;
use super::base::{Base, Model};
use super::failure::Ended;
use super::state::State;
use super::task::Task;
use crate::protocol::{AdapterOrigin, Event, Failure, TrainExample, TrainSettings};

/// Most optimizer steps of a run in a page.
const MOST_STEPS: u64 = 10_000;

/// Trains an adapter called `name` on the base.
pub(super) async fn train<S: Surroundings>(
    task: &Task<'_, S>,
    state: &mut State,
    name: &str,
    examples: &[TrainExample],
    settings: &TrainSettings,
) -> Result<(), Ended> {
    let base = state.base()?;
    let Model::Llama(model) = &base.model else {
        return Err(Failure::request(
            "training in the page is for bases that write text; train a classifier with the trainer",
        )
        .into());
    };
    let lora = lora_config(settings)?;
    let (encoded, data) = encode(base, examples, settings)?;
    let linears = base.architecture.linear_modules();
    let tensors = fresh_parameters(&lora, &linears, settings.seed)?;
    let parameters = Parameters::new(tensors, &base.device());
    let peft = peft_config(&lora, &parameters, &base.info.name);
    let set = TrainSet {
        plan: BatchPlan::new(
            &encoded,
            BatchOptions::from_config(&data, settings.batch_size, base.info.context),
        )?,
        examples: &encoded,
        collate: CollateOptions::new(base.tokenizer.pad_id()),
    };
    let config = TrainConfig {
        max_steps: Some(settings.steps),
        batch_size: settings.batch_size,
        lr: settings.lr,
        seed: settings.seed,
        ..TrainConfig::default()
    };
    let objective = model.as_ref();
    let mut trainer = Trainer::new(objective, parameters, config, set, None, String::new())?;
    let total = trainer.total_steps();
    let outcome = trainer
        .run(&mut Watched(task), &mut Told { task, total })
        .await?;
    if outcome.stop == Stop::Interrupted || task.is_stopped() {
        return Err(Ended::Stopped);
    }
    task.pause().await?;
    let adapter = to_adapter(&peft, &trainer.parameters).await?;
    let receipt = Some(receipt(base, &lora));
    let resident = Resident::new(name, AdapterOrigin::Training, adapter, receipt, base)?;
    let info = resident.info.clone();
    state.put_adapter(resident);
    task.emit(Event::AdapterAdded { adapter: info });
    Ok(())
}

fn lora_config(settings: &TrainSettings) -> Result<LoraConfig, Failure> {
    if !(1..=MOST_STEPS).contains(&settings.steps) {
        return Err(Failure::request(format!(
            "{} steps: a run in the page takes 1 to {MOST_STEPS}",
            settings.steps
        )));
    }
    let lora = LoraConfig {
        rank: settings.rank,
        alpha: settings.alpha,
        target_modules: TargetModules::List(settings.target_modules.clone()),
        ..LoraConfig::default()
    };
    lora.validate().map_err(Failure::request)?;
    Ok(lora)
}

/// The examples as tokens, the way the trainer renders prompts and completions.
fn encode(
    base: &Base,
    examples: &[TrainExample],
    settings: &TrainSettings,
) -> Result<(Vec<Example>, DataConfig), Failure> {
    let row = |(i, example): (usize, &TrainExample)| {
        let mut record = Record::new();
        record.insert("prompt".to_owned(), example.prompt.as_str().into());
        record.insert("completion".to_owned(), example.completion.as_str().into());
        let source = SourceLine {
            file: "the examples".to_owned(),
            line: i + 1,
        };
        Row { record, source }
    };
    let rows: Vec<Row> = examples.iter().enumerate().map(row).collect();
    let data = DataConfig {
        format: Some(Format::PromptCompletion),
        seed: settings.seed,
        ..DataConfig::default()
    };
    let context = base.info.context;
    let encoder = Encoder::new(&data, &rows, &base.tokenizer, DataTask::Causal, context)?;
    let set = encoder.encode(&rows, 0, "the examples", &mut |_| {})?;
    Ok((set.examples, data))
}

/// What the adapter was made from, as the trainer records it.
fn receipt(base: &Base, lora: &LoraConfig) -> Receipt {
    let (own, others) = match base.fingerprints.split_first() {
        Some((own, others)) => (Some(own.clone()), others.to_vec()),
        None => (None, Vec::new()),
    };
    let mut receipt = Receipt {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        base: Some(base.info.name.clone()),
        base_fingerprint: own,
        equivalent_bases: others,
        chat_template: base.tokenizer.chat_template_source().map(str::to_owned),
        ..Receipt::default()
    };
    let facts = [
        ("method", lora.method.to_string()),
        ("init", lora.init.to_string()),
    ];
    for (key, value) in facts {
        receipt.rest.insert(key.to_owned(), value.into());
    }
    receipt
}

/// The loop's host: clock, pauses and `Stop`. Checkpoints are not kept; the run is short.
struct Watched<'a, 'b, S: Surroundings>(&'a Task<'b, S>);

impl<S: Surroundings> Host for Watched<'_, '_, S> {
    fn seconds(&self) -> f64 {
        self.0.now_ms() / 1000.0
    }

    fn interrupted(&self) -> bool {
        self.0.is_stopped()
    }

    fn save<'a>(
        &'a mut self,
        _checkpoint: &'a Checkpoint,
        _parameters: &'a Parameters,
        _best: bool,
    ) -> LocalFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn pause(&mut self) -> LocalFuture<'_, ()> {
        Box::pin(self.0.around().pause())
    }
}

/// Tells the page of every step.
struct Told<'a, 'b, S: Surroundings> {
    task: &'a Task<'b, S>,
    total: u64,
}

impl<S: Surroundings> Observer for Told<'_, '_, S> {
    fn on_step(&mut self, record: &StepRecord) {
        self.task.emit(Event::TrainStep {
            step: record.step,
            total: self.total,
            loss: record.loss,
            lr: record.lr,
            grad_norm: record.grad_norm,
            tokens_per_s: record.tokens_per_s,
        });
    }
}
