//! Recipes end to end at a scale of seconds: from data to tables, continued where they stopped, on real data where present.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use qloom_tests::cases::{json, shared};
use qloom_tests::fixtures::arg;
use qloom_tests::trainer::{Ended, run};
use tempfile::TempDir;

fn follow(name: &str, out: &Path, extra: &[&str]) -> Ended {
    let mut args = vec![
        "recipe",
        "run",
        name,
        "--small",
        "--out",
        arg(out),
        "--device",
        "cpu",
    ];
    args.extend(extra);
    run(&args)
}

#[test]
fn sentiment_ends_in_its_table_and_a_second_call_trains_nothing() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let few = [
        "--set",
        "recipe.data.rows=[96,24]",
        "--set",
        "train.max_steps=6",
    ];
    let first = follow("tweet_sentiment", &out, &few).ok();
    for word in ["macro-F1", "always \"", "negative", "adapted"] {
        assert!(first.stdout.contains(word), "{word}: {}", first.stdout);
    }
    for file in [
        "results.md",
        "classes.csv",
        "experiments.csv",
        "metrics.json",
        "check.json",
        "data/train.jsonl",
        "run.toml",
    ] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let again = follow("tweet_sentiment", &out, &few).ok();
    assert!(again.stderr.contains("finished before"), "{}", again.stderr);
    assert_eq!(again.stdout, first.stdout);
}

#[test]
fn sizes_end_in_the_experiment_table() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let few = [
        "--set",
        "recipe.data.rows=[1200,20]",
        "--set",
        "train.max_steps=2",
        "--set",
        "eval.samples=0",
    ];
    follow("dolly_sizes", &out, &few).ok();
    let table = std::fs::read_to_string(out.join("experiment_table.md")).unwrap();
    for word in [
        "rank 8, 600 examples",
        "rank 16, 1200 examples",
        "perplexity",
        "loss",
        "base, not trained",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let metrics = json(&out.join("metrics.json"));
    assert_eq!(metrics["runs"].as_array().unwrap().len(), 4);
}

#[test]
fn the_real_tweets_are_read_in_their_published_layout() {
    let Some(shared) = shared() else { return };
    let tweets = shared.join("data/tweet_eval_sentiment");
    let base = shared.join("data/stories260K");
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let extra = [
        "--base",
        arg(&base),
        "--data",
        arg(&tweets),
        "--set",
        "recipe.data.rows=[200,40]",
        "--set",
        "train.max_steps=4",
    ];
    follow("tweet_sentiment", &out, &extra).ok();
    let report = json(&out.join("check.json"));
    // With this base's pieces "negative" and "neutral" begin alike: what the check is for.
    let found = report["findings"].as_array().unwrap();
    assert!(found.iter().any(|f| f["id"] == "label_pieces"), "{report}");
    let rows = std::fs::read_to_string(out.join("data/train.jsonl")).unwrap();
    assert_eq!(rows.lines().count(), 200);
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let dir = TempDir::new().unwrap();
    for (name, text) in [("a.txt", "1\n2\n"), ("b.txt", "1\n")] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let column = |name: &str, file: &str| format!("{name}={}", dir.path().join(file).display());
    let out = dir.path().join("o.jsonl");
    let args = [
        "columns",
        &column("text", "a.txt"),
        &column("label", "b.txt"),
        "--out",
        arg(&out),
    ];
    run(&args).refused(&["2 lines", "b.txt", "1"]);
    assert!(!out.exists());
    run(&["columns", "text", "--out", arg(&out)]).refused_as_usage(&["name=file"]);
    run(&["recipe", "show", "tweets"]).refused_as_usage(&["tweet_sentiment"]);
}
