//! One text in every column.

use qloom_core::generation::{Generator, SamplingConfig};
use qloom_core::host::block_on;

use super::*;
use crate::engine::base::Model;
use crate::protocol::{Finish, Prompt, TokenLoss, Turn};

fn chat(text: &str) -> Prompt {
    Prompt::Chat {
        turns: vec![turn("user", text)],
    }
}

fn turn(role: &str, content: &str) -> Turn {
    Turn {
        role: role.to_owned(),
        content: content.to_owned(),
    }
}

fn generate(
    bench: &Bench,
    prompt: Prompt,
    columns: Vec<Column>,
    sampling: SamplingConfig,
) -> Answer {
    bench.ask(Request::Generate {
        prompt,
        columns,
        sampling,
        histories: Vec::new(),
    })
}

fn greedy(max_new_tokens: usize) -> SamplingConfig {
    SamplingConfig {
        max_new_tokens,
        ..SamplingConfig::default()
    }
}

/// What the core's generator writes, as `trainer generate` calls it.
fn reference(bench: &Bench, column: &Column, text: &str, sampling: &SamplingConfig) -> String {
    let state = bench.engine.state.borrow();
    let base = state.base().unwrap();
    let models = state.language_models(std::slice::from_ref(column)).unwrap();
    let template = base.tokenizer.chat_template().unwrap().unwrap();
    let message = qloom_core::tokenizer::Message::new("user", text);
    let text = template.render(&[message], true).unwrap();
    let ids = base.tokenizer.encode_document(&text).unwrap().ids;
    let ends = base.end_ids.clone();
    let generator = Generator::new(&models[0], &base.tokenizer, sampling.clone(), ends);
    let answers = block_on(generator.generate(&[ids], 0, |_, _| {})).unwrap();
    answers[0].text.clone()
}

const ASKED: &str = "Classify the text as one of: negative, neutral, positive. Answer with one word.\n\nMy uncle and I went to the cafe in Elmar for breakfast. Thanks to the salad for lunch, it was an impressive afternoon for me.";

#[test]
fn columns_write_what_the_trainer_writes_and_stream_side_by_side() {
    let bench = Bench::started();
    bench.add("sentiment");
    bench.add("storyteller");
    let all = columns(&[
        &[],
        &["sentiment"],
        &["storyteller"],
        &["sentiment", "storyteller"],
    ]);
    for sampling in [
        greedy(24),
        SamplingConfig {
            temperature: 0.9,
            seed: 7,
            ..greedy(24)
        },
    ] {
        let answer = generate(&bench, chat(ASKED), all.clone(), sampling.clone());
        assert_eq!(answer.last(), &Event::Generated);
        for (index, column) in all.iter().enumerate() {
            let expected = reference(&bench, column, ASKED, &sampling);
            assert_eq!(answer.text(index), expected, "{column:?}");
            let done = answer.events.iter().find_map(|e| match e {
                Event::ColumnDone {
                    column,
                    tokens,
                    prompt_tokens,
                    first_token_ms,
                    ..
                } if *column == index => Some((*tokens, *prompt_tokens, *first_token_ms)),
                _ => None,
            });
            let (tokens, prompt_tokens, first) = done.unwrap();
            assert!(tokens <= 24 && prompt_tokens > 10 && first > 0.0);
        }
        let order: Vec<usize> = answer
            .events
            .iter()
            .filter_map(|e| match e {
                Event::Text { column, .. } => Some(*column),
                _ => None,
            })
            .collect();
        assert!(order[..3].windows(2).any(|w| w[0] != w[1]), "{order:?}");
    }
    let answer = generate(
        &bench,
        chat(ASKED),
        columns(&[&[], &["sentiment"]]),
        greedy(24),
    );
    assert_eq!(answer.text(1).trim(), "positive");
}

#[test]
fn a_real_model_continues_as_its_golden_ids_say() {
    let Some(folder) = shared("data/stories260K") else {
        return;
    };
    let bench = Bench::new();
    bench.start();
    bench
        .around()
        .serve_folder("https://site.test/stories", &folder);
    bench.load(url("https://site.test/stories"));
    let golden: serde_json::Value =
        serde_json::from_slice(&read(folder.join("greedy_golden.json"))).unwrap();
    let ids = golden
        .as_object()
        .unwrap()
        .values()
        .find_map(|v| v.as_array().filter(|a| a.len() == 257));
    let ids: Vec<u32> = ids
        .expect("257 ids")
        .iter()
        .map(|v| v.as_u64().unwrap() as u32)
        .collect();
    let expected = {
        let state = bench.engine.state.borrow();
        let tokenizer = &state.base().unwrap().tokenizer;
        tokenizer.decode(&ids[1..101], true).unwrap()
    };
    let text = String::new();
    let answer = generate(&bench, Prompt::Text { text }, columns(&[&[]]), greedy(100));
    assert_eq!(answer.text(0).trim(), expected.trim());
    assert!(answer.events.iter().any(|e| matches!(
        e,
        Event::ColumnDone {
            finish: Finish::Length,
            tokens: 100,
            ..
        }
    )));
}

#[test]
fn each_column_may_have_its_own_history() {
    let bench = Bench::started();
    bench.add("sentiment");
    let ask = |histories| {
        bench.ask(Request::Generate {
            prompt: chat("And this one: a dull, bad day."),
            columns: columns(&[&["sentiment"], &["sentiment"]]),
            sampling: greedy(8),
            histories,
        })
    };
    let past = vec![turn("user", ASKED), turn("assistant", "positive")];
    let answer = ask(vec![past, Vec::new()]);
    let tokens: Vec<usize> = answer
        .events
        .iter()
        .filter_map(|e| match e {
            Event::ColumnDone { prompt_tokens, .. } => Some(*prompt_tokens),
            _ => None,
        })
        .collect();
    assert_eq!(tokens.len(), 2);
    assert_ne!(tokens[0], tokens[1]);
    assert!(
        ask(vec![Vec::new()])
            .failure()
            .message
            .contains("1 histories")
    );
}

#[test]
fn stop_ends_between_two_tokens_and_what_was_told_stands() {
    let bench = Bench::started();
    let id = bench.next.get();
    let mut pieces = 0;
    bench.around().stop_when(id, move |e| {
        pieces += usize::from(matches!(e, Event::Text { .. }));
        pieces == 3
    });
    let endless = greedy(200);
    let answer = generate(&bench, chat("Tell me a story."), columns(&[&[]]), endless);
    assert_eq!(answer.last(), &Event::Stopped);
    let texts = answer
        .events
        .iter()
        .filter(|e| matches!(e, Event::Text { .. }));
    assert_eq!(texts.count(), 3);
    // The engine goes on with the next request.
    let answer = generate(&bench, chat("Hello."), columns(&[&[]]), greedy(2));
    assert_eq!(answer.last(), &Event::Generated);
}

#[test]
fn a_request_that_waits_is_stopped_before_it_begins() {
    let bench = Bench::started();
    let request = |id| Message {
        id,
        body: Request::RemoveAdapter { name: "x".into() },
    };
    bench.engine.accept(request(70), Vec::new());
    bench.engine.accept(request(71), Vec::new());
    let body = Request::Stop { id: 71 };
    bench.engine.accept(Message { id: 72, body }, Vec::new());
    block_on(bench.engine.work());
    assert!(matches!(
        bench.around().take(70).0[..],
        [Event::Failed { .. }]
    ));
    assert_eq!(bench.around().take(71).0, [Event::Stopped]);
    assert!(bench.around().take(72).0.is_empty());
}

#[test]
fn impossible_columns_and_settings_are_refused() {
    let bench = Bench::started();
    bench.add("sentiment");
    let ask = |stacks: &[&[&str]], sampling| {
        let answer = generate(&bench, chat("x"), columns(stacks), sampling);
        answer.failure().message.clone()
    };
    assert!(ask(&[], greedy(1)).contains("no column"));
    assert!(ask(&[&["absent"]], greedy(1)).contains("there is sentiment"));
    assert!(ask(&[&["sentiment", "sentiment"]], greedy(1)).contains("twice"));
    assert!(ask(&[&[]], greedy(0)).contains("max_new_tokens"));
    let long = Prompt::Text {
        text: "word ".repeat(600),
    };
    let answer = generate(&bench, long, columns(&[&[]]), greedy(1));
    assert!(answer.failure().message.contains("512"));
    let classify = bench.ask(Request::Classify {
        text: "x".into(),
        pair: None,
        columns: columns(&[&[]]),
    });
    assert!(classify.failure().message.contains("writes text"));
}

#[test]
fn the_losses_of_tokens_are_those_of_the_model() {
    let bench = Bench::started();
    bench.add("storyteller");
    let losses = |prompt: Prompt, text: &str| -> Vec<Vec<TokenLoss>> {
        let answer = bench.ask(Request::TokenLosses {
            prompt,
            text: text.to_owned(),
            columns: columns(&[&[], &["storyteller"]]),
        });
        match answer.last() {
            Event::TokenLosses { columns } => columns.clone(),
            other => panic!("{other:?}"),
        }
    };
    let text = "Once upon a time there was a dog.";
    let plain = losses(
        Prompt::Text {
            text: String::new(),
        },
        text,
    );
    assert_eq!(plain.len(), 2);
    // This tokenizer adds no begin-of-text: the first piece of the text itself has nothing before it to be scored from.
    let shown: String = plain[0].iter().map(|t| t.text.as_str()).collect();
    assert_eq!(shown.trim(), text);
    assert!(plain[0][0].nll.is_none());
    assert!(plain[0][1..].iter().all(|t| t.nll.is_some_and(|n| n > 0.0)));
    assert_ne!(plain[0], plain[1]);
    // By the softmax of the logits themselves.
    let state = bench.engine.state.borrow();
    let base = state.base().unwrap();
    let Model::Llama(model) = &base.model else {
        panic!()
    };
    let ids = base.tokenizer.encode_document(text).unwrap().ids;
    let batch = qloom_core::data::Batch::of_sequences(std::slice::from_ref(&ids));
    let logits = block_on(qloom_core::host::to_vec(model.logits(&batch))).unwrap();
    let vocab = model.config.vocab_size;
    for (i, token) in plain[0].iter().enumerate().skip(1) {
        let row = &logits[(i - 1) * vocab..i * vocab];
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&l| f64::from(l - most).exp()).sum();
        let nll = sum.ln() + f64::from(most) - f64::from(row[ids[i] as usize]);
        assert!(
            (nll - token.nll.unwrap()).abs() < 1e-3,
            "{i}: {nll} {token:?}"
        );
    }
    drop(state);
    let after = losses(chat("Tell me about a dog."), text);
    let scored = after[0].iter().filter(|t| t.nll.is_some()).count();
    assert!(scored > 5 && scored < after[0].len());
    assert!(
        after[0][..after[0].len() - scored]
            .iter()
            .all(|t| t.nll.is_none())
    );
}
