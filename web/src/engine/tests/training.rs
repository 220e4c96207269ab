//! A run in the page.

use qloom_core::data::{
    BatchOptions, BatchPlan, CollateOptions, DataConfig, Encoder, FileKind, Format, ReadOptions,
    Task, parse_records,
};
use qloom_core::host::{LocalFuture, block_on};
use qloom_core::lora::{LoraConfig, TargetModules, fresh_parameters, peft_config, to_adapter};
use qloom_core::train::{Checkpoint, Host, Parameters, TrainConfig, TrainSet, Trainer};

use super::*;
use crate::archive;
use crate::engine::base::Model;
use crate::protocol::{AdapterOrigin, FailureKind, TrainExample, TrainSettings};

fn examples() -> Vec<TrainExample> {
    [
        ("What do cows say?", "The cows say moo."),
        ("What do dogs say?", "The dogs say woof."),
        ("What do cats say?", "The cats say meow."),
        ("What do ducks say?", "The ducks say quack."),
    ]
    .map(|(prompt, completion)| TrainExample {
        prompt: prompt.to_owned(),
        completion: completion.to_owned(),
    })
    .to_vec()
}

fn train(bench: &Bench, settings: TrainSettings) -> Answer {
    bench.ask(Request::Train {
        name: "mine".into(),
        examples: examples(),
        settings,
    })
}

struct Quiet;

impl Host for Quiet {
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

/// The adapter of the core's trainer on the same examples, read from a file as the trainer reads them.
fn reference(bench: &Bench, settings: &TrainSettings) -> Vec<u8> {
    let state = bench.engine.state.borrow();
    let base = state.base().unwrap();
    let Model::Llama(model) = &base.model else {
        panic!()
    };
    let lines: String = examples()
        .iter()
        .map(|e| {
            serde_json::json!({ "prompt": e.prompt, "completion": e.completion }).to_string() + "\n"
        })
        .collect();
    let read = ReadOptions::default();
    let rows = parse_records(lines.as_bytes(), "f.jsonl", FileKind::Json, &read)
        .unwrap()
        .rows;
    let data = DataConfig {
        format: Some(Format::PromptCompletion),
        seed: settings.seed,
        ..DataConfig::default()
    };
    let encoder = Encoder::new(&data, &rows, &base.tokenizer, Task::Causal, 512).unwrap();
    let encoded = encoder.encode(&rows, 0, "f", &mut |_| {}).unwrap().examples;
    let lora = LoraConfig {
        rank: settings.rank,
        alpha: settings.alpha,
        target_modules: TargetModules::List(settings.target_modules.clone()),
        ..LoraConfig::default()
    };
    let tensors = fresh_parameters(&lora, &model.config.linear_modules(), settings.seed).unwrap();
    let parameters = Parameters::new(tensors, &model.device());
    let peft = peft_config(&lora, &parameters, &base.info.name);
    let options = BatchOptions::from_config(&data, settings.batch_size, encoder.max_length());
    let set = TrainSet {
        examples: &encoded,
        plan: BatchPlan::new(&encoded, options).unwrap(),
        collate: CollateOptions::new(base.tokenizer.pad_id()),
    };
    let config = TrainConfig {
        max_steps: Some(settings.steps),
        batch_size: settings.batch_size,
        lr: settings.lr,
        seed: settings.seed,
        ..TrainConfig::default()
    };
    let mut trainer =
        Trainer::new(model.as_ref(), parameters, config, set, None, String::new()).unwrap();
    block_on(trainer.run(&mut Quiet, &mut ())).unwrap();
    let adapter = block_on(to_adapter(&peft, &trainer.parameters)).unwrap();
    adapter.to_bytes().unwrap().1
}

#[test]
fn a_run_learns_its_examples_and_leaves_the_trainers_adapter() {
    let bench = Bench::started();
    let settings = TrainSettings {
        steps: 30,
        batch_size: 2,
        lr: 5e-3,
        ..TrainSettings::default()
    };
    let answer = train(&bench, settings.clone());
    let losses: Vec<f64> = answer
        .events
        .iter()
        .filter_map(|e| match e {
            Event::TrainStep {
                step, total, loss, ..
            } => {
                assert!((1..=30).contains(step) && *total == 30);
                Some(*loss)
            }
            _ => None,
        })
        .collect();
    assert_eq!(losses.len(), 30);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[25..]) < 0.3 * mean(&losses[..5]), "{losses:?}");
    let Event::AdapterAdded { adapter } = answer.last() else {
        panic!("{answer:?}")
    };
    assert_eq!(
        (adapter.origin, adapter.facts.rank),
        (AdapterOrigin::Training, 8)
    );
    assert!(adapter.warnings.is_empty(), "{:?}", adapter.warnings);
    assert_eq!(adapter.facts.target_modules, ["q_proj", "v_proj"]);

    // What it answers with its adapter on.
    let answer = bench.ask(Request::Generate {
        prompt: crate::protocol::Prompt::Chat {
            turns: vec![crate::protocol::Turn {
                role: "user".into(),
                content: "What do dogs say?".into(),
            }],
        },
        columns: columns(&[&["mine"]]),
        sampling: qloom_core::generation::SamplingConfig {
            max_new_tokens: 16,
            ..Default::default()
        },
        histories: Vec::new(),
    });
    assert!(answer.text(0).contains("say"), "{}", answer.text(0));

    let answer = bench.ask(Request::Export {
        name: "mine".into(),
    });
    let zip = archive::unpack(&answer.attachments[0]).unwrap();
    assert!(zip["adapter_model.safetensors"] == reference(&bench, &settings));
    let receipt = qloom_core::adapters::Receipt::from_json(&zip["qloom.json"]).unwrap();
    let state = bench.engine.state.borrow();
    let base = state.base().unwrap();
    assert_eq!(receipt.base_fingerprint.as_ref(), base.fingerprints.first());
    assert_eq!(receipt.rest["method"], "lora");
}

#[test]
fn a_run_is_stopped_after_the_step_at_hand() {
    let bench = Bench::started();
    let id = bench.next.get();
    bench
        .around()
        .stop_when(id, |e| matches!(e, Event::TrainStep { step: 2, .. }));
    let answer = train(&bench, TrainSettings::default());
    assert_eq!(answer.last(), &Event::Stopped);
    let steps = answer
        .events
        .iter()
        .filter(|e| matches!(e, Event::TrainStep { .. }));
    assert_eq!(steps.count(), 2);
    let export = Request::Export {
        name: "mine".into(),
    };
    assert!(bench.ask(export).failure().message.contains("mine"));
}

#[test]
fn settings_that_cannot_be_meant_are_refused_by_name() {
    let bench = Bench::started();
    let refused = |settings: TrainSettings, word: &str| {
        let answer = train(&bench, settings);
        let failure = answer.failure();
        assert_eq!(failure.kind, FailureKind::Request, "{failure:?}");
        assert!(failure.message.contains(word), "{word}: {failure:?}");
    };
    let settings = TrainSettings::default;
    refused(
        TrainSettings {
            rank: 0,
            ..settings()
        },
        "rank",
    );
    refused(
        TrainSettings {
            steps: 0,
            ..settings()
        },
        "steps",
    );
    refused(
        TrainSettings {
            batch_size: 0,
            ..settings()
        },
        "batch_size",
    );
    refused(
        TrainSettings {
            lr: -1.0,
            ..settings()
        },
        "lr",
    );
    let target_modules = vec!["qproj".to_owned()];
    refused(
        TrainSettings {
            target_modules,
            ..settings()
        },
        "q_proj",
    );
    let answer = bench.ask(Request::Train {
        name: "mine".into(),
        examples: Vec::new(),
        settings: settings(),
    });
    assert!(matches!(answer.last(), Event::Failed { .. }));
}
