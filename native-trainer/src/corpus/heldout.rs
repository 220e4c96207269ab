//! The split: a sentence is held out by what it says, not by when it was drawn.
//!
//! Every sentence is reduced to its lower-case words and hashed; one in [`HELD_OUT_SHARE`] belongs to the held-out class,
//! whatever the seed, the kind of text or the size of the draw. Training text admits no sentence of that class, nor one
//! that *ends* in such a sentence ("Nora says that a cow eats grass." would give away "A cow eats grass."); held-out text
//! consists of nothing else. So no held-out sentence occurs in any training data, pretraining and task data alike, and the
//! guarantee needs no bookkeeping.
//!
//! Exempt are, because they are the task and not its text: the fixed prompt of the sentiment task and its one-word answers.

/// One sentence in this many is held out.
const HELD_OUT_SHARE: u64 = 20;
/// Held-out sentences have at least this many words, and endings of training sentences are checked down to this length.
const MIN_WORDS: usize = 4;

/// Which side of the split a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Split {
    /// Text the model may learn from.
    Train,
    /// Text kept for scoring.
    HeldOut,
}

impl Split {
    /// Whether a sentence may stand in a text of this split.
    pub(crate) fn admits(self, sentence: &str) -> bool {
        let words = words(sentence);
        match self {
            Self::HeldOut => words.len() >= MIN_WORDS && is_held_out(&words),
            Self::Train => (0..words.len())
                .take_while(|start| words.len() - start >= MIN_WORDS)
                .all(|start| !is_held_out(&words[start..])),
        }
    }

    /// Whether every sentence of `text` may stand in a text of this split; an empty text may not.
    pub(crate) fn admits_text(self, text: &str) -> bool {
        let sentences = sentences(text);
        !sentences.is_empty() && sentences.iter().all(|sentence| self.admits(sentence))
    }
}

/// The sentences of a text: cut at line ends, at the markers of the chat template, and after `.`, `!` or `?` before a space.
///
/// ```text
/// "<|user|>\nIs it late? I am tired.<|end|>"  ->  ["Is it late?", "I am tired."]
/// ```
pub(crate) fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in text.split(['\n', '\r']) {
        for part in line.split("<|").map(|part| match part.split_once("|>") {
            Some((_, after)) => after,
            None => part,
        }) {
            cut_sentences(part, &mut found);
        }
    }
    found
}

fn cut_sentences<'a>(line: &'a str, found: &mut Vec<&'a str>) {
    let mut start = 0;
    let bytes = line.as_bytes();
    for i in 0..bytes.len() {
        let ends = matches!(bytes[i], b'.' | b'!' | b'?');
        if ends && bytes.get(i + 1).is_none_or(|next| *next == b' ') {
            found.push(line[start..=i].trim());
            start = i + 1;
        }
    }
    found.push(line[start..].trim());
    found.retain(|sentence| !sentence.is_empty());
}

/// The lower-case words of a sentence, punctuation dropped, so that "Great, Tom!" and "great Tom" are one sentence.
pub(crate) fn words(sentence: &str) -> Vec<String> {
    sentence
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

fn is_held_out(words: &[String]) -> bool {
    hash(words).is_multiple_of(HELD_OUT_SHARE)
}

/// FNV-1a over the words, each closed by a space, then splitmix64's finalizer: FNV's low bits alone are not even enough.
pub(crate) fn hash(words: &[String]) -> u64 {
    let mut state: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in words.iter().flat_map(|word| word.bytes().chain([b' '])) {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_cut_at_stops_lines_and_markers() {
        let text = "<|user|>\nIs it late? It is 3.5 miles!<|end|>\n<|assistant|>\ngo home<|end|>\n";
        assert_eq!(
            sentences(text),
            ["Is it late?", "It is 3.5 miles!", "go home"]
        );
        assert!(sentences(" \n<|end|>").is_empty());
        assert_eq!(
            sentences("Wait... what? Größe!"),
            ["Wait...", "what?", "Größe!"]
        );
    }

    #[test]
    fn case_and_punctuation_do_not_make_a_new_sentence() {
        assert_eq!(words("Well, Tom's hat!"), words("well tom s hat"));
    }

    #[test]
    fn about_one_sentence_in_twenty_is_held_out() {
        let held =
            (0..20_000).filter(|i| Split::HeldOut.admits(&format!("the cow number {i} eats")));
        let held = held.count();
        assert!((900..1100).contains(&held), "{held} of 20000");
    }

    #[test]
    fn a_training_sentence_never_ends_in_a_held_out_one() {
        let held = (0..).map(|i| format!("a cow eats {i}"));
        let held = held.into_iter().find(|s| Split::HeldOut.admits(s)).unwrap();
        assert!(!Split::Train.admits(&held));
        for lead in ["Nora says that", "Yes,", "In Alden one hears that"] {
            assert!(!Split::Train.admits(&format!("{lead} {held}!")));
        }
    }

    #[test]
    fn short_and_empty_texts() {
        assert!(!Split::HeldOut.admits("Too short."));
        assert!(Split::Train.admits("kettle"));
        assert!(!Split::Train.admits_text(""));
    }
}
