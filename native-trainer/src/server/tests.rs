//! The server over a real socket, with a client that sends exactly the bytes it is told to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::*;

/// A folder being served.
struct Served {
    dir: tempfile::TempDir,
    address: SocketAddr,
    stop: Interrupt,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Served {
    fn start(files: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let site = Site::open(dir.path()).unwrap();
        let stop = Interrupt::default();
        let (tell, told) = mpsc::channel();
        let seen = stop.clone();
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let thread = std::thread::spawn(move || {
            serve(&site, any_port, &seen, |address| Ok(tell.send(address)?))
        });
        Self {
            dir,
            address: told.recv().unwrap(),
            stop,
            thread: Some(thread),
        }
    }

    fn get(&self, path: &str, headers: &[&str]) -> Answer {
        self.ask("GET", path, headers)
    }

    fn ask(&self, method: &str, path: &str, headers: &[&str]) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let more: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n"
        )
        .unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        Answer::parse(&all)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.press();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn parse(all: &[u8]) -> Self {
        let split = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&all[..split]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let pair = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self {
            status: status.parse().unwrap(),
            headers: lines.map(pair).collect(),
            body: all[split + 4..].to_vec(),
        }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

fn site() -> Served {
    Served::start(&[
        ("index.html", b"<!doctype html><p>home"),
        ("app-1f3a9c04_bg.wasm", b"\0asm plain"),
        ("app-1f3a9c04_bg.wasm.br", b"brotli bytes"),
        ("app-1f3a9c04_bg.wasm.gz", b"gzip bytes"),
        ("app.js", b"1"),
        ("style.css", b"p{}"),
        ("adapters/index.json", b"{}"),
        ("adapters/a/adapter_model.safetensors", b"0123456789"),
        ("adapters/a/samples.jsonl", b"{}\n"),
        (".git/config", b"secret"),
    ])
}

#[test]
fn types_caching_and_isolation() {
    let served = site();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/app-1f3a9c04_bg.wasm", "application/wasm"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/adapters/index.json", "application/json"),
        ("/adapters/a/samples.jsonl", "application/jsonl"),
        (
            "/adapters/a/adapter_model.safetensors",
            "application/octet-stream",
        ),
    ] {
        let answer = served.get(path, &[]);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, kind),
            "{path}"
        );
        assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin");
        assert_eq!(
            answer.header("cross-origin-embedder-policy"),
            "require-corp"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let cache = match path.contains("1f3a9c04") {
            true => "public, max-age=31536000, immutable",
            false => "no-cache",
        };
        assert_eq!(answer.header("cache-control"), cache, "{path}");
    }
    assert_eq!(served.get("/", &[]).body, b"<!doctype html><p>home");
    let head = served.ask("HEAD", "/app.js", &[]);
    assert_eq!((head.status, head.header("content-length")), (200, "1"));
    assert!(head.body.is_empty());
    assert_eq!(served.ask("POST", "/app.js", &[]).status, 405);
}

#[test]
fn ranges_resume_a_download() {
    let served = site();
    let path = "/adapters/a/adapter_model.safetensors";
    let whole = served.get(path, &[]);
    assert_eq!(whole.header("accept-ranges"), "bytes");
    for (range, part, named) in [
        ("bytes=2-4", &b"234"[..], "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
    ] {
        let answer = served.get(path, &[&format!("Range: {range}")]);
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (206, part),
            "{range}"
        );
        assert_eq!(answer.header("content-range"), named);
        assert_eq!(
            answer.header("cross-origin-embedder-policy"),
            "require-corp"
        );
    }
    assert_eq!(served.get(path, &["Range: bytes=10-"]).status, 416);
}

#[test]
fn compressed_siblings_are_sent_to_those_who_take_them() {
    let served = site();
    let path = "/app-1f3a9c04_bg.wasm";
    for (accepts, encoding, body) in [
        ("Accept-Encoding: gzip, br", "br", &b"brotli bytes"[..]),
        ("Accept-Encoding: gzip", "gzip", b"gzip bytes"),
        ("Accept-Encoding: identity", "", b"\0asm plain"),
        ("X-None: 1", "", b"\0asm plain"),
    ] {
        let answer = served.get(path, &[accepts]);
        assert_eq!(
            (answer.header("content-encoding"), answer.body.as_slice()),
            (encoding, body)
        );
        assert_eq!(answer.header("content-type"), "application/wasm");
        assert_eq!(answer.header("vary"), "accept-encoding");
    }
    // No sibling: the file itself.
    let plain = served.get("/app.js", &["Accept-Encoding: br"]);
    assert_eq!(
        (plain.header("content-encoding"), plain.body.as_slice()),
        ("", &b"1"[..])
    );
}

#[test]
fn unchanged_files_are_not_sent_again() {
    let served = site();
    let first = served.get("/app.js", &[]);
    let since = format!("If-Modified-Since: {}", first.header("last-modified"));
    let again = served.get("/app.js", &[&since]);
    assert_eq!((again.status, again.body.len()), (304, 0));
}

#[test]
fn what_is_absent_hidden_or_outside_is_not_found() {
    let served = site();
    std::fs::write(
        served.dir.path().parent().unwrap().join("outside-of-site"),
        "x",
    )
    .unwrap();
    for path in [
        "/none.html",
        "/.git/config",
        "/%2egit/config",
        "/x%2f.git/config",
        "/../outside-of-site",
        "/..%2foutside-of-site",
        "/adapters/..%5c..%5cindex.html",
        "/adapters/",
        "/%ff",
    ] {
        let answer = served.get(path, &[]);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("cache-control"), "no-cache");
        assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin");
    }
}

#[test]
fn a_run_folder_shows_its_report() {
    let served = Served::start(&[("report.html", b"<p>report"), ("metrics.json", b"{}")]);
    let home = served.get("/", &[]);
    assert_eq!(
        (home.status, home.body.as_slice()),
        (200, &b"<p>report"[..])
    );
    assert_eq!(home.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(served.get("/metrics.json", &[]).status, 200);
}

#[test]
fn folders_without_a_page_and_taken_ports_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let none = Site::open(&dir.path().join("none"))
        .unwrap_err()
        .to_string();
    assert!(none.contains("no folder"), "{none}");
    std::fs::write(dir.path().join("notes.txt"), "").unwrap();
    let bare = Site::open(dir.path()).unwrap_err().to_string();
    assert!(
        bare.contains("index.html") && bare.contains("notes.txt"),
        "{bare}"
    );

    let served = site();
    let site = Site::open(served.dir.path()).unwrap();
    let error = serve(&site, served.address, &Interrupt::default(), |_| Ok(())).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains(&served.address.to_string()) && text.contains("--port 0"),
        "{text}"
    );
}
