//! Every request and event through JSON and back, and the words that stand in it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;

use qloom_core::adapters::gallery::AdapterFacts;
use qloom_core::generation::SamplingConfig;
use qloom_core::merge::{Fidelity, FidelityReport, Method, Sign};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

/// `value` as it arrives.
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) -> Value {
    let text = serde_json::to_string(value).unwrap();
    let back: T = serde_json::from_str(&text).unwrap();
    assert_eq!(&back, value, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The tags of all variants; a new one does not compile until it is named here, and then fails until it is tested.
fn tag_of_request(request: &Request) -> &'static str {
    match request {
        Request::Start { .. } => "start",
        Request::LoadBase { .. } => "load_base",
        Request::AddAdapter { .. } => "add_adapter",
        Request::RemoveAdapter { .. } => "remove_adapter",
        Request::Merge { .. } => "merge",
        Request::Export { .. } => "export",
        Request::Generate { .. } => "generate",
        Request::Classify { .. } => "classify",
        Request::TokenLosses { .. } => "token_losses",
        Request::Evaluate { .. } => "evaluate",
        Request::Train { .. } => "train",
        Request::Stop { .. } => "stop",
        Request::ClearCache => "clear_cache",
        Request::LoseDevice => "lose_device",
    }
}

const REQUESTS: usize = 14;

fn tag_of_event(event: &Event) -> (&'static str, bool) {
    match event {
        Event::Ready { .. } => ("ready", true),
        Event::Progress { .. } => ("progress", false),
        Event::BaseLoaded { .. } => ("base_loaded", true),
        Event::AdapterAdded { .. } => ("adapter_added", true),
        Event::AdapterRemoved { .. } => ("adapter_removed", true),
        Event::Merged { .. } => ("merged", true),
        Event::Exported { .. } => ("exported", true),
        Event::Text { .. } => ("text", false),
        Event::ColumnDone { .. } => ("column_done", false),
        Event::Generated => ("generated", true),
        Event::Classified { .. } => ("classified", true),
        Event::TokenLosses { .. } => ("token_losses", true),
        Event::EvalProgress { .. } => ("eval_progress", false),
        Event::EvalRows { .. } => ("eval_rows", false),
        Event::Evaluated { .. } => ("evaluated", true),
        Event::TrainStep { .. } => ("train_step", false),
        Event::Stopped => ("stopped", true),
        Event::Cleared { .. } => ("cleared", true),
        Event::Failed { .. } => ("failed", true),
        Event::Note { .. } => ("note", false),
    }
}

const EVENTS: usize = 20;

fn column(names: &[&str]) -> Column {
    Column {
        adapters: names.iter().map(|n| (*n).to_owned()).collect(),
    }
}

fn file() -> FileRef {
    FileRef {
        name: "a/b.jsonl".into(),
        attachment: 3,
    }
}

fn turns() -> Vec<Turn> {
    vec![Turn {
        role: "user".into(),
        content: "Say \"hi\"\n\u{1F600}".into(),
    }]
}

fn requests() -> Vec<Request> {
    let name = || "a b".to_owned();
    let base = |source| Request::LoadBase {
        source,
        options: BaseOptions {
            quantize: Some(true),
            fingerprint: Some("ab".into()),
        },
    };
    let add = |source| Request::AddAdapter {
        name: name(),
        source,
    };
    vec![
        Request::Start {
            prefer: Some(DeviceKind::WebGpu),
            compute: Some(Compute::F16),
        },
        Request::Start {
            prefer: None,
            compute: None,
        },
        base(BaseSource::Url {
            url: "https://x.test/y/".into(),
            name: "y".into(),
        }),
        base(BaseSource::Hub {
            repository: "o/n@r".into(),
        }),
        base(BaseSource::Files {
            files: vec![file()],
        }),
        add(AdapterSource::Gallery {
            site: "..".into(),
            slug: "s".into(),
            entry_sha256: "00".into(),
        }),
        add(AdapterSource::Url {
            url: "https://x.test".into(),
        }),
        add(AdapterSource::Files {
            files: vec![file()],
        }),
        Request::RemoveAdapter { name: name() },
        Request::Merge {
            name: name(),
            members: vec![MergeMember {
                name: name(),
                weight: -0.5,
            }],
            settings: MergeSettings {
                method: Method::DareTiesSvd,
                density: Some(0.3),
                sign: Sign::Frequency,
                rank: Some(4),
                clamp: Some(0.9),
                seed: u64::MAX,
                exact: true,
            },
        },
        Request::Export { name: name() },
        Request::Generate {
            prompt: Prompt::Chat { turns: turns() },
            columns: vec![column(&[]), column(&["a", "b"])],
            sampling: SamplingConfig::default(),
            histories: vec![turns(), Vec::new()],
        },
        Request::Classify {
            text: "t".into(),
            pair: Some("p".into()),
            columns: vec![column(&[])],
        },
        Request::TokenLosses {
            prompt: Prompt::Text { text: "p".into() },
            text: "t".into(),
            columns: vec![column(&["a"])],
        },
        Request::Evaluate {
            data: DataSource::File { file: file() },
            columns: vec![column(&[])],
            options: EvalOptions {
                metrics: vec!["bleu".into()],
                format: Some("alpaca".into()),
                labels: vec!["no".into(), "yes".into()],
                limit: Some(9),
                ..EvalOptions::default()
            },
        },
        Request::Evaluate {
            data: DataSource::Url { url: "d".into() },
            columns: vec![column(&[])],
            options: EvalOptions::default(),
        },
        Request::Train {
            name: name(),
            examples: vec![TrainExample {
                prompt: "p".into(),
                completion: "c".into(),
            }],
            settings: TrainSettings::default(),
        },
        Request::Stop { id: u64::MAX },
        Request::ClearCache,
        Request::LoseDevice,
    ]
}

fn adapter() -> AdapterInfo {
    AdapterInfo {
        name: "a".into(),
        origin: AdapterOrigin::Merge,
        facts: AdapterFacts {
            method: "lora".into(),
            rank: 8,
            alpha: 16.0,
            ..AdapterFacts::default()
        },
        base: Some("b".into()),
        sha256: "00".into(),
        bytes: 5,
        warnings: vec!["w".into()],
    }
}

fn fidelity() -> FidelityReport {
    let overall = Fidelity {
        relative_error: Some(1e-9),
        cosine: None,
        true_norm: 0.1,
        merged_norm: 0.0,
    };
    FidelityReport {
        overall,
        kinds: [("q_proj".to_owned(), overall)].into(),
        modules: Vec::new(),
    }
}

fn events() -> Vec<Event> {
    vec![
        Event::Ready {
            device: DeviceInfo {
                kind: DeviceKind::Cpu,
                name: "CPU".into(),
                f16: false,
                max_buffer: 0,
                reason: Some("no GPU".into()),
            },
        },
        Event::Progress {
            stage: Stage::Restore,
            done: 1,
            total: u64::from(u32::MAX) * 3,
            rate: 0.25,
        },
        Event::BaseLoaded {
            base: BaseInfo {
                name: "n".into(),
                architecture: "bert".into(),
                classifier: true,
                labels: vec!["no".into()],
                parameters: 7,
                bytes: 8,
                quantization: "nf4".into(),
                context: 512,
                fingerprint: None,
                chat: false,
                modules: vec!["query".into()],
            },
            dropped: vec!["x".into()],
        },
        Event::AdapterAdded { adapter: adapter() },
        Event::AdapterRemoved { name: "a".into() },
        Event::Merged {
            adapter: adapter(),
            merge: MergeInfo {
                fidelity: fidelity(),
                notes: vec!["n".into()],
                ms: 1.5,
            },
        },
        Event::Exported {
            file: "a.zip".into(),
        },
        Event::Text {
            column: 1,
            text: "\u{0} <b>".into(),
        },
        Event::ColumnDone {
            column: 0,
            finish: Finish::StopString,
            tokens: 3,
            prompt_tokens: 4,
            first_token_ms: 0.1,
            tokens_per_s: 1e3,
        },
        Event::Generated,
        Event::Classified {
            labels: vec!["no".into(), "yes".into()],
            probabilities: vec![vec![0.1, 0.9], Vec::new()],
        },
        Event::TokenLosses {
            columns: vec![vec![
                TokenLoss {
                    text: "t".into(),
                    nll: None,
                },
                TokenLoss {
                    text: "u".into(),
                    nll: Some(0.1 + 0.2),
                },
            ]],
        },
        Event::EvalProgress {
            column: 0,
            done: 1,
            total: 2,
        },
        Event::EvalRows {
            rows: vec![EvalRow {
                line: 3,
                prompt: "p".into(),
                reference: "r".into(),
                answers: vec![None, Some("a".into())],
                values: vec![Vec::new(), vec![("rougeL".into(), 1.0 / 3.0)]],
            }],
        },
        Event::Evaluated {
            columns: vec![ColumnScores {
                examples: 1,
                tokens: 2,
                metrics: vec![Metric {
                    name: "accuracy".into(),
                    value: 0.5,
                    ci: Some([0.0, 1.0]),
                }],
                labels: vec!["no".into()],
                confusion: vec![vec![1, 0]],
                per_class_f1: vec![1.0],
            }],
            paired: vec![Paired {
                metric: "accuracy".into(),
                column: 1,
                difference: -0.1,
                ci: [-0.2, 0.0],
                p_value: 0.04,
            }],
            notes: Vec::new(),
        },
        Event::TrainStep {
            step: 1,
            total: 2,
            loss: 3.5,
            lr: 1e-3,
            grad_norm: 0.7,
            tokens_per_s: 10.0,
        },
        Event::Stopped,
        Event::Cleared { bytes: 1 },
        Event::Failed {
            failure: Failure {
                kind: FailureKind::Mismatch,
                message: "m".into(),
            },
        },
        Event::Note { text: "t".into() },
    ]
}

#[test]
fn every_request_survives_its_way() {
    let mut seen = BTreeSet::new();
    for request in requests() {
        let tag = tag_of_request(&request);
        let message = Message {
            id: 1,
            body: request,
        };
        let json = round_trip(&message);
        assert_eq!(json["body"]["do"], tag);
        seen.insert(tag);
    }
    assert_eq!(seen.len(), REQUESTS);
}

#[test]
fn every_event_survives_its_way_and_says_whether_it_is_the_last() {
    let mut seen = BTreeSet::new();
    for event in events() {
        let (tag, last) = tag_of_event(&event);
        assert_eq!(event.is_final(), last, "{tag}");
        let message = Message { id: 0, body: event };
        let json = round_trip(&message);
        assert_eq!(json["body"]["event"], tag);
        seen.insert(tag);
    }
    assert_eq!(seen.len(), EVENTS);
}

#[test]
fn every_word_of_an_enumeration_is_its_snake_case_name() {
    for (value, word) in [
        (round_trip(&Stage::Load), "load"),
        (round_trip(&Stage::Merge), "merge"),
        (round_trip(&Stage::Download), "download"),
        (round_trip(&Finish::EndToken), "end_token"),
        (round_trip(&Finish::Length), "length"),
        (round_trip(&AdapterOrigin::Gallery), "gallery"),
        (round_trip(&AdapterOrigin::Training), "training"),
        (round_trip(&DeviceKind::WebGpu), "web_gpu"),
        (round_trip(&Compute::F32), "f32"),
        (round_trip(&FailureKind::Internal), "internal"),
        (round_trip(&FailureKind::Integrity), "integrity"),
        (
            round_trip(&Method::MagnitudePruneSvd),
            "magnitude_prune_svd",
        ),
    ] {
        assert_eq!(value, word);
    }
}

/// What later versions add has a default, so that a page and a worker of neighbouring versions understand each other.
#[test]
fn what_is_left_out_takes_its_default() {
    let start: Request = serde_json::from_value(json!({"do": "start", "prefer": null})).unwrap();
    assert_eq!(
        start,
        Request::Start {
            prefer: None,
            compute: None
        }
    );
    let source = json!({"from": "hub", "repository": "a/b"});
    let load = serde_json::from_value(json!({"do": "load_base", "source": source})).unwrap();
    let Request::LoadBase { options, .. } = load else {
        panic!()
    };
    assert_eq!(options, BaseOptions::default());
    let options: EvalOptions = serde_json::from_value(json!({"limit": 5})).unwrap();
    assert_eq!((options.batch_size, options.max_length), (8, 512));
    let unknown = serde_json::from_value::<Request>(json!({"do": "format_disk"}));
    assert!(unknown.is_err());
}
