//! An example as text pieces with the trained ones marked, for display.

use serde::Serialize;

use super::example::{Example, IGNORE};
use crate::tokenizer::Tokenizer;

/// A run of text that is trained as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// The text, special tokens spelled out.
    pub text: String,
    /// Whether its tokens are targets.
    pub trained: bool,
}

/// The example's text, cut where trained and untrained tokens meet. Tokens that are parts of one character go with the
/// last of them.
#[must_use]
pub fn preview(example: &Example, tokenizer: &Tokenizer) -> Vec<Piece> {
    let mut stream = tokenizer.stream_decoder(false);
    let mut pieces: Vec<Piece> = Vec::new();
    let mut add = |text: Option<String>, trained: bool| {
        let Some(text) = text else { return };
        match pieces.last_mut().filter(|last| last.trained == trained) {
            Some(last) => last.text.push_str(&text),
            None => pieces.push(Piece { text, trained }),
        }
    };
    let mut trained = false;
    for (&id, &label) in example.input_ids.iter().zip(&example.labels) {
        trained = label != IGNORE;
        add(stream.push(id), trained);
    }
    add(stream.finish(), trained);
    pieces
}
