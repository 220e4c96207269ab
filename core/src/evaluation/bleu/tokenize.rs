//! BLEU's tokenizers: how a segment is cut into the words that are counted.
//!
//! `13a` is the one of the WMT evaluations (mteval-v13a.pl), and the default. What each does is defined by the
//! substitutions of those scripts, applied one after the other, each over the whole line and without overlap.

use serde::{Deserialize, Serialize};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::evaluation::python_text::{is_space, split};

/// A tokenizer, under sacreBLEU's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BleuTokenizer {
    /// Western punctuation is split off, but points and commas within numbers stay.
    #[default]
    #[serde(rename = "13a")]
    V13a,
    /// Words between white space, as they are.
    #[serde(rename = "none")]
    None,
    /// Punctuation and symbols of every script (mteval-v14.pl with its international option).
    #[serde(rename = "intl")]
    International,
    /// Every character a word.
    #[serde(rename = "char")]
    Character,
    /// Chinese characters one by one, everything else as `13a` without its unescaping.
    #[serde(rename = "zh")]
    Chinese,
}

impl BleuTokenizer {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::V13a,
        Self::None,
        Self::International,
        Self::Character,
        Self::Chinese,
    ];

    /// The name in the signature.
    pub fn name(self) -> &'static str {
        match self {
            Self::V13a => "13a",
            Self::None => "none",
            Self::International => "intl",
            Self::Character => "char",
            Self::Chinese => "zh",
        }
    }

    /// The tokenizer of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The words of `segment`, lower-cased first where `lowercase` says so.
    pub fn words(self, segment: &str, lowercase: bool) -> Vec<String> {
        let lowered;
        let segment = if lowercase {
            lowered = segment.to_lowercase();
            lowered.as_str()
        } else {
            segment
        };
        let segment = segment.trim_end_matches(is_space);
        let spaced = match self {
            Self::V13a => western(&format!(" {} ", unescaped(segment))),
            Self::None => segment.to_owned(),
            Self::International => international(segment),
            Self::Character => segment.chars().flat_map(|c| [c, ' ']).collect(),
            Self::Chinese => western(&chinese_apart(segment.trim_matches(is_space))),
        };
        split(&spaced).map(str::to_owned).collect()
    }
}

/// mteval-v13a's clean-up: markers and line breaks gone, four character entities resolved, in this order.
fn unescaped(line: &str) -> String {
    let mut line = line
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ");
    if line.contains('&') {
        for (entity, character) in [
            ("&quot;", "\""),
            ("&amp;", "&"),
            ("&lt;", "<"),
            ("&gt;", ">"),
        ] {
            line = line.replace(entity, character);
        }
    }
    line
}

/// The part of mteval-v13a that is made for languages in Latin script.
fn western(line: &str) -> String {
    let point = |c: char| matches!(c, '.' | ',');
    let digit = |c: char| c.is_ascii_digit();
    // ASCII punctuation, but for ' , - . which the next passes decide on.
    let apart = |c: char| c.is_ascii_punctuation() && !matches!(c, '\'' | ',' | '-' | '.');
    let line: String = line.chars().fold(String::new(), |mut out, c| {
        match apart(c) {
            true => out.extend([' ', c, ' ']),
            false => out.push(c),
        }
        out
    });
    let line = pairs(&line, |a, b| !digit(a) && point(b), |a, b| [a, ' ', b, ' ']);
    let line = pairs(&line, |a, b| point(a) && !digit(b), |a, b| [' ', a, ' ', b]);
    pairs(&line, |a, b| digit(a) && b == '-', |a, b| [a, ' ', b, ' '])
}

fn international(line: &str) -> String {
    let group = |c: char| c.general_category_group();
    let number = |c: char| group(c) == GeneralCategoryGroup::Number;
    let mark = |c: char| group(c) == GeneralCategoryGroup::Punctuation;
    let line = pairs(line, |a, b| !number(a) && mark(b), |a, b| [a, ' ', b, ' ']);
    let line = pairs(&line, |a, b| mark(a) && !number(b), |a, b| [' ', a, ' ', b]);
    line.chars().fold(String::new(), |mut out, c| {
        match group(c) == GeneralCategoryGroup::Symbol {
            true => out.extend([' ', c, ' ']),
            false => out.push(c),
        }
        out
    })
}

/// Replaces every two neighbours that match, left to right, none of them used twice.
fn pairs(
    line: &str,
    matches: impl Fn(char, char) -> bool,
    replacement: impl Fn(char, char) -> [char; 4],
) -> String {
    let mut out = String::with_capacity(line.len() + 16);
    let mut rest = line.chars().peekable();
    while let Some(a) = rest.next() {
        match rest.peek().copied().filter(|&b| matches(a, b)) {
            Some(b) => {
                out.extend(replacement(a, b));
                rest.next();
            }
            None => out.push(a),
        }
    }
    out
}

/// Puts spaces around what the zh tokenizer takes for Chinese.
fn chinese_apart(line: &str) -> String {
    line.chars().fold(String::new(), |mut out, c| {
        match is_chinese(c) {
            true => out.extend([' ', c, ' ']),
            false => out.push(c),
        }
        out
    })
}

/// The ranges of the zh tokenizer. Two of them are not what its authors meant: the supplementary planes are written with
/// four-digit escapes there, so that they begin and end in the basic plane. They are kept, because they decide scores.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x3400..=0x4db5 | 0x4e00..=0x9fbb | 0xf900..=0xfa2d | 0xfa30..=0xfa6a | 0xfa70..=0xfad9
        | 0x2001..=0x2a6d // meant: extension B, 0x20000 to 0x2a6d6
        | 0x2f81..=0x2fa1 // meant: the compatibility supplement, 0x2f800 to 0x2fa1d
        | 0xff00..=0xffef | 0x2e80..=0x2eff | 0x3000..=0x303f | 0x31c0..=0x31ef | 0x2f00..=0x2fdf
        | 0x2ff0..=0x2fff | 0x3100..=0x312f | 0x31a0..=0x31bf | 0xfe10..=0xfe1f | 0xfe30..=0xfe4f
        | 0x3200..=0x33ff)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn joined(tokenizer: BleuTokenizer, text: &str) -> String {
        tokenizer.words(text, false).join(" ")
    }

    #[test]
    fn numbers_keep_their_points_and_sentences_lose_them() {
        for (text, expected) in [
            (
                "It rose 3.5%, to $1,234.56.",
                "It rose 3.5 % , to $ 1,234.56 .",
            ),
            ("1990-1995", "1990 - 1995"),
            ("state-of-the-art", "state-of-the-art"),
            ("e.g. this", "e . g . this"),
            ("a...b", "a . . . b"),
            ("don't \"stop\"", "don't \" stop \""),
            ("&quot;x&quot; &amp;lt; <skipped>y", "\" x \" < y"),
            ("hyphen-\nated\nword", "hyphenated word"),
            ("", ""),
            (" \u{1c}\n ", ""),
        ] {
            assert_eq!(joined(BleuTokenizer::V13a, text), expected, "{text:?}");
        }
    }

    #[test]
    fn other_scripts_and_single_characters() {
        assert_eq!(
            joined(BleuTokenizer::Chinese, "这是,x1 测试。"),
            "这 是 , x1 测 试 。"
        );
        assert_eq!(
            joined(BleuTokenizer::International, "«a» 😀b 1,5€ x,5"),
            "« a » 😀 b 1,5 € x , 5"
        );
        assert_eq!(joined(BleuTokenizer::Character, "ab c"), "a b c");
        assert_eq!(joined(BleuTokenizer::None, "a,b  c."), "a,b c.");
        assert_eq!(BleuTokenizer::V13a.words("ÀB É.", true), ["àb", "é", "."]);
    }

    #[test]
    fn names_read_back() {
        for tokenizer in BleuTokenizer::ALL {
            assert_eq!(BleuTokenizer::from_name(tokenizer.name()), Some(tokenizer));
            let json = serde_json::to_value(tokenizer).unwrap();
            assert_eq!(json, tokenizer.name());
        }
        assert_eq!(BleuTokenizer::from_name("14a"), None);
    }
}
