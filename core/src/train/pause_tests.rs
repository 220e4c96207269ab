//! The pause after every step, and what can be asked for in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use super::{Checkpoint, Host, Parameters, Stop, TrainConfig, TrainSet, Trainer};
use crate::data::{BatchOptions, BatchPlan, CollateOptions, Example, SourceLine};
use crate::host::{LocalFuture, block_on};
use crate::lora::{LoraConfig, fresh_parameters};
use crate::models::llama::fixtures::model;

/// Asks to stop in its second pause.
#[derive(Default)]
struct Page {
    pauses: usize,
    saved_at: Vec<u64>,
}

impl Host for Page {
    fn seconds(&self) -> f64 {
        0.0
    }

    fn interrupted(&self) -> bool {
        self.pauses == 2
    }

    fn save<'a>(
        &'a mut self,
        checkpoint: &'a Checkpoint,
        _: &'a Parameters,
        _: bool,
    ) -> LocalFuture<'a, Result<(), String>> {
        self.saved_at.push(checkpoint.state.step);
        Box::pin(std::future::ready(Ok(())))
    }

    fn pause(&mut self) -> LocalFuture<'_, ()> {
        Box::pin(async move { self.pauses += 1 })
    }
}

#[test]
fn a_stop_asked_for_in_a_pause_ends_the_run_after_that_step() {
    let model = model();
    let example = |line: usize| Example {
        input_ids: vec![1, 290 + line as u32, 300, 301],
        labels: vec![-100, -100, 300, 301],
        token_type_ids: Vec::new(),
        source: SourceLine {
            file: "f".to_owned(),
            line,
        },
        class: None,
        truncated: false,
    };
    let examples: Vec<Example> = (1..=8).map(example).collect();
    let set = TrainSet {
        examples: &examples,
        plan: BatchPlan::new(&examples, BatchOptions::sequential(2)).unwrap(),
        collate: CollateOptions::new(0),
    };
    let linears = model.config.linear_modules();
    let tensors = fresh_parameters(&LoraConfig::default(), &linears, 0).unwrap();
    let parameters = Parameters::new(tensors, &model.device());
    let config = TrainConfig {
        max_steps: Some(4),
        ..TrainConfig::default()
    };
    let print = String::from("f");
    let mut trainer = Trainer::new(&model, parameters, config, set, None, print).unwrap();
    let mut page = Page::default();
    let outcome = block_on(trainer.run(&mut page, &mut ())).unwrap();
    assert_eq!((outcome.stop, outcome.steps), (Stop::Interrupted, 2));
    assert_eq!((page.pauses, page.saved_at.as_slice()), (2, &[2][..]));
    // Run again, it goes on where it was, to its end.
    let outcome = block_on(trainer.run(&mut page, &mut ())).unwrap();
    assert_eq!((outcome.stop, outcome.steps), (Stop::Finished, 4));
    assert_eq!((page.pauses, page.saved_at.as_slice()), (4, &[2, 4][..]));
}
