//! Publishing and checking a site, byte by byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use qloom_core::adapters::gallery::{Entry, GALLERY, Gallery};
use qloom_core::adapters::{Adapter, LoraModule, PeftConfig, Receipt};
use qloom_core::weights::sha256_hex;
use serde_json::{Value, json};

use super::check::check;
use super::publish::{Publication, Published, publish};
use crate::progress::Mode;

/// A run with an adapter in it, and a site.
struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let adapter = scene.run().join("adapter");
        fs::create_dir_all(&adapter).unwrap();
        let module = LoraModule {
            path: "model.layers.0.self_attn.q_proj".into(),
            a: vec![0.5; 6],
            b: vec![-1.0; 8],
            in_features: 3,
            out_features: 4,
            rank: 2,
            alpha: 4.0,
            scaling: 2.0,
            dropout: 0.0,
        };
        let config = PeftConfig {
            base_model_name_or_path: Some("owner/base".into()),
            r: 2,
            lora_alpha: 4.0,
            ..PeftConfig::default()
        };
        let (config, tensors) = Adapter::new(config, &[module], Vec::new())
            .unwrap()
            .to_bytes()
            .unwrap();
        let receipt = Receipt {
            base: Some("owner/base".into()),
            base_fingerprint: Some(sha256_hex(b"base")),
            ..Receipt::default()
        };
        fs::write(adapter.join("adapter_config.json"), config).unwrap();
        fs::write(adapter.join("adapter_model.safetensors"), tensors).unwrap();
        fs::write(adapter.join("qloom.json"), receipt.to_json().unwrap()).unwrap();
        let side =
            |p: f64| json!({"perplexity": p, "perplexity_ci": [p - 1.0, p + 1.0], "examples": 12});
        let metrics = json!({
            "base": side(80.0), "adapted": side(20.0),
            "data": {"train_examples": 100, "eval_examples": 12, "train_tokens": 4000, "sha256": sha256_hex(b"data")},
        });
        let run = scene.run();
        fs::write(run.join("metrics.json"), metrics.to_string()).unwrap();
        let train = scene.dir.path().join("private/train.jsonl");
        let toml = format!(
            "[data]\ntrain = [{}]\n\n[lora]\nmethod = \"sparse\"\n\n[train]\nlr = 3e-4\n",
            json!(train)
        );
        fs::write(run.join("config.toml"), toml).unwrap();
        fs::write(
            run.join("log.jsonl"),
            "{\"step\":1,\"loss\":3.0}\n{\"step\":2,\"loss\":2.0}\n",
        )
        .unwrap();
        let sample = json!({"task": "t", "prompt": "p<script>", "reference": null, "base": "b", "adapted": "a"});
        fs::write(run.join("samples.jsonl"), format!("{sample}\n")).unwrap();
        scene
    }

    fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn site(&self) -> PathBuf {
        self.dir.path().join("www")
    }

    fn publication(&self, name: &str) -> Publication {
        Publication {
            adapter: self.run().join("adapter"),
            run: Some(self.run()),
            name: name.into(),
            slug: None,
            task: "stories".into(),
            description: Some("<img src=x onerror=alert(1)>".into()),
            licence: Some("MIT".into()),
            created: "2026-11-24".into(),
            base_name: None,
            samples: None,
        }
    }

    fn publish(&self, name: &str) -> Published {
        publish(&self.site(), &self.publication(name)).unwrap()
    }

    fn problems(&self) -> Vec<String> {
        check(&self.site(), Mode::Quiet).unwrap().problems
    }

    fn file(&self, path: &str) -> PathBuf {
        self.site().join("adapters").join(path)
    }

    /// The problems after `change`, of which one must name `file`.
    fn finds(&self, file: &str, word: &str, change: impl FnOnce(&Path)) {
        assert_eq!(self.problems(), [""; 0], "whole before");
        change(&self.site().join("adapters"));
        let problems = self.problems();
        assert!(
            problems
                .iter()
                .any(|p| p.contains(file) && p.contains(word)),
            "{file} {word}: {problems:?}"
        );
        // Publishing again mends it.
        let _ = fs::remove_file(self.site().join(GALLERY));
        let _ = fs::remove_dir_all(self.site().join("adapters"));
        self.publish("One");
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// Changes an entry and records its new hash, as someone would who wants the change to pass.
fn forge(adapters: &Path, change: impl FnOnce(&mut Value)) {
    let path = adapters.join("one/entry.json");
    edit(&path, change);
    let hash = sha256_hex(&fs::read(&path).unwrap());
    edit(&adapters.join("index.json"), |v| {
        v["adapters"][0]["entry_sha256"] = json!(hash);
    });
}

#[test]
fn an_entry_holds_everything_and_its_site_checks() {
    let scene = Scene::new();
    let published = scene.publish("One");
    assert!(!published.replaced);
    assert_eq!(published.warnings, [""; 0]);
    let entry = published.entry;
    let names: Vec<&str> = entry.files.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(
        names,
        [
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
            "config.toml",
            "loss.png",
            "metrics.json",
            "qloom.json",
            "samples.jsonl"
        ]
    );
    assert_eq!(entry.data_sha256, Some(sha256_hex(b"data")));
    assert_eq!(entry.base.fingerprint, Some(sha256_hex(b"base")));
    assert_eq!((entry.adapter.rank, entry.adapter.parameters), (2, 14));
    assert_eq!(
        entry.adapter.method, "sparse",
        "the run knows more than the files"
    );
    assert_eq!(
        entry.scores[0].adapted.unwrap().interval,
        Some([19.0, 21.0])
    );
    // The adapter's own files are the ones given, to the byte.
    for name in [
        "adapter_config.json",
        "adapter_model.safetensors",
        "qloom.json",
    ] {
        let given = fs::read(scene.run().join("adapter").join(name)).unwrap();
        assert_eq!(
            fs::read(scene.file("one").join(name)).unwrap(),
            given,
            "{name}"
        );
    }
    let card = fs::read_to_string(scene.file("one/README.md")).unwrap();
    for line in [
        "base_model: \"owner/base\"",
        "library_name: peft",
        "license: \"mit\"",
        "metrics:",
    ] {
        assert!(card.lines().any(|l| l == line), "{line}\n{card}");
    }
    assert!(
        card.contains("loss.png") && card.contains("&lt;img src=x"),
        "{card}"
    );
    assert!(
        !card.contains("<script>") && !card.contains("<img"),
        "{card}"
    );
    // Where this machine keeps its data is nobody's business.
    let config = fs::read_to_string(scene.file("one/config.toml")).unwrap();
    assert!(
        config.contains("train.jsonl") && !config.contains("private"),
        "{config}"
    );

    let checked = check(&scene.site(), Mode::Quiet).unwrap();
    assert_eq!((checked.adapters, checked.files), (1, 8));
    assert_eq!(checked.problems, [""; 0]);
}

#[test]
fn the_same_slug_is_replaced_and_others_stay() {
    let scene = Scene::new();
    scene.publish("Two");
    scene.publish("One");
    fs::remove_file(scene.run().join("samples.jsonl")).unwrap();
    let again = scene.publish("one!");
    assert!(again.replaced);
    assert!(
        !scene.file("one/samples.jsonl").exists(),
        "nothing of the old one lingers"
    );
    let gallery = Gallery::from_json(&fs::read(scene.site().join(GALLERY)).unwrap()).unwrap();
    let rows: Vec<_> = gallery
        .adapters
        .iter()
        .map(|r| (r.slug.as_str(), r.name.as_str()))
        .collect();
    assert_eq!(rows, [("one", "one!"), ("two", "Two")]);
    assert_eq!(scene.problems(), [""; 0]);
    // The same again is the same bytes.
    let before = fs::read(scene.site().join(GALLERY)).unwrap();
    scene.publish("one!");
    assert_eq!(fs::read(scene.site().join(GALLERY)).unwrap(), before);
}

#[test]
fn every_kind_of_damage_is_found_and_named() {
    let scene = Scene::new();
    scene.publish("One");
    for name in [
        "adapter_model.safetensors",
        "adapter_config.json",
        "README.md",
        "loss.png",
        "qloom.json",
    ] {
        let file = format!("adapters/one/{name}");
        scene.finds(&file, "SHA-256", |a| flip(&a.join("one").join(name)));
        scene.finds(&file, "missing", |a| {
            fs::remove_file(a.join("one").join(name)).unwrap()
        });
        scene.finds(&file, "size", |a| {
            let path = a.join("one").join(name);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[1..]).unwrap();
        });
    }
    scene.finds("adapters/one/entry.json", "SHA-256", |a| {
        flip(&a.join("one/entry.json"))
    });
    scene.finds("adapters/one/entry.json", "missing", |a| {
        fs::remove_file(a.join("one/entry.json")).unwrap();
    });
    scene.finds("adapters/one/extra.js", "not in entry.json", |a| {
        fs::write(a.join("one/extra.js"), "x").unwrap();
    });
    scene.finds("adapters/ghost", "not in adapters/index.json", |a| {
        fs::create_dir(a.join("ghost")).unwrap();
    });
    scene.finds("adapters/index.json", "missing", |a| {
        fs::remove_file(a.join("index.json")).unwrap()
    });
    scene.finds("adapters/index.json", "line 1", |a| {
        fs::write(a.join("index.json"), "{").unwrap()
    });
    scene.finds("adapters/index.json", "version 7", |a| {
        edit(&a.join("index.json"), |v| v["version"] = json!(7));
    });
    scene.finds("adapters/index.json", "../../x", |a| {
        edit(&a.join("index.json"), |v| {
            v["adapters"][0]["slug"] = json!("../../x")
        });
    });
    scene.finds("adapters/index.json", "row of one", |a| {
        edit(&a.join("index.json"), |v| {
            v["adapters"][0]["scores"] = json!([])
        });
    });
}

#[test]
fn forged_entries_are_found_by_what_they_say() {
    let scene = Scene::new();
    scene.publish("One");
    let outside = scene.dir.path().join("secret");
    fs::write(&outside, "secret").unwrap();
    scene.finds("adapters/one/entry.json", "../../../secret", |a| {
        forge(a, |v| v["files"][0]["path"] = json!("../../../secret"));
    });
    scene.finds("adapters/one", "base fingerprint", |a| {
        forge(a, |v| {
            v["base"]["fingerprint"] = json!(sha256_hex(b"other"))
        });
        // The row has to agree as well.
        edit(&a.join("index.json"), |v| {
            v["adapters"][0]["base"]["fingerprint"] = json!(sha256_hex(b"other"));
        });
    });
    scene.finds("adapters/one", "metrics.json", |a| {
        let better = json!({"value": 1.5, "interval": [1.0, 2.0]});
        forge(a, |v| v["scores"][0]["adapted"] = better.clone());
        edit(&a.join("index.json"), |v| {
            v["adapters"][0]["scores"][0]["adapted"] = better
        });
    });
    #[cfg(unix)]
    scene.finds("adapters/one/README.md", "plain file", |a| {
        fs::remove_file(a.join("one/README.md")).unwrap();
        std::os::unix::fs::symlink(&outside, a.join("one/README.md")).unwrap();
    });
}

#[test]
fn compressed_copies_may_lie_beside_files() {
    let scene = Scene::new();
    scene.publish("One");
    for name in ["one/README.md.br", "one/entry.json.gz", "index.json.br"] {
        fs::write(scene.file(name), "x").unwrap();
    }
    assert_eq!(scene.problems(), [""; 0]);
}

#[test]
fn a_private_base_is_published_under_a_name_others_know() {
    let scene = Scene::new();
    let adapter = scene.run().join("adapter");
    let private = scene
        .dir
        .path()
        .join("private/my-base")
        .display()
        .to_string();
    edit(&adapter.join("adapter_config.json"), |v| {
        v["base_model_name_or_path"] = json!(private);
    });
    let published = scene.publish("One");
    assert_eq!(published.entry.base.name, "my-base");
    assert!(
        published.warnings[0].contains("--base-name"),
        "{:?}",
        published.warnings
    );

    let named = Publication {
        base_name: Some("owner/public".into()),
        ..scene.publication("One")
    };
    publish(&scene.site(), &named).unwrap();
    for name in [
        "entry.json",
        "adapter_config.json",
        "qloom.json",
        "README.md",
    ] {
        let text = fs::read_to_string(scene.file("one").join(name)).unwrap();
        assert!(
            text.contains("owner/public") && !text.contains("private"),
            "{name}: {text}"
        );
    }
    assert_eq!(scene.problems(), [""; 0]);
}

#[test]
fn what_cannot_be_published_leaves_the_site_as_it_was() {
    let scene = Scene::new();
    scene.publish("One");
    let before = fs::read(scene.site().join(GALLERY)).unwrap();
    let refused = |change: fn(&mut Publication), word: &str| {
        let mut publication = scene.publication("Two");
        change(&mut publication);
        let text = format!("{:#}", publish(&scene.site(), &publication).unwrap_err());
        assert!(text.contains(word), "{word}: {text}");
    };
    refused(|p| p.name = "日本".into(), "--slug");
    refused(|p| p.slug = Some("../x".into()), "--slug");
    refused(|p| p.created = "24.11.2026".into(), "2026-11-24");
    refused(|p| p.name = "a\nb".into(), "name");
    refused(|p| p.adapter = "none".into(), "adapter_config.json");
    refused(|p| p.run = Some("none".into()), "config.toml");
    refused(|p| p.samples = Some("none.jsonl".into()), "none.jsonl");
    assert_eq!(fs::read(scene.site().join(GALLERY)).unwrap(), before);
    assert!(!scene.file("two").exists());
    assert_eq!(scene.problems(), [""; 0]);

    fs::write(scene.site().join(GALLERY), "{").unwrap();
    let text = format!(
        "{:#}",
        publish(&scene.site(), &scene.publication("Two")).unwrap_err()
    );
    assert!(text.contains("index.json"), "{text}");
    assert!(!scene.file("two").exists());
}

#[test]
fn an_adapter_without_a_run_or_a_receipt_is_published_with_a_warning() {
    let scene = Scene::new();
    fs::remove_file(scene.run().join("adapter/qloom.json")).unwrap();
    let bare = Publication {
        run: None,
        ..scene.publication("One")
    };
    let published = publish(&scene.site(), &bare).unwrap();
    assert_eq!(published.warnings.len(), 2, "{:?}", published.warnings);
    assert_eq!(published.entry.base.fingerprint, None);
    let entry = fs::read(scene.file("one/entry.json")).unwrap();
    assert_eq!(Entry::from_json(&entry, "e").unwrap(), published.entry);
    assert_eq!(scene.problems(), [""; 0]);
}
