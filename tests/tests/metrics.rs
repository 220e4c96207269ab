//! Scores end to end: files of answers against sacreBLEU and rouge-score, and a model's scores against its own logits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

use qloom_tests::cases::{json, shared};
use qloom_tests::fixtures::{Config, add_word_tokenizer, arg, copy_base, small_base, words};
use qloom_tests::tensors;
use qloom_tests::trainer::{Ended, run};
use serde_json::{Value, json};
use tempfile::TempDir;

fn near(found: &Value, expected: f64, tolerance: f64, what: &str) {
    let found = found
        .as_f64()
        .unwrap_or_else(|| panic!("{what}: no number in {found}"));
    assert!(
        (found - expected).abs() <= tolerance,
        "{what}: {found} is not {expected}"
    );
}

/// A folder with files that tests write.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn rows(&self, name: &str, rows: &[Value]) -> PathBuf {
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        self.write(name, &lines)
    }
}

fn score(pairs: &Path, metrics: &str, more: &[&str]) -> Ended {
    let mut args = vec!["score", "--pairs", arg(pairs), "--metrics", metrics];
    args.extend(more);
    run(&args)
}

fn parsed(ended: Ended) -> Value {
    serde_json::from_str(&ended.ok().stdout).unwrap()
}

/// The reference libraries' case, as a pairs file.
fn golden(files: &Files) -> Option<(Value, PathBuf)> {
    let path = shared()?.join("reference/golden/metrics_2/metrics.json");
    let case = json(&path);
    let texts = |key: &str| -> Vec<String> { serde_json::from_value(case[key].clone()).unwrap() };
    let rows: Vec<Value> = texts("hyp")
        .iter()
        .zip(texts("ref"))
        .map(|(h, r)| json!({ "prediction": h, "reference": r }))
        .collect();
    let pairs = files.rows("pairs.jsonl", &rows);
    Some((case, pairs))
}

#[test]
fn scores_of_a_file_equal_sacrebleu_and_rouge_score() {
    let files = Files::new();
    let Some((case, pairs)) = golden(&files) else {
        return;
    };
    let found = parsed(score(&pairs, "bleu,rouge", &["--json"]));
    near(
        &found["prediction"]["bleu"],
        case["bleu"]["13a"]["score"].as_f64().unwrap(),
        1e-9,
        "bleu",
    );
    assert_eq!(found["bleu_signature"], case["bleu"]["13a"]["signature"]);
    assert_eq!(found["examples"], 40);
    let stemmed = parsed(score(&pairs, "rouge", &["--json", "--stemmer"]));
    for (found, key) in [(&found, "rouge"), (&stemmed, "rouge_stem")] {
        for name in ["rouge1", "rouge2", "rougeL", "rougeLsum"] {
            let expected = case["rouge_mean_f"][key][name].as_f64().unwrap();
            near(&found["prediction"][name], expected, 1e-12, name);
        }
    }
    for (tokenizer, key) in [
        ("intl", "intl"),
        ("char", "char"),
        ("zh", "zh"),
        ("none", "none"),
    ] {
        let found = parsed(score(
            &pairs,
            "bleu",
            &["--json", "--bleu-tokenizer", tokenizer],
        ));
        near(
            &found["prediction"]["bleu"],
            case["bleu"][key]["score"].as_f64().unwrap(),
            1e-9,
            key,
        );
        assert_eq!(found["bleu_signature"], case["bleu"][key]["signature"]);
    }
    let lower = parsed(score(&pairs, "bleu", &["--json", "--bleu-lowercase"]));
    near(
        &lower["prediction"]["bleu"],
        case["bleu"]["13a_lower"]["score"].as_f64().unwrap(),
        1e-9,
        "lower",
    );
}

#[test]
fn bertscore_equals_bert_score() {
    let files = Files::new();
    let Some((case, pairs)) = golden(&files) else {
        return;
    };
    let Some(model) = shared().map(|s| s.join("reference/golden/metrics_2/bert")) else {
        return;
    };
    for (key, idf) in [("noidf", None), ("idf", Some("--idf"))] {
        let mut more = vec!["--json", "--device", "cpu", "--model", arg(&model)];
        more.extend(idf);
        let found = parsed(score(&pairs, "bertscore", &more));
        let names = ["bertscore_precision", "bertscore_recall", "bertscore_f1"];
        for (name, expected) in names
            .into_iter()
            .zip(case["bertscore"]["mean"][key].as_array().unwrap())
        {
            near(
                &found["prediction"][name],
                expected.as_f64().unwrap(),
                1e-5,
                name,
            );
        }
    }
}

#[test]
fn base_and_adapted_are_paired_and_every_file_is_written() {
    let files = Files::new();
    let rows: Vec<Value> = (0..40)
        .map(|i| {
            let reference = format!("the answer number {i} is w{}", i % 7);
            let base = format!("answer {i} was w{}", i % 3);
            json!({ "prompt": format!("p{i}"), "reference": reference, "base": base, "adapted": reference })
        })
        .collect();
    let pairs = files.rows("answers.jsonl", &rows);
    let out = files.path("new/scores");
    let ended = score(
        &pairs,
        "bleu,rougeL,exact_match,token_f1",
        &["--out", arg(&out)],
    )
    .ok();
    assert!(
        ended.stdout.contains("better") && ended.stdout.contains("(p"),
        "{}",
        ended.stdout
    );
    for file in [
        "table.md",
        "scores.csv",
        "scores.json",
        "per_example.csv",
        "scores.png",
    ] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let png = std::fs::read(out.join("scores.png")).unwrap();
    assert_eq!(&png[1..4], b"PNG");
    let found = json(&out.join("scores.json"));
    near(&found["adapted"]["bleu"], 100.0, 1e-9, "bleu");
    near(&found["adapted"]["exact_match"], 1.0, 0.0, "exact match");
    for key in ["bleu", "rougeL", "exact_match", "token_f1"] {
        let row = &found["comparison"][key];
        assert!(
            row["p_value"].as_f64().unwrap() < 0.05 && row["difference"].as_f64().unwrap() > 0.0,
            "{key}: {row}"
        );
        assert_eq!(
            found["base"][format!("{key}_ci")].as_array().unwrap().len(),
            2
        );
    }
    let csv = std::fs::read_to_string(out.join("per_example.csv")).unwrap();
    assert!(
        csv.starts_with("prompt,reference,base,adapted,base_bleu"),
        "{csv}"
    );
    assert_eq!(csv.lines().count(), 41);
    let shuffled = parsed(score(
        &pairs,
        "bleu",
        &["--json", "--test", "randomization", "--resamples", "500"],
    ));
    near(
        &shuffled["comparison"]["bleu"]["p_value"],
        1.0 / 501.0,
        1e-12,
        "randomization",
    );
}

#[test]
fn labels_in_files_are_scored_and_strangers_are_named() {
    let files = Files::new();
    let csv = files.write("labels.csv", "prediction,reference\nPositive.,positive\nnegative,positive\n???,negative\nnegative,negative\n");
    let out = files.path("labels");
    let found = parsed(score(
        &csv,
        "accuracy,macro_f1,macro_recall",
        &["--json", "--out", arg(&out)],
    ));
    let side = &found["prediction"];
    near(&side["accuracy"], 0.5, 0.0, "accuracy");
    near(&side["macro_recall"], 0.5, 1e-12, "recall");
    assert_eq!(side["unparsed"], 1);
    assert_eq!(
        side["confusion_matrix"]["rows"],
        json!([[1, 0, 1], [1, 1, 0]])
    );
    assert_eq!(side["per_class"]["negative"]["support"], 2);
    assert!(out.join("confusion_matrix.png").is_file());
    score(&csv, "accuracy", &["--labels", "positive,neutral"]).refused(&[
        "line 4",
        "negative",
        "positive, neutral",
    ]);
}

#[test]
fn bad_files_are_refused() {
    let files = Files::new();
    let empty = files.write("empty.jsonl", "");
    score(&empty, "bleu", &[]).refused(&["empty.jsonl"]);
    let columns = files.rows("columns.jsonl", &[json!({ "text": "a", "reference": "b" })]);
    score(&columns, "bleu", &[]).refused(&["columns.jsonl", "prediction", "text"]);
    let lacking = files.rows(
        "lacking.jsonl",
        &[
            json!({ "prediction": "a", "reference": "b" }),
            json!({ "prediction": "a" }),
        ],
    );
    score(&lacking, "bleu", &[]).refused(&["line 2", "reference"]);
    let (two, three) = (
        files.write("two.txt", "a\nb\n"),
        files.write("three.txt", "a\nb\nc\n"),
    );
    let lines = [
        "score",
        "--metrics",
        "bleu",
        "--predictions",
        arg(&two),
        "--references",
        arg(&three),
    ];
    run(&lines).refused(&["two.txt", "2 lines", "three.txt", "3"]);
    let good = files.rows(
        "good.jsonl",
        &[json!({ "prediction": "a", "reference": "b" })],
    );
    score(&good, "blue", &[]).refused_as_usage(&["blue", "bleu"]);
    score(&good, "bertscore", &[]).refused_as_usage(&["--model"]);
    score(&good, "bleu", &["--level", "95"]).refused_as_usage(&["--level"]);
    run(&["score", "--metrics", "bleu"]).refused_as_usage(&["--pairs"]);
    score(&files.path("absent.jsonl"), "bleu", &[]).refused(&["absent.jsonl"]);
}

/// A base that speaks ids, as a folder.
fn base(files: &Files) -> PathBuf {
    let folder = files.path("base");
    copy_base(&small_base(), &folder);
    add_word_tokenizer(&folder, 101);
    folder
}

/// `ln p(target | ids[..at + 1])` at `[row, at]`, from the logits of `trainer probe`.
struct Logits {
    width: usize,
    vocab: usize,
    values: Vec<f32>,
}

impl Logits {
    fn of(files: &Files, base: &Path, ids: &[Vec<i64>]) -> Self {
        let (from, to) = (
            files.write("ids.json", &json!(ids).to_string()),
            files.path("logits.safetensors"),
        );
        run(&[
            "probe",
            "--device",
            "cpu",
            "--base",
            arg(base),
            "--quantization",
            "none",
            "--compute",
            "f32",
            "--ids",
            arg(&from),
            "--out",
            arg(&to),
        ])
        .ok();
        let logits = tensors::load(&to).remove("logits").unwrap();
        Self {
            width: logits.shape[1],
            vocab: logits.shape[2],
            values: logits.f32(),
        }
    }

    fn log_probability(&self, row: usize, at: usize, target: i64) -> f64 {
        let start = (row * self.width + at) * self.vocab;
        let logits = &self.values[start..start + self.vocab];
        let largest = logits.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = logits.iter().map(|l| f64::from(l - largest).exp()).sum();
        f64::from(logits[usize::try_from(target).unwrap()] - largest) - sum.ln()
    }
}

fn eval(base: &Path, data: &Path, format: &str, metrics: &str, more: &[&str]) -> Ended {
    let mut args = vec![
        "eval",
        "--device",
        "cpu",
        "--base",
        arg(base),
        "--quantization",
        "none",
        "--compute",
        "f32",
        "--data",
        arg(data),
        "--format",
        format,
        "--metrics",
        metrics,
        "--json",
    ];
    args.extend(more);
    run(&args)
}

#[test]
fn label_likelihoods_are_those_of_the_logits() {
    let files = Files::new();
    let base = base(&files);
    // One label of a single token and one of two.
    let labels: [&[i64]; 2] = [&[7], &[8, 9]];
    let prompts: Vec<Vec<i64>> = (0..24)
        .map(|i| vec![20 + i, 3 + (i * 5) % 80, 40, 50 + i % 9])
        .collect();
    let rows: Vec<Value> = prompts
        .iter()
        .enumerate()
        .map(|(i, p)| json!({ "prompt": words(p), "completion": format!(" {}", words(labels[i % 2])) }))
        .collect();
    let data = files.rows("labels.jsonl", &rows);
    let totals: Vec<Vec<f64>> = {
        let continued = |label: &[i64]| -> Vec<Vec<i64>> {
            prompts.iter().map(|p| [&p[..], label].concat()).collect()
        };
        let per_label = labels.map(|label| {
            let logits = Logits::of(&files, &base, &continued(label));
            let total = |row: usize| -> f64 {
                label
                    .iter()
                    .enumerate()
                    .map(|(k, t)| logits.log_probability(row, 3 + k, *t))
                    .sum()
            };
            (0..prompts.len()).map(total).collect::<Vec<f64>>()
        });
        (0..prompts.len())
            .map(|i| vec![per_label[0][i], per_label[1][i]])
            .collect()
    };
    let accuracy = |value: &dyn Fn(&[f64]) -> [f64; 2]| {
        let right = totals.iter().enumerate().filter(|(i, row)| {
            let [a, b] = value(row);
            usize::from(b > a) == i % 2
        });
        right.count() as f64 / totals.len() as f64
    };
    let found = parsed(eval(
        &base,
        &data,
        "prompt_completion",
        "label_likelihood,calibration",
        &[],
    ));
    let side = &found["base"];
    near(
        &side["likelihood_accuracy"],
        accuracy(&|r| [r[0], r[1]]),
        1e-12,
        "sum",
    );
    near(
        &side["likelihood_mean_accuracy"],
        accuracy(&|r| [r[0], r[1] / 2.0]),
        1e-12,
        "mean",
    );
    let brier: f64 = totals
        .iter()
        .enumerate()
        .map(|(i, row)| {
            let p = 1.0 / (1.0 + (row[1] - row[0]).exp());
            let wrong = if i % 2 == 0 { 1.0 - p } else { p };
            2.0 * wrong * wrong
        })
        .sum();
    near(&side["brier"], brier / totals.len() as f64, 1e-5, "brier");
    assert_eq!(side["calibration_bins"].as_array().unwrap().len(), 15);
    assert!(
        side["ece_ci"].as_array().unwrap().len() == 2 && side["likelihood_macro_f1"].is_number()
    );
    assert_eq!(side["likelihood"]["unparsed"], 0);
}

#[test]
fn strided_perplexity_is_that_of_the_logits() {
    let files = Files::new();
    let base = base(&files);
    let ids: Vec<i64> = (0..150).map(|i| 3 + (i * i * 7 + i) % 90).collect();
    let data = files.rows("book.jsonl", &[json!({ "text": words(&ids) })]);
    let (window, stride) = (24, 9);
    let mut nll = 0.0;
    let (mut begin, mut reached, mut count) = (0, 0, 0);
    while reached < ids.len() {
        let end = (begin + window).min(ids.len());
        let logits = Logits::of(&files, &base, &[ids[begin..end].to_vec()]);
        let first = reached.max(begin + 1);
        for (offset, id) in ids[first..end].iter().enumerate() {
            nll -= logits.log_probability(0, first + offset - begin - 1, *id);
            count += 1;
        }
        (reached, begin) = (end, begin + stride);
    }
    assert_eq!(count, ids.len() - 1);
    let (w, s) = (window.to_string(), stride.to_string());
    let found = parsed(eval(
        &base,
        &data,
        "text",
        "perplexity",
        &["--window", &w, "--stride", &s],
    ));
    near(&found["base"]["loss"], nll / 149.0, 1e-5, "loss");
    assert_eq!(found["base"]["tokens"], 149);
    assert!(
        found["base"]["perplexity_ci"][0].as_f64().unwrap()
            < found["base"]["perplexity"].as_f64().unwrap()
    );
    eval(
        &base,
        &data,
        "text",
        "perplexity",
        &["--window", "9", "--stride", "10"],
    )
    .refused_as_usage(&["stride", "9"]);
    eval(
        &base,
        &data,
        "text",
        "perplexity",
        &["--window", "9000", "--stride", "10"],
    )
    .refused(&["window", "9000"]);
    eval(&base, &data, "text", "bleu", &[]).refused(&["book.jsonl", "prompt"]);
    eval(&base, &data, "text", "blue", &[]).refused_as_usage(&["blue", "bleu"]);
}

/// Every kind of metric in one run, whose folder then holds the files, and `trainer eval` finds the same.
#[test]
fn a_run_scores_by_every_metric() {
    let files = Files::new();
    let base = base(&files);
    let labels = [7i64, 8];
    let rows: Vec<Value> = (0..12i64)
        .map(|i| json!({ "prompt": words(&[20 + i, 40, 50]), "completion": format!(" {}", words(&[labels[(i % 2) as usize]])) }))
        .collect();
    let (data, out) = (files.rows("train.jsonl", &rows), files.path("run"));
    let metrics = "[\"perplexity\", \"accuracy\", \"macro_f1\", \"macro_recall\", \"label_likelihood\", \"calibration\", \"bleu\", \"rouge\", \"exact_match\", \"token_f1\"]";
    let config = Config::exact(&base, &data, &out)
        .set("data", "format", "\"prompt_completion\"")
        .set("data", "split", "6")
        .set("train", "max_steps", "2")
        .set("train", "batch_size", "2")
        .set("lora", "rank", "2")
        .set("eval", "metrics", metrics)
        .set("eval.generation", "max_new_tokens", "3");
    let file = files.path("run.toml");
    config.write(&file);
    run(&["train", arg(&file), "--device", "cpu"]).ok();
    let trained = json(&out.join("metrics.json"));
    for key in [
        "perplexity",
        "loss",
        "accuracy",
        "macro_f1",
        "macro_recall",
        "likelihood_accuracy",
        "likelihood_macro_f1",
        "likelihood_mean_accuracy",
        "ece",
        "brier",
        "bleu",
        "rouge1",
        "rouge2",
        "rougeL",
        "rougeLsum",
        "exact_match",
        "token_f1",
    ] {
        for side in ["base", "adapted"] {
            assert!(
                trained[side][key].is_number(),
                "{side} {key}: {}",
                trained[side]
            );
            assert_eq!(
                trained[side][format!("{key}_ci")].as_array().unwrap().len(),
                2,
                "{side} {key}"
            );
        }
    }
    let written = [
        "table.md",
        "scores.csv",
        "scores.json",
        "per_example.csv",
        "scores.png",
        "confusion_matrix.png",
    ];
    for name in written {
        assert!(out.join(name).is_file(), "{name}");
        std::fs::remove_file(out.join(name)).unwrap();
    }
    let found = parsed(run(&["eval", arg(&file), "--device", "cpu", "--json"]));
    for name in written {
        assert!(out.join(name).is_file(), "{name} again");
    }
    for side in ["base", "adapted"] {
        for key in ["perplexity", "likelihood_accuracy", "rouge1", "ece"] {
            // Training scores in other batches, which round differently.
            let expected = trained[side][key].as_f64().unwrap();
            near(
                &found[side][key],
                expected,
                1e-5 * expected.abs().max(1.0),
                key,
            );
        }
    }
    assert!(found["comparison"]["perplexity"]["p_value"].is_number());
    let csv = std::fs::read_to_string(out.join("per_example.csv")).unwrap();
    let header = csv.lines().next().unwrap();
    for column in [
        "source",
        "prompt",
        "reference",
        "base",
        "adapted",
        "base_correct",
        "adapted_loss",
        "base_rouge1",
        "adapted_likeliest",
    ] {
        assert!(header.split(',').any(|c| c == column), "{column}: {header}");
    }
    assert_eq!(csv.lines().count(), 7);
}
