//! The pre-flight check on the embedded base: six configurations broken on purpose, the sound one beside them, the recipes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::PathBuf;

use qloom_tests::cases::json;
use qloom_tests::fixtures::arg;
use qloom_tests::trainer::{Ended, run};
use serde_json::Value;
use tempfile::TempDir;

/// The ChatML template, which the embedded base was not trained with.
const CHATML: &str = r#"data.chat_template="{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}""#;
/// The base's own template without its end of turn.
const NO_END: &str = r#"data.chat_template="{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}""#;

/// A folder with messages of two moods and a configuration that is sound.
struct Scene {
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        Self::labelled(|i| i % 2)
    }

    /// With the label of message `i`.
    fn labelled(label: fn(usize) -> usize) -> Self {
        let scene = Self {
            dir: TempDir::new().unwrap(),
        };
        let words = [
            ["bad", "cold", "broken", "slow"],
            ["good", "warm", "lovely", "quick"],
        ];
        let rows: String = (0..64)
            .map(|i| {
                let mood = label(i);
                let text = format!(
                    "The soup number {i} was {} and the waiter was {}.",
                    words[mood][i % 4],
                    words[mood][i / 4 % 4]
                );
                format!("{}\n", serde_json::json!({"text": text, "label": mood}))
            })
            .collect();
        std::fs::write(scene.path("train.jsonl"), rows).unwrap();
        std::fs::write(
            scene.path("run.toml"),
            "[data]\ntrain = \"train.jsonl\"\nformat = \"classification\"\nlabel_names = [\"negative\", \"positive\"]\n\
             [train]\nmax_steps = 10\nlr = 2e-3\n",
        )
        .unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn check(&self, extra: &[&str]) -> (Ended, Vec<(String, String)>) {
        let file = self.path("run.toml");
        let mut args = vec!["check", arg(&file), "--json", "--device", "cpu"];
        args.extend(extra);
        let ended = run(&args);
        let said: Value =
            serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
        let found = said["findings"].as_array().unwrap();
        let part = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        for finding in found {
            assert!(
                !part(finding, "what").is_empty() && !part(finding, "where").is_empty(),
                "{finding}"
            );
        }
        let grave = found.iter().filter(|f| f["severity"] != "info");
        let grave = grave
            .map(|f| (part(f, "id"), part(f, "severity")))
            .collect();
        (ended, grave)
    }

    /// The broken configuration gets this finding, and exit status 1 exactly where it is an error.
    fn finds(&self, extra: &[&str], id: &str, severity: &str) {
        let (ended, found) = self.check(extra);
        let wanted = (id.to_owned(), severity.to_owned());
        assert!(found.contains(&wanted), "{extra:?}: {found:?}");
        let errors = found.iter().any(|(_, s)| s == "error");
        assert_eq!(ended.code, i32::from(errors), "{extra:?}: {}", ended.stderr);
    }
}

#[test]
fn a_sound_configuration_passes_with_its_learning_rate_measured() {
    let (ended, found) = Scene::new().check(&["--strict"]);
    assert_eq!((ended.code, found.len()), (0, 0), "{found:?}");
    let said: Value = serde_json::from_str(&ended.stdout).unwrap();
    let points = said["probe"]["points"].as_array().unwrap();
    assert!(points[0]["loss"].as_f64().unwrap() < points[0]["loss_before"].as_f64().unwrap());
    assert_eq!(points[0]["diverged"], false);
}

#[test]
fn one_wrong_template() {
    Scene::new().finds(&["--no-probe", "--set", CHATML], "wrong_template", "error");
    Scene::new().finds(
        &["--no-probe", "--set", "data.prompt_style=\"plain\""],
        "wrong_template",
        "warning",
    );
}

#[test]
fn two_labels_that_begin_with_the_same_piece() {
    let names = r#"data.label_names=["A good one", "A bad one"]"#;
    Scene::new().finds(&["--no-probe", "--set", names], "label_pieces", "warning");
}

#[test]
fn three_no_trained_end_of_turn() {
    Scene::new().finds(&["--no-probe", "--set", NO_END], "end_untrained", "error");
}

#[test]
fn four_answers_cut_off() {
    Scene::new().finds(
        &["--no-probe", "--set", "data.max_length=24"],
        "truncated",
        "error",
    );
    let left = [
        "--no-probe",
        "--set",
        "data.max_length=24",
        "--set",
        "data.truncation=\"left\"",
    ];
    Scene::new().finds(&left, "truncated", "error");
}

#[test]
fn five_lopsided_labels() {
    let scene = Scene::labelled(|i| usize::from(i % 16 == 0));
    scene.finds(&["--no-probe"], "label_imbalance", "warning");
    let (ended, _) = scene.check(&["--no-probe", "--strict"]);
    assert_eq!(ended.code, 1, "--strict");
}

#[test]
fn six_a_learning_rate_at_which_the_loss_grows() {
    Scene::new().finds(&["--set", "train.lr=0.2"], "learning_rate", "error");
    // Without the measurement there is the rule of thumb.
    Scene::new().finds(
        &["--no-probe", "--set", "train.lr=0.2"],
        "learning_rate",
        "warning",
    );
}

#[test]
fn training_says_what_the_check_finds() {
    let scene = Scene::new();
    let file = scene.path("run.toml");
    let out = format!("output.dir={}", scene.path("out").display());
    let ended = run(&[
        "train",
        arg(&file),
        "--device",
        "cpu",
        "--set",
        CHATML,
        "--set",
        "train.max_steps=1",
        "--set",
        &out,
    ])
    .ok();
    assert!(
        ended.stderr.contains("warning (grave): wrong_template"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_five_recipes_pass() {
    let dir = TempDir::new().unwrap();
    for name in [
        "tweet_sentiment",
        "sst2_methods",
        "dolly_sizes",
        "category_merge",
        "alpaca_1k",
    ] {
        let out = dir.path().join(name);
        let rows = "recipe.data.rows=[120,24]";
        run(&[
            "recipe",
            "run",
            name,
            "--small",
            "--prepare",
            "--out",
            arg(&out),
            "--device",
            "cpu",
            "--set",
            rows,
        ])
        .ok();
        let report = json(&out.join("check.json"));
        assert_eq!(
            (&report["errors"], &report["warnings"]),
            (&0.into(), &0.into()),
            "{name}: {report}"
        );
        let shown = run(&["recipe", "show", name]).ok();
        assert!(
            shown.stdout.contains("[recipe]") && shown.stdout.contains("# "),
            "{name}"
        );
    }
}
