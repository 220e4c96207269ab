//! A base, rows and a configuration for classifiers that tests write for themselves.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cases::own;
use crate::fixtures::{Config, copy_base};

/// The tiny BERT with a word-level tokenizer between `[CLS]` and `[SEP]`: `t7` is id 7.
pub fn base(dir: &Path) -> PathBuf {
    let to = dir.join("base");
    copy_base(&own().join("bert_tiny/base"), &to);
    let vocab: serde_json::Map<String, Value> = (0..60)
        .map(|i| (format!("t{i}"), i.into()))
        .chain([
            ("[CLS]".to_owned(), 60.into()),
            ("[SEP]".to_owned(), 61.into()),
        ])
        .collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": null,
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 61], "cls": ["[CLS]", 60]},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"},
    });
    std::fs::write(to.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    to
}

/// Texts whose class is the group their words come from; every third is a pair.
pub fn write_rows(path: &Path, count: usize) {
    let words = ["good", "bad", "odd"];
    let lines: String = (0..count)
        .map(|i| {
            let class = i % 3;
            let word = |k: usize| format!("t{}", 3 + class * 19 + (i * 7 + k * 5) % 3);
            let text: Vec<String> = (0..2 + i % 7).map(word).collect();
            let mut row = serde_json::json!({ "text": text.join(" "), "label": words[class] });
            if i % 4 == 0 {
                row["text_pair"] = word(9).into();
            }
            format!("{row}\n")
        })
        .collect();
    std::fs::write(path, lines).unwrap();
}

/// A configuration that trains on 120 rows and holds out 30, on that base.
pub fn config(dir: &Path, name: &str) -> Config {
    let (train, eval) = (dir.join("train.jsonl"), dir.join("eval.jsonl"));
    if !train.exists() {
        write_rows(&train, 120);
        write_rows(&eval, 30);
    }
    let base = match dir.join("base").is_dir() {
        true => dir.join("base"),
        false => base(dir),
    };
    let mut config = Config::exact(&base, &train, &dir.join(name))
        .path("data", "eval", &eval)
        .set("data", "format", "\"classification\"")
        .set("data", "max_length", "16")
        .set("lora", "target_modules", "[\"query\", \"value\"]")
        .set("lora", "rank", "4");
    for (key, value) in [
        ("batch_size", "8"),
        ("lr", "0.02"),
        ("schedule", "\"constant\""),
    ] {
        config = config.set("train", key, value);
    }
    config
}
