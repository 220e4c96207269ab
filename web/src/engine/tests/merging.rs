//! Merges and exports: the tensors of the core's merge with the arguments of `trainer merge`.

use qloom_core::merge::{MergeOptions, Method, Sign, Source, merge};

use super::*;
use crate::archive;
use crate::protocol::{FailureKind, MergeInfo, MergeMember, MergeSettings};

const NAMES: [&str; 3] = ["sentiment", "instructions", "storyteller"];

fn source(slug: &str) -> Source {
    let folder = workspace().join("web/site/adapters").join(slug);
    Source::from_bytes(
        slug,
        &read(folder.join("adapter_config.json")),
        &read(folder.join("adapter_model.safetensors")),
        Some(&read(folder.join("qloom.json"))),
    )
    .unwrap()
}

fn ask(bench: &Bench, weights: &[f64], settings: MergeSettings) -> Result<MergeInfo, Failure> {
    let member = |(name, weight): (&&str, &f64)| MergeMember {
        name: (*name).to_owned(),
        weight: *weight,
    };
    let answer = bench.ask(Request::Merge {
        name: "mix".into(),
        members: NAMES.iter().zip(weights).map(member).collect(),
        settings,
    });
    match answer.last() {
        Event::Merged { merge, .. } => Ok(merge.clone()),
        Event::Failed { failure } => Err(failure.clone()),
        other => panic!("{other:?}"),
    }
}

fn exported(bench: &Bench) -> std::collections::BTreeMap<String, Vec<u8>> {
    let answer = bench.ask(Request::Export { name: "mix".into() });
    assert!(matches!(answer.last(), Event::Exported { file } if file == "mix.zip"));
    archive::unpack(&answer.attachments[0]).unwrap()
}

#[test]
fn every_method_exports_the_bytes_that_the_trainer_writes() {
    let bench = Bench::started();
    for name in NAMES {
        bench.add(name);
    }
    let sources: Vec<Source> = NAMES.iter().map(|n| source(n)).collect();
    let weights = [1.0, 0.5, -0.25];
    for method in Method::ALL {
        let prunes = MergeOptions {
            method,
            weights: weights.to_vec(),
            ..MergeOptions::default()
        }
        .check(3)
        .is_err();
        let settings = MergeSettings {
            method,
            density: prunes.then_some(0.6),
            sign: Sign::Total,
            seed: 11,
            ..MergeSettings::default()
        };
        let options = MergeOptions {
            method,
            weights: weights.to_vec(),
            density: settings.density,
            sign: Sign::Total,
            seed: 11,
            ..MergeOptions::default()
        };
        let expected = merge(&sources, &options, |_, _| {}).unwrap();
        let found = ask(&bench, &weights, settings).unwrap();
        assert_eq!(
            found.fidelity.overall, expected.fidelity.overall,
            "{method}"
        );
        assert_eq!(found.notes, expected.notes);
        let (config, tensors) = expected.adapter.to_bytes().unwrap();
        let zip = exported(&bench);
        assert_eq!(zip["adapter_config.json"], config, "{method}");
        assert!(zip["adapter_model.safetensors"] == tensors, "{method}");
        assert_eq!(zip["qloom.json"], expected.receipt.to_json().unwrap());
    }
    // The exact sum, truncated once.
    let settings = MergeSettings {
        exact: true,
        rank: Some(4),
        ..MergeSettings::default()
    };
    let found = ask(&bench, &weights, settings).unwrap();
    let options = MergeOptions {
        method: Method::Linear,
        weights: weights.to_vec(),
        rank: Some(4),
        exact: true,
        ..MergeOptions::default()
    };
    let expected = merge(&sources, &options, |_, _| {}).unwrap();
    assert_eq!(found.fidelity, expected.fidelity);
    let (_, tensors) = expected.adapter.to_bytes().unwrap();
    assert!(exported(&bench)["adapter_model.safetensors"] == tensors);
}

#[test]
fn a_merge_is_resident_and_its_column_is_the_sum_of_the_others() {
    let bench = Bench::started();
    for name in NAMES {
        bench.add(name);
    }
    let settings = MergeSettings {
        method: Method::Cat,
        ..MergeSettings::default()
    };
    ask(&bench, &[1.0, 1.0], settings).unwrap();
    let answer = bench.ask(Request::TokenLosses {
        prompt: crate::protocol::Prompt::Text {
            text: String::new(),
        },
        text: "The film was a joy from start to end.".into(),
        columns: columns(&[&["mix"], &["sentiment", "instructions"]]),
    });
    let Event::TokenLosses { columns } = answer.last() else {
        panic!("{answer:?}")
    };
    for (mixed, stacked) in columns[0].iter().zip(&columns[1]).skip(1) {
        let (a, b) = (mixed.nll.unwrap(), stacked.nll.unwrap());
        assert!((a - b).abs() < 1e-3 * b.max(1.0), "{a} {b}");
    }
}

#[test]
fn an_adapter_is_exported_with_its_own_bytes() {
    let bench = Bench::started();
    bench.add("sentiment");
    let answer = bench.ask(Request::Export {
        name: "sentiment".into(),
    });
    let zip = archive::unpack(&answer.attachments[0]).unwrap();
    let folder = workspace().join("web/site/adapters/sentiment");
    for (name, bytes) in &zip {
        assert!(*bytes == read(folder.join(name)), "{name}");
    }
    assert_eq!(zip.len(), 3);
}

#[test]
fn what_cannot_be_merged_is_said() {
    let bench = Bench::started();
    bench.add("sentiment");
    let failure = ask(&bench, &[1.0, 1.0], MergeSettings::default()).unwrap_err();
    assert!(failure.message.contains("instructions"), "{failure:?}");
    bench.add("instructions");
    let settings = MergeSettings {
        method: Method::Ties,
        ..MergeSettings::default()
    };
    let failure = ask(&bench, &[1.0, 1.0], settings).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Request);
    assert!(failure.message.contains("density"), "{failure:?}");
    let failure = ask(&bench, &[], MergeSettings::default()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Request);
}
