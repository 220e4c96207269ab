//! A classifier from the command line: text and pairs in, classes out; the same loop as for a language model, so the same
//! promises: accumulation and recomputation change nothing, and a killed run resumes to the same bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::time::{Duration, Instant};

use qloom_tests::cases::{json, own};
use qloom_tests::classifiers::config;
use qloom_tests::fixtures::{arg, edit_json, number, steps};
use qloom_tests::tensors::{self, max_rel};
use qloom_tests::trainer::{run, start};
use serde_json::Value;
use tempfile::TempDir;

fn adapter(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("adapter/adapter_model.safetensors")).unwrap()
}

#[test]
fn a_run_learns_names_its_classes_and_can_be_asked() {
    let dir = TempDir::new().unwrap();
    let (out, file) = (dir.path().join("run"), dir.path().join("run.toml"));
    config(dir.path(), "run")
        .set("train", "epochs", "8")
        .set("train", "eval_every", "40")
        .write(&file);
    let base = dir.path().join("base");
    run(&["train", arg(&file), "--device", "cpu"]).ok();

    let metrics = json(&out.join("metrics.json"));
    let accuracy = |side: &str| metrics[side]["accuracy"].as_f64().unwrap();
    // On this random base query and value alone tell one class from the other two: PEFT ends at 0.667 and 0.471 as well.
    let loss = |side: &str| metrics[side]["loss"].as_f64().unwrap();
    assert!(
        accuracy("adapted") > 0.6 && accuracy("base") < 0.5,
        "{metrics}"
    );
    assert!(loss("adapted") < 0.6 * loss("base"), "{metrics}");
    assert_eq!(metrics["base"]["head"], "untrained");
    let ci = metrics["adapted"]["macro_f1_ci"].as_array().unwrap();
    assert!(ci[0].as_f64() <= metrics["adapted"]["macro_f1"].as_f64());
    let rows = metrics["adapted"]["confusion_matrix"]["rows"]
        .as_array()
        .unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(metrics["adapted"]["per_class"]["odd"]["support"], 10);
    assert!(metrics["adapted"]["ece"].is_f64());
    for file in [
        "scores.csv",
        "per_example.csv",
        "confusion_matrix.png",
        "adapter/README.md",
        "samples.jsonl",
    ] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let evals: Vec<Value> = std::fs::read_to_string(out.join("log.jsonl"))
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .filter(|row: &Value| row.get("eval_loss").is_some())
        .collect();
    assert!(
        evals
            .iter()
            .all(|r| r["accuracy"].is_f64() && r.get("perplexity").is_none())
    );

    // PEFT's names and task; the head is there, the pooler the base has stays the base's.
    let weights = tensors::load(&out.join("adapter/adapter_model.safetensors"));
    assert!(weights.contains_key("base_model.model.classifier.weight"));
    assert!(!weights.keys().any(|k| k.contains("pooler")));
    let written = json(&out.join("adapter/adapter_config.json"));
    assert_eq!(written["task_type"], "SEQ_CLS");
    assert_eq!(
        written["modules_to_save"],
        serde_json::json!(["classifier"])
    );

    // eval, inspect and generate know the classes by name.
    let ended = run(&[
        "eval",
        "--json",
        "--base",
        arg(&base),
        "--adapter",
        arg(&out.join("adapter")),
        "--data",
        arg(&dir.path().join("eval.jsonl")),
        "--device",
        "cpu",
        "--max-length",
        "16",
    ])
    .ok();
    let scores: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(scores["base"].is_null());
    assert_eq!(
        scores["adapted"]["accuracy"],
        metrics["adapted"]["accuracy"]
    );
    let ended = run(&["inspect", "--json", arg(&out.join("adapter"))]).ok();
    let facts: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(facts["labels"]["good"], "good");
    let ended = run(&[
        "generate",
        "--json",
        "--base",
        arg(&base),
        "--adapter",
        arg(&out.join("adapter")),
        "--prompt",
        "t22 t23",
        "--device",
        "cpu",
    ])
    .ok();
    let rows: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(
        rows[0]["adapted"]["answer"]
            .as_str()
            .unwrap()
            .starts_with("bad"),
        "{rows}"
    );
    let p = rows[0]["adapted"]["probabilities"].as_object().unwrap();
    let total: f64 = p.values().map(|v| v.as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-5);
}

#[test]
fn what_an_encoder_cannot_do_is_said() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("run.toml");
    config(dir.path(), "run").write(&file);
    let base = dir.path().join("base");
    run(&["chat", "--base", arg(&base)]).refused_as_usage(&["encoder", "classifies"]);
    run(&["data", arg(&file), "--show", "2"]).ok();
    run(&["plan", arg(&file)]).ok();
    let facts = run(&["inspect", "--json", arg(&base)]).ok();
    let facts: Value = serde_json::from_str(&facts.stdout).unwrap();
    assert_eq!(facts["classification_head"], false);
    run(&["train", arg(&file), "--set", "data.packing=true"]).refused(&["packing"]);
    run(&["train", arg(&file), "--set", "data.format=\"text\""]).refused(&["classification"]);
    run(&[
        "train",
        arg(&file),
        "--set",
        "lora.target_modules=[\"q_lin\"]",
    ])
    .refused(&["q_lin", "query"]);
    // A label outside the names is told with its line.
    run(&[
        "train",
        arg(&file),
        "--set",
        "data.label_names={ good = \"good\", bad = \"bad\" }",
    ])
    .refused(&["train.jsonl line 3", "odd"]);
    // More positions than the base has.
    run(&["train", arg(&file), "--set", "data.max_length=21"]).refused(&["max_length", "20"]);
}

/// One step whose change is the gradient up to a monotone map (see `equivalence.rs`).
fn one_step(dir: &Path, name: &str, settings: &[(&str, &str, &str)]) -> (f64, Vec<f32>) {
    let file = dir.join(format!("{name}.toml"));
    let mut config =
        config(dir, name).path("lora", "adapter", &own().join("bert_tiny/adapter_init"));
    for (key, value) in [
        ("max_steps", "1"),
        ("batch_size", "24"),
        ("lr", "10.0"),
        ("eps", "1.0"),
        ("max_grad_norm", "0.0"),
    ] {
        config = config.set("train", key, value);
    }
    for (table, key, value) in settings {
        config = config.set(table, key, value);
    }
    config.write(&file);
    run(&["train", arg(&file), "--device", "cpu"]).ok();
    let before = tensors::load(&own().join("bert_tiny/adapter_init/adapter_model.safetensors"));
    let after = tensors::load(&dir.join(name).join("adapter/adapter_model.safetensors"));
    let change = before.iter().flat_map(|(key, t)| {
        let now = after[key].f32();
        t.f32()
            .into_iter()
            .zip(now)
            .map(|(a, b)| b - a)
            .collect::<Vec<_>>()
    });
    let change: Vec<f32> = change.collect();
    assert!(
        change.iter().any(|d| d.abs() > 1e-2),
        "{name}: the adapter moved"
    );
    (number(&steps(&dir.join(name))[0], "loss"), change)
}

#[test]
fn accumulation_recomputation_and_padding_change_nothing() {
    let dir = TempDir::new().unwrap();
    let whole = one_step(dir.path(), "whole", &[]);
    for (name, settings) in [
        (
            "accumulated",
            vec![
                ("train", "batch_size", "3"),
                ("train", "grad_accumulation", "8"),
            ],
        ),
        ("recomputed", vec![("train", "recompute", "\"on\"")]),
        ("kept", vec![("train", "recompute", "\"off\"")]),
        ("padded", vec![("data", "pad_to_multiple_of", "16")]),
    ] {
        let (loss, change) = one_step(dir.path(), name, &settings);
        assert!(
            (loss - whole.0).abs() <= 1e-5 * whole.0,
            "{name}: {loss} and {}",
            whole.0
        );
        let error = max_rel(&change, &whole.1);
        assert!(error <= 1e-5, "{name}: gradients {error:.2e} apart");
    }
}

#[test]
fn kill_and_resume_ends_in_the_same_bytes() {
    const STEPS: usize = 60;
    let dir = TempDir::new().unwrap();
    let write = |name: &str| {
        let file = dir.path().join(format!("{name}.toml"));
        config(dir.path(), name)
            .set("model", "quantization", "\"nf4\"")
            .set("data", "shuffle", "true")
            .set("lora", "dropout", "0.1")
            .set("train", "max_steps", &STEPS.to_string())
            .set("train", "grad_accumulation", "2")
            .set("train", "save_every", "3")
            .set("eval", "samples", "0")
            .write(&file);
        file
    };
    let whole = write("whole");
    // Dropout in the encoder too: the tiny base was drawn without.
    edit_json(&dir.path().join("base/config.json"), |c| {
        c["hidden_dropout_prob"] = 0.1.into();
        c["attention_probs_dropout_prob"] = 0.1.into();
    });
    run(&["train", arg(&whole), "--device", "cpu"]).ok();
    let expected = adapter(&dir.path().join("whole"));
    for (name, recompute) in [("killed", "\"off\""), ("recomputed", "\"on\"")] {
        let file = write(name);
        let out = dir.path().join(name);
        let setting = format!("train.recompute={recompute}");
        let mut child = start(&["train", arg(&file), "--device", "cpu", "--set", &setting]);
        let deadline = Instant::now() + Duration::from_secs(120);
        let logged =
            || std::fs::read_to_string(out.join("log.jsonl")).map_or(0, |t| t.lines().count());
        while logged() < 17 {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("ended by itself: {status}");
            }
            assert!(Instant::now() < deadline, "step 17 never came");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        run(&[
            "train",
            arg(&file),
            "--resume",
            "--device",
            "cpu",
            "--set",
            &setting,
        ])
        .ok();
        if recompute == "\"off\"" {
            assert!(
                adapter(&out) == expected,
                "the adapter differs after a resume"
            );
        } else {
            // Another order of the same sums: equal masks, so equal up to rounding.
            let [a, b] = ["whole", name].map(|n| {
                tensors::load(&dir.path().join(n).join("adapter/adapter_model.safetensors"))
            });
            for (key, want) in &a {
                let error = max_rel(&b[key].f32(), &want.f32());
                assert!(error <= 2e-2, "{key}: {error:.2e}");
            }
        }
    }
}

/// Every method and initialization goes through the same loop, and what it leaves answers as it did in the run.
#[test]
fn every_method_trains_a_classifier_and_loads_again() {
    let dir = TempDir::new().unwrap();
    let eval = dir.path().join("eval.jsonl");
    for (name, quantization, settings) in [
        ("dora", "none", &["lora.method=dora"][..]),
        ("hira", "nf4", &["lora.method=hira"]),
        ("sparse", "none", &["lora.method=sparse"]),
        ("head", "nf4", &["lora.method=head"]),
        ("full", "nf4", &["lora.method=full", "train.lr=0.003"]),
        ("pissa", "none", &["lora.init=pissa"]),
        ("loftq", "nf4", &["lora.init=loftq"]),
    ] {
        let file = dir.path().join(format!("{name}.toml"));
        let out = dir.path().join(name);
        config(dir.path(), name)
            .set("model", "quantization", &format!("\"{quantization}\""))
            .set("train", "max_steps", "30")
            .set("train", "lr", "0.01")
            .write(&file);
        let mut args = vec!["train", arg(&file), "--device", "cpu"];
        settings.iter().for_each(|s| args.extend(["--set", s]));
        run(&args).ok();
        let log = steps(&out);
        let (first, last) = (number(&log[0], "loss"), number(&log[29], "loss"));
        assert!(last < first, "{name}: {first} to {last}");
        let metrics = json(&out.join("metrics.json"));
        let expected = metrics["adapted"]["accuracy"].as_f64().unwrap();

        let base = match (name, out.join("base").is_dir()) {
            ("full", _) => out.join("model"),
            (_, true) => out.join("base"),
            _ => dir.path().join("base"),
        };
        let adapter_folder = out.join("adapter");
        let whole = name == "full";
        let mut args = vec!["eval", "--json", "--base", arg(&base), "--data", arg(&eval)];
        args.extend(["--device", "cpu", "--max-length", "16", "--quantization"]);
        args.push(if whole { "none" } else { quantization });
        if !whole {
            args.extend(["--adapter", arg(&adapter_folder)]);
        }
        let ended = run(&args).ok();
        let scores: Value = serde_json::from_str(&ended.stdout).unwrap();
        let side = if whole { "base" } else { "adapted" };
        let found = scores[side]["accuracy"].as_f64().unwrap();
        assert!(
            (found - expected).abs() < 1e-9,
            "{name}: {found}, {expected}"
        );
    }
}
