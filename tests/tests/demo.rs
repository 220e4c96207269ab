//! `trainer demo` as a newcomer runs it: no file, no network, and results worth showing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use qloom_tests::cases::json;
use qloom_tests::fixtures::arg;
use qloom_tests::trainer::run_in;
use serde_json::Value;
use tempfile::TempDir;

/// Every `(base, adapted)` pair of `key` anywhere in a metrics file that groups by task.
fn pairs(value: &Value, key: &str, found: &mut Vec<(f64, f64)>) {
    let Some(object) = value.as_object() else {
        return;
    };
    let number = |side: &str| object.get(side)?.get(key)?.as_f64();
    if let (Some(base), Some(adapted)) = (number("base"), number("adapted")) {
        found.push((base, adapted));
    }
    for child in object.values() {
        pairs(child, key, found);
    }
}

#[test]
fn the_demo_learns_both_tasks_and_shows_them() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("demo");
    let ended = run_in(
        dir.path(),
        &["demo", "--no-serve", "--device", "cpu", "--out", arg(&out)],
    )
    .ok();
    let metrics = json(&out.join("metrics.json"));
    let (mut f1, mut perplexity) = (Vec::new(), Vec::new());
    pairs(&metrics, "macro_f1", &mut f1);
    pairs(&metrics, "perplexity", &mut perplexity);
    assert!(
        f1.iter()
            .any(|(base, adapted)| *base <= 0.45 && *adapted >= 0.85),
        "sentiment from chance to 0.85 macro-F1: {f1:?}"
    );
    assert!(
        perplexity
            .iter()
            .any(|(base, adapted)| *adapted <= 0.65 * base),
        "perplexity at least 35 % lower: {perplexity:?}"
    );
    for task in ["sentiment", "instructions"] {
        let adapter = out.join(task).join("adapter");
        assert!(adapter.join("adapter_model.safetensors").is_file());
        assert!(
            ended.stdout.contains(arg(&adapter)),
            "says where the adapter lies: {}",
            ended.stdout
        );
    }
}
