//! The transitions, driven as the worker would.
#![allow(clippy::unwrap_used, clippy::panic)]

use qloom_core::adapters::gallery::{AdapterFacts, Gallery};

use super::adapters::{GalleryState, MERGE_NAME};
use super::compare::Standing;
use super::pending::Effect;
use super::*;
use crate::protocol::*;

pub(super) fn base() -> BaseInfo {
    BaseInfo {
        name: site::SITE_BASE_NAME.into(),
        architecture: "llama".into(),
        classifier: false,
        labels: Vec::new(),
        parameters: 2_000_000,
        bytes: 1_500_000,
        quantization: "nf4".into(),
        context: 512,
        fingerprint: Some("f".repeat(64)),
        chat: true,
        modules: ["q_proj", "k_proj", "v_proj", "o_proj"]
            .map(str::to_owned)
            .to_vec(),
    }
}

pub(super) fn adapter(name: &str) -> AdapterInfo {
    AdapterInfo {
        name: name.into(),
        origin: AdapterOrigin::Gallery,
        facts: AdapterFacts::default(),
        base: None,
        sha256: String::new(),
        bytes: 1,
        warnings: Vec::new(),
    }
}

fn gallery() -> GalleryState {
    let row = |slug: &str| {
        format!(
            r#"{{"slug":"{slug}","name":"{slug}","task":"t","base":{{"name":"qloom/tiny-llama"}},"size":1,
               "created":"2026-01-01","entry_sha256":"{}"}}"#,
            "0".repeat(64)
        )
    };
    let json = format!(
        r#"{{"version":1,"adapters":[{},{},{}]}}"#,
        row("a"),
        row("b"),
        row("c")
    );
    GalleryState::Loaded(Gallery::from_json(json.as_bytes()).unwrap())
}

/// Requests among effects, with their ids.
fn sent(effects: &[Effect]) -> Vec<(u64, Request)> {
    let request = |effect: &Effect| match effect {
        Effect::Send { message, .. } => Some((message.id, message.body.clone())),
        _ => None,
    };
    effects.iter().filter_map(request).collect()
}

fn only(effects: &[Effect]) -> (u64, Request) {
    let mut sent = sent(effects);
    assert_eq!(sent.len(), 1, "{effects:?}");
    sent.remove(0)
}

fn tell(state: &mut State, id: u64, body: Event) -> Vec<Effect> {
    state.apply(Message { id, body }).effects
}

fn device() -> Event {
    Event::Ready {
        device: DeviceInfo {
            kind: DeviceKind::WebGpu,
            name: "test".into(),
            f16: false,
            max_buffer: 1 << 30,
            reason: None,
        },
    }
}

fn failed(kind: FailureKind) -> Event {
    Event::Failed {
        failure: Failure {
            kind,
            message: "it broke.".into(),
        },
    }
}

/// Answers whatever is asked for until nothing more is; returns the requests that were left unanswered.
fn serve(state: &mut State, effects: Vec<Effect>) -> Vec<(u64, Request)> {
    let mut queue = sent(&effects);
    let mut left = Vec::new();
    while !queue.is_empty() {
        let (id, request) = queue.remove(0);
        let answer = match &request {
            Request::Start { .. } => device(),
            Request::LoadBase { .. } => Event::BaseLoaded {
                base: base(),
                dropped: Vec::new(),
            },
            Request::AddAdapter { name, .. } => Event::AdapterAdded {
                adapter: adapter(name),
            },
            Request::RemoveAdapter { name } => Event::AdapterRemoved { name: name.clone() },
            Request::Merge { .. } => merged(),
            Request::Export { .. } => Event::Exported {
                file: "adapter.zip".into(),
            },
            _ => {
                left.push((id, request));
                continue;
            }
        };
        queue.extend(sent(&tell(state, id, answer)));
    }
    left
}

fn merged() -> Event {
    let fidelity = r#"{"overall":{"relative_error":0.1,"cosine":0.9,"true_norm":1.0,"merged_norm":1.0},"kinds":{},"modules":[]}"#;
    Event::Merged {
        adapter: adapter(MERGE_NAME),
        merge: MergeInfo {
            fidelity: serde_json::from_str(fidelity).unwrap(),
            notes: Vec::new(),
            ms: 1.0,
        },
    }
}

/// A page that has its base and two adapters.
pub(super) fn ready() -> State {
    let mut state = State::new("https://site.test/");
    let plan = state.first_visit();
    let effects = state.start(plan);
    assert!(serve(&mut state, effects).is_empty());
    let effects = state.set_gallery(gallery());
    assert!(serve(&mut state, effects).is_empty());
    state
}

fn ask(state: &mut State, prompt: &str) -> (u64, Request) {
    state.compare.prompt = prompt.into();
    only(&state.ask())
}

fn answer(state: &mut State, id: u64, texts: &[&str]) -> Vec<Effect> {
    for (column, text) in texts.iter().enumerate() {
        tell(
            state,
            id,
            Event::Text {
                column,
                text: (*text).into(),
            },
        );
        tell(
            state,
            id,
            Event::ColumnDone {
                column,
                finish: Finish::EndToken,
                tokens: 2,
                prompt_tokens: 3,
                first_token_ms: 10.0,
                tokens_per_s: 50.0,
            },
        );
    }
    tell(state, id, Event::Generated)
}

#[test]
fn a_first_visit_loads_the_base_two_adapters_and_asks_once() {
    let mut state = ready();
    assert_eq!(state.adapters.names(), ["a", "b"]);
    assert_eq!(
        (state.compare.a.as_deref(), state.compare.b.as_deref()),
        (Some("a"), Some("b"))
    );
    let (id, request) = only(&state.set_examples(vec!["Who?".into(), "What?".into()]));
    let Request::Generate {
        prompt,
        columns,
        histories,
        ..
    } = request
    else {
        panic!("{request:?}")
    };
    assert_eq!(columns.len(), 3);
    assert!(histories.is_empty());
    assert_eq!(
        prompt,
        Prompt::Chat {
            turns: vec![Turn {
                role: "user".into(),
                content: "Who?".into()
            }]
        }
    );
    answer(&mut state, id, &["x", "y", "z"]);
    assert!(
        state.set_examples(vec!["More?".into()]).is_empty(),
        "only once"
    );
}

#[test]
fn every_model_goes_on_with_its_own_answers() {
    let mut state = ready();
    state.compare.b = None;
    let (id, _) = ask(&mut state, "one");
    assert!(state.ask().is_empty(), "one comparison at a time");
    answer(&mut state, id, &["from base", "from a"]);
    let (_, request) = ask(&mut state, "two");
    let Request::Generate { histories, .. } = request else {
        panic!("{request:?}")
    };
    let said: Vec<&str> = histories.iter().map(|h| h[1].content.as_str()).collect();
    assert_eq!(said, ["from base", "from a"]);
    assert_eq!(histories[0].len(), 2);
}

#[test]
fn texts_go_to_their_columns_and_stopping_keeps_them() {
    let mut state = ready();
    let (id, _) = ask(&mut state, "one");
    tell(
        &mut state,
        id,
        Event::Text {
            column: 1,
            text: "half".into(),
        },
    );
    let (own, request) = only(&state.stop(id));
    assert_eq!(request, Request::Stop { id });
    assert!(own != id);
    tell(&mut state, id, Event::Stopped);
    let answers = &state.compare.exchanges[0].answers;
    assert_eq!(
        (answers[1].text.as_str(), &answers[1].standing),
        ("half", &Standing::Stopped)
    );
    assert_eq!(state.compare.running, None);
    tell(
        &mut state,
        id,
        Event::Text {
            column: 1,
            text: "late".into(),
        },
    );
    assert_eq!(state.compare.exchanges[0].answers[1].text, "half");
}

#[test]
fn the_merge_is_live_and_its_column_follows() {
    let mut state = ready();
    let (id, _) = ask(&mut state, "one");
    answer(&mut state, id, &["x", "y", "z"]);
    state.merge.toggle("a");
    state.merge.toggle("b");
    let (first, _) = only(&state.merge_now());
    // Changed while it runs: stopped, then sent again with what is chosen now.
    state.merge.weigh("b", 0.5);
    assert_eq!(only(&state.merge_now()).1, Request::Stop { id: first });
    let (second, request) = only(&tell(&mut state, first, Event::Stopped));
    assert!(matches!(request, Request::Merge { members, .. } if members[1].weight == 0.5));
    let (_, request) = only(&tell(&mut state, second, merged()));
    assert!(
        matches!(&request, Request::Generate { columns, .. } if columns.len() == 1 && columns[0].adapters == [MERGE_NAME])
    );
    assert_eq!(state.compare.exchanges[0].answers.len(), 4);
    // Merged again while the merge still answers: that answer is stopped and asked for anew.
    let running = state.compare.running.unwrap();
    let (third, _) = only(&state.merge_now());
    assert_eq!(
        only(&tell(&mut state, third, merged())).1,
        Request::Stop { id: running }
    );
    let (_, request) = only(&tell(&mut state, running, Event::Stopped));
    assert!(matches!(request, Request::Generate { columns, .. } if columns.len() == 1));
}

#[test]
fn a_lost_device_restarts_the_worker_with_everything_it_had() {
    let mut state = ready();
    state.merge.toggle("a");
    let effects = state.merge_now();
    serve(&mut state, effects);
    let (id, _) = ask(&mut state, "one");
    let effects = tell(&mut state, 0, failed(FailureKind::Device));
    assert_eq!(effects, [Effect::Restart]);
    assert!(state.session.restarting.is_some() && state.compare.running.is_none());
    assert_eq!(
        state.compare.exchanges[0].answers[0].standing,
        Standing::Failed
    );
    assert!(
        tell(&mut state, id, Event::Generated).is_empty(),
        "the old worker says nothing any more"
    );
    let effects = state.replay();
    let left = serve(&mut state, effects);
    assert_eq!(state.adapters.names(), ["a", "b"]);
    assert!(state.adapters.merged() && state.session.ready());
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(state.compare.exchanges.len(), 1, "what was said stays");
    let (id, _) = ask(&mut state, "two");
    answer(&mut state, id, &["1", "2", "3", "4"]);
    assert_eq!(state.session.restarts, 0);
}

#[test]
fn a_worker_that_never_works_is_given_up() {
    let mut state = State::new("https://site.test/");
    let plan = state.first_visit();
    state.start(plan);
    for _ in 0..session::MOST_RESTARTS {
        assert_eq!(
            tell(&mut state, 0, failed(FailureKind::Internal)),
            [Effect::Restart]
        );
        state.replay();
    }
    assert!(tell(&mut state, 0, failed(FailureKind::Internal)).is_empty());
    assert!(state.session.broken && state.session.failure.is_some());
    assert_eq!(state.restart(Some(DeviceKind::Cpu)), [Effect::Restart]);
    let (_, request) = only(&state.replay());
    assert_eq!(
        request,
        Request::Start {
            prefer: Some(DeviceKind::Cpu),
            compute: None
        }
    );
}

#[test]
fn a_trained_adapter_is_kept_for_a_new_worker() {
    let mut state = ready();
    let (id, _) = only(&state.train_now());
    tell(
        &mut state,
        id,
        Event::TrainStep {
            step: 1,
            total: 2,
            loss: 3.0,
            lr: 0.1,
            grad_norm: 1.0,
            tokens_per_s: 9.0,
        },
    );
    let effects = tell(
        &mut state,
        id,
        Event::AdapterAdded {
            adapter: adapter("my adapter"),
        },
    );
    let (export, request) = only(&effects);
    assert_eq!(
        request,
        Request::Export {
            name: "my adapter".into()
        }
    );
    let effects = tell(
        &mut state,
        export,
        Event::Exported {
            file: "my.zip".into(),
        },
    );
    assert_eq!(
        effects,
        [Effect::Keep {
            name: "my adapter".into()
        }]
    );
    assert_eq!(state.train.result.as_deref(), Some("my adapter"));
    tell(&mut state, 0, failed(FailureKind::Device));
    let effects = state.replay();
    serve(&mut state, effects);
    assert!(state.adapters.get("my adapter").is_some());
}

#[test]
fn failures_stay_where_they_belong() {
    let mut state = ready();
    let source = AdapterSource::Url {
        url: "https://x.test/".into(),
    };
    let (id, _) = only(&state.add_adapter("a", source));
    tell(&mut state, id, failed(FailureKind::Mismatch));
    assert_eq!(state.adapters.failure.as_ref().unwrap().0, "a 2");
    assert_eq!(state.adapters.names(), ["a", "b"]);
    let source = BaseSource::Hub {
        repository: "o/n".into(),
    };
    let (id, _) = only(&state.load_base(source));
    tell(
        &mut state,
        id,
        Event::Progress {
            stage: Stage::Download,
            done: 1,
            total: 2,
            rate: 0.0,
        },
    );
    assert!(state.session.progress.is_some() && !state.session.ready());
    tell(&mut state, id, failed(FailureKind::Network));
    assert!(state.session.ready() && state.session.failure.is_some());
}

#[test]
fn another_base_drops_what_does_not_fit() {
    let mut state = ready();
    let (id, _) = only(&state.load_base(BaseSource::Hub {
        repository: "o/n".into(),
    }));
    tell(
        &mut state,
        id,
        Event::BaseLoaded {
            base: base(),
            dropped: vec!["a".into()],
        },
    );
    assert_eq!(state.adapters.names(), ["b"]);
    assert_eq!(state.compare.a, None);
    assert!(state.session.notes.iter().any(|n| n.contains("dropped: a")));
}

#[test]
fn evaluations_fill_up_and_end() {
    let mut state = ready();
    state.evaluate.data = Some(DataSource::Url { url: "u".into() });
    let (id, _) = only(&state.evaluate_now());
    tell(
        &mut state,
        id,
        Event::EvalProgress {
            column: 0,
            done: 1,
            total: 4,
        },
    );
    tell(
        &mut state,
        id,
        Event::EvalRows {
            rows: vec![table::tests::row(1, "p", [true, true], [0.0, 0.0])],
        },
    );
    assert_eq!(state.evaluate.rows.len(), 1);
    tell(&mut state, id, Event::Stopped);
    assert!(
        state.evaluate.stopped
            && state.evaluate.running.is_none()
            && state.evaluate.rows.len() == 1
    );
}
