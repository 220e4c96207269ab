//! Sweeps: every run once, the base once, killed and continued, one table.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qloom_tests::cases::json;
use qloom_tests::fixtures::{Config, arg, small_base, steps, token_rows, write_tokens};
use qloom_tests::trainer::{run, start};
use tempfile::TempDir;

/// A folder with a base configuration on token data, and a sweep over it.
struct Scene {
    dir: TempDir,
}

impl Scene {
    fn new(max_steps: usize, sweep: &str) -> Self {
        let scene = Self {
            dir: TempDir::new().unwrap(),
        };
        let rows = token_rows(30, 101);
        write_tokens(&scene.path("train.jsonl"), &rows[..22]);
        write_tokens(&scene.path("eval.jsonl"), &rows[22..]);
        Config::exact(
            &small_base(),
            &scene.path("train.jsonl"),
            &scene.path("unused"),
        )
        .path("data", "eval", &scene.path("eval.jsonl"))
        .set("train", "max_steps", &max_steps.to_string())
        .set("train", "batch_size", "2")
        .set("train", "lr", "0.005")
        .set("eval", "samples", "0")
        .write(&scene.path("run.toml"));
        std::fs::write(
            scene.path("sweep.toml"),
            format!("[sweep]\nbase = \"run.toml\"\n{sweep}"),
        )
        .unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sweep(&self, extra: &[&str]) -> Vec<String> {
        let mut args = vec!["sweep".to_owned(), arg(&self.path("sweep.toml")).to_owned()];
        args.extend(["--out", arg(&self.path("out")), "--device", "cpu"].map(str::to_owned));
        args.extend(extra.iter().map(|a| (*a).to_owned()));
        args
    }

    fn run_folders(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = std::fs::read_dir(self.path("out/runs"))
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().path())
            .collect();
        found.sort();
        found
    }
}

const GRID: &str = "[sweep.grid]\n\"lora.rank\" = [2, 4]\n\"train.seed\" = [1, 2]\n";

#[test]
fn a_grid_is_run_once_scored_against_one_base_and_tabled() {
    let scene = Scene::new(4, GRID);
    let planned = run(&scene.sweep(&["--dry-run"])).ok();
    for word in ["rank2-seed1", "rank4-seed2", "to run"] {
        assert!(planned.stdout.contains(word), "{word}: {}", planned.stdout);
    }
    assert!(!scene.path("out/runs").exists(), "a dry run makes nothing");

    let first = run(&scene.sweep(&[])).ok();
    assert!(first.stdout.contains("Over seeds"), "{}", first.stdout);
    for file in [
        "experiments.md",
        "experiments.csv",
        "metrics.json",
        "experiments.png",
    ] {
        assert!(scene.path("out").join(file).is_file(), "{file}");
    }
    let metrics = json(&scene.path("out/metrics.json"));
    let runs = metrics["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 4);
    for one in runs {
        assert_eq!(one["base"], runs[0]["base"], "one base");
        let training = &one["training"];
        assert_eq!(training["steps"], 4);
        assert!(training["adapter_bytes"].as_u64().unwrap() > 0);
        assert!(training["seconds"].as_f64().unwrap() > 0.0);
        if cfg!(target_os = "linux") {
            assert!(training["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
        }
        // What the table says is what the run's own file says.
        let own = json(&Path::new(one["folder"].as_str().unwrap()).join("metrics.json"));
        assert_eq!(own["adapted"], one["adapted"]);
    }
    let seeds = metrics["seeds"].as_array().unwrap();
    let mean = |rank: &str| {
        let row = seeds
            .iter()
            .find(|r| r["group"] == format!("rank {rank}") && r["metric"] == "perplexity")
            .unwrap();
        (row["runs"].as_u64().unwrap(), row["mean"].as_f64().unwrap())
    };
    let of = |i: usize| runs[i]["adapted"]["perplexity"].as_f64().unwrap();
    assert_eq!(mean("2").0, 2);
    assert!((mean("2").1 - (of(0) + of(1)) / 2.0).abs() < 1e-9);
    let kept: Vec<_> = std::fs::read_dir(scene.path("out/base_scores"))
        .unwrap()
        .collect();
    assert_eq!(kept.len(), 1, "the base is scored once for four runs");

    let adapters = |scene: &Scene| -> Vec<_> {
        let file = |run: &PathBuf| {
            std::fs::metadata(run.join("metrics.json"))
                .unwrap()
                .modified()
                .unwrap()
        };
        scene.run_folders().iter().map(file).collect()
    };
    let before = adapters(&scene);
    let again = run(&scene.sweep(&[])).ok();
    assert_eq!(
        again.stderr.matches("finished before").count(),
        4,
        "{}",
        again.stderr
    );
    assert_eq!(adapters(&scene), before, "nothing is run twice");
    // Another value is another run; the four are not touched.
    run(&scene.sweep(&["--set", "train.lr=0.001"])).ok();
    assert_eq!(scene.run_folders().len(), 8);
}

#[test]
fn a_killed_sweep_leaves_nothing_running_and_continues_to_the_same_bytes() {
    let scene = Scene::new(
        400,
        "[[sweep.run]]\nname = \"one\"\n\"lora.rank\" = 3\n\"train.save_every\" = 5\n",
    );
    let mut parent = start(&scene.sweep(&[]));
    let deadline = Instant::now() + Duration::from_secs(120);
    let logged = |scene: &Scene| {
        let log = scene.run_folders().first().map(|run| run.join("log.jsonl"));
        log.and_then(|log| std::fs::read_to_string(log).ok())
            .map_or(0, |text| text.lines().count())
    };
    while logged(&scene) < 12 {
        assert!(parent.try_wait().unwrap().is_none(), "ended by itself");
        assert!(Instant::now() < deadline, "step 12 never came");
        std::thread::sleep(Duration::from_millis(1));
    }
    parent.kill().unwrap();
    parent.wait().unwrap();
    let folder = scene.run_folders().remove(0);
    assert!(!folder.join("adapter").exists(), "killed before the end");

    // The child ended with its parent: its lock is free, so the run can be continued.
    std::thread::sleep(Duration::from_millis(500));
    let continued = run(&scene.sweep(&[])).ok();
    assert!(
        continued.stderr.contains("continuing"),
        "{}",
        continued.stderr
    );
    let metrics = json(&scene.path("out/metrics.json"));
    assert_eq!(metrics["runs"][0]["training"]["resumed"], true);
    assert_eq!(steps(&folder).len(), 400);

    let alone = scene.path("alone");
    let file = scene.path("run.toml");
    let out = format!("output.dir={}", alone.display());
    run(&[
        "train",
        arg(&file),
        "--device",
        "cpu",
        "--set",
        "lora.rank=3",
        "--set",
        &out,
    ])
    .ok();
    let adapter =
        |run: &Path| std::fs::read(run.join("adapter/adapter_model.safetensors")).unwrap();
    assert!(
        adapter(&folder) == adapter(&alone),
        "the same bytes as a run left alone"
    );
}

#[test]
fn a_run_that_fails_leaves_the_others_their_results() {
    let scene = Scene::new(
        4,
        "[sweep.grid]\n\"lora.target_modules\" = [\"all-linear\", \"no_such_module\"]\n",
    );
    let ended = run(&scene.sweep(&[]));
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("1 of 2 runs failed") && ended.stderr.contains("no_such_module"),
        "{}",
        ended.stderr
    );
    let metrics = json(&scene.path("out/metrics.json"));
    assert!(metrics["runs"][0]["adapted"]["perplexity"].is_number());
    assert!(metrics["runs"][1]["failure"].is_string());
}

#[test]
fn mistakes_in_a_sweep_are_named() {
    for (sweep, words) in [
        ("", &["grid", "[[sweep.run]]"][..]),
        ("[sweep.grid]\n\"lora.rank\" = 8\n", &["lora.rank", "list"]),
        ("[sweep.grid]\n\"lora.rnak\" = [8]\n", &["rnak", "rank"]),
        (
            "[sweep.grid]\n\"lora.rank\" = [8, 8]\n",
            &["same configuration"],
        ),
        (
            "[sweep.grid]\n\"data.system\" = [\"tense\"]\n[sweep.values.\"data.system\"]\nterse = \"x\"\n",
            &["tense", "terse"],
        ),
        ("grids = 1\n", &["grids", "grid"]),
    ] {
        let scene = Scene::new(4, sweep);
        run(&scene.sweep(&[])).refused_as_usage(words);
    }
    let scene = Scene::new(4, GRID);
    run(&["sweep", arg(&scene.path("run.toml"))]).refused_as_usage(&["[sweep]"]);
}
