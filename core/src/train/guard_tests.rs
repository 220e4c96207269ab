//! What a run refuses before its first step, what it does not save, and training in half precision.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Device, Tensor};

use super::*;
use crate::adapters::{Adapter, PeftConfig};
use crate::data::{Batch, BatchOptions, BatchPlan, CollateOptions, Example, SourceLine, collate};
use crate::host::{LocalFuture, block_on, to_vec};
use crate::lora::{fresh_parameters, overlay, parameters_of};
use crate::models::bert::{BertClassifier, BertConfig, Prefixed, load_classifier};
use crate::models::llama::{Llama, LlamaConfig, load, random_weights};
use crate::models::load::{BaseQuantization, LoadOptions};
use crate::weights::{OwnedTensor, SafetensorsSource, WeightSource, serialize};

const EMBEDDING: &str = "model.embed_tokens.weight";

fn options(dtype: DType) -> LoadOptions {
    LoadOptions {
        quantization: BaseQuantization::None,
        dtype,
        max_positions: None,
        embedding: crate::models::embedding::EmbeddingPlace::Device,
    }
}

/// Two blocks of random weights, 360 tokens, 64 positions.
pub(crate) fn llama(tied: bool) -> Llama {
    let json = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 360, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": tied,
    });
    let config = LlamaConfig::from_json(json.to_string().as_bytes()).unwrap();
    let source = random_weights(&config, 0.5, 3).unwrap();
    let (device, quiet) = (Device::flex(), &mut |_, _| {});
    load(&config, &source, options(DType::F32), &device, quiet).unwrap()
}

/// The golden DistilBERT with its head, and all its weights to train.
fn classifier(dtype: DType) -> (BertClassifier, Parameters) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/distilbert_tiny/base");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let config = BertConfig::from_json(&read("config.json")).unwrap();
    let source = SafetensorsSource::single("m", read("model.safetensors")).unwrap();
    let (device, quiet) = (Device::flex(), &mut |_, _| {});
    let model = load_classifier(&config, &source, options(dtype), &device, quiet).unwrap();
    let source = Prefixed::new(&source, config.family);
    let weight = |(name, shape): (String, Vec<usize>)| {
        let values = source.get(&name).unwrap().to_f32().unwrap();
        let role = Role::Weight;
        (Parameter { name, shape, role }, values)
    };
    let tensors = config.expected_tensors(3).into_iter().map(weight);
    (model, Parameters::new(tensors.collect(), &device))
}

fn example(ids: &[u32], class: Option<usize>) -> Example {
    Example {
        input_ids: ids.to_vec(),
        labels: ids.iter().map(|&id| id as i32).collect(),
        token_type_ids: Vec::new(),
        source: SourceLine {
            file: "data.jsonl".to_owned(),
            line: 7,
        },
        class,
        truncated: false,
    }
}

fn set(examples: &[Example]) -> TrainSet<'_> {
    TrainSet {
        examples,
        plan: BatchPlan::new(examples, BatchOptions::sequential(2)).unwrap(),
        collate: CollateOptions::new(0),
    }
}

fn batch(examples: &[Example]) -> Batch {
    let rows: Vec<Vec<usize>> = (0..examples.len()).map(|i| vec![i]).collect();
    collate(examples, &rows, CollateOptions::new(0))
}

fn gradient(objective: &dyn Objective, parameters: &Parameters, batch: &Batch) -> Vec<f32> {
    let mut sum = Accumulated::new(parameters);
    let options = StepOptions {
        recompute: true,
        loss_chunk: 512,
    };
    objective.accumulate(parameters, batch, 0.5, 0, options, &mut sum);
    block_on(to_vec(sum.flat(parameters))).unwrap()
}

#[test]
fn a_classifier_in_bf16_trains_every_weight_with_f32_gradients() {
    let examples = [example(&[3, 9, 12], Some(0)), example(&[5, 6], Some(2))];
    let (plain, parameters) = classifier(DType::F32);
    let (model, _) = classifier(DType::BF16);
    let (exact, found) = (
        gradient(&plain, &parameters, &batch(&examples)),
        gradient(&model, &parameters, &batch(&examples)),
    );
    let size = exact.iter().map(|g| g.powi(2)).sum::<f32>().sqrt();
    let off = exact.iter().zip(&found).map(|(a, b)| (a - b).powi(2));
    let off = off.sum::<f32>().sqrt() / size;
    assert!(off > 0.0 && off < 0.2, "{off}");
    // The head alone, as every adapter of a classifier has it, and its scores.
    let scores = block_on(classify(
        &model.with(&parameters.overlay()),
        &set(&examples),
    ))
    .unwrap();
    assert!(scores.loss().is_finite());
}

fn refusal(objective: &dyn Objective, parameters: &Parameters, examples: &[Example]) -> String {
    let good = [example(&[1, 2], Some(0))];
    for (train, eval) in [(examples, &good[..]), (&good[..], examples)] {
        let config = TrainConfig::default();
        let started = Trainer::new(
            objective,
            parameters.clone(),
            config,
            set(train),
            Some(set(eval)),
            String::new(),
        );
        let Err(error) = started else {
            panic!("{examples:?} was accepted")
        };
        if eval.as_ptr() == examples.as_ptr() {
            return error.to_string();
        }
        assert!(
            error.to_string().starts_with("data.jsonl line 7: "),
            "{error}"
        );
    }
    String::new()
}

#[test]
fn what_no_table_has_a_row_for_is_refused_before_the_first_step() {
    let model = llama(false);
    let linears = model.config.linear_modules();
    let tensors = fresh_parameters(&Default::default(), &linears, 0).unwrap();
    let parameters = Parameters::new(tensors, &model.device());
    let error = refusal(&model, &parameters, &[example(&[1, 360], None)]);
    assert!(error.contains("token id 360"), "{error}");
    let error = refusal(&model, &parameters, &[example(&[1; 65], None)]);
    assert!(error.contains("65 tokens"), "{error}");

    let (model, parameters) = classifier(DType::F32);
    let error = refusal(&model, &parameters, &[example(&[3, 71], Some(0))]);
    assert!(error.contains("token id 71"), "{error}");
    let error = refusal(&model, &parameters, &[example(&[3; 25], Some(0))]);
    assert!(error.contains("position 24"), "{error}");
    let error = refusal(&model, &parameters, &[example(&[3, 4], Some(3))]);
    assert!(
        error.contains("class 3") && error.contains("3 classes"),
        "{error}"
    );
}

/// One weight whose gradient is `0.001 · scale`, infinite where `scale` passes what f16 would hold.
struct Stub(DType);

impl Objective for Stub {
    fn device(&self) -> Device {
        Device::flex()
    }

    fn dtype(&self) -> DType {
        self.0
    }

    fn targets(&self, batch: &Batch) -> usize {
        batch.rows
    }

    fn accumulate(
        &self,
        _: &Parameters,
        _: &Batch,
        scale: f64,
        _: u64,
        _: StepOptions,
        sum: &mut Accumulated,
    ) {
        let value = if scale > 1000.0 {
            f64::INFINITY
        } else {
            0.001 * scale
        };
        sum.loss = sum.loss.clone() + scale as f32;
        sum.add(0, Tensor::from_data([value as f32], &self.device()));
    }

    fn activation_bytes(&self, _: &Batch) -> u64 {
        0
    }

    fn evaluate<'a>(
        &'a self,
        _: &'a Parameters,
        _: &'a TrainSet<'_>,
        step: u64,
    ) -> LocalFuture<'a, Result<Evaluation, TrainError>> {
        let loss = f64::NAN;
        Box::pin(std::future::ready(Err(TrainError::HeldOut { step, loss })))
    }
}

#[derive(Default)]
struct Saved {
    files: Vec<(Vec<u8>, Vec<u8>)>,
    steps: Vec<StepRecord>,
}

impl Host for Saved {
    fn seconds(&self) -> f64 {
        0.0
    }

    fn interrupted(&self) -> bool {
        false
    }

    fn save<'a>(
        &'a mut self,
        checkpoint: &'a Checkpoint,
        _: &'a Parameters,
        _: bool,
    ) -> LocalFuture<'a, Result<(), String>> {
        self.files.push(checkpoint.to_bytes().unwrap());
        Box::pin(std::future::ready(Ok(())))
    }
}

struct Steps<'a>(&'a mut Vec<StepRecord>);

impl Observer for Steps<'_> {
    fn on_step(&mut self, record: &StepRecord) {
        self.0.push(*record);
    }
}

fn one_weight(value: f32) -> Parameters {
    let spec = Parameter {
        name: "w".to_owned(),
        shape: vec![1],
        role: Role::Weight,
    };
    Parameters::new(vec![(spec, vec![value])], &Device::flex())
}

fn run(dtype: DType, value: f32) -> (Saved, Result<Outcome, TrainError>) {
    let stub = Stub(dtype);
    let examples = [example(&[1, 2], None), example(&[1, 2], None)];
    let config = TrainConfig {
        max_steps: Some(2),
        ..TrainConfig::default()
    };
    let mut trainer = Trainer::new(
        &stub,
        one_weight(value),
        config,
        set(&examples),
        None,
        String::new(),
    )
    .unwrap();
    let (mut saved, mut steps) = (Saved::default(), Vec::new());
    let outcome = block_on(trainer.run(&mut saved, &mut Steps(&mut steps)));
    saved.steps = steps;
    (saved, outcome)
}

#[test]
fn a_run_in_f16_scales_its_loss_and_halves_the_scale_where_a_gradient_overflows() {
    let (half, outcome) = run(DType::F16, 1.0);
    outcome.unwrap();
    let (full, outcome) = run(DType::F32, 1.0);
    outcome.unwrap();
    for (half, full) in half.steps.iter().zip(&full.steps) {
        // Powers of two change exponents alone: loss and gradient are those of an unscaled run.
        assert_eq!((half.loss, full.loss), (0.5, 0.5));
        assert!((half.grad_norm - full.grad_norm).abs() < 1e-9);
        assert!((half.grad_norm - 0.0005).abs() < 1e-9);
    }
    let state =
        |saved: &Saved| Checkpoint::from_bytes(&saved.files[0].0, &saved.files[0].1).unwrap();
    // Two rows share a step: 0.5 · 2048 is the first below 1000 after 0.5 · 65536, halved on.
    assert_eq!(state(&half).state.loss_scale, Some(1024.0));
    assert_eq!(state(&full).state.loss_scale, None);
    let text = String::from_utf8(full.files[0].1.clone()).unwrap();
    assert!(!text.contains("loss_scale"), "{text}");
}

#[test]
fn values_that_are_no_numbers_are_not_saved() {
    let (saved, outcome) = run(DType::F32, f32::NAN);
    assert!(matches!(outcome, Err(TrainError::Values { step: 2 })));
    assert!(saved.files.is_empty());
}

#[test]
fn a_checkpoint_whose_moments_have_another_length_is_refused() {
    let (saved, _) = run(DType::F32, 1.0);
    let (_, state) = &saved.files[0];
    let vector = |n: usize| OwnedTensor::from_f32(vec![n], &vec![0.0; n]).unwrap();
    for damaged in ["values", "first_moment", "second_moment"] {
        let names = ["first_moment", "second_moment", "values"];
        let list = names.map(|n| (n.to_owned(), vector(1 + usize::from(n == damaged))));
        let bytes = serialize(&list, &BTreeMap::new()).unwrap();
        let checkpoint = Checkpoint::from_bytes(&bytes, state).unwrap();
        let mut parameters = one_weight(1.0);
        let mut optimizer = AdamW::new(&TrainConfig::default(), 1, &Device::flex());
        let restored = checkpoint.restore(&mut parameters, &mut optimizer, "");
        let error = restored.unwrap_err().to_string();
        assert!(
            error.contains(damaged) && error.contains("2 values"),
            "{error}"
        );
    }
}

#[test]
fn settings_out_of_range_start_no_run() {
    let examples = [example(&[1, 2], None)];
    let config = TrainConfig {
        betas: [0.9, 1.0],
        ..TrainConfig::default()
    };
    let stub = Stub(DType::F32);
    let started = Trainer::new(
        &stub,
        one_weight(1.0),
        config,
        set(&examples),
        None,
        String::new(),
    );
    assert!(matches!(started, Err(TrainError::Config(_))));
}

#[test]
fn a_tied_head_follows_a_trained_embedding_only_where_the_adapter_says_so() {
    let model = llama(true);
    let host = |t: &Tensor<2>| block_on(to_vec(t.clone())).unwrap();
    let base = host(model.head());
    let table: Vec<f32> = base.iter().map(|v| v + 0.25).collect();
    let linears = model.config.linear_modules();
    let path = &linears[0].0;
    let [out, input] = linears[0].1;
    let pair = crate::adapters::LoraModule {
        path: path.clone(),
        a: vec![0.0; input],
        b: vec![0.0; out],
        rank: 1,
        in_features: input,
        out_features: out,
        alpha: 1.0,
        scaling: 1.0,
        dropout: 0.0,
    };
    let batch = batch(&[example(&[1, 2, 3], None)]);
    let mut gradients = Vec::new();
    for ties in [true, false] {
        let mut config = PeftConfig {
            r: 1,
            lora_alpha: 1.0,
            modules_to_save: Some(vec!["embed_tokens".into()]),
            ..PeftConfig::default()
        };
        if ties {
            config.tie_head();
        }
        let saved = OwnedTensor::from_f32(vec![360, 32], &table).unwrap();
        let saved = vec![(EMBEDDING.to_owned(), saved)];
        let adapter = Adapter::new(config, std::slice::from_ref(&pair), saved).unwrap();
        let expected = if ties { &table } else { &base };
        let adapted = model.with(&overlay(&adapter, &model.device()).unwrap());
        assert!(host(adapted.head()) == *expected, "ties: {ties}");
        assert!(block_on(to_vec(adapted.embed(&[5]))).unwrap() == table[5 * 32..6 * 32]);
        // Continued, it goes on as it was.
        let tensors = parameters_of(&adapter, 0.0).unwrap();
        let parameters = Parameters::new(tensors, &model.device());
        assert!(host(model.with(&parameters.overlay()).head()) == *expected);
        gradients.push(gradient(&model, &parameters, &batch));
    }
    // Tied, every token's row has a gradient; as a table of inputs, only those that were looked up.
    let rows = |flat: &[f32]| {
        let table = &flat[flat.len() - 360 * 32..];
        let touched = |row: &&[f32]| row.iter().any(|g| *g != 0.0);
        table.chunks(32).filter(touched).count()
    };
    assert_eq!((rows(&gradients[0]), rows(&gradients[1])), (360, 2));
}
