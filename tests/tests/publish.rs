//! From a finished run to a site that is published, checked and served.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use qloom_tests::cases::json;
use qloom_tests::fixtures::{
    Config, add_word_tokenizer, arg, copy_base, small_base, token_rows, write_tokens,
};
use qloom_tests::trainer::{binary, run};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a trained run.
struct Scene {
    dir: TempDir,
}

impl Scene {
    fn trained() -> Self {
        let scene = Self {
            dir: TempDir::new().unwrap(),
        };
        let path = |name: &str| scene.dir.path().join(name);
        copy_base(&small_base(), &path("base"));
        add_word_tokenizer(&path("base"), 101);
        write_tokens(&path("train.jsonl"), &token_rows(8, 101));
        write_tokens(&path("eval.jsonl"), &token_rows(3, 101));
        let config = Config::exact(&path("base"), &path("train.jsonl"), &path("run"))
            .path("data", "eval", &path("eval.jsonl"))
            .set("train", "max_steps", "3")
            .set("train", "batch_size", "2")
            .set("lora", "rank", "2");
        config.write(&path("run.toml"));
        run(&["train", arg(&path("run.toml")), "--device", "cpu"]).ok();
        scene
    }

    fn adapter(&self) -> PathBuf {
        self.dir.path().join("run/adapter")
    }

    fn site(&self) -> PathBuf {
        self.dir.path().join("www")
    }
}

/// A server that is stopped by Ctrl-C, as a user stops it.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(binary())
            .args(["serve", arg(folder), "--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        let address = url
            .trim()
            .strip_prefix("http://")
            .unwrap()
            .trim_end_matches('/')
            .to_owned();
        Self { child, address }
    }

    fn get(&self, path: &str, header: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n"
        )
        .unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        let split = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&all[..split]).to_ascii_lowercase();
        (head, all[split + 4..].to_vec())
    }

    #[cfg(unix)]
    fn interrupt(mut self) {
        let killed = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        assert_eq!(
            self.child.wait().unwrap().code(),
            Some(0),
            "Ctrl-C is how a server ends"
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_run_is_published_checked_replaced_and_served() {
    let scene = Scene::trained();
    let (site, adapter) = (scene.site(), scene.adapter());
    let publish = |more: &[&str]| {
        let mut args = vec![
            "publish",
            arg(&adapter),
            "--site",
            arg(&site),
            "--created",
            "2026-11-24",
        ];
        args.extend(more);
        run(&args)
    };
    let ended = publish(&[
        "--name",
        "Tiny <b>test</b>",
        "--task",
        "words",
        "--licence",
        "MIT",
        "--json",
    ])
    .ok();
    // The base is a folder of this machine, so its name is cut and the author told.
    assert!(ended.stderr.contains("--base-name"), "{}", ended.stderr);
    let entry: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (&entry["slug"], &entry["base"]["name"]),
        (&json!("tiny-b-test-b"), &json!("base"))
    );

    publish(&["--name", "Tiny <b>test</b>", "--base-name", "owner/base"]).ok();
    publish(&["--slug", "another", "--base-name", "owner/base"]).ok();
    let folder = site.join("adapters/tiny-b-test-b");
    let index = json(&site.join("adapters/index.json"));
    let rows = index["adapters"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "the same slug was replaced");
    let row = &rows[1];
    assert_eq!(
        (&row["name"], &row["base"]["name"]),
        (&json!("Tiny <b>test</b>"), &json!("owner/base"))
    );
    let metrics = json(&scene.dir.path().join("run/metrics.json"));
    let loss = row["scores"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["metric"] == "perplexity")
        .unwrap();
    for side in ["base", "adapted"] {
        assert_eq!(loss[side]["value"], metrics[side]["perplexity"]);
        assert_eq!(loss[side]["interval"], metrics[side]["perplexity_ci"]);
    }
    assert_eq!(
        row["base"]["fingerprint"],
        json(&adapter.join("qloom.json"))["base_fingerprint"]
    );
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    assert_eq!(
        read("adapter_model.safetensors"),
        std::fs::read(adapter.join("adapter_model.safetensors")).unwrap()
    );
    let card = String::from_utf8(read("README.md")).unwrap();
    assert!(
        card.contains("base_model: \"owner/base\"") && card.contains("&lt;b&gt;"),
        "{card}"
    );
    let private = scene.dir.path().to_string_lossy().into_owned();
    for name in [
        "README.md",
        "config.toml",
        "adapter_config.json",
        "qloom.json",
        "entry.json",
    ] {
        assert!(
            !String::from_utf8(read(name)).unwrap().contains(&private),
            "{name} names a folder of this machine"
        );
    }
    // The published adapter is a usable one.
    run(&["inspect", arg(&folder)]).ok();
    let check = ["publish", "--check", "--site", arg(&site)];
    let whole = run(&check).ok();
    assert!(whole.stdout.contains("2 adapters"), "{}", whole.stdout);

    std::fs::write(site.join("index.html"), "<!doctype html>hello").unwrap();
    std::fs::write(site.join("adapters/index.json.br"), "compressed").unwrap();
    let server = Server::start(&site);
    let (head, body) = server.get("/", "");
    assert!(
        head.starts_with("http/1.1 200") && body == b"<!doctype html>hello",
        "{head}"
    );
    assert!(
        head.contains("cross-origin-embedder-policy: require-corp"),
        "{head}"
    );
    let model = "/adapters/tiny-b-test-b/adapter_model.safetensors";
    let (head, body) = server.get(model, "Range: bytes=8-15\r\n");
    assert!(
        head.starts_with("http/1.1 206") && body == read("adapter_model.safetensors")[8..16],
        "{head}"
    );
    let (head, body) = server.get("/adapters/index.json", "Accept-Encoding: br\r\n");
    assert!(
        head.contains("content-encoding: br")
            && head.contains("application/json")
            && body == b"compressed",
        "{head}"
    );
    assert!(
        server
            .get("/adapters/none", "")
            .0
            .starts_with("http/1.1 404")
    );
    assert!(server.get("/../run.toml", "").0.starts_with("http/1.1 404"));
    #[cfg(unix)]
    server.interrupt();

    let weights = folder.join("adapter_model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    std::fs::remove_file(site.join("adapters/another/README.md")).unwrap();
    let broken = run(&check);
    assert_eq!(broken.code, 1);
    broken.refused(&[
        "tiny-b-test-b/adapter_model.safetensors",
        "sha-256",
        "another/README.md",
        "missing",
    ]);
    let told = run(&["publish", "--check", "--site", arg(&site), "--json"]);
    assert_eq!(told.code, 1);
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["problems"].as_array().unwrap().len(), 2);
}

#[test]
fn help_has_examples() {
    for command in ["judge", "publish", "serve"] {
        let help = run(&[command, "--help"]).ok();
        assert!(
            help.stdout.contains("Example"),
            "{command}: {}",
            help.stdout
        );
    }
}

#[test]
fn wrong_usage_is_told_apart() {
    let dir = TempDir::new().unwrap();
    let site = dir.path().join("www");
    run(&["publish", "--site", arg(&site)]).refused_as_usage(&["adapter"]);
    run(&["publish", "x", "--check", "--site", arg(&site)]).refused_as_usage(&["--check"]);
    run(&["publish", "--check", "--site", arg(&site)]).refused(&["www", "adapters/index.json"]);
    run(&[
        "publish",
        arg(&dir.path().join("none")),
        "--site",
        arg(&site),
    ])
    .refused(&["none"]);
    assert!(!site.exists());
    run(&["serve", arg(&site)]).refused(&["www", "no folder"]);
    run(&["serve", arg(dir.path())]).refused(&["index.html"]);
    run(&["serve", "--port", "high"]).refused_as_usage(&["--port"]);
}
