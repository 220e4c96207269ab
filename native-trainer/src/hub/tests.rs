//! The hub client against a server on this machine that speaks the hub's protocol, and breaks off when told to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use super::reference::DatasetRef;
use super::settings::HubSettings;
use super::*;
use crate::progress::Mode;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server holds and how it misbehaves.
#[derive(Default)]
struct Site {
    files: BTreeMap<String, Vec<u8>>,
    /// Bearer token it asks for.
    token: Option<String>,
    /// Breaks the connection after so many bytes of a body longer than that, this many times.
    break_after: usize,
    breaks_left: usize,
    /// States this instead of the file's SHA-256.
    false_hash: Option<String>,
    requests: Vec<String>,
}

struct Server {
    endpoint: String,
    site: Arc<Mutex<Site>>,
}

impl Server {
    fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let files = files
            .iter()
            .map(|(n, b)| ((*n).to_owned(), b.to_vec()))
            .collect();
        let site = Arc::new(Mutex::new(Site {
            files,
            ..Site::default()
        }));
        let shared = Arc::clone(&site);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &shared);
            }
        });
        Self { endpoint, site }
    }

    fn settings(&self, cache: &Path) -> HubSettings {
        HubSettings {
            endpoint: self.endpoint.clone(),
            cache: cache.join("hub"),
            token: None,
            offline: false,
            progress: Mode::Quiet,
            attempts: 3,
        }
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.site.lock().unwrap().requests)
    }
}

/// Reads one request and answers it; every connection serves one.
fn answer(mut stream: TcpStream, site: &Mutex<Site>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap()?;
    let headers: BTreeMap<String, String> = lines
        .map_while(|line| line.ok().filter(|l| !l.is_empty()))
        .filter_map(|line| {
            Some((
                line.split_once(": ")?.0.to_lowercase(),
                line.split_once(": ")?.1.to_owned(),
            ))
        })
        .collect();
    let path = first.split(' ').nth(1).unwrap();
    let range = headers.get("range").map(String::as_str);
    let mut site = site.lock().unwrap();
    site.requests
        .push(format!("{path} {}", range.unwrap_or("")));
    let wanted = site.token.as_ref().map(|token| format!("Bearer {token}"));
    if wanted.is_some() && headers.get("authorization") != wanted.as_ref() {
        return write!(
            stream,
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    if path.starts_with("/api/")
        && (path.ends_with("/me/tiny/revision/main") || path.ends_with("/me/tiny/revision/v1"))
    {
        let siblings: Vec<_> = site
            .files
            .keys()
            .map(|n| serde_json::json!({"rfilename": n}))
            .collect();
        let body = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
        let length = body.len();
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
    }
    let name = path
        .split_once(&format!("/resolve/{COMMIT}/"))
        .map(|(_, name)| name.to_owned());
    let Some(body) = name.and_then(|name| site.files.get(&name).cloned()) else {
        return write!(
            stream,
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    };
    let (from, to) = range
        .and_then(|r| r.strip_prefix("bytes=")?.split_once('-'))
        .unwrap_or(("0", ""));
    let from: usize = from.parse().unwrap();
    let to = to.parse().unwrap_or(body.len() - 1).min(body.len() - 1);
    if from > to {
        return write!(
            stream,
            "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let hash: String = Sha256::digest(&body)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let hash = site.false_hash.clone().unwrap_or(hash);
    let part = &body[from..=to];
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{to}/{}\r\n\
         ETag: \"{hash}\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n",
        part.len(),
        body.len()
    )?;
    if site.breaks_left > 0 && part.len() > site.break_after {
        site.breaks_left -= 1;
        return stream.write_all(&part[..site.break_after]);
    }
    stream.write_all(part)
}

fn weights() -> Vec<u8> {
    (0..100_000_u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

fn base_server() -> Server {
    Server::start(&[
        ("README.md", b"not needed"),
        ("config.json", b"{}"),
        ("model.safetensors", &weights()),
        ("pytorch_model.bin", b"not needed"),
        ("tokenizer.json", b"{\"a\":1}"),
    ])
}

fn held(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_base_is_fetched_once_and_then_found() {
    let (server, dir) = (base_server(), tempfile::tempdir().unwrap());
    let settings = server.settings(dir.path());
    let path = resolve_base("me/tiny", &settings).unwrap();
    assert_eq!(
        held(&path),
        ["config.json", "model.safetensors", "tokenizer.json"]
    );
    assert_eq!(
        std::fs::read(path.join("model.safetensors")).unwrap(),
        weights()
    );
    assert!(server.requests().len() > 4);

    assert_eq!(resolve_base("me/tiny", &settings).unwrap(), path);
    assert_eq!(
        server.requests(),
        ["/api/models/me/tiny/revision/main "],
        "only the commit is asked for"
    );

    let offline = HubSettings {
        offline: true,
        endpoint: "http://127.0.0.1:1".into(),
        ..settings
    };
    assert_eq!(resolve_base("me/tiny", &offline).unwrap(), path);
    assert_eq!(
        resolve_base(&format!("me/tiny@{COMMIT}"), &offline).unwrap(),
        path
    );
    assert!(server.requests().is_empty());
}

#[test]
fn an_unreachable_hub_falls_back_to_the_cache() {
    let (server, dir) = (base_server(), tempfile::tempdir().unwrap());
    let settings = server.settings(dir.path());
    let path = resolve_base("me/tiny", &settings).unwrap();
    let cut_off = HubSettings {
        endpoint: "http://127.0.0.1:1".into(),
        ..settings.clone()
    };
    assert_eq!(resolve_base("me/tiny", &cut_off).unwrap(), path);
    let error = format!("{:#}", resolve_base("me/other", &cut_off).unwrap_err());
    assert!(
        error.contains("cannot be reached") && error.contains("HF_ENDPOINT"),
        "{error}"
    );
}

#[test]
fn a_broken_download_continues_where_it_stopped() {
    let (server, dir) = (base_server(), tempfile::tempdir().unwrap());
    let settings = server.settings(dir.path());
    {
        let mut site = server.site.lock().unwrap();
        (site.break_after, site.breaks_left) = (150_000, 2);
    }
    let path = resolve_base("me/tiny", &settings).unwrap();
    assert_eq!(
        std::fs::read(path.join("model.safetensors")).unwrap(),
        weights()
    );
    let ranges: Vec<String> = server
        .requests()
        .into_iter()
        .filter(|r| r.contains("model.safetensors") && !r.ends_with("bytes=0-0"))
        .collect();
    assert_eq!(ranges.len(), 3, "{ranges:?}");
    assert!(
        ranges[1].ends_with("bytes=150000-") && ranges[2].ends_with("bytes=300000-"),
        "{ranges:?}"
    );
}

#[test]
fn a_download_that_fails_for_good_is_continued_by_the_next_run() {
    let (server, dir) = (base_server(), tempfile::tempdir().unwrap());
    let once = HubSettings {
        attempts: 1,
        ..server.settings(dir.path())
    };
    {
        let mut site = server.site.lock().unwrap();
        (site.break_after, site.breaks_left) = (1000, 1);
    }
    let error = format!("{:#}", resolve_base("me/tiny", &once).unwrap_err());
    assert!(
        error.contains("model.safetensors") && error.contains("is kept"),
        "{error}"
    );
    let offline = HubSettings {
        offline: true,
        ..once.clone()
    };
    assert!(
        resolve_base("me/tiny", &offline).is_err(),
        "an unfinished snapshot is not used"
    );
    server.requests();
    resolve_base("me/tiny", &once).unwrap();
    let requests = server.requests();
    assert!(
        requests.iter().any(|r| r.ends_with("bytes=1000-")),
        "{requests:?}"
    );
    assert!(
        !requests.iter().any(|r| r.contains("config.json")),
        "{requests:?}"
    );
}

#[test]
fn a_part_that_is_whole_or_too_long_does_not_block() {
    for excess in [0, 5] {
        let (server, dir) = (base_server(), tempfile::tempdir().unwrap());
        let settings = server.settings(dir.path());
        let hash: String = Sha256::digest(weights())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let blobs = settings.cache.join("models--me--tiny/blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        let mut part = weights();
        part.extend(vec![0; excess]);
        std::fs::write(blobs.join(hash).with_extension("part"), part).unwrap();
        let path = resolve_base("me/tiny", &settings).unwrap();
        assert_eq!(
            std::fs::read(path.join("model.safetensors")).unwrap(),
            weights()
        );
    }
}

#[test]
fn a_damaged_file_is_not_kept() {
    let (server, dir) = (base_server(), tempfile::tempdir().unwrap());
    let settings = server.settings(dir.path());
    server.site.lock().unwrap().false_hash = Some("0".repeat(64));
    let error = format!("{:#}", resolve_base("me/tiny", &settings).unwrap_err());
    assert!(error.contains("SHA-256"), "{error}");
    server.site.lock().unwrap().false_hash = None;
    resolve_base("me/tiny", &settings).unwrap();
}

#[test]
fn private_and_missing_repositories_say_what_to_do() {
    let (server, dir) = (base_server(), tempfile::tempdir().unwrap());
    let settings = server.settings(dir.path());
    let error = format!("{:#}", resolve_base("me/nothing", &settings).unwrap_err());
    assert!(
        error.contains("no such repository") && error.contains("spelling"),
        "{error}"
    );
    let error = format!("{:#}", resolve_base("me/tiny@v9", &settings).unwrap_err());
    assert!(error.contains("me/tiny@v9"), "{error}");

    server.site.lock().unwrap().token = Some("hf_right".into());
    let error = format!("{:#}", resolve_base("me/tiny", &settings).unwrap_err());
    assert!(error.contains("HF_TOKEN"), "{error}");
    let wrong = HubSettings {
        token: Some("hf_wrong".into()),
        ..settings.clone()
    };
    let error = format!("{:#}", resolve_base("me/tiny", &wrong).unwrap_err());
    assert!(
        error.contains("expired") && !error.contains("hf_wrong"),
        "{error}"
    );
    let right = HubSettings {
        token: Some("hf_right".into()),
        ..settings
    };
    resolve_base("me/tiny@v1", &right).unwrap();
}

#[test]
fn shards_come_with_their_index() {
    let index = br#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}"#;
    let files: [(&str, &[u8]); 4] = [
        ("config.json", b"{}"),
        (INDEX, index),
        ("model-1.safetensors", b"one"),
        ("model-2.safetensors", b"two"),
    ];
    let (server, dir) = (Server::start(&files), tempfile::tempdir().unwrap());
    let settings = server.settings(dir.path());
    let path = resolve_base("me/tiny", &settings).unwrap();
    assert_eq!(
        std::fs::read(path.join("model-2.safetensors")).unwrap(),
        b"two"
    );
    let offline = HubSettings {
        offline: true,
        ..settings
    };
    assert_eq!(resolve_base("me/tiny", &offline).unwrap(), path);
}

#[test]
fn unusable_repositories_are_refused_before_anything_is_fetched() {
    type Files = &'static [(&'static str, &'static [u8])];
    let cases: [(Files, &str); 4] = [
        (
            &[("config.json", b"{}"), ("pytorch_model.bin", b"x")],
            "pickled",
        ),
        (
            &[("config.json", b"{}"), ("model.gguf", b"x")],
            "model.gguf",
        ),
        (&[("adapter_config.json", b"{}")], "--adapter"),
        (&[("README.md", b"x")], "no config.json"),
    ];
    for (files, expected) in cases {
        let (server, dir) = (Server::start(files), tempfile::tempdir().unwrap());
        let error = format!(
            "{:#}",
            resolve_base("me/tiny", &server.settings(dir.path())).unwrap_err()
        );
        assert!(
            error.contains(expected) && error.contains("me/tiny"),
            "{error}"
        );
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn hostile_names_from_a_server_stay_in_the_cache() {
    let index = br#"{"weight_map":{"a":"../../../../evil"}}"#;
    let (server, dir) = (
        Server::start(&[("config.json", b"{}"), (INDEX, index)]),
        tempfile::tempdir().unwrap(),
    );
    let error = format!(
        "{:#}",
        resolve_base("me/tiny", &server.settings(dir.path())).unwrap_err()
    );
    assert!(error.contains("no plain file name"), "{error}");
    let (server, dir) = (
        Server::start(&[("../../train.jsonl", b"x")]),
        tempfile::tempdir().unwrap(),
    );
    let hub = fetch::Hub::new(server.settings(dir.path())).unwrap();
    let data = DatasetRef::parse_bare("me/tiny").unwrap();
    assert!(hub.dataset(&data, None, None).is_err());
    assert_eq!(held(dir.path()), Vec::<String>::new());
}

#[test]
fn data_set_splits_and_adapters_are_fetched() {
    let files: [(&str, &[u8]); 4] = [
        ("adapter_config.json", b"{}"),
        ("adapter_model.safetensors", b"12345678"),
        ("data/train.jsonl", b"{\"a\":1}\n"),
        ("data/test.jsonl", b"{\"a\":2}\n"),
    ];
    let (server, dir) = (Server::start(&files), tempfile::tempdir().unwrap());
    let settings = server.settings(dir.path());
    let hub = fetch::Hub::new(settings.clone()).unwrap();
    let data = DatasetRef::parse("hf:me/tiny").unwrap().unwrap();
    let paths = hub.dataset(&data, Some("test"), None).unwrap();
    assert_eq!(paths.len(), 1);
    assert_eq!(std::fs::read(&paths[0]).unwrap(), b"{\"a\":2}\n");
    let file = DatasetRef::parse("hf:me/tiny/data/train.jsonl")
        .unwrap()
        .unwrap();
    assert!(hub.dataset(&file, None, None).unwrap()[0].ends_with("data/train.jsonl"));
    let path = resolve_adapter("me/tiny", &settings).unwrap();
    assert_eq!(
        held(&path),
        ["adapter_config.json", "adapter_model.safetensors"]
    );
}

#[test]
fn a_parquet_file_of_a_data_set_is_fetched_alone_and_read() {
    let (cache, made) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = made.path().join("rows.parquet");
    crate::files::records::tests::write(&file, parquet::basic::Compression::SNAPPY);
    let bytes = std::fs::read(&file).unwrap();
    let name = "sentiment/train-00000-of-00001.parquet";
    let server = Server::start(&[
        (name, &bytes),
        ("sentiment/test-00000-of-00001.parquet", b"x"),
    ]);
    let settings = server.settings(cache.path());
    let get = |text: &str, settings: &HubSettings| {
        let reference = DatasetRef::parse(text).unwrap().unwrap();
        fetch::Hub::new(settings.clone())
            .unwrap()
            .dataset(&reference, None, None)
    };
    let text = format!("hf:me/tiny/{name}");
    let paths = get(&text, &settings).unwrap();
    assert_eq!(paths.len(), 1);
    let rows = crate::session::read_one(&paths[0], &Default::default()).unwrap();
    assert_eq!(rows.rows.len(), 3);
    assert_eq!(rows.rows[1].record["label"], -2);
    assert!(!server.requests().iter().any(|r| r.contains("test-")));

    let cut_off = HubSettings {
        endpoint: "http://127.0.0.1:1".into(),
        ..settings.clone()
    };
    assert_eq!(get(&text, &cut_off).unwrap(), paths, "from the cache");
    let error = get("hf:me/tiny/sentiment/absent.parquet", &settings).unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("absent.parquet") && error.contains(name),
        "{error}"
    );
    let error = format!("{:#}", get("hf:me/other/a.parquet", &cut_off).unwrap_err());
    assert!(
        error.contains("cannot be reached") && error.contains("HF_HUB_OFFLINE"),
        "{error}"
    );
}

#[test]
fn local_folders_need_no_hub() {
    let dir = tempfile::tempdir().unwrap();
    let settings = HubSettings {
        endpoint: "http://127.0.0.1:1".into(),
        ..base_server().settings(dir.path())
    };
    let folder = dir.path().to_str().unwrap();
    assert_eq!(resolve_base(folder, &settings).unwrap(), dir.path());
    std::fs::write(dir.path().join("f"), "").unwrap();
    assert!(
        resolve_base(&format!("{folder}/f"), &settings)
            .unwrap_err()
            .to_string()
            .contains("is a file")
    );
    assert!(
        resolve_base("./no/where", &settings)
            .unwrap_err()
            .to_string()
            .contains("no such folder")
    );
    let offline = HubSettings {
        offline: true,
        ..settings
    };
    let error = format!("{:#}", resolve_base("me/tiny", &offline).unwrap_err());
    assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
}
