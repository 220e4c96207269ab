//! Values that mean nothing.

use qloom_tests::cases::own;
use qloom_tests::fixtures::{arg, small_base};
use qloom_tests::trainer::{Ended, run};
use tempfile::TempDir;

use super::common::{golden, quoted, small_run};

fn refused(lora: &[(&str, &str)], nf4: bool) -> Ended {
    let dir = TempDir::new().unwrap();
    let file = small_run(dir.path(), "bad", Some(&small_base()), nf4, lora, &[]);
    let ended = run(&["train", arg(&file), "--device", "cpu"]);
    assert!(
        !dir.path().join("bad").exists(),
        "{lora:?}: a run folder is left"
    );
    ended
}

#[test]
fn values_that_mean_nothing_are_refused() {
    refused(&[("method", "\"dorra\"")], true).refused_as_usage(&["dorra", "dora", "hira"]);
    refused(&[("init", "\"pisa\"")], true).refused_as_usage(&["pisa", "pissa", "loftq"]);
    refused(&[("density", "0")], true).refused_as_usage(&["lora.density", "(0, 1]"]);
    refused(&[("density", "1.5")], true).refused_as_usage(&["lora.density", "1.5"]);
    refused(&[("lora_plus_ratio", "-1")], true).refused_as_usage(&["lora_plus_ratio"]);
    refused(&[("loraplus_lr_ratio", "-1")], true).refused_as_usage(&["lora_plus_ratio"]);
    refused(&[("loftq_iter", "0")], true).refused_as_usage(&["loftq_iter"]);
    refused(&[("method", "\"hira\""), ("init", "\"pissa\"")], true)
        .refused_as_usage(&["hira", "pissa"]);
    refused(
        &[("method", "\"full\""), ("modules_to_save", "[\"lm_head\"]")],
        true,
    )
    .refused_as_usage(&["full", "modules_to_save"]);
    refused(&[("init", "\"loftq\"")], false).refused(&["loftq", "nf4"]);
    refused(&[("init", "\"pissa\""), ("rank", "41")], false).refused(&["rank 41", "rank_pattern"]);
    let dora = quoted(arg(&golden().join("adapter_dora")));
    refused(&[("adapter", &dora), ("method", "\"sparse\"")], false)
        .refused_as_usage(&["DoRA", "sparse"]);
    // LoftQ on a base that is stored as NF4.
    let dir = TempDir::new().unwrap();
    let stored = own().join("llama_ragged/base_nf4");
    let file = small_run(
        dir.path(),
        "bad",
        Some(&stored),
        true,
        &[("init", "\"loftq\"")],
        &[],
    );
    run(&["train", arg(&file), "--device", "cpu"]).refused(&["stored as NF4", "full-precision"]);
}
