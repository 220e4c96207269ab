//! A generation in steps against one in a loop.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use super::{Finish, Generated, Generator, SamplingConfig};
use crate::host::block_on;
use crate::models::llama::fixtures::model;
use crate::tokenizer::fixtures::bytes;

fn prompts() -> Vec<Vec<u32>> {
    vec![vec![1, 290, 300], vec![1, 310], vec![1, 280, 281, 282, 283]]
}

fn config() -> SamplingConfig {
    SamplingConfig {
        temperature: 1.0,
        max_new_tokens: 12,
        seed: 5,
        ..SamplingConfig::default()
    }
}

#[test]
fn interleaved_steps_give_what_a_loop_gives() {
    let (model, tokenizer) = (model(), bytes(None));
    let one = Generator::new(&model, &tokenizer, config(), vec![2]);
    let greedy = SamplingConfig {
        temperature: 0.0,
        ..config()
    };
    let other = Generator::new(&model, &tokenizer, greedy, vec![2]);
    let mut streamed = vec![String::new(); 3];
    let alone =
        block_on(one.generate(&prompts(), 7, |i, text| streamed[i].push_str(text))).unwrap();
    let texts: Vec<&String> = alone.iter().map(|g| &g.text).collect();
    assert_eq!(texts, streamed.iter().collect::<Vec<_>>());
    let other_alone = block_on(other.generate(&prompts(), 7, |_, _| {})).unwrap();
    assert_ne!(alone, other_alone);

    let mut a = one.begin(&prompts(), 7).unwrap();
    let mut b = other.begin(&prompts(), 7).unwrap();
    let mut pieces = vec![String::new(); 3];
    while !a.done() || !b.done() {
        for piece in block_on(a.step()).unwrap() {
            assert!(!piece.text.is_empty());
            pieces[piece.index].push_str(&piece.text);
        }
        block_on(b.step()).unwrap();
    }
    assert_eq!(pieces, streamed);
    assert_eq!(a.finish(), alone);
    assert_eq!(b.finish(), other_alone);
}

#[test]
fn a_generation_stopped_between_steps_keeps_what_it_has() {
    let (model, tokenizer) = (model(), bytes(None));
    // Without end tokens every sequence runs to its limit.
    let generator = Generator::new(&model, &tokenizer, config(), Vec::new());
    let whole = block_on(generator.generate(&prompts(), 0, |_, _| {})).unwrap();
    let mut cut = generator.begin(&prompts(), 0).unwrap();
    for _ in 0..4 {
        block_on(cut.step()).unwrap();
    }
    let cut: Vec<Generated> = cut.finish();
    for (cut, whole) in cut.iter().zip(&whole) {
        assert_eq!(
            (cut.finish, whole.finish),
            (Finish::Stopped, Finish::Length)
        );
        assert_eq!(cut.ids, whole.ids[..4]);
        assert_eq!(whole.ids.len(), 12);
    }
    assert_eq!(cut.len(), 3);
}
