//! What becomes of configurations, heads and receipts.

use super::*;
use crate::adapters::Receipt;
use crate::weights::OwnedTensor;

fn with_head(name: &str, values: &[f32], seed: u64) -> Source {
    let plain = source(name, &["q_proj"], 2, 1.0, seed);
    let head = OwnedTensor::from_f32(vec![values.len()], values).unwrap();
    let config = PeftConfig {
        modules_to_save: Some(vec!["classifier".into()]),
        ..plain.adapter.config.clone()
    };
    let modules = plain.adapter.modules().unwrap();
    Source {
        adapter: Adapter::new(config, &modules, vec![("classifier.weight".into(), head)]).unwrap(),
        ..plain
    }
}

fn head(merged: &Merged) -> Vec<f32> {
    merged.adapter.saved()["classifier.weight"]
        .to_f32()
        .unwrap()
}

#[test]
fn heads_are_carried_or_refused_or_averaged_as_asked() {
    let o = options(Method::Svd, &[3.0, 1.0]);
    let plain = source("plain", &["q_proj"], 2, 1.0, 9);
    let (a, b) = (
        with_head("a", &[1.0, 2.0], 1),
        with_head("b", &[3.0, -2.0], 2),
    );
    let merged = run(&[plain.clone(), a.clone()], &o);
    assert_eq!(head(&merged), [1.0, 2.0]);
    let saved = merged.adapter.config.modules_to_save.clone().unwrap();
    assert_eq!(saved, ["classifier"]);
    assert!(
        merged
            .notes
            .iter()
            .any(|n| n.contains("classifier.weight") && n.contains("taken from a"))
    );
    assert_eq!(head(&run(&[a.clone(), a.clone()], &o)), [1.0, 2.0]);

    let both = [a, b];
    let e = merge(&both, &o, |_, _| {}).unwrap_err().to_string();
    assert!(
        e.contains("a and b") && e.contains("classifier.weight"),
        "{e}"
    );
    let as_asked = |saved| MergeOptions { saved, ..o.clone() };
    assert_eq!(
        head(&run(&both, &as_asked(SavedModules::First))),
        [1.0, 2.0]
    );
    assert_eq!(
        head(&run(&both, &as_asked(SavedModules::Average))),
        [1.5, 1.0]
    );
    let opposite = MergeOptions {
        weights: vec![1.0, -1.0],
        ..as_asked(SavedModules::Average)
    };
    let e = merge(&both, &opposite, |_, _| {}).unwrap_err().to_string();
    assert!(e.contains("sum to 0"), "{e}");
}

#[test]
fn ranks_and_alphas_by_pattern_are_resolved() {
    let modules = [
        pair("l.0.q_proj", 3, 2.0, 1),
        pair("l.0.v_proj", 5, 7.0 / 5.0, 2),
    ];
    let config = PeftConfig {
        r: 3,
        lora_alpha: 6.0,
        rank_pattern: vec![("v_proj".into(), 5.0)],
        alpha_pattern: vec![("v_proj".into(), 7.0)],
        target_modules: Some(OneOrMany::Many(vec!["q_proj".into(), "v_proj".into()])),
        ..PeftConfig::default()
    };
    let one = from_parts("one", config, &modules);
    let two = Source {
        name: "two".into(),
        ..one.clone()
    };
    let sources = [one, two];
    for method in [Method::Linear, Method::Cat, Method::Svd] {
        let merged = run(&sources, &options(method, &[0.5, 0.25]));
        let (json, bytes) = merged.adapter.to_bytes().unwrap();
        let again = Adapter::from_bytes(&json, &bytes).unwrap();
        assert_eq!(again, merged.adapter, "{method}: reads back");
        assert!(again.config.rank_pattern.is_empty() && again.config.alpha_pattern.is_empty());
        for m in again.modules().unwrap() {
            let want = truth(&sources, &[0.5, 0.25], &m.path);
            let far = apart(&delta(&m), &want);
            // Equal factors: the sum of the factors overshoots by (√½+√¼)² / ¾, everything else is exact.
            let expected = if method == Method::Linear {
                (0.5f64.sqrt() + 0.5).powi(2) / 0.75 - 1.0
            } else {
                0.0
            };
            assert!((far - expected).abs() < 1e-5, "{method} {}: {far}", m.path);
        }
    }
}

#[test]
fn a_rank_above_a_modules_size_is_padded_so_that_it_loads() {
    let sources = [
        source("one", &["q_proj"], 2, 1.0, 1),
        source("two", &["q_proj"], 2, 1.0, 2),
    ];
    let o = MergeOptions {
        rank: Some(20),
        ..options(Method::TiesSvd, &[1.0, 1.0])
    };
    let merged = run(&sources, &o);
    let m = module(&merged, "l.0.q_proj");
    // The result has the rank it needs; PEFT would declare 20 and store 9.
    assert_eq!((m.rank, merged.adapter.config.r), (IN, IN));
}

#[test]
fn targets_are_names_where_names_mean_the_same_everywhere() {
    let names = |s: &[Source]| {
        let merged = run(s, &options(Method::Svd, &[1.0, 1.0]));
        merged.adapter.config.target_modules.unwrap().to_vec()
    };
    let mut sources = [
        source("one", &["q_proj"], 2, 1.0, 1),
        source("two", &["v_proj", "q_proj"], 2, 1.0, 2),
    ];
    assert_eq!(names(&sources), ["q_proj", "v_proj"]);
    sources[0].adapter.config.layers_to_transform = Some(OneOrMany::Many(vec![0]));
    assert_eq!(names(&sources), ["l.0.q_proj", "l.0.v_proj"]);
    sources[0].adapter.config.layers_to_transform = None;
    sources[1].adapter.config.target_modules = Some(OneOrMany::One(".*_proj".into()));
    assert_eq!(names(&sources), ["l.0.q_proj", "l.0.v_proj"]);
}

#[test]
fn the_receipt_says_how_the_adapter_was_made() {
    let mut sources = [
        source("one", &["q_proj"], 2, 1.0, 1),
        source("two", &["q_proj"], 2, 1.0, 2),
    ];
    let receipt = |template: &str| {
        Some(Receipt {
            base: Some("b".into()),
            base_fingerprint: Some("f".into()),
            chat_template: Some(template.into()),
            ..Receipt::default()
        })
    };
    sources[0].receipt = receipt("T");
    sources[1].receipt = receipt("T");
    let o = MergeOptions {
        seed: 5,
        ..options(Method::DareTies, &[1.0, -0.5])
    };
    let merged = run(&sources, &o);
    assert_eq!(merged.receipt.chat_template.as_deref(), Some("T"));
    let bytes = merged.receipt.to_json().unwrap();
    let again = Receipt::from_json(&bytes).unwrap();
    let record: MergeRecord = serde_json::from_value(again.rest[MERGE_KEY].clone()).unwrap();
    assert_eq!(record, merged.record);
    assert_eq!(record.method, "dare_ties");
    assert_eq!(
        (record.seed, record.density, record.sign),
        (Some(5), Some(0.5), Some(Sign::Total))
    );
    assert_eq!(record.sources[1].sha256, "sha of two");
    assert_eq!(record.sources[1].weight, -0.5);

    sources[1].receipt = receipt("another");
    let merged = run(&sources, &o);
    assert_eq!(merged.receipt.chat_template, None);
    assert!(
        merged
            .notes
            .iter()
            .any(|n| n.contains("different chat templates"))
    );
}
