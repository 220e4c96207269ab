//! Against sacreBLEU's own numbers, and on awkward input.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp
)]

use serde_json::Value;

use super::*;
use crate::evaluation::golden;

fn near(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!(
        (found - expected).abs() <= 1e-9 * expected.abs().max(1.0),
        "{what}: {found} is not {expected}"
    );
}

fn config(name: &str) -> BleuConfig {
    let default = BleuConfig::default();
    let tokenizer = |tokenizer| BleuConfig {
        tokenizer,
        ..default
    };
    match name {
        "13a" | "13a_two_refs" => default,
        "13a_lower" => BleuConfig {
            lowercase: true,
            ..default
        },
        "floor" => BleuConfig {
            smoothing: BleuSmoothing::Floor(0.1),
            ..default
        },
        "add-k" => BleuConfig {
            smoothing: BleuSmoothing::AddK(1.0),
            ..default
        },
        "nosmooth" => BleuConfig {
            smoothing: BleuSmoothing::None,
            ..default
        },
        "max2" => BleuConfig {
            max_ngram_order: 2,
            ..default
        },
        other => tokenizer(BleuTokenizer::from_name(other).expect(other)),
    }
}

#[test]
fn corpora_and_sentences_equal_sacrebleu() {
    for case in golden::cases() {
        let bleu = &case.json["bleu"];
        let (hypotheses, references) = (case.strings("hyp"), case.references(false));
        for (name, expected) in bleu
            .as_object()
            .unwrap()
            .iter()
            .filter(|(_, v)| v.is_object())
        {
            let config = config(name);
            let two = name == "13a_two_refs";
            let found = config.corpus(&hypotheses, &case.references(two));
            let what = format!("{} {name}", case.name);
            near(found.score, &expected["score"], &what);
            near(found.brevity_penalty, &expected["bp"], &what);
            for (p, e) in found
                .precisions
                .iter()
                .zip(expected["precisions"].as_array().unwrap())
            {
                near(*p, e, &what);
            }
            let s = &found.statistics;
            assert_eq!(
                s.hypothesis_length,
                expected["sys_len"].as_u64().unwrap(),
                "{what}"
            );
            assert_eq!(
                s.reference_length,
                expected["ref_len"].as_u64().unwrap(),
                "{what}"
            );
            if name != "add-k" {
                // There the peer reports its counts after smoothing.
                assert_eq!(serde_json::json!(s.matches), expected["counts"], "{what}");
                assert_eq!(serde_json::json!(s.totals), expected["totals"], "{what}");
            }
            if let Some(signature) = expected["signature"].as_str() {
                assert_eq!(config.signature(Some(1)), signature);
            }
        }
        let (plain, expected) = (BleuConfig::default(), &bleu["sentence_effective_order"]);
        for (i, (h, r)) in hypotheses.iter().zip(&references).enumerate() {
            let what = format!("{} pair {i}: {h:?}", case.name);
            near(plain.sentence(h, r).score, &expected[i], &what);
            let single = plain.corpus(&[h], std::slice::from_ref(r));
            near(single.score, &bleu["corpus_single_pairs_13a"][i], &what);
            let words = BleuTokenizer::V13a.words(h, false).join(" ");
            assert_eq!(
                words,
                bleu["tokenized_13a"][i].as_str().unwrap().trim(),
                "{what}"
            );
        }
    }
}

#[test]
fn awkward_segments() {
    let bleu = BleuConfig::default();
    for (hypothesis, reference) in [("", ""), ("", "a"), ("a", ""), ("x y", "a b"), (" \n", "a")] {
        assert_eq!(
            bleu.sentence(hypothesis, &[reference]).score,
            0.0,
            "{hypothesis:?}"
        );
    }
    assert!(
        (bleu
            .sentence("ein ganz kurzer Satz", &["ein ganz kurzer Satz"])
            .score
            - 100.0)
            .abs()
            < 1e-9
    );
    // Repetition is clipped: one of seven.
    let repeated = bleu.statistics("the the the the the the the", &["the cat"]);
    assert_eq!((repeated.matches[0], repeated.totals[0]), (1, 7));
    assert_eq!(bleu.sentence("a", &Vec::<String>::new()).score, 0.0);
    assert_eq!(
        bleu.corpus(&Vec::<String>::new(), &Vec::<Vec<String>>::new())
            .score,
        0.0
    );
}

#[test]
fn the_closest_reference_sets_the_length() {
    let bleu = BleuConfig::default();
    let found = bleu.statistics("a b c d", &["a b", "a b c d e f", "c d x"]);
    assert_eq!(found.reference_length, 3);
    // Equally close: the shorter one.
    assert_eq!(
        bleu.statistics("a b c", &["a b c d", "a b"])
            .reference_length,
        2
    );
    // Clipping takes the most generous reference for each n-gram.
    assert_eq!(
        bleu.statistics("a a b", &["a", "a a"]).matches,
        [2, 1, 0, 0]
    );
}

#[test]
fn a_corpus_is_no_mean_of_sentences() {
    let bleu = BleuConfig::default();
    let (h, r) = (["a b c d e", "x y"], [vec!["a b c d e"], vec!["x z"]]);
    let corpus = bleu.corpus(&h, &r).score;
    let mean = (bleu.sentence(h[0], &r[0]).score + bleu.sentence(h[1], &r[1]).score) / 2.0;
    assert!((corpus - mean).abs() > 1.0, "{corpus} {mean}");
    let mut sum = bleu.statistics(h[0], &r[0]);
    sum.add(&bleu.statistics(h[1], &r[1]));
    assert_eq!(bleu.score(sum).score, corpus);
}

#[test]
fn signatures_name_every_choice() {
    let config = BleuConfig {
        lowercase: true,
        effective_order: true,
        smoothing: BleuSmoothing::Floor(0.25),
        ..BleuConfig::default()
    };
    assert_eq!(
        config.signature(None),
        "nrefs:var|case:lc|eff:yes|tok:13a|smooth:floor[0.25]|version:2.6.0"
    );
}
