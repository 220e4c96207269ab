//! Logits, loss, gradients, greedy tokens and whole training runs against transformers + PEFT, through the binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use qloom_tests::cases::{self, LlamaCase, json, own, shared};
use qloom_tests::fixtures::{
    Config, arg, copy_base, number, steps, talking_base, words, write_tokens,
};
use qloom_tests::tensors::{self, Stored, Tensors, assert_close, at_tokens, max_rel};
use qloom_tests::trainer::run;
use tempfile::TempDir;

/// What `trainer probe` is asked for, beside the ids.
#[derive(Default)]
struct Probe<'a> {
    adapter: Option<&'a Path>,
    labels: bool,
    extra: &'a [&'a str],
}

fn probe(case: &LlamaCase, base: &Path, options: &Probe<'_>) -> Tensors {
    let dir = TempDir::new().unwrap();
    let (ids, labels, out) = (
        dir.path().join("ids.json"),
        dir.path().join("labels.json"),
        dir.path().join("out.safetensors"),
    );
    std::fs::write(&ids, serde_json::to_string(&case.probe_ids()).unwrap()).unwrap();
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
        "--out",
        arg(&out),
    ];
    if let Some(adapter) = options.adapter {
        args.extend(["--adapter", arg(adapter)]);
    }
    if options.labels {
        let rows = case.get("labels").rows();
        std::fs::write(&labels, serde_json::to_string(&rows).unwrap()).unwrap();
        args.extend(["--labels", arg(&labels), "--grads"]);
    }
    args.extend(options.extra);
    run(&args).ok();
    tensors::load(&out)
}

fn assert_logits(what: &str, case: &LlamaCase, got: &Tensors, want: &str, limit: f64) {
    let mask = case.get("attention_mask");
    let error = max_rel(
        &at_tokens(&got["logits"], mask),
        &at_tokens(case.get(want), mask),
    );
    assert!(
        error <= limit,
        "{what}: {want}: relative error {error:.3e}, allowed {limit:.0e}"
    );
}

/// Base and adapter of one case: everything within 1e-4 of the reference.
fn assert_case(case: &LlamaCase) {
    let init = case.dir.join("adapter_init");
    for (prefix, folder) in [("", "base"), ("nf4_", "base_nf4")] {
        if !prefix.is_empty() && !case.nf4_is_sound() {
            continue;
        }
        let what = format!("{} {folder}", case.name());
        let base = case.dir.join(folder);
        assert_logits(
            &what,
            case,
            &probe(case, &base, &Probe::default()),
            &format!("{prefix}base_logits"),
            1e-4,
        );
        for extra in [&[][..], &["--recompute"][..]] {
            let adapted = probe(
                case,
                &base,
                &Probe {
                    adapter: Some(&init),
                    labels: true,
                    extra,
                },
            );
            assert_logits(&what, case, &adapted, &format!("{prefix}lora_logits"), 1e-4);
            assert_close(
                &format!("{what}: loss"),
                &adapted["loss"],
                case.get(&format!("{prefix}lora_loss")),
                1e-4,
            );
            let expected = case.gradients(prefix);
            assert!(!expected.is_empty(), "{what}: the case has gradients");
            for (name, want) in expected {
                let got = adapted
                    .get(&name)
                    .unwrap_or_else(|| panic!("{what}: no gradient `{name}`"));
                assert_close(&format!("{what} {extra:?}: {name}"), got, want, 1e-4);
            }
        }
    }
}

#[test]
fn logits_loss_and_gradients_match_on_every_case() {
    for case in cases::llamas() {
        assert_case(&case);
    }
}

/// Quantizing while loading gives the same numbers as the base that bitsandbytes wrote.
#[test]
fn quantizing_on_the_fly_equals_the_quantized_base() {
    let case = LlamaCase::open(&own().join("llama_ragged"));
    let options = Probe {
        extra: &["--quantization", "nf4"],
        ..Probe::default()
    };
    let got = probe(&case, &case.dir.join("base"), &options);
    assert_logits("on the fly", &case, &got, "nf4_base_logits", 1e-4);
}

#[test]
fn rslora_with_patterns_matches() {
    for case in cases::llamas()
        .iter()
        .filter(|c| c.dir.join("adapter_rs").is_dir())
    {
        let adapter = case.dir.join("adapter_rs");
        let options = Probe {
            adapter: Some(&adapter),
            ..Probe::default()
        };
        let got = probe(case, &case.dir.join("base"), &options);
        assert_logits(&case.name(), case, &got, "rs_logits", 1e-4);
    }
}

#[test]
fn qwen2_from_shards_with_three_kinds_of_adapter_matches() {
    let case = LlamaCase::open(&own().join("qwen2_sharded"));
    let base = case.dir.join("base");
    assert_logits(
        "qwen2",
        &case,
        &probe(&case, &base, &Probe::default()),
        "base_logits",
        1e-4,
    );
    for name in ["rslora", "some_layers", "regex_and_head"] {
        let adapter = case.dir.join(format!("adapter_{name}"));
        let options = Probe {
            adapter: Some(&adapter),
            ..Probe::default()
        };
        let got = probe(&case, &base, &options);
        assert_logits("qwen2", &case, &got, &format!("logits|{name}"), 1e-4);
    }
}

/// A scaling is either computed as transformers does or refused by its name.
#[test]
fn rotary_scalings_match_or_are_refused_by_name() {
    let case = LlamaCase::open(&own().join("llama_rope"));
    let mut matched = Vec::new();
    for scaling in ["llama3", "linear", "dynamic"] {
        let dir = TempDir::new().unwrap();
        let base = dir.path().join("base");
        copy_base(&case.dir.join("base"), &base);
        std::fs::copy(
            case.dir.join(format!("config_{scaling}.json")),
            base.join("config.json"),
        )
        .unwrap();
        let inspected = run(&["inspect", arg(&base)]);
        if scaling == "dynamic" && inspected.code != 0 {
            inspected.refused(&["dynamic"]);
            continue;
        }
        let got = probe(&case, &base, &Probe::default());
        assert_logits(scaling, &case, &got, &format!("logits|{scaling}"), 1e-4);
        matched.push(scaling);
    }
    assert!(matched.contains(&"llama3") && matched.contains(&"linear"));
}

/// Greedy tokens through the KV cache, prompt and answer spelled as ids.
#[test]
fn greedy_tokens_are_identical() {
    let own_case = LlamaCase::open(&own().join("qwen2_sharded"));
    for case in cases::llamas().iter().chain([&own_case]) {
        let dir = TempDir::new().unwrap();
        let base = dir.path().join("base");
        talking_base(&case.dir.join("base"), &base);
        let golden = case.get("greedy").i64();
        // The generators prompt with the first 6, 7 or 8 ids of the first row.
        let first = &case.get("input_ids").rows()[0];
        let prompt = golden
            .iter()
            .zip(first)
            .take_while(|(a, b)| a == b)
            .count()
            .min(8)
            .min(golden.len() - 16);
        let out = dir.path().join("out.jsonl");
        let count = (golden.len() - prompt).to_string();
        run(&[
            "generate",
            "--device",
            "cpu",
            "--compute",
            "f32",
            "--base",
            arg(&base),
            "--raw",
            "--prompt",
            &words(&golden[..prompt]),
            "--max-new-tokens",
            &count,
            "--temperature",
            "0",
            "--ignore-eos",
            "--out",
            arg(&out),
        ])
        .ok();
        let row = json(&out);
        assert_eq!(
            row["base"].as_str().unwrap().trim(),
            words(&golden[prompt..]),
            "{}",
            case.name()
        );
    }
}

/// Trains one recorded run through `trainer train` and holds every step and the adapter against it.
fn assert_trajectory(case: &LlamaCase, run_name: &str) {
    let found = case.trajectories();
    let Some(wanted) = found.into_iter().find(|t| t.name == run_name) else {
        // Our own cases normalize by tokens in their one f32 run; only the shared ones record both.
        assert!(
            run_name == "f32_tokmean" || !case.dir.starts_with(cases::own()),
            "{}: our own golden has no run {run_name}",
            case.name()
        );
        eprintln!("skipped: {} has no run {run_name}", case.name());
        return;
    };
    let dir = TempDir::new().unwrap();
    let (data, out, file) = (
        dir.path().join("train.jsonl"),
        dir.path().join("run"),
        dir.path().join("run.toml"),
    );
    write_tokens(&data, &case.training_rows());
    let mut config = Config::exact(&wanted.base, &data, &out).path(
        "lora",
        "adapter",
        &case.dir.join("adapter_init"),
    );
    if run_name == "nf4" {
        config = config.set("model", "quantization", "\"nf4\"");
    }
    for (key, value) in &wanted.train {
        config = config.set("train", key, value);
    }
    config.write(&file);
    run(&["train", arg(&file), "--device", "cpu"]).ok();

    let what = format!("{} {run_name}", case.name());
    let log = steps(&out);
    assert_eq!(log.len(), wanted.steps.len(), "{what}: steps");
    for (i, (row, [loss, lr, norm])) in log.iter().zip(&wanted.steps).enumerate() {
        assert_eq!(row["step"].as_u64(), Some(i as u64 + 1), "{what}");
        for (key, want) in [("loss", loss), ("lr", lr), ("grad_norm", norm)] {
            let got = number(row, key);
            let error = (got - want).abs() / want.abs().max(1e-12);
            assert!(
                error <= 1e-3,
                "{what}: step {}: {key} {got}, expected {want}",
                i + 1
            );
        }
    }
    let got = tensors::load(&out.join("adapter/adapter_model.safetensors"));
    let want = tensors::load(&wanted.adapter.join("adapter_model.safetensors"));
    assert_eq!(
        got.keys().collect::<Vec<_>>(),
        want.keys().collect::<Vec<_>>(),
        "{what}: tensor names"
    );
    for (name, tensor) in &want {
        assert_close(&format!("{what}: {name}"), &got[name], tensor, 1e-3);
    }
}

fn assert_trajectories(run_name: &str) {
    for case in cases::llamas() {
        if run_name != "nf4" || case.nf4_is_sound() {
            assert_trajectory(&case, run_name);
        }
    }
}

#[test]
fn f32_training_follows_the_reference() {
    assert_trajectories("f32");
}

#[test]
fn token_mean_training_follows_the_reference() {
    assert_trajectories("f32_tokmean");
}

#[test]
fn nf4_training_follows_the_reference() {
    assert_trajectories("nf4");
}

/// Real weights: stories260K's stored first-position logits and greedy text.
#[test]
fn stories260k_speaks_as_stored() {
    let Some(base) = shared()
        .map(|s| s.join("data/stories260K"))
        .filter(|d| d.is_dir())
    else {
        eprintln!("skipped: no data/stories260K");
        return;
    };
    let golden = json(&base.join("greedy_golden.json"));
    let numbers = |key: &str| golden[key].as_array().unwrap().clone();
    let ids: Vec<i64> = numbers("greedy_ids")
        .iter()
        .map(|v| v.as_i64().unwrap())
        .collect();
    let first: Vec<f32> = numbers("first_position_logits")
        .iter()
        .map(|v| v.as_f64().unwrap() as f32)
        .collect();

    let dir = TempDir::new().unwrap();
    let (file, out) = (
        dir.path().join("ids.json"),
        dir.path().join("o.safetensors"),
    );
    std::fs::write(&file, serde_json::to_string(&[&ids]).unwrap()).unwrap();
    run(&[
        "probe",
        "--device",
        "cpu",
        "--base",
        arg(&base),
        "--ids",
        arg(&file),
        "--out",
        arg(&out),
    ])
    .ok();
    let logits = tensors::load(&out).remove("logits").unwrap();
    let vocab = logits.shape[2];
    let values = logits.f32();
    let error = max_rel(&values[..vocab], &first);
    assert!(error <= 1e-5, "first position: relative error {error:.3e}");
    // Teacher-forced: every next id is the argmax.
    for (t, next) in ids[1..].iter().enumerate() {
        let row = &values[t * vocab..(t + 1) * vocab];
        let best = (0..vocab)
            .max_by(|a, b| row[*a].total_cmp(&row[*b]))
            .unwrap();
        assert_eq!(best as i64, *next, "position {t}");
    }

    let text_out = dir.path().join("text.jsonl");
    let count = (ids.len() - 1).to_string();
    run(&[
        "generate",
        "--device",
        "cpu",
        "--base",
        arg(&base),
        "--raw",
        "--prompt",
        "",
        "--max-new-tokens",
        &count,
        "--temperature",
        "0",
        "--out",
        arg(&text_out),
    ])
    .ok();
    let row = json(&text_out);
    let text = row["base"].as_str().unwrap().trim();
    assert_eq!(text, golden["text"].as_str().unwrap().trim());
}

/// Stored tensors survive a probe of a single token: the smallest shapes there are.
#[test]
fn a_single_token_has_logits_and_no_loss() {
    let dir = TempDir::new().unwrap();
    let (file, out) = (
        dir.path().join("ids.json"),
        dir.path().join("o.safetensors"),
    );
    std::fs::write(&file, "[[5]]").unwrap();
    let base = own().join("llama_ragged/base");
    run(&[
        "probe",
        "--device",
        "cpu",
        "--base",
        arg(&base),
        "--ids",
        arg(&file),
        "--out",
        arg(&out),
    ])
    .ok();
    let got = tensors::load(&out);
    assert_eq!(got["logits"].shape, [1, 1, 101]);
    assert!(!got.contains_key("loss"));
    assert!(Stored::f32(&got["logits"]).iter().all(|v| v.is_finite()));
}
