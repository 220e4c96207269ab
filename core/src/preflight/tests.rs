//! Six configurations broken on purpose, and sound ones, on tokenizers built here and, where present, TinyLlama's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use serde_json::{Value, json};

use super::*;
use crate::data::{DataConfig, Encoder, FileKind, ReadOptions, Row, Task, parse_records};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::fixtures::{self, TINYLLAMA};

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
const NO_END: &str = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}";
const NO_SYSTEM: &str = "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}";

fn rows(values: &[Value]) -> Vec<Row> {
    let text: Vec<String> = values.iter().map(Value::to_string).collect();
    let options = ReadOptions::default();
    let text = text.join("\n");
    parse_records(text.as_bytes(), "t.jsonl", FileKind::Json, &options)
        .unwrap()
        .rows
}

/// Twelve texts each of which is labelled with one of `labels` in turn.
fn labelled(labels: &[&str]) -> Vec<Value> {
    (0..12 * labels.len())
        .map(|i| json!({"text": format!("text number {i}"), "label": labels[i % labels.len()]}))
        .collect()
}

fn findings(config: Value, tokenizer: &Tokenizer, data: &[Value]) -> Vec<Finding> {
    findings_at(config, tokenizer, data, 2e-3, None)
}

fn findings_at(
    config: Value,
    tokenizer: &Tokenizer,
    data: &[Value],
    lr: f64,
    adapter_template: Option<&str>,
) -> Vec<Finding> {
    let config: DataConfig = serde_json::from_value(config).unwrap();
    let rows = rows(data);
    let encoder = Encoder::new(&config, &rows, tokenizer, Task::Causal, 4096).unwrap();
    let set = match encoder.encode(&rows, 0, "t.jsonl", &mut |_| {}) {
        Ok(set) => set,
        Err(error) => return from_data_error(&error).into_iter().collect(),
    };
    let ends: Vec<u32> = tokenizer.eos_id().into_iter().collect();
    check(&Evidence {
        tokenizer,
        data: &config,
        train: &set.examples,
        held_out: &[],
        report: &set.report,
        held_out_report: None,
        generates: true,
        end_ids: &ends,
        adapter_template,
        learning_rate: LearningRate {
            lr,
            hidden_size: 160,
            full: false,
        },
    })
}

fn grave(findings: &[Finding]) -> Vec<(Cause, Severity)> {
    let grave = findings.iter().filter(|f| f.severity > Severity::Info);
    grave.map(|f| (f.id, f.severity)).collect()
}

fn tinyllama() -> Tokenizer {
    fixtures::bytes(Some(TINYLLAMA))
}

#[test]
fn a_sound_configuration_gets_nothing_but_its_chance_level() {
    let found = findings(json!({}), &tinyllama(), &labelled(&["no", "yes"]));
    assert_eq!(grave(&found), []);
    assert!(
        found.iter().any(|f| f.what.contains("macro-F1 0.333")),
        "{found:?}"
    );
}

#[test]
fn another_familys_template_is_an_error() {
    let config = json!({"chat_template": CHATML});
    let found = findings(config, &tinyllama(), &labelled(&["no", "yes"]));
    let first = found.first().unwrap();
    assert_eq!(
        (first.id, first.severity),
        (Cause::WrongTemplate, Severity::Error)
    );
    for word in ["ChatML", "Zephyr", "<|im_start|>", "pieces"] {
        assert!(first.what.contains(word), "{word}: {}", first.what);
    }
}

#[test]
fn leaving_the_template_out_is_a_warning() {
    let config = json!({"prompt_style": "plain"});
    let found = findings(config, &tinyllama(), &labelled(&["no", "yes"]));
    assert!(grave(&found).contains(&(Cause::WrongTemplate, Severity::Warning)));
    // A base without a template has nothing to leave out.
    let config = json!({"prompt_style": "plain"});
    let found = findings(config, &fixtures::bytes(None), &labelled(&["no", "yes"]));
    assert!(found.iter().all(|f| f.id != Cause::WrongTemplate));
    // Plain answers begin with a space, a piece of its own in this tokenizer of bytes.
    assert_eq!(grave(&found), [(Cause::LabelPieces, Severity::Warning)]);
}

#[test]
fn markers_written_into_the_data_are_found() {
    let foreign: Vec<Value> = (0..24)
        .map(|i| json!({"prompt": format!("[INST] is {i} even? [/INST]"), "completion": (["yes", "no"][i % 2])}))
        .collect();
    let found = findings(json!({}), &tinyllama(), &foreign);
    assert_eq!(grave(&found), [(Cause::WrongTemplate, Severity::Error)]);
    assert!(
        found[0].what.contains("Llama 2") && found[0].place.contains("t.jsonl"),
        "{found:?}"
    );

    let doubled: Vec<Value> = (0..24)
        .map(|i| json!({"prompt": format!("<|user|>\nis {i} even?</s>\n<|assistant|>"), "completion": (["yes", "no"][i % 2])}))
        .collect();
    let found = findings(json!({}), &tinyllama(), &doubled);
    assert_eq!(grave(&found), [(Cause::WrongTemplate, Severity::Error)]);
    assert!(found[0].what.contains("second time"), "{found:?}");
    // The same prompts written by hand for a run that applies no template are right, but for the warning about that.
    let found = findings(json!({"prompt_style": "plain"}), &tinyllama(), &doubled);
    assert_eq!(grave(&found), [(Cause::WrongTemplate, Severity::Warning)]);
}

#[test]
fn alpacas_own_wording_is_not_foreign() {
    let data: Vec<Value> = (0..24)
        .map(|i| json!({"instruction": format!("say {i}"), "output": format!("{i}")}))
        .collect();
    assert_eq!(
        grave(&findings(json!({}), &fixtures::bytes(None), &data)),
        []
    );
}

#[test]
fn an_adapter_of_another_template_is_a_warning() {
    let data = labelled(&["no", "yes"]);
    let found = findings_at(json!({}), &tinyllama(), &data, 2e-3, Some(CHATML));
    assert_eq!(grave(&found), [(Cause::WrongTemplate, Severity::Warning)]);
    assert_eq!(found[0].place, "lora.adapter");
    let found = findings_at(json!({}), &tinyllama(), &data, 2e-3, Some(TINYLLAMA));
    assert_eq!(grave(&found), []);
}

#[test]
fn labels_that_begin_alike_are_found_with_a_remedy_that_works() {
    let found = findings(
        json!({}),
        &tinyllama(),
        &labelled(&["negative", "neutral", "positive"]),
    );
    assert_eq!(grave(&found), [(Cause::LabelPieces, Severity::Warning)]);
    assert!(
        found[0].what.contains("\"negative\", \"neutral\""),
        "{}",
        found[0].what
    );
    assert!(found[0].fix.contains("A, B, C"), "{}", found[0].fix);
    let found = findings(json!({}), &tinyllama(), &labelled(&["good", "goodbye"]));
    let what: Vec<&str> = found.iter().map(|f| f.what.as_str()).collect();
    assert!(
        what.iter()
            .any(|w| w.contains("begins with the whole of \"good\"")),
        "{what:?}"
    );
}

#[test]
fn an_end_that_is_not_trained_is_an_error() {
    let config = json!({"chat_template": NO_END});
    let found = findings(config, &tinyllama(), &labelled(&["no", "yes"]));
    assert!(
        grave(&found).contains(&(Cause::EndUntrained, Severity::Error)),
        "{found:?}"
    );
    let finding = found.iter().find(|f| f.id == Cause::EndUntrained).unwrap();
    assert!(
        finding.what.contains("generation stops at </s>"),
        "{}",
        finding.what
    );
}

#[test]
fn cut_prompts_and_answers_are_found() {
    let data: Vec<Value> = (0..24)
        .map(|i| json!({"text": format!("{i} {}", "word ".repeat(30)), "label": (["no", "yes"][i % 2])}))
        .collect();
    let emptied = findings(json!({"max_length": 64}), &tinyllama(), &data);
    assert_eq!(grave(&emptied), [(Cause::Truncated, Severity::Error)]);
    assert!(emptied[0].what.contains("24 rows"), "{}", emptied[0].what);
    let config = json!({"max_length": 64, "truncation": "left"});
    let cut = findings(config, &tinyllama(), &data);
    assert!(
        grave(&cut).contains(&(Cause::Truncated, Severity::Error)),
        "{cut:?}"
    );
}

#[test]
fn lopsided_labels_are_named_with_the_score_of_the_constant_answer() {
    let mut labels = vec!["no"; 19];
    labels.push("yes");
    let found = findings(json!({}), &tinyllama(), &labelled(&labels));
    assert_eq!(grave(&found), [(Cause::LabelImbalance, Severity::Warning)]);
    assert!(
        found[0].what.contains("accuracy 0.950 and macro-F1 0.487"),
        "{}",
        found[0].what
    );
}

#[test]
fn a_rate_far_above_the_usual_is_suspicious() {
    let found = findings_at(
        json!({}),
        &tinyllama(),
        &labelled(&["no", "yes"]),
        0.1,
        None,
    );
    assert_eq!(grave(&found), [(Cause::LearningRate, Severity::Warning)]);
}

#[test]
fn a_template_that_drops_the_system_message_is_an_error() {
    let tokenizer = fixtures::bytes(Some(NO_SYSTEM));
    let config = json!({"system": "Answer with one word."});
    let found = findings(config.clone(), &tokenizer, &labelled(&["no", "yes"]));
    assert_eq!(grave(&found), [(Cause::SystemDropped, Severity::Error)]);
    let found = findings(config, &tinyllama(), &labelled(&["no", "yes"]));
    assert_eq!(grave(&found), []);
}

#[test]
fn tinyllamas_own_tokenizer_and_template_pass() {
    let Some(tokenizer) = fixtures::real("tokenizers/tinyllama_chat") else {
        return;
    };
    let data = labelled(&["negative", "neutral", "positive"]);
    let found = findings(json!({"system": "You label tweets."}), &tokenizer, &data);
    assert_eq!(grave(&found), [], "{found:?}");
}
