//! Recipes as their users run them: an encoder on a folder in a published layout, a judge that fails and is asked again,
//! data that only the hub has; and the pre-flight check on an encoder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use qloom_tests::cases::{json, own, shared};
use qloom_tests::fixtures::{arg, copy_base};
use qloom_tests::trainer::{Ended, run};
use serde_json::Value;
use tempfile::TempDir;

/// The tiny BERT with a word-level tokenizer: `t7` is id 7.
fn encoder(dir: &Path) -> PathBuf {
    let to = dir.join("bert");
    copy_base(&own().join("bert_tiny/base"), &to);
    let words = (0..60).map(|i| format!("t{i}"));
    let all = words.chain(["[CLS]".to_owned(), "[SEP]".to_owned()]);
    let vocab: serde_json::Map<String, Value> =
        all.enumerate().map(|(id, w)| (w, id.into())).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": null,
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 61], "cls": ["[CLS]", 60]},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"},
    });
    std::fs::write(to.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    to
}

/// Text of some words of class `class`, different for different `i`.
fn text(class: usize, i: usize) -> String {
    let word = |k: usize| format!("t{}", 3 + class * 28 + (i / 5_usize.pow(k as u32)) % 5);
    (0..4).map(word).collect::<Vec<_>>().join(" ")
}

/// `train.tsv` and `test.tsv`, text and label without a header.
fn sst2(dir: &Path) -> PathBuf {
    let folder = dir.join("sst2");
    std::fs::create_dir(&folder).unwrap();
    for (file, rows) in [("train.tsv", 0..96), ("test.tsv", 96..128)] {
        let mut lines = String::new();
        rows.for_each(|i| writeln!(lines, "{}\t{}", text(i % 2, i), i % 2).unwrap());
        std::fs::write(folder.join(file), lines).unwrap();
    }
    folder
}

#[test]
fn an_encoder_compares_its_methods_on_a_folder_in_the_published_layout() {
    let dir = TempDir::new().unwrap();
    let (base, data) = (encoder(dir.path()), sst2(dir.path()));
    let out = dir.path().join("out");
    let args = [
        "recipe",
        "run",
        "sst2_methods",
        "--base",
        arg(&base),
        "--data",
        arg(&data),
        "--set",
        r#"lora.target_modules=["query","value"]"#,
        "--set",
        "data.max_length=16",
        "--set",
        "train.max_steps=4",
        "--out",
        arg(&out),
        "--device",
        "cpu",
    ];
    run(&args).ok();
    let metrics = json(&out.join("metrics.json"));
    let runs = metrics["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 12);
    for run in runs {
        assert_eq!(run["adapted"]["examples"], 32, "{run}");
        assert_eq!(run["adapted"]["per_class"]["positive"]["support"], 16);
        assert!(run["adapted"]["accuracy_ci"].is_array());
    }
    let table = std::fs::read_to_string(out.join("experiment_table.md")).unwrap();
    for word in [
        "LoRA-seed0",
        "sparse LoRA-seed1",
        "QLoRA-seed2",
        "HiRA-seed0",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }
    // Four metrics, or so, over three seeds for each of four methods.
    let seeds = metrics["seeds"].as_array().unwrap();
    assert!(seeds.len() >= 8 && seeds.iter().all(|s| s["runs"] == 3));
    // A head that is drawn by the seed: three starts on each of two kinds of base, shared by the methods.
    let kept = std::fs::read_dir(out.join("base_scores")).unwrap().count();
    assert_eq!(kept, 6);
}

/// Prompts with two categories.
fn questions(path: &Path) {
    let row = |i: usize| {
        let category = ["open_qa", "brainstorming"][i % 2];
        serde_json::json!({
            "instruction": format!("What is thing number {i}?"), "context": "", "category": category,
            "response": format!("It is the thing with the number {i}."),
        })
    };
    let lines: String = (0..60).map(|i| format!("{}\n", row(i))).collect();
    std::fs::write(path, lines).unwrap();
}

/// A judge that prefers the first answer, and refuses from question `limit` on.
struct Judge {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Judge {
    fn start(limit: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &kept, limit);
            }
        });
        Self { url, seen }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn answer(mut stream: TcpStream, seen: &Mutex<Vec<String>>, limit: usize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while reader.read_line(&mut head).unwrap_or(0) > 2 {}
    let length = head.lines().find_map(|line| {
        let line = line.to_ascii_lowercase();
        line.strip_prefix("content-length: ")?.parse().ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(body["messages"][1]["content"].as_str().unwrap().to_owned());
        seen.len()
    };
    let says = serde_json::json!({"choices": [{
        "message": {"content": "{\"verdict\": \"A\"}"}, "finish_reason": "stop",
    }]});
    let (status, body) = match number > limit {
        true => (401, "no quota".to_owned()),
        false => (200, says.to_string()),
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

#[test]
fn a_judge_that_fails_loses_nothing_and_is_asked_for_the_rest() {
    let dir = TempDir::new().unwrap();
    let (embedder, data) = (encoder(dir.path()), dir.path().join("q.jsonl"));
    questions(&data);
    let out = dir.path().join("out");
    let steps = r#"recipe.step=[{do="categories"}, {do="merge", method=[{method="linear"}]}, {do="generate", max_new_tokens=6},
        {do="score", metrics=["token_f1", "bertscore"]}, {do="judge"}, {do="table", kind="categories"}]"#
        .replace('\n', " ");
    let follow = |judge: &[&str]| -> Ended {
        let mut args = vec![
            "recipe",
            "run",
            "category_merge",
            "--small",
            "--data",
            arg(&data),
            "--embedder",
            arg(&embedder),
            "--set",
            "recipe.data.rows=[40,6]",
            "--set",
            "train.max_steps=2",
            "--set",
            &steps,
            "--out",
            arg(&out),
            "--device",
            "cpu",
        ];
        args.extend(judge);
        run(&args)
    };
    let failing = Judge::start(5);
    follow(&["--judge", &failing.url, "--judge-model", "m"]).refused(&[
        "0 of 4 models",
        "full",
        "results.md",
        "same command",
    ]);
    let results = std::fs::read_to_string(out.join("results.md")).unwrap();
    for word in [
        "bertscore_f1",
        "bertscore_f1, against the base",
        "merged linear",
        "distance",
        "The judge was asked",
    ] {
        assert!(results.contains(word), "{word}: {results}");
    }
    let metrics = json(&out.join("metrics.json"));
    let answers = metrics["answers"].as_array().unwrap();
    // Base, full, two categories, merged: each over all rows and by category, with intervals.
    assert_eq!(answers.len(), 15);
    for row in answers {
        assert!(row["metrics"]["bertscore_f1_ci"].is_array(), "{row}");
    }
    let kept = failing.asked().len();
    assert!(kept > 5);

    let good = Judge::start(usize::MAX);
    let ended = follow(&["--judge", &good.url, "--judge-model", "m"]).ok();
    assert!(ended.stdout.contains("judge: wins over the base"));
    let asked = good.asked();
    // Twelve questions a model at most; answers that are equal are asked about once, and those kept not at all.
    assert!(!asked.is_empty() && asked.len() < 4 * 12, "{}", asked.len());
    for question in &asked {
        assert!(question.contains("What is thing number"), "{question}");
        assert!(!question.contains("<|user|>"), "{question}");
    }
    let csv = std::fs::read_to_string(out.join("judge.csv")).unwrap();
    assert_eq!(csv.lines().count(), 5, "{csv}");
    let judged = json(&out.join("metrics.json"));
    assert_eq!(judged["judge"]["full"]["report"]["pairs"], 6);

    // A judge whose context the question fills.
    let Some(shared) = shared() else { return };
    let short = shared.join("data/stories260K");
    follow(&["--judge-base", arg(&short)]).refused(&["context is 512", "longer context"]);
    let results = std::fs::read_to_string(out.join("results.md")).unwrap();
    assert!(results.contains("bertscore_f1") && results.contains("context is 512"));
}

#[test]
fn data_that_only_the_hub_has_are_asked_for_with_a_way_out() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let args = ["recipe", "run", "alpaca_1k", "--out", arg(&out)];
    run(&args).refused(&["tatsu-lab/alpaca", "HF_HUB_OFFLINE", "--data", "--small"]);
}

/// A configuration of the tiny encoder on `rows`, checked; the ids of findings that are no mere information.
fn check(dir: &Path, rows: &[(String, usize)], extra: &[&str]) -> (Ended, Vec<String>) {
    let base = match dir.join("bert").is_dir() {
        true => dir.join("bert"),
        false => encoder(dir),
    };
    let line = |(text, label): &(String, usize)| {
        format!("{}\n", serde_json::json!({"text": text, "label": label}))
    };
    std::fs::write(
        dir.join("train.jsonl"),
        rows.iter().map(line).collect::<String>(),
    )
    .unwrap();
    let file = dir.join("run.toml");
    let text = format!(
        "[model]\nbase = {:?}\nquantization = \"none\"\n[lora]\ntarget_modules = [\"query\", \"value\"]\n[data]\n\
         train = \"train.jsonl\"\nformat = \"classification\"\nlabel_names = [\"negative\", \"positive\"]\nmax_length = 16\n\
         [train]\nmax_steps = 10\nlr = 1e-2\n",
        arg(&base)
    );
    std::fs::write(&file, text).unwrap();
    let mut args = vec!["check", arg(&file), "--json", "--device", "cpu"];
    args.extend(extra);
    let ended = run(&args);
    let said: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
    let found = said["findings"].as_array().cloned().unwrap_or_default();
    let grave = found.iter().filter(|f| f["severity"] != "info");
    let ids = grave
        .map(|f| f["id"].as_str().unwrap().to_owned())
        .collect();
    (ended, ids)
}

#[test]
fn the_check_knows_encoders_and_their_adapters() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let rows: Vec<(String, usize)> = (0..64).map(|i| (text(i % 2, i), i % 2)).collect();
    let (ended, found) = check(dir, &rows, &["--strict"]);
    assert_eq!((ended.code, found.len()), (0, 0), "{found:?} {ended:?}");

    let (_, found) = check(dir, &rows, &["--no-probe", "--set", "train.lr=1.0"]);
    assert_eq!(found, ["learning_rate"]);
    let (_, found) = check(dir, &rows, &["--no-probe", "--set", "data.max_length=4"]);
    assert_eq!(found, ["truncated"]);
    let lopsided: Vec<_> = (0..64)
        .map(|i| (text(usize::from(i % 16 == 0), i), usize::from(i % 16 == 0)))
        .collect();
    let (_, found) = check(dir, &lopsided, &["--no-probe"]);
    assert_eq!(found, ["label_imbalance"]);
    let mut strange = rows.clone();
    strange[5].1 = 2;
    let (ended, _) = check(dir, &strange, &["--no-probe"]);
    ended.refused(&["train.jsonl", "6", "label", "negative"]);

    // An adapter of two classes, continued on the same labels and on three.
    check(dir, &rows, &["--no-probe"]).0.ok();
    let out = dir.join("run");
    let place = format!("output.dir={}", out.display());
    let file = dir.join("run.toml");
    run(&["train", arg(&file), "--device", "cpu", "--set", &place]).ok();
    let adapter = format!("lora.adapter={}", out.join("adapter").display());
    let (ended, found) = check(dir, &rows, &["--set", &adapter]);
    assert_eq!((ended.code, found.len()), (0, 0), "{found:?} {ended:?}");
    let three = r#"data.label_names=["negative","neutral","positive"]"#;
    strange[7].1 = 2;
    let (ended, _) = check(dir, &strange, &["--set", &adapter, "--set", three]);
    ended.refused(&["2 classes", "3"]);
}
