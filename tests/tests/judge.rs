//! `trainer judge` as a user runs it, against a judge on this machine that behaves as told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use qloom_tests::cases::json;
use qloom_tests::fixtures::arg;
use qloom_tests::trainer::{Ended, binary, run};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Status, further header lines, and what the judge says (or a whole body, for other statuses than 200).
type Answer = (u16, &'static str, String);
type Script = Box<dyn Fn(usize, &str) -> Answer + Send + Sync>;

/// An endpoint that keeps the head and the body of every request.
struct Mock {
    url: String,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Mock {
    fn start(script: impl Fn(usize, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let script: Arc<Script> = Arc::new(Box::new(script));
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, script) = (Arc::clone(&shared), Arc::clone(&script));
                std::thread::spawn(move || answer(stream, &seen, &script));
            }
        });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn answer(mut stream: TcpStream, seen: &Mutex<Vec<(String, Value)>>, script: &Script) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while reader.read_line(&mut head).unwrap_or(0) > 2 {}
    let length = head
        .lines()
        .find_map(|l| {
            l.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        })
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let question = body["messages"][1]["content"].as_str().unwrap().to_owned();
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push((head, body));
        seen.len() - 1
    };
    let (status, headers, text) = script(number, &question);
    let body = match status {
        200 => json!({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})
            .to_string(),
        _ => text,
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}",
        body.len()
    );
}

/// The texts of the answers A and B of a question.
fn shown(question: &str) -> (&str, &str) {
    let part = |title: &str| {
        let after = question.split(title).nth(1).unwrap();
        after.lines().nth(1).unwrap()
    };
    (part("answer A]"), part("answer B]"))
}

/// Prefers the longer answer, ties on equal length.
fn fair(question: &str) -> Answer {
    let (a, b) = shown(question);
    let verdict = match a.len().cmp(&b.len()) {
        std::cmp::Ordering::Greater => "A",
        std::cmp::Ordering::Less => "B",
        std::cmp::Ordering::Equal => "tie",
    };
    (
        200,
        "",
        format!("Because it is.\n{{\"verdict\": \"{verdict}\"}}"),
    )
}

struct Scene {
    dir: TempDir,
}

impl Scene {
    /// Eight pairs: five that the adapted model wins, two that the base wins, one tie.
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let row = |i: usize| {
            let (base, adapted) = match i {
                0..5 => ("short", "rather longer"),
                5..7 => ("rather longer", "short"),
                _ => ("same!", "equal"),
            };
            let reference = i.is_multiple_of(2).then_some("the reference");
            json!({"prompt": format!("question {i}"), "reference": reference, "base": base, "adapted": adapted, "base_ids": [1]})
        };
        let lines: String = (0..8).map(|i| format!("{}\n", row(i))).collect();
        std::fs::write(dir.path().join("answers.jsonl"), lines).unwrap();
        Self { dir }
    }

    fn pairs(&self) -> PathBuf {
        self.dir.path().join("answers.jsonl")
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("answers.judge")
    }

    fn judge(&self, url: &str, more: &[&str]) -> Ended {
        let pairs = self.pairs();
        let mut args = vec![
            "judge",
            "--pairs",
            arg(&pairs),
            "--endpoint",
            url,
            "--model",
            "m",
        ];
        args.extend(more);
        run(&args)
    }

    fn cached(&self) -> usize {
        let text = std::fs::read_to_string(self.out().join("cache.jsonl")).unwrap_or_default();
        text.lines().count()
    }
}

#[test]
fn both_orders_are_asked_and_a_rerun_asks_nothing() {
    let scene = Scene::new();
    let mock = Mock::start(|_, question| fair(question));
    let ended = scene.judge(&mock.url, &["--json"]).ok();
    let seen = mock.seen();
    assert_eq!(seen.len(), 16);
    for pair in 0..8 {
        let text = format!("question {pair}\n");
        let of_pair: Vec<(String, String)> = seen
            .iter()
            .filter_map(|(_, body)| body["messages"][1]["content"].as_str())
            .filter(|q| q.contains(&text))
            .map(|q| (shown(q).0.to_owned(), shown(q).1.to_owned()))
            .collect();
        assert_eq!(of_pair.len(), 2);
        assert_eq!(of_pair[0].0, of_pair[1].1, "swapped");
        assert_eq!(of_pair[0].1, of_pair[1].0, "swapped");
    }
    assert!(
        seen[0].0.starts_with("POST /v1/chat/completions "),
        "{}",
        seen[0].0
    );

    let result: Value = serde_json::from_str(&ended.stdout).unwrap();
    let report = &result["report"];
    assert_eq!(
        (&report["wins"], &report["ties"], &report["losses"]),
        (&json!(5), &json!(1), &json!(2))
    );
    assert_eq!(report["win_rate"]["estimate"], json!(5.5 / 8.0));
    assert_eq!(report["position_consistency"]["estimate"], json!(1.0));
    // scipy.stats.binomtest(2, 7).pvalue
    assert!((report["p_value"].as_f64().unwrap() - 0.453_125).abs() < 1e-12);
    assert_eq!(json(&scene.out().join("judge.json")), result);
    let csv = std::fs::read_to_string(scene.out().join("judge.csv")).unwrap();
    assert_eq!(csv.lines().count(), 9);
    assert_eq!(
        csv.lines().nth(1).unwrap(),
        "1,question 0,the reference,short,rather longer,B,A,true,adapted"
    );
    assert_eq!(
        csv.lines().nth(2).unwrap(),
        "2,question 1,,short,rather longer,B,A,true,adapted"
    );

    let again = scene.judge(&mock.url, &[]).ok();
    assert_eq!(mock.seen().len(), 0, "the cache answers");
    for words in ["5 / 1 / 2", "win rate", "position consistency", "sign test"] {
        assert!(again.stdout.contains(words), "{words}: {}", again.stdout);
    }
    assert!(
        again.stderr.contains("16 from the cache"),
        "{}",
        again.stderr
    );
}

#[test]
fn a_judge_that_looks_at_the_place_is_found_out() {
    let scene = Scene::new();
    let mock = Mock::start(|_, _| (200, "", "[[A]]".into()));
    let ended = scene.judge(&mock.url, &["--json"]).ok();
    let report = &serde_json::from_str::<Value>(&ended.stdout).unwrap()["report"];
    assert_eq!(
        (&report["wins"], &report["ties"], &report["losses"]),
        (&json!(0), &json!(8), &json!(0))
    );
    assert_eq!(report["position_consistency"]["estimate"], json!(0.0));
    assert_eq!(report["first_position_share"], json!(1.0));
    assert_eq!(report["disagreements"], json!(8));
    assert!(
        ended.stderr.contains("0 % of the pairs"),
        "{}",
        ended.stderr
    );
}

#[test]
fn replies_without_a_verdict_count_as_ties_and_are_counted() {
    let scene = Scene::new();
    let mock = Mock::start(|_, question| match question.contains("question 3\n") {
        true => (
            200,
            "",
            "As a language model I find both interesting.".into(),
        ),
        false => fair(question),
    });
    let ended = scene.judge(&mock.url, &["--json"]).ok();
    let report = &serde_json::from_str::<Value>(&ended.stdout).unwrap()["report"];
    assert_eq!((&report["wins"], &report["ties"]), (&json!(4), &json!(2)));
    assert_eq!(
        (&report["unparsed"], &report["complete"], &report["pairs"]),
        (&json!(2), &json!(7), &json!(8))
    );
    assert!(
        ended.stderr.contains("2 of 16 replies hold no verdict"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_busy_judge_is_asked_again() {
    let scene = Scene::new();
    let mock = Mock::start(|number, question| match number {
        0 => (429, "Retry-After: 0\r\n", "busy".into()),
        1 => (500, "", "trouble".into()),
        _ => fair(question),
    });
    scene.judge(&mock.url, &["--concurrency", "1"]).ok();
    assert_eq!(mock.seen().len(), 18);
}

#[test]
fn what_was_answered_before_a_failure_is_kept_and_the_next_run_continues() {
    let scene = Scene::new();
    let mock = Mock::start(|number, question| match number {
        0..6 => fair(question),
        _ => (
            500,
            "",
            "{\"error\": {\"message\": \"out of memory\"}}".into(),
        ),
    });
    let ended = scene.judge(&mock.url, &["--concurrency", "1", "--max-retries", "1"]);
    assert_eq!(ended.code, 1);
    ended.refused(&["pair 4", "out of memory", "6 of 16", "cache.jsonl"]);
    assert_eq!(scene.cached(), 6);
    assert!(!scene.out().join("judge.json").exists(), "no half result");

    let well = Mock::start(|_, question| fair(question));
    scene.judge(&well.url, &[]).ok();
    assert_eq!(well.seen().len(), 10, "only what was missing");
    assert_eq!(
        json(&scene.out().join("judge.json"))["report"]["wins"],
        json!(5)
    );
}

#[test]
fn an_unreachable_or_refusing_judge_is_named() {
    let scene = Scene::new();
    let ended = scene.judge("http://127.0.0.1:9/v1", &["--max-retries", "0"]);
    assert_eq!(ended.code, 1);
    ended.refused(&["127.0.0.1:9", "reachable", "0 of 16"]);
    let mock = Mock::start(|_, _| {
        (
            401,
            "",
            "{\"error\": {\"message\": \"who are you\"}}".into(),
        )
    });
    let ended = scene.judge(&mock.url, &["--concurrency", "1"]);
    assert_eq!(ended.code, 1);
    assert_eq!(mock.seen().len(), 1, "asking again would not help");
    ended.refused(&["401", "OPENAI_API_KEY", "who are you"]);
}

#[test]
fn the_key_comes_from_the_environment_and_stays_out_of_everything() {
    let scene = Scene::new();
    let mock = Mock::start(|number, question| match number {
        0..4 => fair(question),
        _ => (
            403,
            "",
            "{\"error\": {\"message\": \"key sk-e2e-secret has no access\"}}".into(),
        ),
    });
    let output = Command::new(binary())
        .args([
            "judge",
            "--pairs",
            arg(&scene.pairs()),
            "--endpoint",
            &mock.url,
            "--model",
            "m",
        ])
        .args(["--key-env", "JUDGE_TEST_KEY", "--concurrency", "1"])
        .env("JUDGE_TEST_KEY", "sk-e2e-secret")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        said.contains("JUDGE_TEST_KEY") && !said.contains("sk-e2e-secret"),
        "{said}"
    );
    assert!(
        mock.seen()[0]
            .0
            .to_ascii_lowercase()
            .contains("authorization: bearer sk-e2e-secret")
    );
    for entry in std::fs::read_dir(scene.out()).unwrap() {
        let text = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains("sk-e2e-secret"));
    }
    scene
        .judge(&mock.url, &["--key-env", "NO_SUCH_KEY"])
        .refused_as_usage(&["NO_SUCH_KEY"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_the_replies_under_way() {
    let scene = Scene::new();
    let mock = Mock::start(|number, question| {
        if number >= 4 {
            std::thread::sleep(Duration::from_millis(1500));
        }
        fair(question)
    });
    let child = Command::new(binary())
        .args([
            "judge",
            "--pairs",
            arg(&scene.pairs()),
            "--endpoint",
            &mock.url,
            "--model",
            "m",
        ])
        .args(["--concurrency", "2"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while mock.seen.lock().unwrap().len() < 5 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    let (asked, kept) = (mock.seen().len(), scene.cached());
    assert!((5..=6).contains(&asked), "{asked}");
    assert_eq!(kept, asked, "what was under way arrived and is kept");
    scene.judge(&mock.url, &["--concurrency", "16"]).ok();
    assert_eq!(mock.seen().len(), 16 - kept);
}

#[test]
fn other_columns_and_formats_can_be_named() {
    let scene = Scene::new();
    let table = scene.dir.path().join("t.csv");
    std::fs::write(&table, "q,full,merged\nwhy?,because,because of that\n").unwrap();
    let mock = Mock::start(|_, question| fair(question));
    let pairs = |more: &[&str]| {
        let mut args = vec![
            "judge",
            "--pairs",
            arg(&table),
            "--endpoint",
            &mock.url,
            "--model",
            "m",
        ];
        args.extend(more);
        run(&args)
    };
    let ended = pairs(&["--prompt", "q", "--a", "full", "--b", "merged", "--json"]).ok();
    let result: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (&result["adapted"], &result["report"]["wins"]),
        (&json!("merged"), &json!(1))
    );
    pairs(&["--prompt", "q"]).refused(&["t.csv", "line 2", "`base`", "full, merged", "--a"]);

    let generated = scene.dir.path().join("g.jsonl");
    std::fs::write(
        &generated,
        "{\"prompt\": \"p\", \"base\": \"b\", \"adapted\": null}\n",
    )
    .unwrap();
    let args = [
        "judge",
        "--pairs",
        arg(&generated),
        "--endpoint",
        &mock.url,
        "--model",
        "m",
    ];
    run(&args).refused(&["g.jsonl", "line 1", "adapted", "null", "--adapter"]);
    std::fs::write(&generated, "").unwrap();
    run(&args).refused(&["g.jsonl"]);
}

#[test]
fn wrong_usage_is_told_apart() {
    let scene = Scene::new();
    let pairs = scene.pairs();
    let judge = |more: &[&str]| {
        let mut args = vec!["judge", "--pairs", arg(&pairs)];
        args.extend(more);
        run(&args)
    };
    let url = "http://127.0.0.1:9";
    judge(&[]).refused_as_usage(&["--endpoint", "--base"]);
    judge(&["--endpoint", url]).refused_as_usage(&["--model"]);
    judge(&["--endpoint", url, "--model", "m", "--base", "b"]).refused_as_usage(&["--base"]);
    for (flag, value) in [
        ("--temperature", "hot"),
        ("--rate", "0"),
        ("--timeout", "0"),
        ("--concurrency", "0"),
    ] {
        judge(&["--endpoint", url, "--model", "m", flag, value]).refused_as_usage(&[flag]);
    }
    judge(&["--endpoint", "gopher://x", "--model", "m"]).refused_as_usage(&["gopher"]);
    judge(&["--endpoint", "http://me:pw@x", "--model", "m"]).refused_as_usage(&["credentials"]);
    assert!(
        !scene.out().exists(),
        "nothing is made before the flags are understood"
    );
}

/// A model on this machine judges too. The tiny embedded base is no judge, so what is tested is the protocol: every question
/// is asked once, replies are kept, and a second run computes nothing.
#[test]
fn a_local_base_judges_from_its_own_cache() {
    let dir = TempDir::new().unwrap();
    let pairs = dir.path().join("p.jsonl");
    std::fs::write(
        &pairs,
        "{\"prompt\": \"p\", \"base\": \"good\", \"adapted\": \"bad\"}\n",
    )
    .unwrap();
    let base = local_base(dir.path());
    let judge = |more: &[&str]| {
        let mut args = vec![
            "judge",
            "--pairs",
            arg(&pairs),
            "--base",
            arg(&base),
            "--device",
            "cpu",
        ];
        args.extend(more);
        run(&args)
    };
    judge(&["--max-tokens", "100000"]).refused(&["pair 1", "context", "--max-tokens"]);
    let first = judge(&["--max-tokens", "4", "--json"]).ok();
    let result: Value = serde_json::from_str(&first.stdout).unwrap();
    assert_eq!(result["replies"]["asked"], json!(2));
    assert_eq!(result["report"]["pairs"], json!(1));
    let again = judge(&["--max-tokens", "4", "--json"]).ok();
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(
        (&again["replies"]["asked"], &again["replies"]["cached"]),
        (&json!(0), &json!(2))
    );
    assert_eq!(again["report"], result["report"]);
    judge(&["--temperature", "0.7"]).refused_as_usage(&["--temperature", "greedy"]);
}

/// The smallest golden base with words as tokens and a context that holds the question.
fn local_base(dir: &Path) -> PathBuf {
    use qloom_tests::fixtures::{edit_json, small_base, talking_base};
    let base = dir.join("base");
    talking_base(&small_base(), &base);
    edit_json(&base.join("config.json"), |c| {
        c["max_position_embeddings"] = json!(1024)
    });
    base
}
