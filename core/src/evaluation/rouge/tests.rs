//! Against rouge-score's own numbers, the golden values of ROUGE-1.5.5, and on awkward input.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp
)]

use serde_json::Value;

use super::*;
use crate::evaluation::golden;

fn triple(score: RougeScore) -> [f64; 3] {
    [score.precision, score.recall, score.f1]
}

fn near(found: [f64; 3], expected: [f64; 3], tolerance: f64, what: &str) {
    for (f, e) in found.iter().zip(expected) {
        assert!(
            (f - e).abs() <= tolerance,
            "{what}: {found:?} is not {expected:?}"
        );
    }
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn every_pair_equals_rouge_score() {
    for case in golden::cases() {
        let (hypotheses, references) = (case.strings("hyp"), case.strings("ref"));
        for (i, (h, r)) in hypotheses.iter().zip(&references).enumerate() {
            for (stemmer, key, words) in [
                (false, "rouge", "rouge_tokens"),
                (true, "rouge_stem", "rouge_tokens_stem"),
            ] {
                let what = format!("{} pair {i} {key}: {h:?} {r:?}", case.name);
                assert_eq!(
                    tokens(h, stemmer),
                    read::<Vec<String>>(&case.json[words][i]),
                    "{what}"
                );
                for rouge in Rouge::ALL {
                    let expected = read(&case.json[key][i][rouge.name()]);
                    near(triple(rouge.score(h, r, stemmer)), expected, 1e-12, &what);
                }
            }
        }
    }
}

/// ROUGE-1.5.5's own results, given to five places.
#[test]
fn the_perl_programs_golden_values() {
    let Some(folder) = golden::shared().map(|s| s.join("data/metric_fixtures/rouge_score")) else {
        return;
    };
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let golden: Value = serde_json::from_str(&text("golden.json")).unwrap();
    let (targets, predictions) = (text("target.txt"), text("prediction.txt"));
    let pairs: Vec<(&str, &str)> = targets.lines().zip(predictions.lines()).collect();
    let prf = |value: &Value| ["p", "r", "f"].map(|k| value[k].as_f64().unwrap());
    let mut checked = 0;
    for (key, rouge, stemmer) in [
        ("rouge1", Rouge::Rouge1, false),
        ("rouge1_stem", Rouge::Rouge1, true),
        ("rouge2", Rouge::Rouge2, false),
        ("rougeL", Rouge::RougeL, false),
    ] {
        for (expected, (target, prediction)) in golden[key].as_array().unwrap().iter().zip(&pairs) {
            near(
                triple(rouge.score(prediction, target, stemmer)),
                prf(expected),
                1.01e-5,
                key,
            );
            checked += 1;
        }
    }
    let multi = Rouge::RougeLsum.score(
        &text("prediction_multi.0.txt"),
        &text("target_multi.0.txt"),
        true,
    );
    near(
        triple(multi),
        prf(&golden["rougeLsum_stem_multi0"]),
        1.01e-5,
        "rougeLsum",
    );
    for simple in golden["simple"].as_array().unwrap() {
        for rouge in Rouge::ALL
            .into_iter()
            .filter(|r| simple.get(r.name()).is_some())
        {
            let (p, t) = (
                simple["prediction"].as_str().unwrap(),
                simple["target"].as_str().unwrap(),
            );
            near(
                triple(rouge.score(p, t, false)),
                read(&simple[rouge.name()]),
                1e-5,
                "simple",
            );
            checked += 1;
        }
    }
    assert_eq!(checked, 8 + 5);
}

#[test]
fn awkward_texts() {
    for (prediction, reference) in [
        ("", ""),
        ("", "word"),
        ("word", ""),
        ("日本語", "日本語"),
        ("...", "word"),
        ("\n\n", "a"),
    ] {
        for rouge in Rouge::ALL {
            for stemmer in [false, true] {
                assert_eq!(
                    rouge.score(prediction, reference, stemmer),
                    RougeScore::default()
                );
            }
        }
    }
    // A letter with an accent cuts the word in two.
    assert_eq!(tokens("Größe K\u{212a}m", false), ["gr", "e", "kkm"]);
    let repeated = Rouge::Rouge1.score("a a a a", "a", false);
    assert_eq!((repeated.precision, repeated.recall), (0.25, 1.0));
    // A single word has no pairs.
    assert_eq!(Rouge::Rouge2.score("word", "word", false).f1, 0.0);
    assert_eq!(Rouge::RougeL.score("a b c d", "d c b a", false).f1, 0.25);
}

#[test]
fn sentences_matter_to_lsum_only() {
    let (p, r) = ("w4 w5\nw1 w2", "w1 w2 w4 w5");
    assert_eq!(Rouge::RougeLsum.score(p, r, false).recall, 1.0);
    assert_eq!(Rouge::RougeL.score(p, r, false).recall, 0.5);
    let flat = p.replace('\n', " ");
    assert_eq!(
        Rouge::RougeLsum.score(&flat, r, false),
        Rouge::RougeL.score(&flat, r, false)
    );
}

#[test]
fn the_best_reference_counts() {
    let best = Rouge::Rouge1.score_best("a b", &["c", "a b c", "a"], false);
    assert_eq!(best, Rouge::Rouge1.score("a b", "a b c", false));
    assert_eq!(
        Rouge::Rouge1.score_best("a", &Vec::<String>::new(), false),
        RougeScore::default()
    );
}
