//! What goes wrong around the engine.

use super::*;
use crate::protocol::FailureKind;

fn load(bench: &Bench, options: BaseOptions) -> Answer {
    let source = url(BASE);
    bench.ask(Request::LoadBase { source, options })
}

#[test]
fn a_damaged_stored_base_is_fetched_again_and_a_damaged_served_one_refused() {
    let bench = Bench::new();
    bench.start();
    let place = format!("{BASE}/model.safetensors");
    let whole = bench.around().served(&place);
    // A header that is none.
    let mut damaged = whole.clone();
    damaged[8] ^= 0x40;
    bench.around().store(&place, damaged.clone());
    let answer = load(&bench, BaseOptions::default());
    assert!(
        matches!(answer.last(), Event::BaseLoaded { .. }),
        "{answer:?}"
    );
    assert!(bench.around().forgotten.borrow().contains(&place));
    let Event::BaseLoaded { base, .. } = answer.last() else {
        panic!()
    };
    let fingerprint = base.fingerprint.clone();

    // A bit of a weight, which only the fingerprint tells.
    let mut flipped = whole.clone();
    let at = flipped.len() - 1000;
    flipped[at] ^= 1;
    bench.around().store(&place, flipped.clone());
    let options = BaseOptions {
        fingerprint: fingerprint.clone(),
        ..BaseOptions::default()
    };
    let answer = load(&bench, options.clone());
    assert!(
        matches!(answer.last(), Event::BaseLoaded { .. }),
        "{answer:?}"
    );
    bench.around().serve(&place, flipped);
    let failure = load(&bench, options).failure().clone();
    assert_eq!(failure.kind, FailureKind::Integrity);
    assert!(
        failure.message.contains(&fingerprint.unwrap()),
        "{failure:?}"
    );

    bench
        .around()
        .serve(&place, whole[..whole.len() - 1].to_vec());
    let failure = load(&bench, BaseOptions::default()).failure().clone();
    assert_eq!(failure.kind, FailureKind::Format);
    assert!(failure.message.contains("model.safetensors"), "{failure:?}");
}

#[test]
fn what_is_missing_or_unreachable_is_named() {
    let bench = Bench::new();
    bench.start();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let place = format!("{BASE}/{file}");
        let whole = bench.around().served(&place);
        bench.around().unserve(&place);
        let failure = load(&bench, BaseOptions::default()).failure().clone();
        assert_eq!(failure.kind, FailureKind::Network, "{failure:?}");
        assert!(failure.message.contains(file), "{failure:?}");
        bench.around().serve(&place, whole);
    }
    let source = url("https://offline.test/base");
    let options = BaseOptions::default();
    let answer = bench.ask(Request::LoadBase { source, options });
    assert_eq!(answer.failure().kind, FailureKind::Network);
    let source = url("file:///etc");
    let options = BaseOptions::default();
    let answer = bench.ask(Request::LoadBase { source, options });
    assert_eq!(answer.failure().kind, FailureKind::Request);
    let other = br#"{"model_type":"gpt2"}"#.to_vec();
    bench.around().serve(&format!("{BASE}/config.json"), other);
    let failure = load(&bench, BaseOptions::default()).failure().clone();
    assert!(failure.message.contains("gpt2"), "{failure:?}");
}

#[test]
fn loading_is_stopped_between_two_pieces() {
    let bench = Bench::new();
    bench.start();
    let id = bench.next.get();
    bench
        .around()
        .stop_when(id, |e| matches!(e, Event::Progress { .. }));
    let answer = load(&bench, BaseOptions::default());
    assert_eq!(answer.last(), &Event::Stopped);
    assert!(answer.events.len() <= 3, "{answer:?}");
    let export = Request::Export { name: "x".into() };
    assert!(matches!(bench.ask(export).last(), Event::Failed { .. }));
    assert!(matches!(
        load(&bench, BaseOptions::default()).last(),
        Event::BaseLoaded { .. }
    ));
}

#[test]
fn after_the_device_is_lost_every_request_says_so() {
    let bench = Bench::started();
    let failure = bench.ask(Request::LoseDevice).failure().clone();
    assert_eq!(failure.kind, FailureKind::Device);
    let answer = load(&bench, BaseOptions::default());
    assert_eq!(answer.failure().kind, FailureKind::Device, "{answer:?}");
    assert!(answer.failure().message.contains("restart"));
}
