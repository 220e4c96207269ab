//! Killed runs.

use std::time::{Duration, Instant};

use qloom_tests::fixtures::{arg, small_base};
use qloom_tests::trainer::{run, start};
use tempfile::TempDir;

use super::common::{Settings, small_run};

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
