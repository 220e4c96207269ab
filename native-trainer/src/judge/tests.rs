//! The pool and the cache against a judge on this machine that misbehaves as told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qloom_core::evaluation::judge::{Choice, JudgePair, JudgeParameters, Preference};
use serde_json::{Value, json};

use super::cache::Cache;
use super::endpoint::Endpoint;
use super::pool::{Pressure, ask_all};
use super::*;
use crate::progress::Mode;
use crate::progress::interrupt::Interrupt;

/// What the judge sends back: status, further header lines, body.
type Answer = (u16, String, String);
/// Chooses it from the number of the request (from 0) and its body.
type Script = Box<dyn Fn(usize, &Value) -> Answer + Send>;

/// A request as it came.
#[derive(Clone, Debug)]
struct Seen {
    authorization: Option<String>,
    body: Value,
    at: Instant,
}

struct Mock {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Mock {
    fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        let script = Arc::new(Mutex::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, script) = (Arc::clone(&shared), Arc::clone(&script));
                std::thread::spawn(move || serve(stream, &seen, &script));
            }
        });
        Self { url, seen }
    }

    fn endpoint(&self) -> Endpoint {
        let key = Some("sk-test".to_owned());
        Endpoint::new(&self.url, key, "K", Duration::from_secs(5)).unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Seen>>, script: &Mutex<Script>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut length, mut authorization, mut line) = (0, None, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        let Some((name, value)) = line.trim().split_once(": ") else {
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(Seen {
            authorization,
            body: body.clone(),
            at: Instant::now(),
        });
        seen.len() - 1
    };
    let (status, headers, body) = script.lock().unwrap()(number, &body);
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}",
        body.len()
    );
}

fn says(text: &str) -> Answer {
    let body = json!({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]});
    (200, String::new(), body.to_string())
}

/// A judge that prefers the answer with "good" in it, wherever it stands.
fn fair(body: &Value) -> Answer {
    let question = body["messages"][1]["content"].as_str().unwrap();
    let first = question.split("answer A]").nth(1).unwrap();
    let first = first.split("answer B]").next().unwrap();
    says(match first.contains("good") {
        true => "Because.\n{\"verdict\": \"A\"}",
        false => "Because.\n{\"verdict\": \"B\"}",
    })
}

fn pairs(count: usize) -> Vec<JudgePair> {
    let pair = |i: usize| JudgePair {
        prompt: format!("question {i}"),
        reference: None,
        base: "bad".into(),
        adapted: "good".into(),
    };
    (0..count).map(pair).collect()
}

const PLAIN: JudgeParameters = JudgeParameters {
    temperature: Some(0.0),
    max_tokens: None,
};

const PRESSURE: Pressure = Pressure {
    concurrency: 3,
    gap: Duration::ZERO,
    max_retries: 3,
    first_pause: Duration::from_millis(5),
};

/// Asks everything that is open, and returns the questions for a look at the rest.
fn judge(
    mock: &Mock,
    pairs: &[JudgePair],
    pressure: Pressure,
    cache: &mut Cache,
) -> (Questions, Result<()>) {
    let questions = Questions::new(pairs, "m", PLAIN).unwrap();
    let open = questions.open(cache);
    let stop = Interrupt::default();
    let ended = ask_all(&mock.endpoint(), &open, pressure, cache, &stop, Mode::Quiet);
    (questions, ended)
}

#[test]
fn both_orders_are_asked_once_and_never_again() {
    let dir = tempfile::tempdir().unwrap();
    let mock = Mock::start(Box::new(|_, body| fair(body)));
    let mut cache = Cache::open(dir.path()).unwrap();
    let (questions, ended) = judge(&mock, &pairs(5), PRESSURE, &mut cache);
    ended.unwrap();
    let seen = mock.seen();
    assert_eq!(seen.len(), 10);
    assert!(
        seen.iter()
            .all(|s| s.authorization.as_deref() == Some("Bearer sk-test"))
    );
    assert!(
        seen.iter()
            .all(|s| s.body["model"] == "m" && s.body["temperature"] == 0.0)
    );
    let (verdicts, cut) = questions.verdicts(&cache).unwrap();
    assert_eq!(cut, 0);
    for verdict in &verdicts {
        assert_eq!(verdict.base_first, Some(Choice::B));
        assert_eq!(verdict.adapted_first, Some(Choice::A));
        assert_eq!(verdict.outcome(), Preference::Adapted);
    }
    drop(cache);
    // Another process, the same questions and two new ones.
    let mut cache = Cache::open(dir.path()).unwrap();
    judge(&mock, &pairs(5), PRESSURE, &mut cache).1.unwrap();
    assert_eq!(mock.seen().len(), 0);
    judge(&mock, &pairs(6), PRESSURE, &mut cache).1.unwrap();
    assert_eq!(mock.seen().len(), 2);
    let kept = std::fs::read_to_string(cache.path()).unwrap();
    assert_eq!(kept.lines().count(), 12);
    assert!(!kept.contains("sk-test"));
}

#[test]
fn the_same_question_twice_is_one_question() {
    let dir = tempfile::tempdir().unwrap();
    let mock = Mock::start(Box::new(|_, body| fair(body)));
    let mut cache = Cache::open(dir.path()).unwrap();
    let mut twice = pairs(2);
    twice.extend(pairs(2));
    let (questions, ended) = judge(&mock, &twice, PRESSURE, &mut cache);
    ended.unwrap();
    assert_eq!((mock.seen().len(), questions.len()), (4, 8));
    assert_eq!(questions.verdicts(&cache).unwrap().0.len(), 4);
}

#[test]
fn a_busy_judge_is_asked_again_after_the_pause_it_wants() {
    let dir = tempfile::tempdir().unwrap();
    let mock = Mock::start(Box::new(|number, body| match number {
        0 => (429, "Retry-After: 0.4\r\n".into(), "slow down".into()),
        1 => (503, String::new(), String::new()),
        2 => (200, String::new(), "<html>a proxy's page</html>".into()),
        _ => fair(body),
    }));
    let mut cache = Cache::open(dir.path()).unwrap();
    let alone = Pressure {
        concurrency: 1,
        ..PRESSURE
    };
    judge(&mock, &pairs(1), alone, &mut cache).1.unwrap();
    let seen = mock.seen();
    assert_eq!(seen.len(), 5);
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(400));
    assert_eq!(
        seen[0].body, seen[3].body,
        "the same question, until it is answered"
    );
}

#[test]
fn a_failing_judge_ends_the_work_and_what_was_answered_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mock = Mock::start(Box::new(|number, body| match number {
        0..4 => fair(body),
        _ => (
            401,
            String::new(),
            r#"{"error": {"message": "bad key sk-test"}}"#.into(),
        ),
    }));
    let mut cache = Cache::open(dir.path()).unwrap();
    let alone = Pressure {
        concurrency: 1,
        ..PRESSURE
    };
    let (questions, ended) = judge(&mock, &pairs(4), alone, &mut cache);
    let text = format!("{:#}", ended.unwrap_err());
    assert!(
        text.contains("pair 3") && text.contains("401") && text.contains("(the key)"),
        "{text}"
    );
    assert!(!text.contains("sk-test"), "{text}");
    assert_eq!(mock.seen().len(), 5, "nobody asks on");
    assert_eq!(questions.open(&cache).len(), 4);
    assert!(questions.verdicts(&cache).is_err());
    drop(cache);

    let well = Mock::start(Box::new(|_, body| fair(body)));
    let mut cache = Cache::open(dir.path()).unwrap();
    let (questions, ended) = judge(&well, &pairs(4), PRESSURE, &mut cache);
    ended.unwrap();
    assert_eq!(
        well.seen().len(),
        4,
        "only the rest, though the address is another"
    );
    assert!(questions.verdicts(&cache).is_ok());
}

#[test]
fn tries_and_patience_have_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = Cache::open(dir.path()).unwrap();
    let mock = Mock::start(Box::new(|_, _| (500, String::new(), "oops".into())));
    let alone = Pressure {
        concurrency: 1,
        max_retries: 2,
        ..PRESSURE
    };
    let text = format!(
        "{:#}",
        judge(&mock, &pairs(1), alone, &mut cache).1.unwrap_err()
    );
    assert!(
        text.contains("3 tries") && text.contains("status 500: oops"),
        "{text}"
    );
    assert_eq!(mock.seen().len(), 3);

    let mock = Mock::start(Box::new(|_, _| {
        (429, "Retry-After: 7200\r\n".into(), String::new())
    }));
    let text = format!(
        "{:#}",
        judge(&mock, &pairs(1), alone, &mut cache).1.unwrap_err()
    );
    assert!(text.contains("7200 s"), "{text}");
    assert_eq!(mock.seen().len(), 1);

    let gone = Mock {
        url: "http://127.0.0.1:9/v1".into(),
        seen: Arc::default(),
    };
    let text = format!(
        "{:#}",
        judge(&gone, &pairs(1), alone, &mut cache).1.unwrap_err()
    );
    assert!(
        text.contains("127.0.0.1:9") && text.contains("reachable"),
        "{text}"
    );
}

#[test]
fn a_silent_judge_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let endpoint = Endpoint::new(&url, None, "K", Duration::from_millis(100)).unwrap();
    let request = pairs(1)[0].request(Order::BaseFirst, "m", PLAIN);
    let began = Instant::now();
    let failure = endpoint.ask(&request).unwrap_err();
    assert!(
        matches!(failure, endpoint::Failure::Passing { .. }),
        "{failure:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[test]
fn the_rate_is_kept_across_workers() {
    let dir = tempfile::tempdir().unwrap();
    let mock = Mock::start(Box::new(|_, body| fair(body)));
    let mut cache = Cache::open(dir.path()).unwrap();
    let paced = Pressure {
        gap: Duration::from_millis(60),
        ..PRESSURE
    };
    judge(&mock, &pairs(3), paced, &mut cache).1.unwrap();
    let seen = mock.seen();
    let span = seen[5].at - seen[0].at;
    assert!(span >= Duration::from_millis(5 * 60 - 40), "{span:?}");
}

#[test]
fn an_interrupt_keeps_what_arrives_and_asks_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = Cache::open(dir.path()).unwrap();
    let stop = Interrupt::default();
    let presser = stop.clone();
    let mock = Mock::start(Box::new(move |number, body| {
        if number == 2 {
            presser.press();
        }
        fair(body)
    }));
    let questions = Questions::new(&pairs(20), "m", PLAIN).unwrap();
    let open = questions.open(&cache);
    let alone = Pressure {
        concurrency: 1,
        ..PRESSURE
    };
    ask_all(
        &mock.endpoint(),
        &open,
        alone,
        &mut cache,
        &stop,
        Mode::Quiet,
    )
    .unwrap();
    assert_eq!(mock.seen().len(), 3);
    assert_eq!(questions.open(&cache).len(), 37);
}

#[test]
fn replies_without_a_verdict_are_counted_not_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = Cache::open(dir.path()).unwrap();
    let mock = Mock::start(Box::new(|number, body| {
        match number {
        0 => says("I would rather not say."),
        1 => (200, String::new(), json!({"choices": [{"message": {"content": "Well, on the one"}, "finish_reason": "length"}]}).to_string()),
        2 => (400, String::new(), json!({"error": {"code": "content_filter"}}).to_string()),
        _ => fair(body),
    }
    }));
    let alone = Pressure {
        concurrency: 1,
        ..PRESSURE
    };
    let (questions, ended) = judge(&mock, &pairs(2), alone, &mut cache);
    ended.unwrap();
    let (verdicts, cut) = questions.verdicts(&cache).unwrap();
    assert_eq!(cut, 1);
    assert_eq!(
        (verdicts[0].base_first, verdicts[0].adapted_first),
        (None, None)
    );
    assert_eq!(
        (verdicts[1].base_first, verdicts[1].adapted_first),
        (None, Some(Choice::A))
    );
    judge(&mock, &pairs(2), alone, &mut cache).1.unwrap();
    assert_eq!(mock.seen().len(), 4);
}

#[test]
fn a_torn_line_is_asked_again_a_foreign_one_is_named_and_one_writes_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mock = Mock::start(Box::new(|_, body| fair(body)));
    let mut cache = Cache::open(dir.path()).unwrap();
    judge(&mock, &pairs(2), PRESSURE, &mut cache).1.unwrap();
    let busy = format!("{:#}", Cache::open(dir.path()).unwrap_err());
    assert!(busy.contains("--out DIR"), "{busy}");
    let path = cache.path().to_path_buf();
    drop(cache);

    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 9]).unwrap();
    mock.seen();
    let mut cache = Cache::open(dir.path()).unwrap();
    judge(&mock, &pairs(2), PRESSURE, &mut cache).1.unwrap();
    assert_eq!(mock.seen().len(), 1);
    drop(cache);

    std::fs::write(&path, format!("{{\"step\": 1}}\n{text}")).unwrap();
    let foreign = format!("{:#}", Cache::open(dir.path()).unwrap_err());
    assert!(foreign.contains("line 1"), "{foreign}");
}
