//! Runs and probes of all families.

use std::path::{Path, PathBuf};

use qloom_tests::cases::{json, own};
use qloom_tests::fixtures::{Config, arg, number, token_rows, write_tokens};
use qloom_tests::tensors::{self, Tensors};
use qloom_tests::trainer::run;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) fn golden() -> PathBuf {
    std::env::var_os("QLOOM_GOLDEN_METHODS").map_or_else(|| own().join("methods"), PathBuf::from)
}

pub(crate) fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// A run of `method` in `dir/name` over random rows, some of them held out.
pub(crate) fn small_run(
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
pub(crate) fn held_out(run: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
    let rows = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter_map(|row| row.get("eval_loss").and_then(Value::as_f64))
        .collect()
}

/// Trains, and holds the result: the loss fell, and what was saved computes what was trained.
pub(crate) fn learns(
    name: &str,
    base: Option<&Path>,
    nf4: bool,
    lora: &[(&str, &str)],
) -> (TempDir, Value) {
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

pub(crate) type Settings = &'static [(&'static str, &'static str)];

/// Methods and initializations that run on any base.
pub(crate) const EVERYWHERE: [(&str, Settings); 10] = [
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

pub(crate) fn probe_base(base: &Path, adapter: Option<&Path>, extra: &[&str]) -> Tensors {
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
