//! Links survive, and bad ones are refused with words.
#![allow(clippy::unwrap_used)]

use super::*;
use qloom_core::merge::{Method, Sign};

fn full() -> Shared {
    Shared {
        base: Some(BaseSource::Url {
            url: "https://example.org/a b/?x=1&y=2".into(),
            name: "büro, \"x\"".into(),
        }),
        adapters: vec![
            Wanted::Gallery {
                name: "Pirate, & co".into(),
                slug: "pirate".into(),
            },
            Wanted::Source {
                name: "b=c".into(),
                source: AdapterSource::Url {
                    url: "http://localhost:1/#x".into(),
                },
            },
        ],
        a: Some("Pirate, & co".into()),
        b: Some("b=c".into()),
        stacked: true,
        merge: Some((
            vec![
                MergeMember {
                    name: "Pirate, & co".into(),
                    weight: 0.1 + 0.2,
                },
                MergeMember {
                    name: "b=c".into(),
                    weight: -1.0,
                },
            ],
            MergeSettings {
                method: Method::DareTiesSvd,
                density: Some(0.5),
                sign: Sign::Frequency,
                rank: Some(4),
                clamp: Some(0.99),
                seed: 7,
                exact: false,
            },
        )),
        prompt: "Hello\n<b>&amp; 100 % 猫</b>".into(),
        pair: "second".into(),
        system: "Be short.".into(),
        plain: true,
        sampling: Some(SamplingConfig {
            temperature: 0.7,
            stop: vec!["\n\n".into(), "##".into()],
            seed: u64::MAX,
            ..SamplingConfig::default()
        }),
    }
}

#[test]
fn links_survive() {
    for shared in [full(), Shared::default()] {
        let link = encode(&shared);
        assert!(
            link.is_ascii() && !link.contains([' ', '<', '#', '"']),
            "{link}"
        );
        assert_eq!(decode(&format!("#{link}")), Ok(Some(shared)));
    }
}

#[test]
fn sections_are_no_links() {
    for fragment in ["", "#", "#merge", "compare"] {
        assert_eq!(decode(fragment), Ok(None));
    }
}

#[test]
fn bad_links_are_refused_with_words() {
    let error = |query: &str| decode(&format!("compare?{query}")).unwrap_err().to_string();
    assert!(error("v=2").contains("version 2"));
    assert!(error("prompt=x").contains("version none"));
    assert!(error("v=1&temperature=-1").contains("temperature"));
    assert!(error("v=1&temperature=NaN").contains("finite"));
    assert!(error("v=1&prompt=%zz").contains("percent"));
    assert!(error("v=1&base=file,%2Fetc").contains("hub,OWNER"));
    assert!(error("v=1&base=url,javascript%3Aalert(1),x").contains("hub,OWNER"));
    assert!(error("v=1&adapter=n,gallery,..%2F..").contains("gallery"));
    assert!(error("v=1&method=best").contains("method"));
    assert!(error("v=1&merge=a,inf").contains("finite"));
    assert!(error("v=1&future=1").contains("future"));
    assert!(error(&format!("v=1&prompt={}", "x".repeat(70_000))).contains("60000"));
    assert!(error(&format!("v=1{}", "&adapter=n,gallery,s".repeat(17))).contains("16"));
}

#[test]
fn a_state_comes_back_and_what_cannot_is_named() {
    let mut state = crate::state::tests::ready();
    state.compare.prompt = "Hi".into();
    state.compare.sampling.temperature = 0.5;
    for name in ["a", "b"] {
        state.merge.toggle(name);
    }
    let (shared, left_out) = Shared::of(&state);
    assert!(left_out.is_empty(), "{left_out:?}");
    assert_eq!(shared.base, None, "the site's own base is not named");
    assert!(shared.outside().is_empty());
    let mut fresh = State::new(&state.site);
    let effects = fresh.restore(decode(&encode(&shared)).unwrap().unwrap());
    assert_eq!(effects.len(), 1);
    assert_eq!(fresh.compare.prompt, "Hi");
    assert_eq!(fresh.merge.members, state.merge.members);
    assert!(fresh.plan.merge && fresh.plan.adapters.len() == 2);

    state.adapters.resident[0].source = None;
    state.session.source = Some(BaseSource::Files { files: Vec::new() });
    let (shared, left_out) = Shared::of(&state);
    assert_eq!(left_out, ["a", "the base"]);
    assert_eq!((shared.a, shared.merge), (None, None));
}

#[test]
fn what_lies_elsewhere_is_named() {
    let outside = full().outside();
    assert_eq!(outside.len(), 2);
    assert!(outside[0].starts_with("https://example.org"));
}
