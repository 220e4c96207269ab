//! Decoding one id at a time, for text that appears while it is generated.
//!
//! A token's text depends on its neighbours (leading spaces, characters spread over byte tokens), so each step decodes
//! a short window twice, with and without the new id, and emits the difference.

use super::Tokenizer;

/// A character has at most four bytes: more undecodable tokens than this are not the beginning of one.
const LONGEST_PENDING: usize = 4;

/// Turns ids into text pieces. The pieces' concatenation is `decode` of all ids whenever that is valid UTF-8; bytes
/// that never form a character are dropped instead of shown as U+FFFD.
///
/// ```ignore
/// let mut stream = tokenizer.stream_decoder(true);
/// for id in ids { if let Some(piece) = stream.push(id) { print!("{piece}"); } }
/// if let Some(rest) = stream.finish() { print!("{rest}"); }
/// ```
#[derive(Debug)]
pub struct StreamDecoder<'t> {
    tokenizer: &'t Tokenizer,
    skip_special: bool,
    /// `ids[..read]` has been emitted, `ids[read..]` waits for more bytes; everything earlier is forgotten.
    ids: Vec<u32>,
    read: usize,
}

impl<'t> StreamDecoder<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, skip_special: bool) -> Self {
        Self {
            tokenizer,
            skip_special,
            ids: Vec::new(),
            read: 0,
        }
    }

    /// Adds an id; the text that it completes, if any.
    pub fn push(&mut self, id: u32) -> Option<String> {
        self.ids.push(id);
        let before = self.text(self.read);
        let after = self.text(self.ids.len());
        if after.ends_with('\u{FFFD}') && self.ids.len() - self.read < LONGEST_PENDING {
            return None;
        }
        self.emit(&before, &after)
    }

    /// Call once at the end: text still held back that is complete characters.
    pub fn finish(&mut self) -> Option<String> {
        let before = self.text(self.read);
        let after = self.text(self.ids.len());
        self.emit(&before, &after)
    }

    fn emit(&mut self, before: &str, after: &str) -> Option<String> {
        // A bad byte can spoil how its predecessors decode; then the new tokens are read by themselves.
        let new = match after.strip_prefix(before) {
            Some(new) => new.to_owned(),
            None => self
                .tokenizer
                .decode(&self.ids[self.read..], self.skip_special)
                .unwrap_or_default(),
        };
        let piece = new.replace('\u{FFFD}', "");
        // The new tokens stay as context, so that the next piece keeps its leading space. A window that shows
        // nothing (skipped special tokens) cannot serve as context and is kept until something follows.
        if !after.is_empty() && after.len() > before.len() {
            self.ids.drain(..self.read);
            self.read = self.ids.len();
        }
        (!piece.is_empty()).then_some(piece)
    }

    fn text(&self, upto: usize) -> String {
        self.tokenizer
            .decode(&self.ids[..upto], self.skip_special)
            .unwrap_or_default()
    }
}
