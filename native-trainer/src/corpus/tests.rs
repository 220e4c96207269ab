//! The corpus as a whole: the split, determinism, and whether the tasks can be learned at all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{HashMap, HashSet};

use tokenizers::Tokenizer;

use super::dice::Dice;
use super::grammar::{Bindings, Grammar};
use super::heldout::{Split, hash, sentences, words};
use super::tokenizer::{SPECIAL_TOKENS, tokenizer_config, tokenizer_json, train_tokenizer};
use super::*;

/// Every text of a split: pretraining and both tasks.
fn texts(seed: u64, split: Split, documents: usize, rows: usize) -> Vec<String> {
    let mut texts: Vec<String> = pretraining(seed, split, documents)
        .unwrap()
        .into_iter()
        .map(|row| row.text)
        .collect();
    texts.extend(
        sentiment(seed, split, rows)
            .unwrap()
            .into_iter()
            .map(|row| row.text),
    );
    for row in instructions(seed, split, rows).unwrap() {
        texts.extend([row.instruction, row.response]);
        texts.extend(row.context);
    }
    texts
}

#[test]
fn no_held_out_sentence_occurs_in_training_data_not_even_as_an_ending() {
    let train = texts(1, Split::Train, 5_000, 1_000);
    let mut endings = HashSet::new();
    for sentence in train.iter().flat_map(|text| sentences(text)) {
        let words = words(sentence);
        endings.extend((0..words.len()).map(|start| hash(&words[start..])));
    }
    let mut checked = 0;
    for seed in [1, 2] {
        for text in texts(seed, Split::HeldOut, 200, 200) {
            for sentence in sentences(&text) {
                checked += 1;
                assert!(!endings.contains(&hash(&words(sentence))), "{sentence}");
            }
        }
    }
    assert!(checked > 2_000, "only {checked} sentences");
}

#[test]
fn a_seed_gives_the_same_text_and_another_seed_another() {
    for (kind, _) in Kind::SHARES {
        let first = generate(7, kind, Split::Train, 40).unwrap();
        assert_eq!(first, generate(7, kind, Split::Train, 40).unwrap());
        assert_eq!(first[..10], generate(7, kind, Split::Train, 10).unwrap());
        assert_ne!(first, generate(8, kind, Split::Train, 40).unwrap());
    }
    let sizes = Sizes {
        pretrain: 200,
        pretrain_eval: 20,
        sentiment_train: 30,
        sentiment_eval: 9,
        instructions_train: 30,
        instructions_eval: 6,
        ..Sizes::default()
    };
    let files = write(3, &sizes).unwrap();
    assert_eq!(files, write(3, &sizes).unwrap());
    let mut names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    assert_eq!(names.len(), 8);
    for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".jsonl")) {
        for line in std::str::from_utf8(bytes).unwrap().lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(row.is_object(), "{name}: {line}");
        }
    }
}

#[test]
fn every_frame_names_what_exists() {
    let grammar = Grammar::embedded().unwrap();
    let mut bindings = Bindings::default();
    let bound = "hero he him his kid friend fhe fhim fhis thing pet spot aspect good bad soso fact \
                 q left right sum rest asker class item";
    for slot in bound.split_whitespace() {
        bindings.set(slot, "something");
    }
    for name in grammar.table_names() {
        for column in &grammar.table(name).unwrap().columns {
            bindings.set(column, "something");
        }
    }
    let mut dice = Dice::new(1, 0);
    for rule in grammar.rule_names() {
        for frame in grammar.alternatives(rule) {
            let text = grammar.expand(frame, &bindings, &mut dice).unwrap();
            assert!(
                !text.contains(['{', '}']) && !text.contains("  "),
                "{rule}: {text}"
            );
        }
    }
}

#[test]
fn label_words_never_name_a_sentiment() {
    let labels = Sentiment::ALL.map(Sentiment::label);
    for row in generate(1, Kind::Review, Split::Train, 3_000).unwrap() {
        assert!(
            words(&row.text)
                .iter()
                .all(|word| !labels.contains(&word.as_str()))
        );
    }
    for row in sentiment(1, Split::Train, 3_000).unwrap() {
        assert!(
            words(&row.text)
                .iter()
                .all(|word| !labels.contains(&word.as_str()))
        );
    }
}

/// Macro-F1 of predictions against labels.
fn macro_f1(pairs: &[(&str, &str)]) -> f64 {
    let scores = Sentiment::ALL.map(|sentiment| {
        let label = sentiment.label();
        let count =
            |f: &dyn Fn(&(&str, &str)) -> bool| pairs.iter().filter(|p| f(p)).count() as f64;
        let hit = count(&|p| p.0 == label && p.1 == label);
        let all = count(&|p| p.0 == label) + count(&|p| p.1 == label);
        if all == 0.0 { 0.0 } else { 2.0 * hit / all }
    });
    scores.iter().sum::<f64>() / 3.0
}

/// Words and word pairs of a text.
fn features(text: &str) -> Vec<String> {
    let words = words(text);
    let pairs = words.windows(2).map(|pair| pair.join(" "));
    words.iter().cloned().chain(pairs).collect()
}

#[test]
fn sentiment_is_learnable_from_words_and_balanced() {
    let mut counts: HashMap<String, HashMap<String, f64>> = HashMap::new();
    let train = sentiment(1, Split::Train, 3_000).unwrap();
    for row in &train {
        let entry = counts.entry(row.label.clone()).or_default();
        for feature in features(&row.text) {
            *entry.entry(feature).or_default() += 1.0;
        }
    }
    let vocabulary: HashSet<&String> = counts.values().flat_map(HashMap::keys).collect();
    let size = vocabulary.len() as f64;
    let held_out = sentiment(1, Split::HeldOut, 600).unwrap();
    let guess = |text: &str| {
        let score = |label: &str| {
            let seen = &counts[label];
            let total: f64 = seen.values().sum();
            let log =
                |f: &String| ((seen.get(f).unwrap_or(&0.0) + 0.1) / (total + 0.1 * size)).ln();
            features(text).iter().map(log).sum::<f64>()
        };
        let labels = Sentiment::ALL.map(Sentiment::label);
        let best = labels
            .into_iter()
            .max_by(|a, b| score(a).total_cmp(&score(b)));
        best.unwrap()
    };
    let pairs: Vec<_> = held_out
        .iter()
        .map(|r| (guess(&r.text), r.label.as_str()))
        .collect();
    let learned = macro_f1(&pairs);
    let constant: Vec<_> = held_out
        .iter()
        .map(|r| ("neutral", r.label.as_str()))
        .collect();
    println!(
        "naive Bayes {learned:.3}, constant {:.3}",
        macro_f1(&constant)
    );
    assert!(learned >= 0.93, "naive Bayes reaches {learned:.3}");
    assert!((macro_f1(&constant) - 1.0 / 6.0).abs() < 1e-9);
}

#[test]
fn instructions_cover_every_category_in_both_splits() {
    for split in [Split::Train, Split::HeldOut] {
        let rows = instructions(4, split, 120).unwrap();
        for category in super::instructions::CATEGORIES {
            assert_eq!(
                rows.iter().filter(|row| row.category == category).count(),
                20
            );
        }
        assert!(rows.iter().all(
            |row| row.context.is_some() == ["story", "notes"].contains(&row.category.as_str())
        ));
    }
}

fn tokenizer() -> Tokenizer {
    let documents = pretraining(1, Split::Train, 4_000).unwrap();
    train_tokenizer(documents.iter().map(|row| row.text.as_str()), 2_048).unwrap()
}

#[test]
fn tokenizer_is_small_deterministic_and_covers_every_byte() {
    let tokenizer = tokenizer();
    let json = tokenizer_json(&tokenizer).unwrap();
    assert_eq!(json, tokenizer_json(&self::tokenizer()).unwrap());
    assert!(
        json.len() < 120_000,
        "tokenizer.json takes {} bytes",
        json.len()
    );
    assert_eq!(tokenizer.get_vocab_size(true), 2_048);
    for (id, token) in SPECIAL_TOKENS.iter().enumerate() {
        assert_eq!(tokenizer.token_to_id(token), Some(id as u32));
    }
    for text in [
        "Größe, 漢字 🙂\t\u{7f}\u{0}",
        " a  b\n\n",
        "<|user|>\nHello<|end|>\n",
    ] {
        let encoding = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(encoding.get_ids(), false).unwrap(), text);
    }
}

#[test]
fn label_words_start_differently_after_the_prompt() {
    let tokenizer = tokenizer();
    for lead in ["", " "] {
        let first: HashSet<u32> = Sentiment::ALL
            .iter()
            .map(|sentiment| format!("{lead}{}", sentiment.label()))
            .map(|word| tokenizer.encode(word, false).unwrap().get_ids()[0])
            .collect();
        assert_eq!(first.len(), 3);
    }
    for sentiment in Sentiment::ALL {
        let turn = tokenizer::render_turn("assistant", sentiment.label());
        let encoding = tokenizer.encode(turn, false).unwrap();
        assert_eq!(encoding.get_tokens()[..2], ["<|assistant|>", "Ċ"]);
        assert_eq!(encoding.get_tokens()[2], sentiment.label());
        assert_eq!(encoding.get_tokens()[3], "<|end|>");
    }
}

#[test]
fn tokenizer_config_holds_template_and_special_tokens() {
    let config: serde_json::Value = serde_json::from_str(&tokenizer_config(512)).unwrap();
    assert_eq!(config["eos_token"], "<|end|>");
    assert_eq!(config["model_max_length"], 512);
    assert_eq!(config["added_tokens_decoder"]["6"]["content"], "<|end|>");
    let template = config["chat_template"].as_str().unwrap();
    assert!(template.contains("add_generation_prompt"));
    assert!(!template.contains("generation %}") && !template.contains('\n'));
}
