//! The command line: usage, exit codes, and what bad input gets. A refusal names the file, line or tensor, what was
//! expected and found, and leaves nothing half-written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

use qloom_tests::cases::{own, shared};
use qloom_tests::fixtures::{
    Config, add_word_tokenizer, arg, copy_base, edit_json, small_base, steps, token_rows,
    write_tokens,
};
use qloom_tests::tensors;
use qloom_tests::trainer::{Ended, binary, run};
use tempfile::TempDir;

const COMMANDS: [&str; 14] = [
    "demo",
    "train",
    "eval",
    "generate",
    "chat",
    "quantize",
    "dequantize",
    "data",
    "plan",
    "inspect",
    "probe",
    "pretrain",
    "devices",
    "bench",
];

/// A folder with a base that speaks the word tokenizer, a data file and a config.
struct Scene {
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            dir: TempDir::new().unwrap(),
        };
        copy_base(&small_base(), &scene.base());
        add_word_tokenizer(&scene.base(), 101);
        write_tokens(&scene.data(), &token_rows(6, 101));
        scene
    }

    fn base(&self) -> PathBuf {
        self.dir.path().join("base")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("train.jsonl")
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn config(&self) -> Config {
        Config::exact(&self.base(), &self.data(), &self.out())
            .set("train", "max_steps", "2")
            .set("train", "batch_size", "2")
            .set("lora", "rank", "2")
    }

    fn train(&self, config: &Config, extra: &[&str]) -> Ended {
        let file = self.dir.path().join("run.toml");
        config.write(&file);
        let mut args = vec!["train", arg(&file), "--device", "cpu"];
        args.extend(extra);
        run(&args)
    }

    /// Training is refused with `words`, and no run folder is left behind.
    fn refuses(&self, config: &Config, words: &[&str]) {
        let ended = self.train(config, &[]);
        ended.refused(words);
        self.leaves_nothing();
    }

    fn leaves_nothing(&self) {
        let left: Vec<_> = std::fs::read_dir(self.out())
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert!(left.is_empty(), "half-written: {left:?}");
    }

    fn write_data(&self, text: &str) {
        std::fs::write(self.data(), text).unwrap();
    }
}

#[test]
fn every_command_explains_itself_with_an_example() {
    for command in COMMANDS {
        let help = run(&[command, "--help"]).ok();
        if command != "devices" {
            assert!(
                help.stdout.contains("Example"),
                "`{command} --help` has an example"
            );
        }
    }
    let version = run(&["--version"]).ok();
    assert!(version.stdout.starts_with("trainer "));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::io::Read;
    let mut child = Command::new(binary())
        .args(["recipe", "show", "sst2_methods"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert_eq!(said, "");
}

#[test]
fn values_without_a_meaning_are_usage_errors() {
    for (what, flag, value) in [
        ("step", "--batch", "0"),
        ("step", "--seq", "0"),
        ("step", "--steps", "0"),
        ("decode", "--seq", "33000"),
    ] {
        run(&["bench", "--what", what, flag, value]).refused_as_usage(&[flag, "expected"]);
    }
    let most = "18446744073709551615";
    run(&["generate", "--prompt", "x", "--max-new-tokens", most])
        .refused_as_usage(&["--max-new-tokens", "at most"]);
    run(&["generate", "--prompt", "x", "--data", "y"]).refused_as_usage(&["--data"]);
    let scene = Scene::new();
    let [ids, labels, out] = ["ids.json", "labels.json", "out"].map(|n| scene.dir.path().join(n));
    for (row, label, said) in [
        ("[[3, 4]]", "[[3, 99999]]", "vocabulary"),
        ("[[3, 4]]", "[[3, -5]]", "vocabulary"),
        ("[[3, 4294967297]]", "[[3, 4]]", "4294967297"),
    ] {
        std::fs::write(&ids, row).unwrap();
        std::fs::write(&labels, label).unwrap();
        let base = scene.base();
        let mut args = vec!["probe", "--device", "cpu", "--base", arg(&base)];
        args.extend([
            "--ids",
            arg(&ids),
            "--labels",
            arg(&labels),
            "--out",
            arg(&out),
        ]);
        run(&args).refused_as_usage(&[said]);
        assert!(!out.exists());
    }
}

#[test]
fn a_finished_run_is_reported_again_and_left_alone() {
    let scene = Scene::new();
    let config = scene.config().set("train", "save_every", "1");
    scene.train(&config, &[]).ok();
    let read = |name: &str| std::fs::read(scene.out().join(name)).unwrap();
    let before = ["metrics.json", "log.jsonl"].map(read);
    let again = scene.train(&config, &["--resume", "--json"]).ok();
    let result: serde_json::Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(result["steps"], 2);
    let last = &steps(&scene.out())[1];
    assert_eq!(result["last_loss"], last["loss"]);
    assert!(["metrics.json", "log.jsonl"].map(read) == before);

    // Checkpoints are named by inspect, and only adapters are written again.
    let checkpoint = scene.out().join("checkpoints/step-00000002");
    let seen = run(&["inspect", arg(&checkpoint), "--json"]).ok();
    let seen: serde_json::Value = serde_json::from_str(&seen.stdout).unwrap();
    assert_eq!(
        (&seen["kind"], &seen["step"]),
        (&"checkpoint".into(), &2.into())
    );
    let copy = scene.dir.path().join("copy");
    run(&["inspect", arg(&scene.base()), "--resave", arg(&copy)]).refused_as_usage(&["--resave"]);

    // Nothing was held out, so nothing is scored as if it had been; given data are.
    let file = scene.dir.path().join("run.toml");
    run(&["eval", arg(&file), "--device", "cpu"]).refused_as_usage(&["nothing is held out"]);
    let data = scene.data();
    let args = [
        "eval",
        arg(&file),
        "--data",
        arg(&data),
        "--device",
        "cpu",
        "--json",
    ];
    let scored: serde_json::Value = serde_json::from_str(&run(&args).ok().stdout).unwrap();
    assert_eq!(scored["examples"], 6);
    std::fs::remove_dir_all(scene.out().join("adapter")).unwrap();
    run(&args).refused(&["train it first"]);
}

#[test]
fn wrong_usage_exits_2() {
    run(&["trian"]).refused_as_usage(&["train"]);
    run(&["train"]).refused_as_usage(&["config"]);
    run(&["quantize", "--base", "x"]).refused_as_usage(&["--out"]);
    run(&["probe", "--no-such-flag"]).refused_as_usage(&["--no-such-flag"]);
    run(&["demo", "--device", "abacus", "--no-serve"]).refused_as_usage(&["abacus", "cpu"]);
}

#[test]
fn a_good_run_writes_what_the_contract_lists() {
    let scene = Scene::new();
    scene.train(&scene.config(), &[]).ok();
    for file in [
        "config.toml",
        "log.jsonl",
        "metrics.json",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    ] {
        assert!(scene.out().join(file).is_file(), "{file}");
    }
    let log = steps(&scene.out());
    assert_eq!(log.len(), 2);
    for key in [
        "step",
        "epoch",
        "loss",
        "lr",
        "grad_norm",
        "tokens",
        "tokens_per_s",
    ] {
        assert!(log[0].get(key).is_some(), "log.jsonl has {key}");
    }
    run(&["inspect", arg(&scene.out().join("adapter"))]).ok();
    run(&["inspect", arg(&scene.out())]).ok();
    run(&["inspect", arg(&scene.base())]).ok();
}

#[test]
fn an_output_folder_with_another_run_is_left_alone() {
    let scene = Scene::new();
    scene.train(&scene.config(), &[]).ok();
    let log = std::fs::read(scene.out().join("log.jsonl")).unwrap();
    scene
        .train(&scene.config(), &[])
        .refused(&["run", "--resume", "output.dir"]);
    assert!(std::fs::read(scene.out().join("log.jsonl")).unwrap() == log);
    // Resuming under other settings would be a third run that is neither.
    let changed = scene.config().set("train", "lr", "0.5");
    scene.train(&changed, &["--resume"]).refused(&["lr"]);
}

#[test]
fn broken_bases_are_named() {
    let scene = Scene::new();
    let weights = scene.base().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();

    std::fs::remove_file(&weights).unwrap();
    scene.refuses(&scene.config(), &["model.safetensors", "base"]);

    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    scene.refuses(&scene.config(), &["model.safetensors"]);
    std::fs::write(&weights, &bytes[..5]).unwrap();
    scene.refuses(&scene.config(), &["model.safetensors"]);
    // A header that promises more than any file can hold.
    let mut absurd = u64::MAX.to_le_bytes().to_vec();
    absurd.extend_from_slice(b"{}");
    std::fs::write(&weights, absurd).unwrap();
    scene.refuses(&scene.config(), &["model.safetensors"]);
    std::fs::write(&weights, &bytes).unwrap();

    let config = scene.base().join("config.json");
    let text = std::fs::read(&config).unwrap();
    edit_json(&config, |c| c["intermediate_size"] = 75.into());
    scene.refuses(&scene.config(), &["mlp", "75", "76"]);
    std::fs::write(&config, &text).unwrap();
    edit_json(&config, |c| {
        c["model_type"] = "gpt_neox".into();
        c["architectures"] = serde_json::json!(["GPTNeoXForCausalLM"]);
    });
    scene.refuses(&scene.config(), &["gpt", "llama"]);
    std::fs::write(&config, b"{\"hidden_size\": ").unwrap();
    scene.refuses(&scene.config(), &["config.json"]);
    std::fs::write(&config, &text).unwrap();

    // A missing tensor, by its name.
    let mut some = tensors::load(&weights);
    some.remove("model.layers.1.self_attn.k_proj.weight")
        .unwrap();
    tensors::save(&weights, &some);
    scene.refuses(&scene.config(), &["model.layers.1.self_attn.k_proj.weight"]);
    std::fs::write(&weights, &bytes).unwrap();

    let absent = scene
        .config()
        .path("model", "base", &scene.dir.path().join("nowhere"));
    scene.refuses(&absent, &["nowhere"]);
}

#[test]
fn a_tokenizer_larger_than_the_embedding_is_refused() {
    let scene = Scene::new();
    add_word_tokenizer(&scene.base(), 200);
    scene.write_data("{\"prompt\": \"t5 t6\", \"completion\": \"t7 t8\"}\n");
    let config = scene
        .config()
        .set("data", "format", "\"prompt_completion\"");
    scene.refuses(&config, &["tokenizer", "200", "101"]);
}

#[test]
fn ids_beyond_the_vocabulary_are_named_by_line() {
    let scene = Scene::new();
    scene.write_data(
        "{\"input_ids\": [5, 6], \"labels\": [-100, 6]}\n{\"input_ids\": [5, 101], \"labels\": [-100, 101]}\n",
    );
    scene.refuses(&scene.config(), &["train.jsonl", "2", "101"]);
    let ids = scene.dir.path().join("ids.json");
    std::fs::write(&ids, "[[5, 4000000]]").unwrap();
    let out = scene.dir.path().join("o.safetensors");
    run(&[
        "probe",
        "--device",
        "cpu",
        "--base",
        arg(&scene.base()),
        "--ids",
        arg(&ids),
        "--out",
        arg(&out),
    ])
    .refused(&["4000000", "101"]);
    assert!(!out.exists());
}

#[test]
fn an_adapter_for_another_base_is_refused() {
    let scene = Scene::new();
    let foreign = own().join("qwen2_sharded/adapter_rslora");
    let config = scene.config().path("lora", "adapter", &foreign);
    scene.refuses(&config, &["adapter", "_proj"]);
    let (ids, out) = (
        scene.dir.path().join("ids.json"),
        scene.dir.path().join("o.safetensors"),
    );
    std::fs::write(&ids, "[[5, 6]]").unwrap();
    run(&[
        "probe",
        "--device",
        "cpu",
        "--base",
        arg(&scene.base()),
        "--adapter",
        arg(&foreign),
        "--ids",
        arg(&ids),
        "--out",
        arg(&out),
    ])
    .refused(&["adapter"]);
    assert!(!out.exists());
}

/// Same shapes, other weights: only the hash kept beside the adapter can tell.
#[test]
fn an_adapter_trained_on_other_weights_of_the_same_shape_is_noticed() {
    let scene = Scene::new();
    scene.train(&scene.config(), &[]).ok();
    let other = scene.dir.path().join("other");
    copy_base(&scene.base(), &other);
    let file = other.join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 0x40;
    std::fs::write(&file, bytes).unwrap();
    let (ids, out) = (
        scene.dir.path().join("ids.json"),
        scene.dir.path().join("o.safetensors"),
    );
    std::fs::write(&ids, "[[5, 6]]").unwrap();
    let adapter = scene.out().join("adapter");
    let ended = run(&[
        "probe",
        "--device",
        "cpu",
        "--base",
        arg(&other),
        "--adapter",
        arg(&adapter),
        "--ids",
        arg(&ids),
        "--out",
        arg(&out),
    ]);
    let said = ended.stderr.to_lowercase();
    assert!(
        said.contains("base") && (said.contains("hash") || said.contains("another")),
        "refused or warned: {said}"
    );
}

#[test]
fn target_modules_that_match_nothing_list_the_valid_ones() {
    let scene = Scene::new();
    let config = scene.config().set("lora", "target_modules", "[\"qproj\"]");
    scene.refuses(&config, &["qproj", "q_proj", "down_proj"]);
    let regex = scene
        .config()
        .set("lora", "target_modules", "\".*(q_proj\"");
    scene.refuses(&regex, &["target_modules"]);
}

#[test]
fn unknown_keys_name_the_nearest() {
    let scene = Scene::new();
    for (table, key, nearest) in [
        ("train", "batchsize", "batch_size"),
        ("lora", "target_module", "target_modules"),
        ("data", "max_len", "max_length"),
        ("model", "quantisation", "quantization"),
    ] {
        let config = scene.config().set(table, key, "1");
        scene.refuses(&config, &[key, nearest]);
    }
    let ended = scene.train(&scene.config(), &["--set", "train.max_step=3"]);
    ended.refused(&["max_step", "max_steps"]);
    let misspelt = scene.config().set("trian", "lr", "1.0");
    scene.refuses(&misspelt, &["trian", "train"]);
    let typed = scene.config().set("train", "lr", "\"fast\"");
    scene.refuses(&typed, &["lr"]);
}

#[test]
fn malformed_lines_are_numbered_and_can_be_skipped() {
    let scene = Scene::new();
    let good = "{\"input_ids\": [5, 6, 7], \"labels\": [-100, 6, 7]}\n";
    scene.write_data(&format!("{good}{good}{{\"input_ids\": [5,\n{good}"));
    scene.refuses(&scene.config(), &["train.jsonl", "3"]);
    let skipped = scene.train(&scene.config(), &["--skip-bad"]).ok();
    assert!(
        skipped.stderr.contains('1') && skipped.stderr.to_lowercase().contains("skip"),
        "counts what it skipped: {}",
        skipped.stderr
    );
}

#[test]
fn rows_that_lack_a_field_name_it() {
    let scene = Scene::new();
    scene.write_data(
        "{\"prompt\": \"t5\", \"completion\": \"t6\"}\n{\"prompt\": \"t5\", \"answer\": \"t6\"}\n",
    );
    let config = scene
        .config()
        .set("data", "format", "\"prompt_completion\"");
    scene.refuses(&config, &["train.jsonl", "2", "completion"]);
    scene.write_data("{\"input_ids\": [5, 6], \"labels\": [6]}\n");
    scene.refuses(&scene.config(), &["train.jsonl", "1", "labels"]);
}

#[test]
fn data_with_nothing_to_learn_is_refused() {
    let scene = Scene::new();
    scene.write_data("");
    scene.refuses(&scene.config(), &["train.jsonl"]);
    scene.write_data("{\"input_ids\": [5, 6, 7], \"labels\": [-100, -100, -100]}\n");
    scene.refuses(&scene.config(), &["train"]);
    // The only trained token is the first, which nothing predicts.
    scene.write_data("{\"input_ids\": [5, 6], \"labels\": [5, -100]}\n");
    scene.refuses(&scene.config(), &["train"]);
    let long = "t5 ".repeat(30);
    scene.write_data(&format!(
        "{{\"prompt\": \"{long}\", \"completion\": \" t6\"}}\n"
    ));
    let config = scene
        .config()
        .set("data", "format", "\"prompt_completion\"")
        .set("data", "max_length", "8");
    scene.refuses(&config, &["max_length", "8"]);
    let absent = scene
        .config()
        .path("data", "train", &scene.dir.path().join("none.jsonl"));
    scene.refuses(&absent, &["none.jsonl"]);
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_names_the_batch() {
    let scene = Scene::new();
    let config = scene
        .config()
        .set("train", "max_steps", "30")
        .set("train", "lr", "1e30")
        .set("train", "max_grad_norm", "0.0")
        .set("train", "schedule", "\"constant\"")
        .set("train", "warmup_steps", "0");
    scene
        .train(&config, &[])
        .refused(&["finite", "step", "train.jsonl"]);
    let written = scene.out().join("adapter/adapter_model.safetensors");
    assert!(!written.exists(), "no adapter of NaNs");
}

/// A batch far beyond the machine's memory is refused before anything is allocated.
#[test]
fn a_batch_beyond_memory_is_refused_with_the_cure() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("train.jsonl");
    let row = (0..4000).map(|i| 3 + i % 90).collect::<Vec<i64>>();
    write_tokens(&data, &vec![(row.clone(), row); 400]);
    let base = dir.path().join("base");
    copy_base(&small_base(), &base);
    edit_json(&base.join("config.json"), |c| {
        c["max_position_embeddings"] = 4096.into();
    });
    let out = dir.path().join("out");
    let file = dir.path().join("run.toml");
    Config::exact(&base, &data, &out)
        .set("data", "max_length", "4096")
        .set("train", "batch_size", "400")
        .set("train", "recompute", "\"off\"")
        .write(&file);
    run(&["train", arg(&file), "--device", "cpu"]).refused(&[
        "400 x 4000 tokens",
        "batch_size",
        "trainer plan",
    ]);
    assert!(!out.exists(), "nothing half-written");
}

#[test]
fn an_absent_device_is_named_with_those_that_exist() {
    let scene = Scene::new();
    let file = scene.dir.path().join("run.toml");
    scene.config().write(&file);
    for device in ["cuda:7", "wgpu:99"] {
        let ended = run(&["train", arg(&file), "--device", device]);
        ended.refused(&[&device[..4], "cpu"]);
        scene.leaves_nothing();
    }
    run(&["devices"]).ok();
}

/// A file system of 64 KiB, in a mount namespace of its own. Skipped where namespaces are not allowed.
#[test]
fn no_space_left_leaves_no_half_file() {
    let scene = Scene::new();
    let script = format!(
        "mount -t tmpfs -o size=64k tmpfs {mount} || exit 77; {trainer} quantize --base {base} --out {mount}/q; code=$?; find {mount} -type f; exit $code",
        mount = scene.dir.path().join("small").display(),
        trainer = binary().display(),
        base = scene.base().display(),
    );
    std::fs::create_dir(scene.dir.path().join("small")).unwrap();
    let Ok(output) = Command::new("unshare")
        .args(["-rm", "sh", "-c", &script])
        .output()
    else {
        eprintln!("skipped: no unshare here");
        return;
    };
    let stderr = String::from_utf8_lossy(&output.stderr).to_lowercase();
    if output.status.code() == Some(77) || stderr.contains("unshare") {
        eprintln!("skipped: no mount namespace here: {stderr}");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("space"), "{stderr}");
    let left = String::from_utf8_lossy(&output.stdout);
    assert!(
        !left.contains(".safetensors"),
        "a half-written base: {left}"
    );
}

#[test]
fn hostile_probe_input_is_refused() {
    let scene = Scene::new();
    let (ids, out) = (
        scene.dir.path().join("ids.json"),
        scene.dir.path().join("o.safetensors"),
    );
    for text in [
        "[]",
        "[[]]",
        "{}",
        "[[1, \"two\"]]",
        "[[-1, -1]]",
        "[[5, -1, 6]]",
        "not json",
    ] {
        std::fs::write(&ids, text).unwrap();
        let ended = run(&[
            "probe",
            "--device",
            "cpu",
            "--base",
            arg(&scene.base()),
            "--ids",
            arg(&ids),
            "--out",
            arg(&out),
        ]);
        ended.refused(&["ids"]);
        assert!(!out.exists(), "{text}");
    }
}

/// Two published TinyLlama adapters: read, described, and written again with the same tensors.
#[test]
fn real_adapters_are_inspected_and_resaved_byte_equal() {
    let Some(folder) = shared()
        .map(|s| s.join("data/lora_adapters"))
        .filter(|f| f.is_dir())
    else {
        eprintln!("skipped: no data/lora_adapters");
        return;
    };
    let dir = TempDir::new().unwrap();
    for name in [
        "tinyllama_arona_finetuned_ckpt75",
        "tinyllama_arona_lora_ckpt180",
    ] {
        let (from, to) = (folder.join(name), dir.path().join(name));
        let ended = run(&["inspect", arg(&from), "--resave", arg(&to)]).ok();
        assert!(ended.stdout.contains("q_proj"), "{}", ended.stdout);
        let load = |d: &Path| tensors::load(&d.join("adapter_model.safetensors"));
        let (before, after) = (load(&from), load(&to));
        assert_eq!(before.len(), 88);
        assert_eq!(
            before.keys().collect::<Vec<_>>(),
            after.keys().collect::<Vec<_>>()
        );
        for (key, tensor) in &before {
            assert!(
                tensor.bytes == after[key].bytes && tensor.shape == after[key].shape,
                "{name}: {key}"
            );
        }
    }
}
