//! A run killed without warning and resumed ends in the bytes of the run that was left alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use qloom_tests::cases::own;
use qloom_tests::fixtures::{Config, arg, steps, token_rows, write_tokens};
use qloom_tests::trainer::{run, start};
use tempfile::TempDir;

const STEPS: usize = 120;

/// Dropout, shuffling, accumulation and a quantized base: everything that holds state between steps.
fn write_config(dir: &Path, name: &str) -> std::path::PathBuf {
    let data = dir.join("train.jsonl");
    write_tokens(&data, &token_rows(23, 101));
    let file = dir.join(format!("{name}.toml"));
    let base = own().join("llama_ragged/base_nf4");
    let mut config = Config::exact(&base, &data, &dir.join(name))
        .set("model", "quantization", "\"nf4\"")
        .set("data", "shuffle", "true")
        .set("data", "seed", "7")
        .set("lora", "dropout", "0.1")
        .set("lora", "rank", "4");
    for (key, value) in [
        ("max_steps", STEPS.to_string().as_str()),
        ("batch_size", "2"),
        ("grad_accumulation", "2"),
        ("lr", "0.005"),
        ("schedule", "\"cosine\""),
        ("warmup_steps", "5"),
        ("save_every", "4"),
        ("seed", "3"),
    ] {
        config = config.set("train", key, value);
    }
    config.write(&file);
    file
}

fn logged(run: &Path) -> usize {
    std::fs::read_to_string(run.join("log.jsonl")).map_or(0, |text| text.lines().count())
}

fn adapter(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("adapter/adapter_model.safetensors")).unwrap()
}

/// A step to kill at, different in every run of the test; the message of a failure names it.
fn random_step(round: u32) -> usize {
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .subsec_nanos();
    let mixed = (nanos ^ (round << 7)).wrapping_mul(2_654_435_761) >> 8;
    1 + mixed as usize % (STEPS - 20)
}

#[test]
fn kill_and_resume_ends_in_the_same_bytes_three_times_over() {
    let dir = TempDir::new().unwrap();
    let whole = write_config(dir.path(), "whole");
    run(&["train", arg(&whole), "--device", "cpu"]).ok();
    let expected = adapter(&dir.path().join("whole"));

    for round in 0..3u32 {
        let name = format!("killed_{round}");
        let (file, out) = (write_config(dir.path(), &name), dir.path().join(&name));
        let at = random_step(round);
        let mut child = start(&["train", arg(&file), "--device", "cpu"]);
        let deadline = Instant::now() + Duration::from_secs(300);
        while logged(&out) < at {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("ended by itself before step {at}: {status}");
            }
            assert!(Instant::now() < deadline, "step {at} never came");
            std::thread::sleep(Duration::from_millis(1));
        }
        // SIGKILL: no handler, no flushing.
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            !out.join("adapter/adapter_model.safetensors").exists(),
            "killed at step {at} before the end"
        );

        run(&["train", arg(&file), "--resume", "--device", "cpu"]).ok();
        assert!(
            adapter(&out) == expected,
            "killed at step {at}: the adapter differs"
        );
        let numbers: Vec<u64> = steps(&out)
            .iter()
            .map(|row| row["step"].as_u64().unwrap())
            .collect();
        let all: Vec<u64> = (1..=STEPS as u64).collect();
        assert_eq!(numbers, all, "killed at step {at}: each step logged once");
    }
}

/// Two runs of one config are one run: seeds cover everything.
#[test]
fn the_same_config_gives_the_same_bytes() {
    let dir = TempDir::new().unwrap();
    for name in ["one", "two"] {
        let file = write_config(dir.path(), name);
        run(&[
            "train",
            arg(&file),
            "--device",
            "cpu",
            "--set",
            "train.max_steps=10",
        ])
        .ok();
    }
    assert!(adapter(&dir.path().join("one")) == adapter(&dir.path().join("two")));
    let other = write_config(dir.path(), "three");
    run(&[
        "train",
        arg(&other),
        "--device",
        "cpu",
        "--set",
        "train.max_steps=10",
        "--set",
        "train.seed=4",
    ])
    .ok();
    assert!(
        adapter(&dir.path().join("one")) != adapter(&dir.path().join("three")),
        "another seed is another run"
    );
}
