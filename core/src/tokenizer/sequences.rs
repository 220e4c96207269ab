//! One text or a pair of them as an encoder reads it: special tokens around, segments told apart, cut to a length.

use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{Encoding, PostProcessor};

use super::{Tokenizer, TokenizerError, encode_error};

/// An encoded text or pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequences {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Same length, 1 in the second text; empty where all are 0.
    pub type_ids: Vec<u32>,
    /// Tokens before anything was cut.
    pub whole_length: usize,
}

impl Tokenizer {
    /// `text`, or `text` and `pair`, as this tokenizer's post-processor joins them (`[CLS] text [SEP] pair [SEP]`), at
    /// most `max_length` tokens. Tokens are cut from the longer of the two until both fit, at their ends, or at their
    /// beginnings with `left`; special tokens are never cut.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode_sequences(
        &self,
        text: &str,
        pair: Option<&str>,
        max_length: usize,
        left: bool,
    ) -> Result<Sequences, TokenizerError> {
        let plain = |text: &str| -> Result<Encoding, TokenizerError> {
            self.inner
                .encode_fast(text, false)
                .map_err(|e| encode_error(text, &e))
        };
        let first = plain(text)?;
        let second = pair.map(plain).transpose()?;
        let failed = |e: tokenizers::Error| encode_error(text, &e);
        let added = self
            .inner
            .get_post_processor()
            .map_or(0, |p| p.added_tokens(second.is_some()));
        let whole_length = first.len() + second.as_ref().map_or(0, Encoding::len) + added;
        let (first, second) = if whole_length > max_length {
            let params = TruncationParams {
                max_length: max_length.saturating_sub(added),
                strategy: TruncationStrategy::LongestFirst,
                direction: match left {
                    true => TruncationDirection::Left,
                    false => TruncationDirection::Right,
                },
                stride: 0,
            };
            truncate_encodings(first, second, &params)
                .map_err(|e| encode_error(text, &tokenizers::Error::from(e.to_string())))?
        } else {
            (first, second)
        };
        // Truncation is off in `inner`, so this only joins and adds special tokens.
        let joined = self
            .inner
            .post_process(first, second, true)
            .map_err(failed)?;
        let types = joined.get_type_ids();
        Ok(Sequences {
            ids: joined.get_ids().to_vec(),
            type_ids: match types.iter().any(|&t| t != 0) {
                true => types.to_vec(),
                false => Vec::new(),
            },
            whole_length,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    /// Word pieces t0 to t9 between `[CLS]` (10) and `[SEP]` (11).
    fn tokenizer() -> Tokenizer {
        let vocab: serde_json::Map<String, serde_json::Value> = (0..10)
            .map(|i| (format!("t{i}"), i.into()))
            .chain([
                ("[CLS]".to_owned(), 10.into()),
                ("[SEP]".to_owned(), 11.into()),
            ])
            .collect();
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": null,
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 11], "cls": ["[CLS]", 10]},
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"},
        });
        Tokenizer::from_bytes(json.to_string().as_bytes(), None, None).unwrap()
    }

    #[test]
    fn one_text_and_pairs_are_joined_and_told_apart() {
        let t = tokenizer();
        let one = t.encode_sequences("t1 t2", None, 8, false).unwrap();
        assert_eq!(one.ids, [10, 1, 2, 11]);
        assert!(one.type_ids.is_empty());
        let two = t.encode_sequences("t1 t2", Some("t3"), 8, false).unwrap();
        assert_eq!(two.ids, [10, 1, 2, 11, 3, 11]);
        assert_eq!(two.type_ids, [0, 0, 0, 0, 1, 1]);
        assert_eq!(two.whole_length, 6);
    }

    #[test]
    fn the_longer_text_is_cut_first_and_special_tokens_stay() {
        let t = tokenizer();
        let long = "t1 t2 t3 t4 t5 t6";
        let one = t.encode_sequences(long, None, 5, false).unwrap();
        assert_eq!((one.ids, one.whole_length), (vec![10, 1, 2, 3, 11], 8));
        let one = t.encode_sequences(long, None, 5, true).unwrap();
        assert_eq!(one.ids, [10, 4, 5, 6, 11]);
        let two = t.encode_sequences(long, Some("t7 t8"), 8, false).unwrap();
        assert_eq!(two.ids, [10, 1, 2, 3, 11, 7, 8, 11]);
        assert_eq!(two.type_ids, [0, 0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(two.whole_length, 11);
    }
}
