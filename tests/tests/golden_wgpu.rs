//! The goldens on wgpu: logits, loss, gradients, greedy tokens and whole training runs, at f32.
//!
//! All in one process and on one device: a GPU API compiles a kernel for every shape it meets, and SwiftShader, the
//! Vulkan driver of machines without a GPU, compiles slowly. Runs where `QLOOM_TEST_WGPU=1` says there is an adapter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use burn::tensor::{DType, Device, DeviceKind, Tensor};
use qloom_core::adapters::Adapter;
use qloom_core::data::{
    Batch, BatchOptions, BatchPlan, CollateOptions, Example, SourceLine, collate,
};
use qloom_core::host::{LocalFuture, block_on};
use qloom_core::lora::{overlay, parameters_of};
use qloom_core::models::embedding::EmbeddingPlace;
use qloom_core::models::llama::{self, BaseQuantization, Llama, LlamaConfig, LoadOptions};
use qloom_core::train::{
    Accumulated, Checkpoint, Host, Observer, Parameters, StepOptions, StepRecord, TrainConfig,
    TrainSet, Trainer, accumulate,
};
use qloom_core::weights::SafetensorsSource;
use qloom_tests::cases::{self, LlamaCase, Trajectory, unpadded};
use qloom_tests::tensors::{Stored, assert_close, at_tokens, load, max_rel};

fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    block_on(qloom_core::host::to_vec(tensor)).unwrap()
}

fn device() -> Option<Device> {
    if std::env::var("QLOOM_TEST_WGPU").as_deref() == Ok("1") {
        return Some(Device::wgpu(DeviceKind::default()));
    }
    eprintln!("skipped: set QLOOM_TEST_WGPU=1 where wgpu has an adapter");
    None
}

fn base(folder: &Path, device: &Device) -> Llama {
    let config =
        LlamaConfig::from_json(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let source = SafetensorsSource::single("model.safetensors", bytes).unwrap();
    let quantization = if folder.ends_with("base_nf4") {
        BaseQuantization::Nf4 { double_quant: true }
    } else {
        BaseQuantization::None
    };
    let options = LoadOptions {
        quantization,
        dtype: DType::F32,
        max_positions: None,
        embedding: EmbeddingPlace::Device,
    };
    llama::load(&config, &source, options, device, &mut |_, _| {}).unwrap()
}

fn adapter(folder: &Path) -> Adapter {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    Adapter::from_bytes(
        &read("adapter_config.json"),
        &read("adapter_model.safetensors"),
    )
    .unwrap()
}

fn examples(rows: &[(Vec<i64>, Vec<i64>)]) -> Vec<Example> {
    let example = |(line, (ids, labels)): (usize, &(Vec<i64>, Vec<i64>))| Example {
        input_ids: ids.iter().map(|&id| id as u32).collect(),
        labels: labels.iter().map(|&label| label as i32).collect(),
        source: SourceLine {
            file: "golden".to_owned(),
            line: line + 1,
        },
        token_type_ids: Vec::new(),
        class: None,
        truncated: false,
    };
    rows.iter().enumerate().map(example).collect()
}

/// The case's probe batch, padded to the width of its logits.
fn batch(case: &LlamaCase) -> Batch {
    let rows = |name: &str| case.get(name).rows();
    let examples = examples(&unpadded(
        &rows("input_ids"),
        &rows("labels"),
        &rows("attention_mask"),
    ));
    let layout: Vec<Vec<usize>> = (0..examples.len()).map(|i| vec![i]).collect();
    let options = CollateOptions {
        min_width: case.get("input_ids").shape[1],
        ..CollateOptions::new(0)
    };
    collate(&examples, &layout, options)
}

fn assert_logits(what: &str, case: &LlamaCase, model: &Llama, batch: &Batch, want: &str) {
    let logits = model.logits(batch);
    let got = Stored::from_f32(&logits.dims(), &to_vec(logits));
    let mask = case.get("attention_mask");
    let error = max_rel(&at_tokens(&got, mask), &at_tokens(case.get(want), mask));
    assert!(error <= 1e-4, "{what}: {want}: relative error {error:.3e}");
}

fn assert_gradients(
    what: &str,
    case: &LlamaCase,
    model: &Llama,
    adapter: &Adapter,
    batch: &Batch,
    prefix: &str,
) {
    let parameters = Parameters::new(parameters_of(adapter, 0.0).unwrap(), &model.device());
    let expected = case.gradients(prefix);
    assert!(!expected.is_empty(), "{what}: the case has gradients");
    for recompute in [false, true] {
        let mut sum = Accumulated::new(&parameters);
        let options = StepOptions {
            recompute,
            loss_chunk: 512,
        };
        let scale = 1.0 / batch.target_tokens as f64;
        accumulate(model, &parameters, batch, scale, 0, options, &mut sum);
        let loss = Stored::from_f32(&[1], &to_vec(sum.loss.clone()));
        let want = case.get(&format!("{prefix}lora_loss"));
        let error = max_rel(&loss.f32(), &want.f32());
        assert!(error <= 1e-4, "{what}: loss: relative error {error:.3e}");
        let flat = sum.flat(&parameters);
        let got: Vec<(String, Stored)> = block_on(parameters.split_host(&flat))
            .unwrap()
            .into_iter()
            .map(|(spec, values)| {
                let name = format!("base_model.model.{}", spec.name);
                (name, Stored::from_f32(&spec.shape, &values))
            })
            .collect();
        for (name, want) in &expected {
            let found = got.iter().find(|(n, _)| n == name);
            let (_, found) = found.unwrap_or_else(|| panic!("{what}: no gradient `{name}`"));
            assert_close(
                &format!("{what}, recompute {recompute}: {name}"),
                found,
                want,
                1e-4,
            );
        }
    }
}

fn assert_greedy(case: &LlamaCase, model: &Llama) {
    let golden = case.get("greedy").i64();
    let first = &case.get("input_ids").rows()[0];
    let shared = golden.iter().zip(first).take_while(|(a, b)| a == b);
    let prompt = shared.count().min(8).min(golden.len() - 16);
    let mut cache = model.new_cache(1, golden.len());
    let ids: Vec<u32> = golden.iter().map(|&id| id as u32).collect();
    let mut logits = model.step(&ids[..prompt], &[0], 0, &mut cache);
    for (past, want) in ids.iter().enumerate().skip(prompt) {
        let values = to_vec(logits);
        let best = (0..values.len())
            .max_by(|a, b| values[*a].total_cmp(&values[*b]))
            .unwrap();
        assert_eq!(best as u32, *want, "{}: position {past}", case.name());
        if past + 1 == ids.len() {
            return;
        }
        logits = model.step(&[*want], &[0], past, &mut cache);
    }
}

/// A host that keeps nothing.
struct Nowhere;

impl Host for Nowhere {
    fn seconds(&self) -> f64 {
        0.0
    }

    fn interrupted(&self) -> bool {
        false
    }

    fn save<'a>(
        &'a mut self,
        _: &'a Checkpoint,
        _: &'a Parameters,
        _: bool,
    ) -> LocalFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

#[derive(Default)]
struct Steps(Vec<[f64; 3]>);

impl Observer for Steps {
    fn on_step(&mut self, record: &StepRecord) {
        self.0.push([record.loss, record.lr, record.grad_norm]);
    }
}

fn assert_trajectory(case: &LlamaCase, wanted: &Trajectory, device: &Device) {
    let what = format!("{} {}", case.name(), wanted.name);
    let model = base(&wanted.base, device);
    let init = adapter(&case.dir.join("adapter_init"));
    let lines: Vec<String> = wanted
        .train
        .iter()
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    let config: TrainConfig = toml::from_str(&lines.join("\n")).unwrap();
    let rows = examples(&case.training_rows());
    let set = TrainSet {
        examples: &rows,
        plan: BatchPlan::new(&rows, BatchOptions::sequential(config.batch_size)).unwrap(),
        collate: CollateOptions::new(0),
    };
    let parameters = Parameters::new(parameters_of(&init, 0.0).unwrap(), device);
    let mut trainer = Trainer::new(&model, parameters, config, set, None, String::new()).unwrap();
    let mut seen = Steps::default();
    block_on(trainer.run(&mut Nowhere, &mut seen)).unwrap();

    assert_eq!(seen.0.len(), wanted.steps.len(), "{what}: steps");
    for (step, (got, want)) in seen.0.iter().zip(&wanted.steps).enumerate() {
        for (g, w) in got.iter().zip(want) {
            let error = (g - w).abs() / w.abs().max(1e-12);
            assert!(
                error <= 1e-3,
                "{what}: step {}: loss, lr, norm {got:?}, expected {want:?}",
                step + 1
            );
        }
    }
    let want = load(&wanted.adapter.join("adapter_model.safetensors"));
    for (spec, values) in block_on(trainer.parameters.to_host()).unwrap() {
        let name = format!("base_model.model.{}", spec.name);
        let got = Stored::from_f32(&spec.shape, &values);
        assert_close(&format!("{what}: {name}"), &got, &want[&name], 1e-3);
    }
}

/// One test, so that nothing shares the device with it.
#[test]
fn every_golden_matches_on_wgpu() {
    let Some(device) = device() else {
        return;
    };
    for case in &cases::llamas() {
        let init = adapter(&case.dir.join("adapter_init"));
        let batch = batch(case);
        for (prefix, folder) in [("", "base"), ("nf4_", "base_nf4")] {
            if !prefix.is_empty() && !case.nf4_is_sound() {
                continue;
            }
            let what = format!("{} {folder} on wgpu", case.name());
            let model = base(&case.dir.join(folder), &device);
            assert_logits(&what, case, &model, &batch, &format!("{prefix}base_logits"));
            let adapted = model.with(&overlay(&init, &device).unwrap());
            assert_logits(
                &what,
                case,
                &adapted,
                &batch,
                &format!("{prefix}lora_logits"),
            );
            assert_gradients(&what, case, &model, &init, &batch, prefix);
            if prefix.is_empty() {
                assert_greedy(case, &model);
            }
        }
        for wanted in &case.trajectories() {
            if wanted.name != "nf4" || case.nf4_is_sound() {
                assert_trajectory(case, wanted, &device);
            }
        }
        eprintln!("{}: done", case.name());
    }
}
