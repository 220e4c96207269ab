//! Everyday chats in the chat template, and the glossary that gives rare words a meaning.
//!
//! The glossary is there for the label words of the sentiment task: a frozen output head can only be steered towards words
//! that pretraining has seen, so "negative" is met as a photo or a number below zero, never as a mood. Its riddles have
//! one-word answers and are therefore written for training only (see `heldout`).

use super::draft::{Draft, Setback};
use super::heldout::Split;
use super::questions;
use super::reviews;
use super::tokenizer::render_turn;

/// A chat of two or four turns.
pub(crate) fn chat(draft: &mut Draft<'_>) -> Result<String, Setback> {
    let mut text = String::new();
    if draft.dice.chance(15) {
        draft.fix_cast()?;
        draft.bindings.set("place", "{spot}");
        text.push_str(&render_turn("system", &draft.sentence("system")?));
        draft.bindings = super::grammar::Bindings::default();
    }
    match draft.dice.below(10) {
        0..=3 => {
            let (message, reply) = reviews::message_and_reply(draft)?;
            text.push_str(&exchange(&message, &reply));
        }
        4..=6 => {
            let columns = questions::fix_subject(draft)?;
            for column in columns.iter().take(2) {
                let (question, answer) = questions::pair(draft, column)?;
                text.push_str(&exchange(&question, &answer));
            }
        }
        7 if draft.split == Split::Train => {
            for _ in 0..3 {
                text.push_str(&riddle(draft)?);
            }
        }
        _ => {
            draft.fix_cast()?;
            draft.fix("topic", "{topic}")?;
            draft.fix("town", "{town}")?;
            text.push_str(&exchange(
                &draft.sentence("hello")?,
                &draft.sentence("hello.back")?,
            ));
            text.push_str(&exchange(
                &draft.sentence("tell")?,
                &draft.sentence("tell.back")?,
            ));
        }
    }
    Ok(text)
}

fn exchange(user: &str, assistant: &str) -> String {
    render_turn("user", user) + &render_turn("assistant", assistant)
}

fn riddle(draft: &mut Draft<'_>) -> Result<String, Setback> {
    draft.fix_row("glossary")?;
    let question = draft.sentence("riddle")?;
    let word = draft.expand("{word}")?;
    Ok(exchange(&question, &word))
}

/// Lines of a glossary and sentences that use such words; sentences alone for the held-out split.
pub(crate) fn glossary(draft: &mut Draft<'_>) -> Result<String, Setback> {
    let mut lines: Vec<String> = Vec::new();
    while draft.split == Split::Train && lines.len() < 4 {
        draft.fix_row("glossary")?;
        let entry = draft.expand("{entry}")?;
        if draft.split.admits_text(&entry) && !lines.contains(&entry) {
            lines.push(entry);
        }
    }
    draft.fix_cast()?;
    for _ in 0..3 {
        lines.push(draft.sentence("sense")?);
    }
    Ok(lines.join("\n"))
}
