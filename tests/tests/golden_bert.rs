//! BERT and DistilBERT classifiers against transformers + PEFT, through the binary: logits, loss, gradients of adapter and
//! head, whole training runs, and what must be refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use qloom_tests::cases::{self, LlamaCase, json, own};
use qloom_tests::fixtures::{Config, arg, number, steps};
use qloom_tests::tensors::{self, Tensors, assert_close};
use qloom_tests::trainer::run;
use tempfile::TempDir;

/// Rows of ids with -1 at padding.
fn masked_rows(case: &LlamaCase, prefix: &str) -> Vec<Vec<i64>> {
    let ids = case.get(&format!("{prefix}input_ids")).rows();
    let mask = case.get(&format!("{prefix}attention_mask")).rows();
    let row = |(ids, mask): (Vec<i64>, &Vec<i64>)| {
        let pairs = ids.into_iter().zip(mask);
        pairs.map(|(id, m)| if *m == 1 { id } else { -1 }).collect()
    };
    ids.into_iter().zip(&mask).map(row).collect()
}

fn probe(
    case: &LlamaCase,
    base: &Path,
    adapter: Option<&Path>,
    labels: bool,
    extra: &[&str],
) -> Tensors {
    let dir = TempDir::new().unwrap();
    let [ids, classes, out] =
        ["ids.json", "classes.json", "out.safetensors"].map(|name| dir.path().join(name));
    let rows = masked_rows(case, "");
    std::fs::write(&ids, serde_json::to_string(&rows).unwrap()).unwrap();
    let mut args = vec![
        "probe",
        "--compute",
        "f32",
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
    if labels {
        let values = case.get("labels").i64();
        std::fs::write(&classes, serde_json::to_string(&values).unwrap()).unwrap();
        args.extend(["--labels", arg(&classes), "--grads"]);
    }
    args.extend(extra);
    if !extra.contains(&"--device") {
        args.extend(["--device", "cpu"]);
    }
    run(&args).ok();
    tensors::load(&out)
}

/// PEFT's names of gradients as it saves the tensors.
fn saved_name(name: &str) -> String {
    name.replace(".default", "").replace("modules_to_save.", "")
}

fn has_head(case: &LlamaCase, folder: &str) -> bool {
    let weights = tensors::load(&case.dir.join(folder).join("model.safetensors"));
    weights.contains_key("classifier.weight")
}

/// One base of a case, dense (`base`) or NF4 (`base_nf4`), with and without recomputation where `recomputes` says so.
fn assert_base(case: &LlamaCase, folder: &str, device: &str, recomputes: &[bool]) {
    let init = case.dir.join("adapter_init");
    let prefix = if folder == "base_nf4" { "nf4_" } else { "" };
    let what = format!("{} {folder} on {device}", case.name());
    let base = case.dir.join(folder);
    if has_head(case, folder) {
        let got = probe(case, &base, None, false, &["--device", device]);
        let want = case.get(&format!("{prefix}base_logits"));
        assert_close(&format!("{what}: base logits"), &got["logits"], want, 1e-4);
    }
    for recompute in recomputes {
        let flag = &["--recompute"][..usize::from(*recompute)];
        let extra = [flag, &["--device", device]].concat();
        let got = probe(case, &base, Some(&init), true, &extra);
        for key in ["logits", "loss"] {
            let want = case.get(&format!("{prefix}lora_{key}"));
            assert_close(&format!("{what}: {key}"), &got[key], want, 1e-4);
        }
        let expected = case.gradients(prefix);
        assert!(
            expected.iter().any(|(n, _)| n.contains("classifier")),
            "{what}: the case has gradients of the head"
        );
        for (name, want) in expected {
            let name = saved_name(&name);
            let got = got
                .get(&name)
                .unwrap_or_else(|| panic!("{what}: no gradient `{name}`"));
            assert_close(
                &format!("{what}, recompute {recompute}: {name}"),
                got,
                want,
                1e-4,
            );
        }
    }
}

#[test]
fn logits_loss_and_gradients_match_on_every_case() {
    for case in cases::classifiers() {
        for folder in ["base", "base_nf4"] {
            assert_base(&case, folder, "cpu", &[false, true]);
        }
    }
}

/// One probe only: a process of its own compiles every kernel again, slowly where the device is software.
#[test]
fn a_gpu_api_matches_on_an_own_case() {
    if std::env::var("QLOOM_TEST_WGPU").as_deref() == Ok("1") {
        assert_base(&cases::classifiers()[0], "base_nf4", "wgpu", &[false]);
    }
}

#[test]
fn quantizing_on_the_fly_and_to_a_folder_equal_the_quantized_base() {
    for case in cases::classifiers().iter().take(2) {
        let base = case.dir.join("base");
        let adapter = case.dir.join("adapter_init");
        let flying = probe(
            case,
            &base,
            Some(&adapter),
            false,
            &["--quantization", "nf4"],
        );
        let want = case.get("nf4_lora_logits");
        assert_close("on the fly", &flying["logits"], want, 1e-4);
        let dir = TempDir::new().unwrap();
        let packed = dir.path().join("packed");
        run(&["quantize", "--base", arg(&base), "--out", arg(&packed)]).ok();
        let skipped =
            &json(&packed.join("config.json"))["quantization_config"]["llm_int8_skip_modules"];
        let dense = if case.name().starts_with("distil") {
            "classifier"
        } else {
            "pooler"
        };
        assert!(skipped.to_string().contains(dense), "{skipped}");
        let got = probe(case, &packed, Some(&adapter), false, &[]);
        assert_close("a folder", &got["logits"], want, 1e-4);
        let back = dir.path().join("back");
        run(&["dequantize", "--base", arg(&packed), "--out", arg(&back)]).ok();
        let got = probe(
            case,
            &back,
            Some(&adapter),
            false,
            &["--quantization", "none"],
        );
        assert_close("and back", &got["logits"], want, 1e-4);
    }
}

/// Without a head there is no answer, and the message says where one would come from.
#[test]
fn a_base_without_a_head_is_refused_and_an_adapter_without_one_too() {
    let case = LlamaCase::open(&own().join("bert_tiny"));
    let base = case.dir.join("base");
    let dir = TempDir::new().unwrap();
    let ids = dir.path().join("ids.json");
    std::fs::write(&ids, "[[5, 6]]").unwrap();
    let out = dir.path().join("out.safetensors");
    let bare = [
        "probe",
        "--base",
        arg(&base),
        "--ids",
        arg(&ids),
        "--out",
        arg(&out),
        "--device",
        "cpu",
    ];
    run(&bare).refused(&[
        "no trained classification head",
        "classifier.weight",
        "adapter",
    ]);

    let headless = dir.path().join("headless");
    std::fs::create_dir(&headless).unwrap();
    let init = case.dir.join("adapter_init");
    let mut weights = tensors::load(&init.join("adapter_model.safetensors"));
    weights.retain(|name, _| !name.contains("classifier"));
    tensors::save(&headless.join("adapter_model.safetensors"), &weights);
    let mut config = json(&init.join("adapter_config.json"));
    let with = [&bare[..], &["--adapter", arg(&headless)]].concat();
    // It says that a head was to be saved, and holds none.
    std::fs::write(headless.join("adapter_config.json"), config.to_string()).unwrap();
    run(&with).refused(&["modules_to_save", "classifier"]);
    // It never meant to save one.
    config["modules_to_save"] = serde_json::Value::Null;
    std::fs::write(headless.join("adapter_config.json"), config.to_string()).unwrap();
    run(&with).refused(&["no trained classification head", "classifier.weight"]);
}

/// Trains one recorded run through `trainer train`, on token data, and holds every step and the adapter against it.
fn assert_trajectory(case: &LlamaCase, run_name: &str) {
    let wanted = case.trajectories().into_iter().find(|t| t.name == run_name);
    let wanted = wanted.expect("the case records the run");
    let dir = TempDir::new().unwrap();
    let (data, out, file) = (
        dir.path().join("train.jsonl"),
        dir.path().join("run"),
        dir.path().join("run.toml"),
    );
    let mut lines = String::new();
    let mut batch = 0;
    for i in (0..).take_while(|i| case.golden.contains_key(&format!("train|{i}|labels"))) {
        let part = |key: &str| case.get(&format!("train|{i}|{key}"));
        batch = part("labels").i64().len();
        let rows = part("input_ids")
            .rows()
            .into_iter()
            .zip(part("attention_mask").rows());
        for ((ids, mask), class) in rows.zip(part("labels").i64()) {
            let row =
                serde_json::json!({ "input_ids": ids, "attention_mask": mask, "label": class });
            lines += &format!("{row}\n");
        }
    }
    std::fs::write(&data, lines).unwrap();
    let init = case.dir.join("adapter_init");
    let mut config = Config::exact(&wanted.base, &data, &out)
        .path("lora", "adapter", &init)
        .set("data", "max_length", "20");
    if run_name == "nf4" {
        config = config.set("model", "quantization", "\"nf4\"");
    }
    for (key, value) in &wanted.train {
        config = config.set("train", key, value);
    }
    config
        .set("train", "batch_size", &batch.to_string())
        .write(&file);
    run(&["train", arg(&file), "--device", "cpu"]).ok();

    let what = format!("{} {run_name}", case.name());
    let log = steps(&out);
    assert_eq!(log.len(), wanted.steps.len(), "{what}: steps");
    for (i, (row, [loss, lr, norm])) in log.iter().zip(&wanted.steps).enumerate() {
        for (key, want) in [("loss", loss), ("lr", lr), ("grad_norm", norm)] {
            let got = number(row, key);
            let error = (got - want).abs() / want.abs().max(1e-12);
            eprintln!("{what} step {} {key} {got} {want} {error:.2e}", i + 1);
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

#[test]
fn training_follows_the_reference_step_by_step() {
    for case in cases::classifiers() {
        for run_name in ["f32", "nf4"] {
            assert_trajectory(&case, run_name);
        }
    }
}
