//! What is done with a trained classifier: its answers kept, its scores taken again, merged into its base, published.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

use qloom_tests::cases::{json, own};
use qloom_tests::classifiers::{base, config};
use qloom_tests::fixtures::{arg, copy_base, number};
use qloom_tests::tensors::{self, max_rel};
use qloom_tests::trainer::run;
use serde_json::Value;
use tempfile::TempDir;

/// Trains for a few steps; returns the run's folder.
fn trained(dir: &Path, name: &str, quantization: &str, settings: &[&str]) -> PathBuf {
    let file = dir.join(format!("{name}.toml"));
    config(dir, name)
        .set("model", "quantization", &format!("\"{quantization}\""))
        .set("train", "max_steps", "30")
        .set("train", "lr", "0.01")
        .write(&file);
    let mut args = vec!["train", arg(&file), "--device", "cpu"];
    settings.iter().for_each(|s| args.extend(["--set", s]));
    run(&args).ok();
    dir.join(name)
}

fn jsonl(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[test]
fn samples_hold_texts_labels_and_probabilities_and_are_published() {
    let dir = TempDir::new().unwrap();
    let out = trained(dir.path(), "run", "none", &["eval.samples=5"]);
    let rows = jsonl(&out.join("samples.jsonl"));
    assert_eq!(rows.len(), 5);
    for row in &rows {
        let label = row["reference"].as_str().unwrap();
        assert!(["good", "bad", "odd"].contains(&label), "{row}");
        assert!(row["prompt"].as_str().unwrap().contains('t'), "{row}");
        for side in ["base", "adapted"] {
            let p = row[format!("{side}_probabilities")].as_object().unwrap();
            let (class, most) = p
                .iter()
                .max_by(|a, b| a.1.as_f64().unwrap().total_cmp(&b.1.as_f64().unwrap()))
                .unwrap();
            let total: f64 = p.values().map(|v| v.as_f64().unwrap()).sum();
            assert!(p.len() == 3 && (total - 1.0).abs() < 1e-5, "{row}");
            let answer = format!("{class} ({:.2})", most.as_f64().unwrap());
            assert_eq!(row[side].as_str().unwrap(), answer);
        }
    }
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    let right = rows.iter().filter(|r| {
        r["adapted"]
            .as_str()
            .unwrap()
            .starts_with(r["reference"].as_str().unwrap())
    });
    assert!(
        page.matches("as expected").count() >= right.count() && page.contains("Before and after")
    );
    let site = dir.path().join("site");
    let (adapter, licence) = (out.join("adapter"), ["--licence", "MIT"]);
    let mut args = vec![
        "publish",
        arg(&adapter),
        "--site",
        arg(&site),
        "--run",
        arg(&out),
        "--name",
        "mood",
    ];
    args.extend(["--task", "mood", "--base-name", "owner/tiny"]);
    args.extend(licence);
    run(&args).ok();
    let published = jsonl(&site.join("adapters/mood/samples.jsonl"));
    assert_eq!(published.len(), 5);
    assert_eq!(
        published[0]["adapted_probabilities"],
        rows[0]["adapted_probabilities"]
    );
    let card = std::fs::read_to_string(site.join("adapters/mood/README.md")).unwrap();
    assert!(
        card.contains(rows[0]["adapted"].as_str().unwrap()),
        "{card}"
    );
}

/// A run scored again finds what it made, whatever that is, and its files stay of one mind.
#[test]
fn eval_finds_what_a_run_made_and_refreshes_its_metrics() {
    let dir = TempDir::new().unwrap();
    for (name, quantization, settings) in [
        ("lora", "none", &[][..]),
        ("head", "nf4", &["lora.method=head"]),
        ("full", "nf4", &["lora.method=full", "train.lr=0.003"]),
        ("pissa", "nf4", &["lora.init=pissa"]),
    ] {
        let out = trained(dir.path(), name, quantization, settings);
        let metrics = out.join("metrics.json");
        let before = json(&metrics);
        // A file that lags behind is brought up to date; what is not measured again stays.
        qloom_tests::fixtures::edit_json(&metrics, |m| {
            m["adapted"]["accuracy"] = (-1.0).into();
            m["base"]["accuracy"] = (-1.0).into();
            m["adapted"]["other"] = 5.into();
        });
        std::fs::remove_file(out.join("scores.json")).unwrap();
        let saved = out.join("config.toml");
        run(&["eval", arg(&saved), "--device", "cpu"]).ok();
        let (after, scores) = (json(&metrics), json(&out.join("scores.json")));
        for side in ["base", "adapted"] {
            assert_eq!(
                after[side]["accuracy"], before[side]["accuracy"],
                "{name} {side}"
            );
            assert_eq!(
                after[side]["accuracy"], scores[side]["accuracy"],
                "{name} {side}"
            );
            let (a, b) = (number(&after[side], "loss"), number(&before[side], "loss"));
            assert!(
                (a - b).abs() <= 1e-5 * b.abs().max(1e-2),
                "{name} {side}: {a} {b}"
            );
        }
        assert_eq!(after["adapted"]["other"], 5);
        assert_eq!(after["training"], before["training"]);
    }
    // Other examples: the run's files say what they said.
    let out = dir.path().join("lora");
    let files = ["metrics.json", "scores.json", "table.md"].map(|f| out.join(f));
    let before = files.clone().map(|f| std::fs::read(f).unwrap());
    let (saved, other) = (out.join("config.toml"), dir.path().join("train.jsonl"));
    let setting = format!("data.eval=[{:?}]", arg(&other));
    let ended = run(&["eval", arg(&saved), "--device", "cpu", "--set", &setting]).ok();
    assert!(
        ended.stderr.contains("keeps its scores"),
        "{}",
        ended.stderr
    );
    assert!(before == files.map(|f| std::fs::read(f).unwrap()));
    let aside = dir.path().join("aside");
    run(&[
        "eval",
        arg(&saved),
        "--device",
        "cpu",
        "--set",
        &setting,
        "--out",
        arg(&aside),
    ])
    .ok();
    assert!(aside.join("scores.json").is_file());
}

/// Probabilities of one text under a base, with or without an adapter.
fn logits(dir: &Path, base: &Path, adapter: Option<&Path>, quantization: &str) -> Vec<f32> {
    let (ids, out) = (dir.join("ids.json"), dir.join("logits.safetensors"));
    std::fs::write(&ids, "[[60, 7, 30, 12, 61], [60, 22, 61, -1, -1]]").unwrap();
    let mut args = vec![
        "probe",
        "--device",
        "cpu",
        "--compute",
        "f32",
        "--base",
        arg(base),
    ];
    args.extend([
        "--ids",
        arg(&ids),
        "--out",
        arg(&out),
        "--quantization",
        quantization,
    ]);
    if let Some(adapter) = adapter {
        args.extend(["--adapter", arg(adapter)]);
    }
    run(&args).ok();
    tensors::load(&out)["logits"].f32()
}

#[test]
fn an_adapter_merges_into_an_encoder_dense_and_quantized() {
    let dir = TempDir::new().unwrap();
    let eval = dir.path().join("eval.jsonl");
    let out = trained(
        dir.path(),
        "run",
        "none",
        &["lora.target_modules=\"all-linear\""],
    );
    let dense = dir.path().join("base");
    let nf4 = dir.path().join("nf4");
    run(&["quantize", "--base", arg(&dense), "--out", arg(&nf4)]).ok();
    let adapter = out.join("adapter");
    for (name, from, requantize) in [
        ("dense", &dense, false),
        ("dense_requantized", &dense, true),
        ("dequantized", &nf4, false),
        ("requantized", &nf4, true),
    ] {
        let to = dir.path().join(name);
        let mut args = vec![
            "merge-into-base",
            "--json",
            "--device",
            "cpu",
            "--base",
            arg(from),
        ];
        args.extend([
            "--adapter",
            arg(&adapter),
            "--out",
            arg(&to),
            "--data",
            arg(&eval),
        ]);
        args.extend(["--max-length", "16"]);
        args.extend(requantize.then_some("--requantize"));
        let ended = run(&args).ok();
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(report, json(&to.join("fidelity.json")), "{name}");
        let got = |key: &str| number(&report, key);
        assert_eq!(got("positions"), 30.0, "{name}");
        let drift = got("accuracy_other") - got("accuracy_reference");
        assert!((drift - got("accuracy_drift")).abs() < 1e-12, "{name}");
        let quantization = if from == &nf4 { "nf4" } else { "none" };
        let beside = logits(dir.path(), from, Some(&adapter), quantization);
        let inside = logits(dir.path(), &to, None, "auto");
        let error = max_rel(&inside, &beside);
        match requantize {
            false => {
                assert!(error < 1e-5, "{name}: {error:.1e}");
                assert!(
                    got("kl_divergence") < 1e-9 && got("update_error") < 1e-5,
                    "{report}"
                );
                assert_eq!((got("argmax_agreement"), got("accuracy_drift")), (1.0, 0.0));
            }
            true => {
                assert!(
                    error > 1e-4 && got("kl_divergence") > 1e-8,
                    "{name}: {report}"
                );
                assert!(got("update_error") > 0.01 && got("kl_largest") >= got("kl_divergence"));
            }
        }
        // A classifier of its own: classes by name, weights under the classifier's names, ready to be scored.
        let written = json(&to.join("config.json"));
        assert_eq!(written["architectures"][0], "BertForSequenceClassification");
        assert_eq!(written["id2label"]["1"], "good");
        assert_eq!(
            written.get("quantization_config").is_some(),
            requantize,
            "{name}"
        );
        let ended = run(&[
            "eval",
            "--json",
            "--device",
            "cpu",
            "--base",
            arg(&to),
            "--data",
            arg(&eval),
            "--max-length",
            "16",
            "--quantization",
            if requantize { "nf4" } else { "none" },
        ])
        .ok();
        let scores: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert!(
            (number(&scores["base"], "accuracy") - got("accuracy_other")).abs() < 1e-9,
            "{name}"
        );
    }
    // Where nothing is adapted, a requantized base keeps its bytes.
    let [old, new] = [&nf4, &dir.path().join("requantized")]
        .map(|d| tensors::load(&d.join("model.safetensors")));
    let word = "bert.embeddings.word_embeddings.weight";
    let old_word = old
        .get(word)
        .or_else(|| old.get("embeddings.word_embeddings.weight"))
        .unwrap();
    assert!(old_word.f32() == new[word].f32());
}

#[test]
fn a_distilbert_merges_with_its_head_and_without_labels() {
    let dir = TempDir::new().unwrap();
    let case = own().join("distilbert_tiny");
    let base = dir.path().join("distilbert");
    copy_base(&case.join("base"), &base);
    let adapter = case.join("adapter_init");
    let to = dir.path().join("merged");
    run(&[
        "merge-into-base",
        "--device",
        "cpu",
        "--base",
        arg(&base),
        "--adapter",
        arg(&adapter),
        "--out",
        arg(&to),
    ])
    .ok();
    let report = json(&to.join("fidelity.json"));
    assert!(
        report["sample"].as_str().unwrap().contains("random"),
        "{report}"
    );
    assert!(
        report["accuracy_drift"].is_null() && number(&report, "kl_divergence") < 1e-9,
        "{report}"
    );
    let names = tensors::load(&to.join("model.safetensors"));
    assert!(names.contains_key("pre_classifier.weight") && names.contains_key("classifier.bias"));
}

#[test]
fn an_adapter_of_another_encoder_is_refused_before_anything_is_written() {
    let dir = TempDir::new().unwrap();
    let base = base(dir.path());
    let to = dir.path().join("merged");
    let other = own().join("distilbert_tiny/adapter_init");
    run(&[
        "merge-into-base",
        "--base",
        arg(&base),
        "--adapter",
        arg(&other),
        "--out",
        arg(&to),
    ])
    .refused(&["does not fit the base"]);
    assert!(!to.exists());
}
