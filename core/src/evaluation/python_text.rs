//! Python's notion of white space, on which the reference implementations of BLEU, ROUGE and SQuAD scores rest.
//!
//! `str.split()` and `str.strip()` also take the four separator controls U+001C to U+001F for white space, which
//! Unicode's property does not.

/// Whether Python's `str.isspace` holds for `c`.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `text.split()`.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_where_python_does() {
        let text = "a\u{1c}b\u{a0}c\u{3000}d\u{85}e \t\n f\u{200b}g";
        let words: Vec<&str> = split(text).collect();
        assert_eq!(words, ["a", "b", "c", "d", "e", "f\u{200b}g"]);
        assert_eq!(split(" \u{1f} ").count(), 0);
    }
}
