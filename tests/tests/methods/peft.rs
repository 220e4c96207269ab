//! Against PEFT: logits, losses, gradients and twenty steps.

use std::path::{Path, PathBuf};

use qloom_tests::cases::{LlamaCase, json, own};
use qloom_tests::fixtures::{
    Config, arg, copy_base, edit_json, number, small_base, steps, write_tokens,
};
use qloom_tests::tensors::{self, Stored, Tensors, assert_close, max_rel};
use qloom_tests::trainer::run;
use serde_json::Value;
use tempfile::TempDir;

use super::common::{golden, quoted};

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
    std::fs::write(&ids, serde_json::to_string(&case.probe_ids()).unwrap()).unwrap();
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
