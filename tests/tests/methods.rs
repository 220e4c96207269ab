//! The adapter methods through the binary: against PEFT's numbers, learning, saving and loading, resuming, refusing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qloom_tests::cases::{LlamaCase, json, own};
use qloom_tests::fixtures::{
    Config, arg, copy_base, edit_json, number, small_base, steps, token_rows, write_tokens,
};
use qloom_tests::tensors::{self, Stored, Tensors, assert_close, max_rel};
use qloom_tests::trainer::{Ended, run, start};
use serde_json::Value;
use tempfile::TempDir;

fn golden() -> PathBuf {
    std::env::var_os("QLOOM_GOLDEN_METHODS").map_or_else(|| own().join("methods"), PathBuf::from)
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

// ---- against PEFT -----------------------------------------------------------------------------------------------

/// Logits, and with `grads` loss and gradients, of `adapter` on the probe of llama_ragged.
fn probe(base: &Path, adapter: &Path, grads: bool, extra: &[&str]) -> Tensors {
    let case = LlamaCase::open(&own().join("llama_ragged"));
    let dir = TempDir::new().unwrap();
    let place = |name: &str| dir.path().join(name);
    let (ids, labels, out) = (
        place("ids.json"),
        place("labels.json"),
        place("out.safetensors"),
    );
    let mask = case.get("attention_mask").rows();
    let rows: Vec<Vec<i64>> = case
        .get("input_ids")
        .rows()
        .into_iter()
        .zip(&mask)
        .map(|(row, mask)| {
            row.iter()
                .zip(mask)
                .map(|(id, m)| if *m == 1 { *id } else { -1 })
                .collect()
        })
        .collect();
    std::fs::write(&ids, serde_json::to_string(&rows).unwrap()).unwrap();
    std::fs::write(
        &labels,
        serde_json::to_string(&case.get("labels").rows()).unwrap(),
    )
    .unwrap();
    let mut args = vec![
        "probe",
        "--device",
        "cpu",
        "--compute",
        "f32",
        "--base",
        arg(base),
        "--ids",
        arg(&ids),
    ];
    args.extend(["--adapter", arg(adapter), "--out", arg(&out)]);
    if grads {
        args.extend(["--labels", arg(&labels), "--grads"]);
    }
    args.extend(extra);
    run(&args).ok();
    tensors::load(&out)
}

/// Holds the logits that the golden file kept (every `stride`th of the vocabulary, at real tokens) to `got`.
fn assert_logits(what: &str, got: &Tensors, want: &Stored, limit: f64) {
    let stride = usize::try_from(
        json(&golden().join("train.json"))["stride"]
            .as_u64()
            .unwrap(),
    )
    .unwrap();
    let case = LlamaCase::open(&own().join("llama_ragged"));
    let mask = case.get("attention_mask").i64();
    let (logits, vocab, kept) = (&got["logits"], got["logits"].shape[2], want.shape[2]);
    assert_eq!(kept, vocab.div_ceil(stride), "{what}: logits kept");
    let (all, wanted) = (logits.f32(), want.f32());
    let real = |i: &usize| mask[*i] == 1;
    let found: Vec<f32> = (0..mask.len())
        .filter(real)
        .flat_map(|i| {
            all[i * vocab..(i + 1) * vocab]
                .iter()
                .step_by(stride)
                .copied()
        })
        .collect();
    let expected: Vec<f32> = (0..mask.len())
        .filter(real)
        .flat_map(|i| wanted[i * kept..(i + 1) * kept].iter().copied())
        .collect();
    let error = max_rel(&found, &expected);
    assert!(
        error <= limit,
        "{what}: logits {error:.3e} apart, allowed {limit:.0e}"
    );
    eprintln!("{what}: logits {error:.1e}");
}

#[test]
fn dora_and_hira_have_pefts_logits_loss_and_gradients() {
    let expected = tensors::load(&golden().join("golden.safetensors"));
    for method in ["dora", "hira"] {
        let adapter = golden().join(format!("adapter_{method}"));
        for (suffix, base) in [("", "base"), ("_nf4", "base_nf4")] {
            for extra in [&[][..], &["--recompute"][..]] {
                let prefix = format!("{method}{suffix}");
                let base = own().join("llama_ragged").join(base);
                let got = probe(&base, &adapter, true, extra);
                assert_logits(&prefix, &got, &expected[&format!("{prefix}|logits")], 1e-5);
                assert_close(
                    &prefix,
                    &got["loss"],
                    &expected[&format!("{prefix}|loss")],
                    1e-5,
                );
                let head = format!("{prefix}|grad|");
                let mut count = 0;
                for (key, want) in expected
                    .range(head.clone()..)
                    .take_while(|(k, _)| k.starts_with(&head))
                {
                    let name = &key[head.len()..];
                    let found = got
                        .get(name)
                        .unwrap_or_else(|| panic!("{prefix}: no gradient `{name}`"));
                    assert_close(&format!("{prefix} {extra:?}: {name}"), found, want, 2e-5);
                    count += 1;
                }
                assert_eq!(
                    count,
                    if method == "dora" { 18 } else { 12 },
                    "{prefix}: gradients"
                );
            }
        }
    }
}

#[test]
fn dora_scaled_as_rslora_has_pefts_logits() {
    let dir = TempDir::new().unwrap();
    let adapter = dir.path().join("adapter");
    copy_base(&golden().join("adapter_dora"), &adapter);
    edit_json(&adapter.join("adapter_config.json"), |c| {
        c["use_rslora"] = Value::Bool(true)
    });
    let got = probe(&small_base(), &adapter, false, &[]);
    let expected = tensors::load(&golden().join("golden.safetensors"));
    assert_logits("dora_rslora", &got, &expected["dora_rslora|logits"], 1e-5);
}

/// Trains a recorded run and holds every step to it; returns the run's folder.
fn follow(dir: &Path, name: &str, base: &str, lora: &[(&str, &str)]) -> PathBuf {
    let record = json(&golden().join("train.json"));
    let (data, out, file) = (
        dir.join("train.jsonl"),
        dir.join(name),
        dir.join(format!("{name}.toml")),
    );
    write_tokens(
        &data,
        &LlamaCase::open(&own().join("llama_ragged")).training_rows(),
    );
    let mut config = Config::exact(&own().join("llama_ragged").join(base), &data, &out);
    if base == "base_nf4" {
        config = config.set("model", "quantization", "\"nf4\"");
    }
    for (key, value) in record["hyper"].as_object().unwrap() {
        if key != "lora_plus_ratio" {
            config = config.set("train", key, &value.to_string());
        }
    }
    for (key, value) in lora {
        config = config.set("lora", key, value);
    }
    config.write(&file);
    run(&["train", arg(&file), "--device", "cpu"]).ok();
    let (log, wanted) = (
        steps(&out),
        record["runs"][name].as_array().unwrap().clone(),
    );
    assert_eq!((log.len(), wanted.len()), (20, 20), "{name}: steps");
    let mut worst = 0f64;
    for (i, (row, want)) in log.iter().zip(&wanted).enumerate() {
        for key in ["loss", "lr", "grad_norm"] {
            let (got, want) = (number(row, key), number(want, key));
            let error = (got - want).abs() / want.abs().max(1e-12);
            assert!(
                error <= 1e-3,
                "{name}: step {}: {key} {got}, expected {want}",
                i + 1
            );
            if key == "loss" {
                worst = worst.max(error);
            }
        }
    }
    eprintln!("{name}: worst loss {worst:.1e}");
    out
}

#[test]
fn twenty_losses_follow_peft() {
    let dir = TempDir::new().unwrap();
    let expected = tensors::load(&golden().join("golden.safetensors"));
    let adapter = |name: &str| quoted(arg(&golden().join(format!("adapter_{name}"))));
    let ratio = json(&golden().join("train.json"))["hyper"]["lora_plus_ratio"].to_string();
    for method in ["dora", "hira"] {
        for (suffix, base) in [("", "base"), ("_nf4", "base_nf4")] {
            let name = format!("{method}{suffix}");
            let run = follow(dir.path(), &name, base, &[("adapter", &adapter(method))]);
            let base = own().join("llama_ragged").join(base);
            let got = probe(&base, &run.join("adapter"), false, &[]);
            assert_logits(
                &format!("{name} trained"),
                &got,
                &expected[&format!("{name}|trained")],
                1e-3,
            );
        }
    }
    for (name, from) in [("lora_plus", "lora"), ("dora_plus", "dora")] {
        follow(
            dir.path(),
            name,
            "base",
            &[("adapter", &adapter(from)), ("lora_plus_ratio", &ratio)],
        );
    }
    let targets = "[\"q_proj\", \"v_proj\", \"down_proj\"]";
    let fresh = [
        ("init", "\"pissa\""),
        ("rank", "3"),
        ("alpha", "5"),
        ("target_modules", targets),
    ];
    let run = follow(dir.path(), "pissa", "base", &fresh);
    // PEFT trained beside the residual weights; the folded adapter gives the same on the original ones.
    let got = probe(&small_base(), &run.join("adapter"), false, &[]);
    assert_logits("pissa trained", &got, &expected["pissa|trained"], 1e-3);
}

// ---- learning, saving and loading -------------------------------------------------------------------------------

/// A run of `method` in `dir/name` over random rows, some of them held out.
fn small_run(
    dir: &Path,
    name: &str,
    base: Option<&Path>,
    nf4: bool,
    lora: &[(&str, &str)],
    train: &[(&str, &str)],
) -> PathBuf {
    let data = dir.join("train.jsonl");
    if !data.exists() {
        write_tokens(&data, &token_rows(24, 101));
    }
    let file = dir.join(format!("{name}.toml"));
    let mut config = Config::exact(base.unwrap_or(Path::new("")), &data, &dir.join(name))
        .path("data", "eval", &data)
        .set("eval", "samples", "0")
        .set(
            "model",
            "quantization",
            if nf4 { "\"nf4\"" } else { "\"none\"" },
        )
        .set("lora", "rank", "4")
        .set("lora", "alpha", "8");
    for (key, value) in [
        ("max_steps", "12"),
        ("batch_size", "12"),
        ("lr", "0.01"),
        ("schedule", "\"constant\""),
        ("eval_every", "6"),
    ] {
        config = config.set("train", key, value);
    }
    for (key, value) in train {
        config = config.set("train", key, value);
    }
    for (key, value) in lora {
        config = config.set("lora", key, value);
    }
    config.write(&file);
    file
}

/// Held-out losses in order, as they were computed while training.
fn held_out(run: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
    let rows = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter_map(|row| row.get("eval_loss").and_then(Value::as_f64))
        .collect()
}

/// Trains, and holds the result: the loss fell, and what was saved computes what was trained.
fn learns(name: &str, base: Option<&Path>, nf4: bool, lora: &[(&str, &str)]) -> (TempDir, Value) {
    let dir = TempDir::new().unwrap();
    let file = small_run(dir.path(), name, base, nf4, lora, &[]);
    run(&["train", arg(&file), "--device", "cpu"]).ok();
    let out = dir.path().join(name);
    let metrics = json(&out.join("metrics.json"));
    let what = format!("{name}, {} base", if nf4 { "nf4" } else { "dense" });
    let (before, after) = (
        number(&metrics["base"], "loss"),
        number(&metrics["adapted"], "loss"),
    );
    assert!(after < before - 0.05, "{what}: loss {before} to {after}");
    let trained = held_out(&out).into_iter().fold(f64::INFINITY, f64::min);
    let error = (after - trained).abs() / trained;
    assert!(
        error < 2e-5,
        "{what}: trained to {trained}, read back as {after}"
    );
    (dir, metrics["result"].clone())
}

type Settings = &'static [(&'static str, &'static str)];

/// Methods and initializations that run on any base.
const EVERYWHERE: [(&str, Settings); 10] = [
    ("lora", &[("method", "\"lora\"")]),
    ("rslora", &[("method", "\"rslora\"")]),
    ("dora", &[("method", "\"dora\"")]),
    (
        "dora_rslora",
        &[
            ("method", "\"dora\""),
            ("rslora", "true"),
            ("dropout", "0.1"),
        ],
    ),
    ("sparse", &[("method", "\"sparse\""), ("density", "0.25")]),
    ("hira", &[("method", "\"hira\"")]),
    (
        "gaussian",
        &[("init", "\"gaussian\""), ("lora_plus_ratio", "4")],
    ),
    ("pissa", &[("init", "\"pissa\"")]),
    ("full", &[("method", "\"full\"")]),
    ("head", &[("method", "\"head\"")]),
];

#[test]
fn every_method_learns_and_reads_back_on_a_dense_and_a_quantized_base() {
    let mut sizes = std::collections::BTreeMap::new();
    for (name, settings) in EVERYWHERE {
        for nf4 in [false, true] {
            let (dir, result) = learns(name, Some(&small_base()), nf4, settings);
            let bytes = number(&result, "bytes");
            assert!(
                bytes
                    > 4.0
                        * number(&result, "trained_values")
                        * if name == "sparse" { 0.1 } else { 0.99 }
            );
            sizes.insert(name, bytes);
            if name == "sparse" {
                assert_eq!(number(&result, "sparsity"), 0.75);
            }
            let residual = dir.path().join(name).join("base");
            assert_eq!(
                residual.is_dir(),
                name == "pissa" && nf4,
                "{name}: a base of its own"
            );
        }
    }
    assert!(sizes["sparse"] < 0.6 * sizes["lora"], "{sizes:?}");
}

#[test]
fn every_method_learns_on_the_embedded_base() {
    for (name, settings) in EVERYWHERE {
        if name != "dora_rslora" {
            learns(name, None, true, settings);
        }
    }
}

/// LoftQ's pair makes the quantized base a better copy of the dense one before any training. Rounds bring the weights
/// nearer, not every logit.
#[test]
fn loftq_starts_nearer_to_the_dense_base_than_quantization_leaves_it() {
    let dir = TempDir::new().unwrap();
    let dense = probe_base(&small_base(), None, &["--quantization", "none"]);
    let plain = probe_base(&small_base(), None, &["--quantization", "nf4"]);
    let mut distance = vec![max_rel(&plain["logits"].f32(), &dense["logits"].f32())];
    for (name, rounds) in [("one", "1"), ("five", "5")] {
        let lora = [
            ("init", "\"loftq\""),
            ("loftq_iter", rounds),
            ("rank", "16"),
            ("alpha", "40"),
        ];
        let frozen = [("max_steps", "1"), ("lr", "1e-12")];
        let file = small_run(dir.path(), name, Some(&small_base()), true, &lora, &frozen);
        run(&["train", arg(&file), "--device", "cpu"]).ok();
        let out = dir.path().join(name);
        assert_eq!(out.join("base").is_dir(), rounds != "1");
        let base = if rounds == "1" {
            small_base()
        } else {
            out.join("base")
        };
        let got = probe_base(
            &base,
            Some(&out.join("adapter")),
            &["--quantization", "nf4"],
        );
        distance.push(max_rel(&got["logits"].f32(), &dense["logits"].f32()));
    }
    assert!(
        distance[1] < 0.7 * distance[0] && distance[2] < distance[0],
        "{distance:?}"
    );
    learns(
        "loftq",
        Some(&small_base()),
        true,
        &[("init", "\"loftq\""), ("loftq_iter", "2")],
    );
}

fn probe_base(base: &Path, adapter: Option<&Path>, extra: &[&str]) -> Tensors {
    let dir = TempDir::new().unwrap();
    let (ids, out) = (
        dir.path().join("ids.json"),
        dir.path().join("out.safetensors"),
    );
    std::fs::write(&ids, "[[5, 9, 40, 77, 8, 31, 66, 12]]").unwrap();
    let mut args = vec![
        "probe",
        "--device",
        "cpu",
        "--base",
        arg(base),
        "--ids",
        arg(&ids),
        "--out",
        arg(&out),
    ];
    if let Some(adapter) = adapter {
        args.extend(["--adapter", arg(adapter)]);
    }
    args.extend(extra);
    run(&args).ok();
    tensors::load(&out)
}

/// What DoRA and HiRA make of a weight depends on the weight; merged into it they compute the same.
#[test]
fn merged_into_the_base_every_kind_computes_the_same() {
    for (name, settings) in EVERYWHERE
        .iter()
        .filter(|(n, _)| ["dora", "hira", "sparse", "pissa", "head"].contains(n))
    {
        let (dir, _) = learns(name, Some(&small_base()), false, settings);
        let (adapter, merged) = (
            dir.path().join(name).join("adapter"),
            dir.path().join("merged"),
        );
        run(&[
            "merge-into-base",
            "--base",
            arg(&small_base()),
            "--adapter",
            arg(&adapter),
            "--out",
            arg(&merged),
        ])
        .ok();
        let beside = probe_base(&small_base(), Some(&adapter), &["--quantization", "none"]);
        let inside = probe_base(&merged, None, &["--quantization", "none"]);
        let error = max_rel(&inside["logits"].f32(), &beside["logits"].f32());
        assert!(error < 1e-5, "{name}: {error:.1e}");
    }
}

/// An adapter that belongs to the base an initialization made is refused on the original one.
#[test]
fn an_adapter_of_a_residual_base_is_refused_elsewhere() {
    let (dir, _) = learns("pissa", Some(&small_base()), true, &[("init", "\"pissa\"")]);
    let run_dir = dir.path().join("pissa");
    let ids = dir.path().join("ids.json");
    std::fs::write(&ids, "[[5, 9]]").unwrap();
    let out = dir.path().join("o.safetensors");
    let args = |base: &'static str| {
        let base = if base.is_empty() {
            small_base()
        } else {
            run_dir.join(base)
        };
        let adapter = run_dir.join("adapter");
        [
            "probe",
            "--base",
            arg(&base),
            "--adapter",
            arg(&adapter),
            "--ids",
            arg(&ids),
            "--out",
            arg(&out),
        ]
        .map(str::to_owned)
    };
    run(&args("base")).ok();
    run(&args("")).refused(&["another base", "fingerprint"]);
}

#[test]
fn plan_and_inspect_name_the_method_and_its_size() {
    let dir = TempDir::new().unwrap();
    for method in ["lora", "dora", "sparse", "hira"] {
        let method_text = quoted(method);
        let file = small_run(
            dir.path(),
            method,
            Some(&small_base()),
            true,
            &[("method", &method_text), ("rank", "4")],
            &[("max_steps", "2")],
        );
        let planned: Value =
            serde_json::from_str(&run(&["plan", arg(&file), "--json"]).ok().stdout).unwrap();
        let ran: Value = serde_json::from_str(
            &run(&["train", arg(&file), "--json", "--device", "cpu"])
                .ok()
                .stdout,
        )
        .unwrap();
        assert_eq!(
            planned["trained_values"], ran["trainable_parameters"],
            "{method}"
        );
        assert_eq!(planned["method"].as_str(), Some(method));
        assert_eq!(ran["result"]["method"].as_str(), Some(method));
        let folder = dir.path().join(method).join("adapter");
        let seen: Value =
            serde_json::from_str(&run(&["inspect", arg(&folder), "--json"]).ok().stdout).unwrap();
        assert_eq!(seen["method"].as_str(), Some(method));
        assert_eq!(seen["bytes"], ran["result"]["bytes"], "{method}");
    }
    for method in ["full", "head"] {
        let method_text = quoted(method);
        let file = small_run(
            dir.path(),
            method,
            Some(&small_base()),
            false,
            &[("method", &method_text)],
            &[("max_steps", "1")],
        );
        let planned: Value =
            serde_json::from_str(&run(&["plan", arg(&file), "--json"]).ok().stdout).unwrap();
        let ran: Value = serde_json::from_str(
            &run(&["train", arg(&file), "--json", "--device", "cpu"])
                .ok()
                .stdout,
        )
        .unwrap();
        assert_eq!(
            planned["trained_values"], ran["trainable_parameters"],
            "{method}"
        );
    }
}

// ---- resuming, refusing -----------------------------------------------------------------------------------------

/// Magnitudes, gates and LoRA+'s rates survive a kill to the byte.
#[test]
fn killed_runs_of_new_methods_resume_to_the_same_bytes() {
    let dir = TempDir::new().unwrap();
    let methods: [(&str, Settings); 3] = [
        (
            "dora",
            &[
                ("method", "\"dora\""),
                ("lora_plus_ratio", "4"),
                ("dropout", "0.1"),
            ],
        ),
        (
            "sparse",
            &[
                ("method", "\"sparse\""),
                ("density", "0.25"),
                ("dropout", "0.1"),
            ],
        ),
        ("pissa", &[("init", "\"pissa\"")]),
    ];
    for (method, settings) in methods {
        let train = [
            ("max_steps", "60"),
            ("save_every", "3"),
            ("eval_every", "1000"),
            ("batch_size", "4"),
        ];
        let whole = small_run(
            dir.path(),
            &format!("{method}_whole"),
            Some(&small_base()),
            true,
            settings,
            &train,
        );
        run(&["train", arg(&whole), "--device", "cpu"]).ok();
        let name = format!("{method}_killed");
        let killed = small_run(
            dir.path(),
            &name,
            Some(&small_base()),
            true,
            settings,
            &train,
        );
        let out = dir.path().join(&name);
        let mut child = start(&["train", arg(&killed), "--device", "cpu"]);
        let deadline = Instant::now() + Duration::from_secs(120);
        while std::fs::read_to_string(out.join("log.jsonl")).map_or(0, |t| t.lines().count()) < 20 {
            assert!(
                child.try_wait().unwrap().is_none(),
                "{method}: ended by itself"
            );
            assert!(Instant::now() < deadline, "{method}: step 20 never came");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        run(&["train", arg(&killed), "--resume", "--device", "cpu"]).ok();
        let bytes = |run: &str| {
            std::fs::read(
                dir.path()
                    .join(run)
                    .join("adapter/adapter_model.safetensors"),
            )
            .unwrap()
        };
        assert!(
            bytes(&name) == bytes(&format!("{method}_whole")),
            "{method}: the adapter differs"
        );
    }
}

fn refused(lora: &[(&str, &str)], nf4: bool) -> Ended {
    let dir = TempDir::new().unwrap();
    let file = small_run(dir.path(), "bad", Some(&small_base()), nf4, lora, &[]);
    let ended = run(&["train", arg(&file), "--device", "cpu"]);
    assert!(
        !dir.path().join("bad").exists(),
        "{lora:?}: a run folder is left"
    );
    ended
}

#[test]
fn values_that_mean_nothing_are_refused() {
    refused(&[("method", "\"dorra\"")], true).refused_as_usage(&["dorra", "dora", "hira"]);
    refused(&[("init", "\"pisa\"")], true).refused_as_usage(&["pisa", "pissa", "loftq"]);
    refused(&[("density", "0")], true).refused_as_usage(&["lora.density", "(0, 1]"]);
    refused(&[("density", "1.5")], true).refused_as_usage(&["lora.density", "1.5"]);
    refused(&[("lora_plus_ratio", "-1")], true).refused_as_usage(&["lora_plus_ratio"]);
    refused(&[("loftq_iter", "0")], true).refused_as_usage(&["loftq_iter"]);
    refused(&[("method", "\"hira\""), ("init", "\"pissa\"")], true)
        .refused_as_usage(&["hira", "pissa"]);
    refused(
        &[("method", "\"full\""), ("modules_to_save", "[\"lm_head\"]")],
        true,
    )
    .refused_as_usage(&["full", "modules_to_save"]);
    refused(&[("init", "\"loftq\"")], false).refused(&["loftq", "nf4"]);
    refused(&[("init", "\"pissa\""), ("rank", "41")], false).refused(&["rank 41", "rank_pattern"]);
    let dora = quoted(arg(&golden().join("adapter_dora")));
    refused(&[("adapter", &dora), ("method", "\"sparse\"")], false)
        .refused_as_usage(&["DoRA", "sparse"]);
    // LoftQ on a base that is stored as NF4.
    let dir = TempDir::new().unwrap();
    let stored = own().join("llama_ragged/base_nf4");
    let file = small_run(
        dir.path(),
        "bad",
        Some(&stored),
        true,
        &[("init", "\"loftq\"")],
        &[],
    );
    run(&["train", arg(&file), "--device", "cpu"]).refused(&["stored as NF4", "full-precision"]);
}
