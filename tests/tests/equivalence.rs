//! Switches that must not change what is learned: accumulation, packing, recomputation, the fused loss.
//!
//! One AdamW step with a huge `eps` makes the update `lr x g / (|g| + eps)`, so the adapter's change is the gradient
//! itself up to a monotone map: comparing adapters then compares gradients, through the command line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use qloom_tests::cases::own;
use qloom_tests::fixtures::{Config, arg, number, small_base, steps, token_rows, write_tokens};
use qloom_tests::tensors::{self, max_rel};
use qloom_tests::trainer::run;
use tempfile::TempDir;

struct Outcome {
    loss: f64,
    grad_norm: f64,
    change: Vec<f32>,
}

/// One optimizer step over the same eight rows.
fn one_step(dir: &Path, name: &str, settings: &[(&str, &str, &str)]) -> Outcome {
    let (data, out, file) = (
        dir.join("train.jsonl"),
        dir.join(name),
        dir.join(format!("{name}.toml")),
    );
    write_tokens(&data, &token_rows(8, 101));
    let init = own().join("llama_ragged/adapter_init");
    let mut config = Config::exact(&small_base(), &data, &out).path("lora", "adapter", &init);
    let fixed = [
        ("max_steps", "1"),
        ("batch_size", "8"),
        ("lr", "10.0"),
        ("eps", "1.0"),
        ("schedule", "\"constant\""),
        ("warmup_steps", "0"),
        ("weight_decay", "0.0"),
        ("max_grad_norm", "0.0"),
    ];
    for (key, value) in fixed {
        config = config.set("train", key, value);
    }
    for (table, key, value) in settings {
        config = config.set(table, key, value);
    }
    config.write(&file);
    run(&["train", arg(&file), "--device", "cpu"]).ok();
    let log = steps(&out);
    assert_eq!(log.len(), 1, "{name}: one step");
    let before = tensors::load(&init.join("adapter_model.safetensors"));
    let after = tensors::load(&out.join("adapter/adapter_model.safetensors"));
    let change: Vec<f32> = before
        .iter()
        .flat_map(|(key, t)| {
            let now = after[key].f32();
            t.f32()
                .into_iter()
                .zip(now)
                .map(|(a, b)| b - a)
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(
        change.iter().any(|d| d.abs() > 1e-2),
        "{name}: the adapter moved"
    );
    Outcome {
        loss: number(&log[0], "loss"),
        grad_norm: number(&log[0], "grad_norm"),
        change,
    }
}

fn assert_same(what: &str, a: &Outcome, b: &Outcome, limit: f64) {
    let relative = |x: f64, y: f64| (x - y).abs() / y.abs();
    assert!(
        relative(a.loss, b.loss) <= limit,
        "{what}: loss {} and {}",
        a.loss,
        b.loss
    );
    assert!(
        relative(a.grad_norm, b.grad_norm) <= limit,
        "{what}: gradient norm {} and {}",
        a.grad_norm,
        b.grad_norm
    );
    let error = max_rel(&a.change, &b.change);
    assert!(error <= limit, "{what}: gradients {error:.3e} apart");
}

#[test]
fn accumulation_packing_recomputation_and_the_fused_loss_change_nothing() {
    let dir = TempDir::new().unwrap();
    let step = |name, settings: &[(&str, &str, &str)]| one_step(dir.path(), name, settings);
    let whole = step("whole", &[]);

    let accumulated = step(
        "accumulated",
        &[
            ("train", "batch_size", "1"),
            ("train", "grad_accumulation", "8"),
        ],
    );
    assert_same("8 x 1 and 1 x 8", &accumulated, &whole, 1e-5);

    let packed = step("packed", &[("data", "packing", "true")]);
    assert_same("packing on and off", &packed, &whole, 1e-5);

    let kept = step("kept", &[("train", "recompute", "\"off\"")]);
    let recomputed = step("recomputed", &[("train", "recompute", "\"on\"")]);
    assert_same("recomputation on and off", &recomputed, &kept, 1e-6);

    let fused = step("fused", &[("train", "fused_loss", "true")]);
    let plain = step("plain", &[("train", "fused_loss", "false")]);
    assert_same("fused loss on and off", &fused, &plain, 1e-5);
}

/// The micro-batch mean is a different thing where rows differ in length, or the mode would be a name only.
#[test]
fn the_micro_batch_mean_differs_from_the_token_mean() {
    let dir = TempDir::new().unwrap();
    let split = [
        ("train", "batch_size", "1"),
        ("train", "grad_accumulation", "8"),
    ];
    let tokens = one_step(dir.path(), "tokens", &split);
    let mode = ("train", "loss_normalization", "\"micro_batch\"");
    let means = one_step(dir.path(), "means", &[split[0], split[1], mode]);
    assert!((tokens.loss - means.loss).abs() > 1e-4 * tokens.loss);
}
