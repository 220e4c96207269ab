//! `trainer merge` and `trainer merge-into-base`, as users run them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

use qloom_tests::cases::{json, own, shared};
use qloom_tests::fixtures::{arg, copy_base, edit_json, small_base, talking_base};
use qloom_tests::tensors::{self, max_rel};
use qloom_tests::trainer::{Ended, run};
use serde_json::Value;
use tempfile::TempDir;

fn adapter(name: &str) -> PathBuf {
    own().join("llama_ragged").join(name)
}

fn merge(adapters: &[&Path], out: &Path, rest: &[&str]) -> Ended {
    let mut line = vec!["merge", "--adapters"];
    line.extend(adapters.iter().map(|a| arg(a)));
    line.extend(["--out", arg(out)]);
    line.extend(rest);
    run(&line)
}

fn stdout_json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).expect("JSON on stdout")
}

/// Logits of a base with an adapter, for a fixed row of ids.
fn logits(dir: &Path, base: &Path, adapter: Option<&Path>) -> Vec<f32> {
    let ids = dir.join("ids.json");
    std::fs::write(&ids, "[[1,5,9,40,77,100,3,3,8,64,12,50]]").unwrap();
    let out = dir.join("logits.safetensors");
    let mut line = vec![
        "probe",
        "--device",
        "cpu",
        "--compute",
        "f32",
        "--base",
        arg(base),
    ];
    line.extend(["--ids", arg(&ids), "--out", arg(&out)]);
    if let Some(adapter) = adapter {
        line.extend(["--adapter", arg(adapter)]);
    }
    run(&line).ok();
    tensors::load(&out)["logits"].f32()
}

#[test]
fn merged_adapters_load_and_say_how_far_they_are() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (adapter("adapter_init"), adapter("adapter_final_f32"));
    let out = dir.path().join("exact");
    let ended = merge(
        &[&a, &b],
        &out,
        &["--weights", "0.5,0.5", "--exact", "--json"],
    )
    .ok();
    let report = stdout_json(&ended);
    let error = |r: &Value| r["fidelity"]["overall"]["relative_error"].as_f64().unwrap();
    assert!(error(&report) < 1e-6, "{}", ended.stdout);
    assert_eq!(report["modules"], 14);
    assert_eq!(report["merge"]["method"], "exact");
    let receipt = json(&out.join("qloom.json"));
    assert_eq!(receipt["merge"]["sources"][1]["weight"], 0.5);
    assert_eq!(
        receipt["merge"]["sources"][0]["sha256"]
            .as_str()
            .unwrap()
            .len(),
        64
    );

    // Half of each adapter is the same function as cat of the two, and another than either alone.
    let cat = dir.path().join("cat");
    merge(
        &[&a, &b],
        &cat,
        &["--weights", "0.5,0.5", "--method", "cat"],
    )
    .ok();
    let base = small_base();
    let of = |adapter: &Path| logits(dir.path(), &base, Some(adapter));
    assert!(max_rel(&of(&out), &of(&cat)) < 1e-5);
    assert!(max_rel(&of(&out), &of(&a)) > 1e-4);

    // A weight of one and zero leaves the first adapter.
    let alone = dir.path().join("alone");
    let ended = merge(&[&a, &b], &alone, &["--weights", "1,0", "--method", "svd"]).ok();
    assert!(max_rel(&of(&alone), &of(&a)) < 1e-5);
    assert!(ended.stdout.contains("overall") && ended.stdout.contains("q_proj"));

    // The named method beside --exact is measured, not written.
    let both = dir.path().join("both");
    let rest = [
        "--weights",
        "1,-0.5",
        "--method",
        "ties",
        "--density",
        "0.5",
        "--exact",
        "--json",
    ];
    let report = stdout_json(&merge(&[&a, &b], &both, &rest).ok());
    assert!(error(&report) < 1e-6 && error(&report["compared_with"]) > 0.01);
    assert_eq!(report["compared_with"]["method"], "ties");
}

#[test]
fn a_seed_gives_the_same_bytes() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (adapter("adapter_init"), adapter("adapter_final_f32"));
    let bytes = |name: &str, seed: &str| {
        let out = dir.path().join(name);
        let rest = [
            "--method",
            "dare_ties_svd",
            "--density",
            "0.5",
            "--seed",
            seed,
        ];
        merge(&[&a, &b], &out, &rest).ok();
        std::fs::read(out.join("adapter_model.safetensors")).unwrap()
    };
    let first = bytes("one", "3");
    assert_eq!(first, bytes("two", "3"));
    assert_ne!(first, bytes("three", "4"));
}

/// Every recorded case that draws no mask, through the command line, against the files PEFT saved.
#[test]
fn the_files_are_those_peft_saves() {
    let Some(shared) = shared() else { return };
    let golden = shared.join("reference/golden/merge_1");
    let recorded = tensors::load(&golden.join("merged.safetensors"));
    let dir = TempDir::new().unwrap();
    let index = json(&golden.join("index.json"));
    let drawn = |c: &Value| c["combination_type"].as_str().unwrap().starts_with("dare");
    for case in index["cases"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| !drawn(c))
    {
        let name = case["name"].as_str().unwrap();
        let list = |key: &str| -> Vec<String> {
            let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            case[key].as_array().unwrap().iter().map(text).collect()
        };
        let folders: Vec<PathBuf> = list("adapters")
            .iter()
            .map(|a| golden.join("adapters").join(a))
            .collect();
        let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        let weights = list("weights").join(",");
        let method = case["combination_type"].as_str().unwrap();
        let mut rest = vec![
            "--weights",
            &weights,
            "--method",
            method,
            "--compat",
            "peft",
        ];
        let args = &case["args"];
        let (density, rank, clamp) = (
            args["density"].to_string(),
            args["svd_rank"].to_string(),
            args["svd_clamp"].to_string(),
        );
        for (flag, value) in [
            ("--density", &density),
            ("--rank", &rank),
            ("--clamp", &clamp),
        ] {
            if value != "null" {
                rest.extend([flag, value.as_str()]);
            }
        }
        rest.extend(
            args["majority_sign_method"]
                .as_str()
                .map(|s| ["--sign", s])
                .into_iter()
                .flatten(),
        );
        let out = dir.path().join(name);
        merge(&folders, &out, &rest).ok();
        let mine = tensors::load(&out.join("adapter_model.safetensors"));
        let theirs = tensors::load(
            &golden
                .join("merged")
                .join(name)
                .join("adapter_model.safetensors"),
        );
        assert_eq!(
            mine.keys().collect::<Vec<_>>(),
            theirs.keys().collect::<Vec<_>>(),
            "{name}"
        );
        for (key, tensor) in &theirs {
            assert_eq!(mine[key].shape, tensor.shape, "{name}: {key}");
            // Decompositions are free in sign; their products are compared in the core.
            if !method.ends_with("svd") {
                let far = max_rel(&mine[key].f32(), &tensor.f32());
                assert!(far < 1e-6, "{name}: {key}: {far:e}");
            }
        }
        assert!(recorded.keys().any(|k| k.starts_with(name)));
    }
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (adapter("adapter_init"), adapter("adapter_final_f32"));
    let out = dir.path().join("out");
    let two: [&Path; 2] = [&a, &b];
    let usage = |rest: &[&str], words: &[&str]| {
        merge(&two, &out, rest).refused_as_usage(words);
    };
    usage(&["--method", "tise"], &["tise", "did you mean ties?"]);
    usage(&["--weights", "1"], &["1 weights for 2 adapters"]);
    usage(&["--method", "ties"], &["ties needs a density"]);
    for bad in ["0", "1.5", "-0.2"] {
        usage(
            &["--method", "ties", "--density", bad],
            &["density is", "at most 1"],
        );
    }
    usage(&["--method", "linear", "--rank", "4"], &["a rank", "svd"]);
    usage(&["--sign", "most"], &["most", "total, frequency"]);

    std::fs::create_dir(&out).unwrap();
    merge(&two, &out, &[]).refused(&["exists already", "out"]);
    let out = dir.path().join("free");
    merge(&[&a, Path::new("nowhere/at/all")], &out, &[]).refused(&["nowhere/at/all"]);

    // Another rank, another base, another shape.
    let other = dir.path().join("other");
    copy_base(&a, &other);
    let config = other.join("adapter_config.json");
    edit_json(&config, |c| {
        c["base_model_name_or_path"] = "elsewhere".into()
    });
    merge(&[&a, &other], &out, &[]).refused(&["different bases", "elsewhere", "--same-base"]);
    merge(&[&a, &other], &dir.path().join("vouched"), &["--same-base"]).ok();
    if let Some(shared) = shared() {
        let golden = shared.join("reference/golden/merge_1/adapters");
        let (a0, b0) = (golden.join("a0"), golden.join("b0"));
        merge(&[&a0, &b0], &out, &["--method", "linear"]).refused(&[
            "linear",
            "same rank",
            "self_attn",
            "svd",
        ]);
        merge(&[&a, &a0], &out, &["--same-base"]).refused(&["different bases", "self_attn"]);
    }
    assert!(!out.exists(), "a refused merge leaves nothing");
}

#[test]
fn one_adapter_is_scaled() {
    let dir = TempDir::new().unwrap();
    let a = adapter("adapter_final_f32");
    let out = dir.path().join("out");
    let rest = [
        "--weights",
        "-0.5",
        "--method",
        "ties_svd",
        "--density",
        "0.5",
    ];
    let ended = merge(&[&a], &out, &rest).ok();
    assert!(ended.stderr.contains("one adapter"), "{}", ended.stderr);
    assert!(out.join("adapter_config.json").is_file());
}

fn fidelity(out: &Path) -> impl Fn(&str) -> f64 + use<> {
    let report = json(&out.join("fidelity.json"));
    move |key| {
        report[key]
            .as_f64()
            .unwrap_or_else(|| panic!("{key} in {report}"))
    }
}

fn into_base(base: &Path, adapter: &Path, out: &Path, rest: &[&str]) -> Ended {
    let mut line = vec!["merge-into-base", "--device", "cpu", "--base", arg(base)];
    line.extend(["--adapter", arg(adapter), "--out", arg(out)]);
    line.extend(rest);
    run(&line)
}

#[test]
fn a_merged_dense_base_is_the_adapted_one() {
    let dir = TempDir::new().unwrap();
    let (base, adapter) = (small_base(), adapter("adapter_final_f32"));
    let out = dir.path().join("merged");
    let ended = into_base(&base, &adapter, &out, &[]).ok();
    assert!(ended.stdout.contains("KL divergence") && ended.stdout.contains("fidelity.json"));
    let unmerged = logits(dir.path(), &base, Some(&adapter));
    let merged = logits(dir.path(), &out, None);
    assert!(max_rel(&merged, &unmerged) < 1e-5);
    assert!(max_rel(&merged, &logits(dir.path(), &base, None)) > 1e-3);
    let f = fidelity(&out);
    assert!(f("kl_divergence") < 1e-9 && f("argmax_agreement") == 1.0);
    assert!(f("perplexity_drift").abs() < 1e-5 && f("update_error") < 1e-5);
    assert_eq!(f("tensors_rewritten"), 14.0);
}

#[test]
fn merging_into_four_bits_reports_what_is_lost() {
    let dir = TempDir::new().unwrap();
    let (dense, nf4) = (small_base(), own().join("llama_ragged/base_nf4"));
    let adapter = adapter("adapter_final_f32");
    // From a quantized base to a dense one nothing is lost.
    let out = dir.path().join("dense");
    into_base(&nf4, &adapter, &out, &[]).ok();
    let f = fidelity(&out);
    assert!(f("kl_divergence") < 1e-9 && f("update_error") < 1e-5);
    assert!(
        json(&out.join("config.json"))
            .get("quantization_config")
            .is_none()
    );
    let same = logits(dir.path(), &nf4, Some(&adapter));
    assert!(max_rel(&logits(dir.path(), &out, None), &same) < 1e-5);

    for base in [&nf4, &dense] {
        let out = dir.path().join(format!("q{}", base.ends_with("base")));
        let ended = into_base(base, &adapter, &out, &["--requantize"]).ok();
        let f = fidelity(&out);
        assert!(f("kl_divergence") > 1e-7, "four bits cannot be exact");
        assert!(f("update_error") > 0.01 && f("perplexity_reference") > 1.0);
        assert!(ended.stdout.contains("update lost to rounding"));
        assert!(json(&out.join("config.json"))["quantization_config"].is_object());
        // What was compared is what is served: the folder loads as NF4.
        assert!(logits(dir.path(), &out, None).iter().all(|v| v.is_finite()));
    }
}

#[test]
fn merging_into_a_base_on_given_text_and_its_refusals() {
    let dir = TempDir::new().unwrap();
    let base = dir.path().join("base");
    talking_base(&small_base(), &base);
    let adapter = adapter("adapter_final_f32");
    let data = dir.path().join("data.jsonl");
    std::fs::write(
        &data,
        "{\"text\": \"t4 t9 t17 t80 t33\"}\n{\"text\": \"t7 t7 t21\"}\n",
    )
    .unwrap();
    let out = dir.path().join("merged");
    let rest = ["--data", arg(&data), "--format", "text", "--json"];
    let report = stdout_json(&into_base(&base, &adapter, &out, &rest).ok());
    assert_eq!(report["examples"], 2);
    assert_eq!(report["positions"], 6);
    assert_eq!(
        report["kl_divergence"],
        json(&out.join("fidelity.json"))["kl_divergence"]
    );
    assert!(out.join("tokenizer.json").is_file());

    into_base(&base, &adapter, &out, &[]).refused(&["exists already"]);
    let out = dir.path().join("none");
    let missing = dir.path().join("no.jsonl");
    into_base(&base, &adapter, &out, &["--data", arg(&missing)]).refused(&["no.jsonl"]);
    if let Some(shared) = shared() {
        let other = shared.join("data/lora_adapters/tinyllama_arona_lora_ckpt180");
        into_base(&base, &other, &out, &[]).refused(&["another base"]);
    }
    assert!(!out.exists(), "a refused merge leaves nothing");
}
