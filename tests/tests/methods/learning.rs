//! Learning, saving, loading and merging.

use qloom_tests::fixtures::{arg, number, small_base};
use qloom_tests::tensors::max_rel;
use qloom_tests::trainer::run;
use serde_json::Value;
use tempfile::TempDir;

use super::common::{EVERYWHERE, learns, probe_base, quoted, small_run};

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

/// What a command prints as JSON.
fn printed(args: &[&str]) -> Value {
    serde_json::from_str(&run(args).ok().stdout).unwrap()
}

#[test]
fn plan_and_inspect_name_the_method_and_its_size() {
    let dir = TempDir::new().unwrap();
    for method in ["lora", "dora", "sparse", "hira", "full", "head"] {
        let whole = ["full", "head"].contains(&method);
        let file = small_run(
            dir.path(),
            method,
            Some(&small_base()),
            !whole,
            &[("method", &quoted(method)), ("rank", "4")],
            &[("max_steps", "2")],
        );
        let planned = printed(&["plan", arg(&file), "--json"]);
        let ran = printed(&["train", arg(&file), "--json", "--device", "cpu"]);
        assert_eq!(
            planned["trained_values"], ran["trainable_parameters"],
            "{method}"
        );
        if whole {
            continue;
        }
        assert_eq!(planned["method"].as_str(), Some(method));
        assert_eq!(ran["result"]["method"].as_str(), Some(method));
        let folder = dir.path().join(method).join("adapter");
        let seen = printed(&["inspect", arg(&folder), "--json"]);
        assert_eq!(seen["method"].as_str(), Some(method));
        assert_eq!(seen["bytes"], ran["result"]["bytes"], "{method}");
    }
}
