//! Against bert-score's own numbers on given vectors, and on awkward input.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp
)]

use serde_json::Value;

use super::*;

/// Texts with their ids and vectors, as an encoder would give them.
struct Given {
    texts: HashMap<String, TokenVectors>,
    special: Vec<u32>,
}

impl Embedder for Given {
    fn special_ids(&self) -> Vec<u32> {
        self.special.clone()
    }

    fn tokenize(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>, EmbedError> {
        Ok(self.embed(texts)?.into_iter().map(|t| t.ids).collect())
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<TokenVectors>, EmbedError> {
        let one = |t: &&str| {
            self.texts
                .get(*t)
                .cloned()
                .ok_or_else(|| format!("no text {t:?}").into())
        };
        texts.iter().map(one).collect()
    }
}

/// Every token has its own direction, so that cosines are 1 or 0; token 1 and 2 surround each text.
fn words_as_directions(texts: &[&str]) -> Given {
    let vocabulary: Vec<&str> = texts
        .iter()
        .flat_map(|t| t.split(' '))
        .filter(|w| !w.is_empty())
        .collect();
    let id = |w: &str| 3 + vocabulary.iter().position(|v| *v == w).unwrap() as u32;
    let width = vocabulary.len() + 3;
    let embed = |text: &str| {
        let words = text.split(' ').filter(|w| !w.is_empty()).map(id);
        let ids: Vec<u32> = std::iter::once(1)
            .chain(words)
            .chain(std::iter::once(2))
            .collect();
        // Lengths differ: only directions may count.
        let vectors = ids.iter().flat_map(|&i| {
            (0..width).map(move |k| if k == i as usize { 1.0 + i as f32 } else { 0.0 })
        });
        TokenVectors {
            vectors: vectors.collect(),
            ids: ids.clone(),
        }
    };
    Given {
        texts: texts.iter().map(|t| ((*t).to_owned(), embed(t))).collect(),
        special: vec![1, 2],
    }
}

fn score(embedder: &Given, pairs: &[(&str, &[&str])], config: &BertScoreConfig) -> Vec<BertScore> {
    let own = |t: &&str| (*t).to_owned();
    let predictions: Vec<String> = pairs.iter().map(|(p, _)| own(p)).collect();
    let references: Vec<Vec<String>> = pairs
        .iter()
        .map(|(_, r)| r.iter().map(own).collect())
        .collect();
    bert_score(embedder, &predictions, &references, config, |_| {}).unwrap()
}

#[test]
fn orthogonal_words_make_it_word_overlap() {
    let embedder = words_as_directions(&["a b c", "a b d e", "x", ""]);
    let plain = BertScoreConfig::default();
    let found = score(
        &embedder,
        &[
            ("a b c", &["a b d e"]),
            ("a b c", &["x"]),
            ("a b c", &["a b c"]),
        ],
        &plain,
    );
    assert!((found[0].precision - 2.0 / 3.0).abs() < 1e-6 && (found[0].recall - 0.5).abs() < 1e-6);
    assert_eq!((found[1].precision, found[1].f1), (0.0, 0.0));
    assert!((found[2].f1 - 1.0).abs() < 1e-6);
    for (p, r) in [("", ""), ("", "x"), ("x", "")] {
        assert_eq!(
            score(&embedder, &[(p, &[r])], &plain),
            [BertScore::default()],
            "{p:?} {r:?}"
        );
    }
}

#[test]
fn rare_tokens_weigh_more_and_common_ones_nothing() {
    let embedder = words_as_directions(&["a b", "a c", "a z"]);
    let idf = BertScoreConfig {
        idf: true,
        ..BertScoreConfig::default()
    };
    let found = score(&embedder, &[("a z", &["a b"]), ("a c", &["a c"])], &idf);
    // Both references hold "a": only z and b count, and they do not match.
    assert_eq!((found[0].precision, found[0].recall), (0.0, 0.0));
    assert!((found[1].f1 - 1.0).abs() < 1e-6);
    let TokenWeights::Idf { known, unknown } =
        TokenWeights::idf(&[vec![1, 7, 7, 2], vec![1, 8, 2]])
    else {
        panic!("no idf")
    };
    assert_eq!((known[&1], known[&2]), (0.0, 0.0));
    assert_eq!(
        (known[&7], unknown),
        ((3.0f64 / 2.0).ln() as f32, 3.0f64.ln() as f32)
    );
}

#[test]
fn the_best_of_several_references_counts() {
    let embedder = words_as_directions(&["a b", "a", "a b c d"]);
    let plain = BertScoreConfig::default();
    let each = score(&embedder, &[("a b", &["a"]), ("a b", &["a b c d"])], &plain);
    let both = score(&embedder, &[("a b", &["a", "a b c d"])], &plain);
    assert_eq!(both, [best_of(each[0], each[1])]);
    assert_eq!((both[0].precision, both[0].recall), (1.0, 1.0));
}

#[test]
fn a_broken_encoder_is_reported() {
    struct Broken;
    impl Embedder for Broken {
        fn special_ids(&self) -> Vec<u32> {
            Vec::new()
        }
        fn tokenize(&self, _: &[&str]) -> Result<Vec<Vec<u32>>, EmbedError> {
            Err("no tokenizer".into())
        }
        fn embed(&self, _: &[&str]) -> Result<Vec<TokenVectors>, EmbedError> {
            Ok(vec![TokenVectors {
                ids: vec![1, 2, 3],
                vectors: vec![0.0; 4],
            }])
        }
    }
    let (p, r) = (vec!["a".to_owned()], vec![vec!["a".to_owned()]]);
    let run = |config: &BertScoreConfig| bert_score(&Broken, &p, &r, config, |_| {}).unwrap_err();
    assert!(matches!(
        run(&BertScoreConfig::default()),
        BertScoreError::Shape { .. }
    ));
    let idf = BertScoreConfig {
        idf: true,
        ..BertScoreConfig::default()
    };
    assert!(run(&idf).to_string().contains("no tokenizer"));
    let unequal = bert_score(&Broken, &p, &[], &idf, |_| {}).unwrap_err();
    assert!(matches!(
        unequal,
        BertScoreError::Texts(TextMetricError::Unequal { .. })
    ));
}

/// Texts, vectors and expected scores in a JSON file that `tests/golden/bertscore/generate.py` wrote with bert-score.
fn equals_bert_score(path: &std::path::Path) {
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let read = |v: &Value| -> Vec<f32> {
        v.as_array()
            .unwrap()
            .iter()
            .map(|x| x.as_f64().unwrap() as f32)
            .collect()
    };
    let list = |key: &str| -> Vec<String> { serde_json::from_value(golden[key].clone()).unwrap() };
    let texts = golden["texts"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(text, t)| {
            let ids = read(&t["ids"]).into_iter().map(|i| i as u32).collect();
            (
                text.clone(),
                TokenVectors {
                    ids,
                    vectors: read(&t["vectors"]),
                },
            )
        });
    let embedder = Given {
        texts: texts.collect(),
        special: read(&golden["special"])
            .into_iter()
            .map(|i| i as u32)
            .collect(),
    };
    let (predictions, references) = (list("predictions"), list("references"));
    let references: Vec<Vec<String>> = references.into_iter().map(|r| vec![r]).collect();
    let mut worst = 0.0f32;
    for (key, idf) in [("noidf", false), ("idf", true)] {
        let config = BertScoreConfig {
            idf,
            baseline: None,
        };
        let found = bert_score(&embedder, &predictions, &references, &config, |_| {}).unwrap();
        for (i, (f, e)) in found
            .iter()
            .zip(golden[key].as_array().unwrap())
            .enumerate()
        {
            for (f, e) in [f.precision, f.recall, f.f1]
                .into_iter()
                .zip(e.as_array().unwrap())
            {
                // bert-score's "not a number" is null in the file, and 0 here.
                let e = e.as_f64().unwrap_or(0.0) as f32;
                worst = worst.max((f - e).abs());
                assert!(
                    (f - e).abs() < 2e-6,
                    "{key} pair {i} {:?}: {f} is not {e}",
                    predictions[i]
                );
            }
        }
    }
    println!("{}: largest difference {worst:e}", path.display());
}

#[test]
fn given_vectors_score_as_in_bert_score() {
    equals_bert_score(std::path::Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/golden/bertscore/case.json"
    )));
    for path in std::env::var("QLOOM_GOLDEN_BERTSCORE")
        .unwrap_or_default()
        .split(':')
        .filter(|p| !p.is_empty())
    {
        equals_bert_score(std::path::Path::new(path));
    }
}
