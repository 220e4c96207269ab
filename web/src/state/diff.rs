//! Which words of two texts differ: the longest common subsequence over words.
//!
//! Marks are for reading, not for patching: both texts come back whole, cut into runs that are common or not. Common words
//! at both ends are set aside first, so that the quadratic table covers only the middle; where even that is too large,
//! the middle is marked as differing, which is true enough at that length.

/// Most cells of the table: 1,500 words against 1,500.
const MOST_CELLS: usize = 2_250_000;

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its words and the white space after them, as in the text.
    pub text: String,
    /// Whether the other text lacks it.
    pub differs: bool,
}

/// Cuts `text` into runs by what it shares with `reference`.
#[must_use]
pub fn marked(reference: &str, text: &str) -> Vec<Run> {
    let (theirs, ours) = (words(reference), words(text));
    let common = common(&theirs, &ours);
    let mut runs: Vec<Run> = Vec::new();
    for (word, shared) in ours.iter().zip(common) {
        match runs.last_mut() {
            Some(run) if run.differs != shared => run.text.push_str(word),
            _ => runs.push(Run {
                text: (*word).to_owned(),
                differs: !shared,
            }),
        }
    }
    runs
}

/// Words with the white space that follows them; leading white space is a word of its own.
fn words(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut in_space = false;
    for (at, c) in text.char_indices() {
        if in_space && !c.is_whitespace() {
            found.push(&text[start..at]);
            start = at;
        }
        in_space = c.is_whitespace();
    }
    if start < text.len() {
        found.push(&text[start..]);
    }
    found
}

fn same(a: &str, b: &str) -> bool {
    a.trim_end() == b.trim_end()
}

/// For each of `ours`, whether it belongs to the longest common subsequence.
fn common(theirs: &[&str], ours: &[&str]) -> Vec<bool> {
    let ahead = theirs
        .iter()
        .zip(ours)
        .take_while(|(a, b)| same(a, b))
        .count();
    let rest = theirs.len().min(ours.len()) - ahead;
    let behind = theirs.iter().rev().zip(ours.iter().rev());
    let behind = behind.take(rest).take_while(|(a, b)| same(a, b)).count();
    let middle_theirs = &theirs[ahead..theirs.len() - behind];
    let middle_ours = &ours[ahead..ours.len() - behind];
    let mut shared = vec![true; ahead];
    shared.extend(subsequence(middle_theirs, middle_ours));
    shared.extend(std::iter::repeat_n(true, behind));
    shared
}

fn subsequence(theirs: &[&str], ours: &[&str]) -> Vec<bool> {
    let (rows, columns) = (theirs.len(), ours.len());
    let mut shared = vec![false; columns];
    if rows * columns > MOST_CELLS {
        return shared;
    }
    // length[i][j]: of the longest common subsequence of what follows word i of theirs and word j of ours.
    let width = columns + 1;
    let mut length = vec![0u32; (rows + 1) * width];
    for i in (0..rows).rev() {
        for j in (0..columns).rev() {
            length[i * width + j] = match same(theirs[i], ours[j]) {
                true => length[(i + 1) * width + j + 1] + 1,
                false => length[(i + 1) * width + j].max(length[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < rows && j < columns {
        if same(theirs[i], ours[j]) {
            shared[j] = true;
            i += 1;
            j += 1;
        } else if length[(i + 1) * width + j] >= length[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(reference: &str, text: &str) -> String {
        let show = |run: &Run| match run.differs {
            true => format!("<{}>", run.text),
            false => run.text.clone(),
        };
        marked(reference, text).iter().map(show).collect()
    }

    #[test]
    fn words_that_differ_are_marked_and_nothing_is_lost() {
        assert_eq!(shown("the cat sat", "the dog sat"), "the <dog >sat");
        assert_eq!(shown("a b c d", "a c d e"), "a c d <e>");
        assert_eq!(shown("", "one two"), "<one two>");
        assert_eq!(
            shown("same  words\nhere", "same words here"),
            "same words here"
        );
        assert_eq!(shown("x", ""), "");
        let text = "  überall 猫 and\n\nmore ";
        let whole: String = marked("all and", text)
            .into_iter()
            .map(|r| r.text)
            .collect();
        assert_eq!(whole, text);
    }

    #[test]
    fn the_longest_common_subsequence_is_found() {
        let shared = |a: &str, b: &str| common(&words(a), &words(b)).iter().filter(|s| **s).count();
        assert_eq!(shared("a b c b d a b", "b d c a b a"), 4);
        assert_eq!(shared("a a a", "a a"), 2);
    }

    #[test]
    fn enormous_texts_are_marked_without_a_table() {
        let one: String = (0..3000).map(|i| format!("a{i} ")).collect();
        let two: String = (0..3000).map(|i| format!("b{i} ")).collect();
        let runs = marked(&format!("start {one}"), &format!("start {two}"));
        assert_eq!(runs.len(), 2);
        assert!(!runs[0].differs && runs[1].differs);
    }
}
