//! What a model makes of every token of a text.

use std::ops::Range;

use qloom_core::data::Batch;
use qloom_core::tokenizer::Tokenizer;

use super::Surroundings;
use super::failure::Ended;
use super::state::State;
use super::task::Task;
use crate::protocol::{Column, Event, Failure, Prompt, TokenLoss};

/// Answers with the loss of every token of `text` after `prompt`, in every column.
pub(super) async fn token_losses<S: Surroundings>(
    task: &Task<'_, S>,
    state: &State,
    prompt: &Prompt,
    text: &str,
    columns: &[Column],
) -> Result<(), Ended> {
    let models = state.language_models(columns)?;
    let base = state.base()?;
    let before = base.prompt_text(prompt, &[])?;
    let whole = format!("{before}{text}");
    // One tokenization of the whole, as in training; a token belongs to the side it starts on.
    let encoded = base.tokenizer.encode_document(&whole)?;
    let (ids, context) = (&encoded.ids, base.info.context);
    if ids.len() > context {
        return Err(Failure::request(format!(
            "prompt and text have {} tokens, and the base sees {context}; shorten them",
            ids.len()
        ))
        .into());
    }
    let scored =
        |i: usize, range: &Range<usize>| i > 0 && !range.is_empty() && range.start >= before.len();
    let mut batch = Batch::of_sequences(std::slice::from_ref(ids));
    for (i, range) in encoded.offsets.iter().enumerate() {
        if scored(i, range) {
            batch.labels[i] = ids[i] as i32;
            batch.target_tokens += 1;
        }
    }
    if batch.target_tokens == 0 {
        return Err(Failure::request("there is no token to score; write some text").into());
    }
    let mut all = Vec::with_capacity(models.len());
    for model in &models {
        let rows = model.token_losses(&batch).await?;
        let mut losses = rows.into_iter().flatten();
        let tokens = ids.iter().zip(&encoded.offsets).enumerate();
        let token = |(i, (&id, range)): (usize, (&u32, &Range<usize>))| TokenLoss {
            text: text_of(&base.tokenizer, &whole, id, range),
            nll: match scored(i, range) {
                true => losses.next().map(f64::from),
                false => None,
            },
        };
        all.push(tokens.map(token).collect());
        task.pause().await?;
    }
    task.emit(Event::TokenLosses { columns: all });
    Ok(())
}

/// A token as the text has it; one that stands for part of a character, or for no text, as the vocabulary has it.
fn text_of(tokenizer: &Tokenizer, whole: &str, id: u32, range: &Range<usize>) -> String {
    let written = whole.get(range.clone()).filter(|text| !text.is_empty());
    match written {
        Some(text) => text.to_owned(),
        None => tokenizer.id_to_token(id).unwrap_or_default(),
    }
}
