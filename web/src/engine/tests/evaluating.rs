//! Scores: what the trainer measured of the adapters the site ships, on the files it ships with them.

use serde_json::Value;

use super::*;
use crate::protocol::{ColumnScores, DataSource, EvalOptions, EvalRow, FileRef, Paired};

struct Evaluated {
    columns: Vec<ColumnScores>,
    paired: Vec<Paired>,
    notes: Vec<String>,
    rows: Vec<EvalRow>,
}

fn evaluate(
    bench: &Bench,
    data: DataSource,
    stacks: &[&[&str]],
    options: EvalOptions,
) -> Evaluated {
    let answer = bench.ask(Request::Evaluate {
        data,
        columns: columns(stacks),
        options,
    });
    let rows = answer.events.iter().filter_map(|e| match e {
        Event::EvalRows { rows } => Some(rows.clone()),
        _ => None,
    });
    let rows: Vec<EvalRow> = rows.flatten().collect();
    match answer.last() {
        Event::Evaluated {
            columns,
            paired,
            notes,
        } => Evaluated {
            columns: columns.clone(),
            paired: paired.clone(),
            notes: notes.clone(),
            rows,
        },
        other => panic!("{other:?}"),
    }
}

fn at(file: &str) -> DataSource {
    DataSource::Url {
        url: format!("{SITE}/data/{file}"),
    }
}

/// `metrics.json` of the native run that made `slug`.
fn native(slug: &str) -> Value {
    let folder = workspace().join("web/site/adapters").join(slug);
    serde_json::from_slice(&read(folder.join("metrics.json"))).unwrap()
}

fn value(scores: &ColumnScores, name: &str) -> f64 {
    let found = scores.metrics.iter().find(|m| m.name == name);
    found.unwrap_or_else(|| panic!("{name}: {scores:?}")).value
}

/// Every metric of `scores` against those the trainer wrote down, and its interval.
fn compare(scores: &ColumnScores, native: &Value, what: &str) {
    assert!(!scores.metrics.is_empty());
    for metric in &scores.metrics {
        let expected = native[&metric.name].as_f64().unwrap();
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-3 * b.abs().max(1e-3);
        assert!(
            near(metric.value, expected),
            "{what}: {metric:?}, the trainer has {expected}"
        );
        let interval = &native[format!("{}_ci", metric.name)];
        for (end, found) in metric.ci.unwrap().iter().enumerate() {
            let expected = interval[end].as_f64().unwrap();
            assert!(
                near(*found, expected),
                "{what}: {metric:?}, the trainer has {interval}"
            );
        }
    }
}

#[test]
fn labels_are_scored_as_the_trainer_scored_them() {
    let bench = Bench::started();
    bench.add("sentiment");
    let options = EvalOptions {
        batch_size: 32,
        max_length: 256,
        ..EvalOptions::default()
    };
    let found = evaluate(
        &bench,
        at("sentiment.jsonl"),
        &[&[], &["sentiment"]],
        options,
    );
    let native = native("sentiment");
    for (scores, side) in found.columns.iter().zip(["base", "adapted"]) {
        compare(scores, &native[side], side);
        let names: Vec<&str> = scores.metrics.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["perplexity", "loss", "accuracy", "macro_f1"]);
        assert_eq!((scores.examples, scores.tokens), (150, 300));
        assert_eq!(scores.labels, ["negative", "neutral", "positive"]);
        let rows = &native[side]["confusion_matrix"]["rows"];
        assert_eq!(serde_json::to_value(&scores.confusion).unwrap(), *rows);
        let expected = native[side]["per_class"]["neutral"]["f1"].as_f64().unwrap();
        assert!((scores.per_class_f1[1] - expected).abs() < 1e-9);
    }
    assert_eq!(found.rows.len(), 150);
    assert!(
        found.notes.iter().all(|n| !n.contains("left out")),
        "{:?}",
        found.notes
    );
    let correct = |column: usize| -> f64 {
        let rows = found.rows.iter().flat_map(|r| &r.values[column]);
        rows.filter(|(name, _)| name == "correct")
            .map(|(_, v)| v)
            .sum()
    };
    let accuracy = value(&found.columns[1], "accuracy");
    assert!((correct(1) / 150.0 - accuracy).abs() < 1e-9);
    assert_eq!(found.rows[0].line, 1);
    assert!(found.rows[0].prompt.contains("green cover"));
    assert_eq!(found.rows[0].reference, "neutral");
    assert_eq!(found.rows[0].answers[1].as_deref(), Some("neutral"));
    let names: Vec<&str> = found.paired.iter().map(|p| p.metric.as_str()).collect();
    assert_eq!(names, ["perplexity", "accuracy", "macro_f1"]);
    for paired in &found.paired {
        assert_eq!(paired.column, 1);
        assert!(
            paired.p_value < 0.01 && paired.ci[0] * paired.ci[1] > 0.0,
            "{paired:?}"
        );
    }
}

#[test]
fn perplexities_are_the_trainers() {
    let bench = Bench::started();
    for (file, slug) in [
        ("instructions.jsonl", "instructions"),
        ("stories.jsonl", "storyteller"),
    ] {
        bench.add(slug);
        let options = EvalOptions {
            metrics: vec!["perplexity".into()],
            batch_size: 16,
            ..EvalOptions::default()
        };
        let found = evaluate(&bench, at(file), &[&[], &[slug]], options);
        let native = native(slug);
        compare(&found.columns[0], &native["base"], slug);
        compare(&found.columns[1], &native["adapted"], slug);
    }
}

#[test]
fn answers_are_scored_against_references_in_every_metric() {
    let bench = Bench::started();
    bench.add("instructions");
    let names = ["bleu", "rouge", "exact_match", "token_f1"];
    let options = EvalOptions {
        metrics: names.map(str::to_owned).to_vec(),
        limit: Some(6),
        batch_size: 4,
        ..EvalOptions::default()
    };
    let stacks: &[&[&str]] = &[&[], &["instructions"]];
    let found = evaluate(&bench, at("instructions.jsonl"), stacks, options);
    let [base, adapted] = &found.columns[..] else {
        panic!()
    };
    let measured: Vec<&str> = adapted.metrics.iter().map(|m| m.name.as_str()).collect();
    let all = [
        "bleu",
        "rouge1",
        "rouge2",
        "rougeL",
        "rougeLsum",
        "exact_match",
        "token_f1",
    ];
    assert_eq!(measured, all);
    assert!(value(adapted, "rouge1") > value(base, "rouge1"));
    // By the core's own functions on the answers that were told.
    let mean = |name: &str| -> f64 {
        let rows = found.rows.iter().flat_map(|r| &r.values[1]);
        rows.filter(|(n, _)| n == name).map(|(_, v)| v).sum::<f64>() / 6.0
    };
    for name in ["rougeL", "token_f1"] {
        assert!((mean(name) - value(adapted, name)).abs() < 1e-9, "{name}");
    }
    let answers: Vec<String> = found
        .rows
        .iter()
        .map(|r| r.answers[1].clone().unwrap())
        .collect();
    let references: Vec<Vec<String>> = found
        .rows
        .iter()
        .map(|r| vec![r.reference.clone()])
        .collect();
    let config = qloom_core::evaluation::BleuConfig::default();
    let bleu = config.corpus(&answers, &references).score;
    assert!((bleu - value(adapted, "bleu")).abs() < 1e-9);
    assert_eq!(found.paired.len(), all.len());
}

#[test]
fn files_of_the_visitor_in_every_form_and_with_bad_lines() {
    let bench = Bench::started();
    let drop = |name: &str, text: &str, options: EvalOptions| {
        let request = Request::Evaluate {
            data: DataSource::File {
                file: FileRef {
                    name: name.to_owned(),
                    attachment: 0,
                },
            },
            columns: columns(&[&[]]),
            options,
        };
        bench.ask_with(request, vec![text.as_bytes().to_vec()])
    };
    let perplexity = |answer: &Answer| match answer.last() {
        Event::Evaluated { columns, notes, .. } => (columns[0].metrics[0].value, notes.clone()),
        other => panic!("{other:?}"),
    };
    let only = || EvalOptions {
        metrics: vec!["perplexity".into()],
        ..EvalOptions::default()
    };
    let csv = "prompt,completion\n\"Say, hi\",hello\nBye,so long\n";
    let jsonl = "{\"prompt\":\"Say, hi\",\"completion\":\"hello\"}\nnot json\n{\"prompt\":\"Bye\",\"completion\":\"so long\"}\n";
    let (a, notes) = perplexity(&drop("a.csv", csv, only()));
    let left_out = |notes: &[String]| notes.iter().any(|n| n.contains("left out"));
    assert!(!left_out(&notes), "{notes:?}");
    let (b, notes) = perplexity(&drop("a.jsonl", jsonl, only()));
    assert_eq!(a, b);
    assert!(left_out(&notes) && notes[0].contains("line 2"), "{notes:?}");
    let text = drop(
        "a.txt",
        "Once upon a time.\nThe end.\n",
        EvalOptions::default(),
    );
    let (_, _) = perplexity(&text);

    let refused = |answer: &Answer, word: &str| {
        let failure = answer.failure();
        assert!(failure.message.contains(word), "{word}: {failure:?}");
    };
    refused(&drop("a.csv", "x,y\n1,2\n", only()), "format");
    refused(&drop("a.jsonl", "", only()), "a.jsonl");
    let wrong = |metric: &str| EvalOptions {
        metrics: vec![metric.to_owned()],
        ..EvalOptions::default()
    };
    refused(
        &drop("a.csv", csv, wrong("perplexety")),
        "did you mean \"perplexity\"",
    );
    refused(
        &drop("a.txt", "Once.\nTwice.\n", wrong("bleu")),
        "no prompt",
    );
    let none = EvalOptions {
        batch_size: 0,
        ..only()
    };
    refused(&drop("a.csv", csv, none), "batch_size");
    let format = EvalOptions {
        format: Some("alpacka".into()),
        ..only()
    };
    refused(&drop("a.csv", csv, format), "alpaca");
    let missing = bench.ask(Request::Evaluate {
        data: at("absent.jsonl"),
        columns: columns(&[&[]]),
        options: only(),
    });
    refused(&missing, "absent.jsonl");
}

#[test]
fn an_evaluation_is_stopped_between_batches_and_its_rows_stand() {
    let bench = Bench::started();
    let id = bench.next.get();
    let mut batches = 0;
    bench.around().stop_when(id, move |e| {
        batches += usize::from(matches!(e, Event::EvalRows { .. }));
        batches == 2
    });
    let answer = bench.ask(Request::Evaluate {
        data: at("stories.jsonl"),
        columns: columns(&[&[]]),
        options: EvalOptions {
            metrics: vec!["perplexity".into()],
            batch_size: 4,
            ..EvalOptions::default()
        },
    });
    assert_eq!(answer.last(), &Event::Stopped);
    let rows = answer.events.iter().map(|e| match e {
        Event::EvalRows { rows } => rows.len(),
        _ => 0,
    });
    assert_eq!(rows.sum::<usize>(), 8);
}
