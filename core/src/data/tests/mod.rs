//! Tests across the data pipeline: bytes in, masked and batched tokens out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod plumbing;

use serde_json::{Value, json};

use super::*;
use crate::tokenizer::Tokenizer;
use crate::tokenizer::fixtures::{self, TINYLLAMA};

fn config(value: Value) -> DataConfig {
    serde_json::from_value(value).unwrap()
}

fn rows(values: &[Value]) -> Vec<Row> {
    let text: Vec<String> = values.iter().map(Value::to_string).collect();
    let options = ReadOptions::default();
    parse_records(
        text.join("\n").as_bytes(),
        "t.jsonl",
        FileKind::Json,
        &options,
    )
    .unwrap()
    .rows
}

fn try_encode(cfg: Value, tokenizer: &Tokenizer, data: &[Value]) -> Result<Dataset, DataError> {
    let rows = rows(data);
    let encoder = Encoder::new(&config(cfg), &rows, tokenizer, Task::Causal, 4096)?;
    encoder.encode(&rows, 0, "t.jsonl", &mut |_| {})
}

fn trained(example: &Example, tokenizer: &Tokenizer) -> Vec<String> {
    let pieces = preview(example, tokenizer);
    pieces
        .into_iter()
        .filter(|p| p.trained)
        .map(|p| p.text)
        .collect()
}

fn kinds(report: &DataReport) -> Vec<WarningKind> {
    report.warnings.iter().map(|w| w.kind).collect()
}

/// Trained text and whole text of one row.
fn one(cfg: Value, tokenizer: &Tokenizer, row: Value) -> (String, Vec<String>) {
    let set = try_encode(cfg, tokenizer, &[row]).unwrap();
    let example = &set.examples[0];
    assert_eq!(example.labels[0], IGNORE);
    for (&id, &label) in example.input_ids.iter().zip(&example.labels) {
        assert!(label == IGNORE || label == id as i32);
    }
    let text = tokenizer.decode(&example.input_ids, false).unwrap();
    (text, trained(example, tokenizer))
}

#[test]
fn every_format_trains_the_answer_and_its_end() {
    let chat = fixtures::bytes(Some(TINYLLAMA));
    let plain = fixtures::bytes(None);
    let head = "<s><|user|>\nAdd.\n\n1 2</s>\n<|assistant|>\n";
    for row in [
        json!({"instruction": "Add.", "input": "1 2", "output": "three é"}),
        json!({"instruction": "Add.", "context": "1 2", "response": "three é", "category": "x"}),
        json!({"prompt": "Add.\n\n1 2", "completion": "three é"}),
        json!({"conversations": [{"from": "human", "value": "Add.\n\n1 2"}, {"from": "gpt", "value": "three é"}]}),
        json!({"messages": [{"role": "user", "content": "Add.\n\n1 2"}, {"role": "assistant", "content": [{"type": "text", "text": "three é"}]}]}),
    ] {
        let (text, learned) = one(json!({}), &chat, row);
        assert_eq!(text, format!("{head}three é</s>\n"));
        assert_eq!(learned, ["three é</s>"]);
    }
    let (text, learned) = one(
        json!({}),
        &plain,
        json!({"instruction": "Add.", "input": "", "output": "3"}),
    );
    assert_eq!(
        text,
        "<s>Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Response:\n3</s>"
    );
    assert_eq!(learned, ["3</s>"]);
    let (text, learned) = one(
        json!({"prompt_style": "plain", "system": "S"}),
        &plain,
        json!({"instruction": "Add.", "context": "1", "response": "3"}),
    );
    assert_eq!(
        (text.as_str(), learned),
        ("<s>S\n\nAdd.\n\n1\n\n3</s>", vec!["3</s>".to_owned()])
    );
    let (text, learned) = one(
        json!({}),
        &plain,
        json!({"prompt": "2+2=", "completion": "4</s>"}),
    );
    assert_eq!(
        (text.as_str(), learned),
        ("<s>2+2=4</s>", vec!["4</s>".to_owned()])
    );
    let (text, learned) = one(json!({}), &chat, json!({"text": "free text"}));
    assert_eq!(
        (text.as_str(), learned),
        ("<s>free text</s>", vec!["free text</s>".to_owned()])
    );
    let tokens = json!({"input_ids": [1, 40, 41, 2], "labels": [-100, -100, 41, 2]});
    let set = try_encode(json!({}), &plain, &[tokens]).unwrap();
    assert_eq!(set.examples[0].labels, [-100, -100, 41, 2]);
    assert_eq!(set.examples[0].prompt_len(), 2);
    let template = json!({"template": {"prompt": "T: {{ title }}\nS:", "completion": " {{ sum }}"}, "fields": {"sum": "abstract"}});
    let (text, learned) = one(template, &plain, json!({"title": "x", "abstract": "y"}));
    assert_eq!(
        (text.as_str(), learned),
        ("<s>T: x\nS: y</s>", vec![" y</s>".to_owned()])
    );
}

#[test]
fn multi_turn_masks_only_assistant_turns_and_adds_the_system_message_once() {
    let chat = fixtures::bytes(Some(TINYLLAMA));
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let row = json!({"messages": [turn("user", "a"), turn("assistant", "b"), turn("user", "b"), turn("assistant", "日本")]});
    let (text, learned) = one(json!({"system": "S"}), &chat, row);
    assert!(text.starts_with("<s><|system|>\nS</s>\n<|user|>\na</s>\n"));
    assert_eq!(learned, ["b</s>", "日本</s>"]);
    let own =
        json!({"messages": [turn("system", "own"), turn("user", "a"), turn("assistant", "b")]});
    let (text, _) = one(json!({"system": "S"}), &chat, own);
    assert!(text.starts_with("<s><|system|>\nown</s>\n<|user|>"));
}

#[test]
fn generation_tag_and_inconsistent_templates_reach_the_mask() {
    let tagged = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %};{% endfor %}";
    let base = fixtures::bytes(None);
    let row = json!({"prompt": "p", "completion": "c"});
    let set = try_encode(
        json!({"chat_template": tagged}),
        &base,
        std::slice::from_ref(&row),
    )
    .unwrap();
    assert_eq!(trained(&set.examples[0], &base), ["c"]);
    assert_eq!(kinds(&set.report), [WarningKind::NoEndOfTurn]);
    assert_eq!(
        set.examples[0]
            .input_ids
            .iter()
            .filter(|&&id| id == 1)
            .count(),
        1,
        "bos once"
    );
    let marked = "{% for m in messages %}{% if loop.last %}!{% endif %}{{ m.role }}:{{ m.content }}{{ eos_token }}\n{% endfor %}";
    let (_, learned) = one(json!({"chat_template": marked}), &base, row.clone());
    assert_eq!(learned, ["c</s>"]);
    let changed =
        "{% for m in messages %}{% if loop.last %}!{% endif %}{{ m.content | upper }}{% endfor %}";
    let error = try_encode(json!({"chat_template": changed}), &base, &[row]).unwrap_err();
    assert!(error.to_string().starts_with("t.jsonl line 1:"), "{error}");
}

#[test]
fn classification_is_a_prompt_or_a_class() {
    let chat = fixtures::bytes(Some(TINYLLAMA));
    let data: Vec<Value> = (0..12)
        .map(|i| json!({"text": format!("t{i}"), "label": if i == 0 { 0 } else { 1 }}))
        .collect();
    let set = try_encode(json!({"label_names": ["poor", "great"]}), &chat, &data).unwrap();
    let text = chat.decode(&set.examples[0].input_ids, false).unwrap();
    assert_eq!(
        text,
        "<s><|user|>\nClassify the text as one of: poor, great. Answer with one word.\n\nt0</s>\n<|assistant|>\npoor</s>\n"
    );
    assert_eq!(trained(&set.examples[1], &chat), ["great</s>"]);
    assert_eq!(
        (set.examples[0].class, set.examples[1].class),
        (Some(0), Some(1))
    );
    assert_eq!(kinds(&set.report), [WarningKind::LabelImbalance]);
    let shared = try_encode(
        json!({"label_names": {"0": "positive", "1": "poor"}}),
        &chat,
        &data,
    )
    .unwrap();
    assert_eq!(kinds(&shared.report)[0], WarningKind::LabelsShareFirstToken);
    let plain = fixtures::bytes(None);
    let (text, learned) = one(
        json!({"label_names": ["poor", "great"]}),
        &plain,
        data[1].clone(),
    );
    assert!(text.ends_with("\n\nt1\nAnswer: great</s>"));
    assert_eq!(learned, [" great</s>"]);

    let error = try_encode(
        json!({"label_names": ["a", "b"]}),
        &chat,
        &[json!({"text": "x", "label": 7})],
    )
    .unwrap_err();
    assert!(
        matches!(&error, DataError::UnknownLabel { label, .. } if label == "7"),
        "{error}"
    );
    assert!(
        try_encode(json!({}), &chat, &[json!({"text": "x", "label": 7})]).is_err(),
        "one class"
    );

    let Some(bert) = fixtures::real("tokenizers/distilbert_base_uncased") else {
        return;
    };
    let rows = rows(&[
        json!({"text": "good film", "label": "b"}),
        json!({"text": "bad ".repeat(99), "label": "a"}),
    ]);
    let encoder = Encoder::new(
        &config(json!({"max_length": 8})),
        &rows,
        &bert,
        Task::SequenceClassification,
        512,
    )
    .unwrap();
    let set = encoder.encode(&rows, 0, "x", &mut |_| {}).unwrap();
    assert_eq!(set.examples[0].input_ids, [101, 2204, 2143, 102]);
    assert_eq!(
        (set.examples[0].class, set.examples[1].class),
        (Some(1), Some(0))
    );
    let long = &set.examples[1];
    assert_eq!(
        (long.len(), long.input_ids[7], long.truncated),
        (8, 102, true)
    );
    assert_eq!((set.report.truncated, set.report.lengths.max), (1, 101));
}

#[test]
fn prompts_are_prefixes_of_training_examples() {
    let mut bases = vec![fixtures::bytes(Some(TINYLLAMA)), fixtures::bytes(None)];
    bases.extend(fixtures::real("tokenizers/tinyllama_chat"));
    bases.extend(fixtures::real("stories260K"));
    let rows = rows(&[
        json!({"instruction": "Größe? 👋", "context": "", "response": "Sehr groß."}),
        json!({"instruction": "Write code", "context": "in C", "response": "\n  int x;\n"}),
        json!({"instruction": "x", "context": "y\n", "response": ""}),
    ]);
    for base in &bases {
        let encoder = Encoder::new(&config(json!({})), &rows, base, Task::Causal, 2048).unwrap();
        let set = encoder.encode(&rows, 0, "x", &mut |_| {}).unwrap();
        for (row, example) in rows.iter().zip(&set.examples) {
            let prompt = encoder.formatter().prompt(row).unwrap();
            assert_eq!(prompt.ids, example.input_ids[..example.prompt_len()]);
            assert_eq!(prompt.ids.iter().filter(|&&id| id == 1).count(), 1);
            let last = example.labels.iter().rposition(|&l| l != IGNORE).unwrap();
            assert_eq!(Some(example.input_ids[last]), base.eos_id());
        }
        assert_eq!(set.report.warnings, []);
    }
}

#[test]
fn truncation_is_stated_and_never_silent() {
    let base = fixtures::bytes(None);
    let row = json!({"prompt": "0123456789", "completion": "abcdef"});
    let run = |extra: Value, data: &[Value]| {
        let mut cfg = json!({"max_length": 14});
        cfg.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        try_encode(cfg, &base, data)
    };
    let two = [row.clone(), json!({"prompt": "0", "completion": "a"})];
    let right = run(json!({}), &two).unwrap();
    assert_eq!((right.report.truncated, right.examples.len()), (1, 2));
    assert_eq!(trained(&right.examples[0], &base), ["abc"]);
    let left = run(json!({"truncation": "left"}), &two).unwrap();
    assert_eq!(
        base.decode(&left.examples[0].input_ids, false).unwrap(),
        "<s>456789abcdef</s>"
    );
    assert_eq!(left.examples[0].len(), 14);
    let dropped = run(json!({"truncation": "drop"}), &two).unwrap();
    assert_eq!((dropped.report.dropped, dropped.examples.len()), (1, 1));
    let error = run(json!({"truncation": "error"}), &two).unwrap_err();
    assert!(
        matches!(
            error,
            DataError::TooLong {
                length: 18,
                max_length: 14,
                ..
            }
        ),
        "{error}"
    );
    let error = run(json!({"max_length": 8}), &two).unwrap_err();
    assert!(
        matches!(&error, DataError::Emptied { at, length: 18, first_trained: 11, max_length: 8, rows: 1 } if at.line == 1),
        "{error}"
    );
    let all = run(json!({"truncation": "drop"}), &[row]).unwrap_err();
    assert!(matches!(
        all,
        DataError::NothingTrained {
            rows: 1,
            dropped: 1,
            ..
        }
    ));
    assert!(
        run(json!({"max_length": 5000}), &two).is_err(),
        "beyond the context"
    );
}

#[test]
fn rows_that_do_not_fit_are_named_with_advice() {
    let base = fixtures::bytes(Some(TINYLLAMA));
    let fail = |cfg: Value, row: Value| try_encode(cfg, &base, &[row]).unwrap_err().to_string();
    let text = fail(
        json!({"format": "alpaca"}),
        json!({"instruction": "a", "response": "b"}),
    );
    for part in [
        "t.jsonl line 1",
        "\"output\"",
        "[\"instruction\", \"response\"]",
        "format = \"dolly\"",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = fail(
        json!({"format": "alpaca"}),
        json!({"question": "a", "answer": "b"}),
    );
    assert!(text.contains("data.fields"), "{text}");
    assert!(fail(json!({}), json!({"question": "a"})).contains("prompt_completion"));
    assert!(
        fail(
            json!({"fields": {"instuction": "q"}, "format": "alpaca"}),
            json!({})
        )
        .contains("nearest: \"instruction\"")
    );
    assert!(
        fail(
            json!({"format": "alpaca"}),
            json!({"instruction": ["x"], "output": "y"})
        )
        .contains("a list")
    );
    assert!(
        fail(
            json!({}),
            json!({"conversations": [{"from": "alien", "value": "x"}]})
        )
        .contains("alien")
    );
    assert!(fail(json!({}), json!({"messages": []})).contains("a list"));
    assert!(
        fail(
            json!({}),
            json!({"messages": [{"role": "user", "content": "x"}]})
        )
        .contains("none of the 1 rows")
    );
    assert!(fail(json!({}), json!({"input_ids": [1, 99999]})).contains("99999"));
    assert!(
        fail(
            json!({}),
            json!({"input_ids": [1, 5, 6], "labels": [5, 6, -100]})
        )
        .contains("not shifted")
    );
    let template = json!({"template": {"prompt": "{{ title }}", "completion": "{{ body }}"}});
    let text = fail(template, json!({"title": "x"}));
    assert!(
        text.contains("\"body\"") && text.contains("\"title\""),
        "{text}"
    );
    let error = try_encode(
        json!({"format": "messages"}),
        &fixtures::bytes(None),
        &[json!({"messages": []})],
    )
    .unwrap_err();
    assert!(matches!(error, DataError::NoChatTemplate { .. }));
    let mixed = [
        json!({"prompt": "a", "completion": "b"}),
        json!({"prompt": "a"}),
    ];
    let set = try_encode(json!({"skip_bad": true}), &base, &mixed).unwrap();
    assert_eq!((set.examples.len(), set.report.bad_lines), (1, 1));
}

#[test]
fn report_sees_double_bos_straddling_tokens_duplicates_and_leakage() {
    let base = fixtures::bytes(None);
    let twice = json!({"prompt": "<s><s>a", "completion": "b"});
    let set = try_encode(json!({}), &base, &[twice.clone(), twice]).unwrap();
    assert_eq!(
        kinds(&set.report),
        [WarningKind::DoubleBos, WarningKind::Duplicates]
    );
    let mut report = set.report.clone();
    report.check_leakage(&set.examples, &set.examples[..1]);
    assert_eq!(report.warnings.last().unwrap().kind, WarningKind::Leakage);
    if let Some(real) = fixtures::real("tokenizers/tinyllama_chat") {
        let row = json!({"prompt": "The capital is Par", "completion": "is"});
        let set = try_encode(json!({"prompt_style": "plain"}), &real, &[row]).unwrap();
        assert_eq!(kinds(&set.report), [WarningKind::StraddlingToken]);
    }
    let lengths = Lengths::of(&[1, 2, 3, 4, 100]);
    assert_eq!(
        (lengths.min, lengths.p50, lengths.p90, lengths.max),
        (1, 3, 100, 100)
    );
    assert_eq!(lengths.histogram, [(16, 4), (32, 0), (64, 0), (128, 1)]);
}

#[test]
fn real_files_encode() {
    let Some(tokenizer) = fixtures::real("tokenizers/tinyllama_chat") else {
        return;
    };
    for (path, format) in [
        ("data/dolly/dolly_subset.jsonl", Format::Dolly),
        ("data/alpaca/alpaca_random_9k.json", Format::Alpaca),
    ] {
        let Some(bytes) = fixtures::shared(path) else {
            continue;
        };
        let records = parse_records(&bytes, path, FileKind::Json, &ReadOptions::default()).unwrap();
        let expected = if format == Format::Dolly {
            13_773
        } else {
            9_229
        };
        assert_eq!(records.rows.len(), expected);
        let cfg = config(json!({"subset": 300, "truncation": "drop"}));
        let (rows, _) = split_rows(records.rows, &cfg, false).unwrap();
        let encoder = Encoder::new(&cfg, &rows, &tokenizer, Task::Causal, 2048).unwrap();
        assert_eq!(encoder.formatter().format(), format);
        let set = encoder.encode(&rows, 0, path, &mut |_| {}).unwrap();
        let by_line: std::collections::HashMap<usize, &Row> =
            rows.iter().map(|r| (r.source.line, r)).collect();
        assert_eq!(
            set.examples.len() + set.report.dropped + set.report.untrained,
            300
        );
        for example in &set.examples {
            let row = by_line[&example.source.line];
            let answer = row.record[format.fields()[1].0].as_str().unwrap();
            let learned = trained(example, &tokenizer);
            if !example.truncated {
                assert_eq!(learned.concat(), format!("{answer}</s>"), "{}", row.source);
            }
        }
    }
    if let Some(bytes) = fixtures::shared("data/sst2/train.tsv") {
        let columns = Some(vec!["text".to_owned(), "label".to_owned()]);
        let records = parse_records(
            &bytes,
            "sst2",
            FileKind::Tsv,
            &ReadOptions {
                skip_bad: false,
                columns,
            },
        )
        .unwrap();
        assert_eq!(records.rows.len(), 6920);
        assert_eq!(
            Labels::collect(&records.rows, &DataConfig::default())
                .unwrap()
                .words(),
            ["0", "1"]
        );
    }
}
