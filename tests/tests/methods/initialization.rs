//! What PiSSA and LoftQ make of a base.

use qloom_tests::fixtures::{arg, small_base};
use qloom_tests::tensors::max_rel;
use qloom_tests::trainer::run;
use tempfile::TempDir;

use super::common::{learns, probe_base, small_run};

/// LoftQ's pair makes the quantized base a better copy of the dense one before any training. Rounds bring the weights
/// nearer, not every logit.
#[test]
fn loftq_starts_nearer_to_the_dense_base_than_quantization_leaves_it() {
    let dir = TempDir::new().unwrap();
    let dense = probe_base(&small_base(), None, &["--quantization", "none"]);
    let plain = probe_base(&small_base(), None, &["--quantization", "nf4"]);
    let mut distance = vec![max_rel(&plain["logits"].f32(), &dense["logits"].f32())];
    for (name, rounds) in [("one", "1"), ("five", "5")] {
        let lora = [
            ("init", "\"loftq\""),
            ("loftq_iter", rounds),
            ("rank", "16"),
            ("alpha", "40"),
        ];
        let frozen = [("max_steps", "1"), ("lr", "1e-12")];
        let file = small_run(dir.path(), name, Some(&small_base()), true, &lora, &frozen);
        run(&["train", arg(&file), "--device", "cpu"]).ok();
        let out = dir.path().join(name);
        assert_eq!(out.join("base").is_dir(), rounds != "1");
        let base = if rounds == "1" {
            small_base()
        } else {
            out.join("base")
        };
        let got = probe_base(
            &base,
            Some(&out.join("adapter")),
            &["--quantization", "nf4"],
        );
        distance.push(max_rel(&got["logits"].f32(), &dense["logits"].f32()));
    }
    assert!(
        distance[1] < 0.7 * distance[0] && distance[2] < distance[0],
        "{distance:?}"
    );
    learns(
        "loftq",
        Some(&small_base()),
        true,
        &[("init", "\"loftq\""), ("loftq_iter", "2")],
    );
}

/// An adapter that belongs to the base an initialization made is refused on the original one.
#[test]
fn an_adapter_of_a_residual_base_is_refused_elsewhere() {
    let (dir, _) = learns("pissa", Some(&small_base()), true, &[("init", "\"pissa\"")]);
    let run_dir = dir.path().join("pissa");
    let ids = dir.path().join("ids.json");
    std::fs::write(&ids, "[[5, 9]]").unwrap();
    let out = dir.path().join("o.safetensors");
    let args = |base: &'static str| {
        let base = if base.is_empty() {
            small_base()
        } else {
            run_dir.join(base)
        };
        let adapter = run_dir.join("adapter");
        [
            "probe",
            "--base",
            arg(&base),
            "--adapter",
            arg(&adapter),
            "--ids",
            arg(&ids),
            "--out",
            arg(&out),
        ]
        .map(str::to_owned)
    };
    run(&args("base")).ok();
    run(&args("")).refused(&["another base", "fingerprint"]);
}
