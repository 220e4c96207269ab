//! Longest common subsequences, of one pair of texts and of a text's sentences together.

use std::collections::{BTreeSet, HashMap};

/// Lengths for every pair of prefixes, `[reference + 1, candidate + 1]`, row-major.
fn table(reference: &[String], candidate: &[String]) -> (Vec<u32>, usize) {
    let width = candidate.len() + 1;
    let mut lengths = vec![0u32; (reference.len() + 1) * width];
    for (i, r) in reference.iter().enumerate() {
        for (j, c) in candidate.iter().enumerate() {
            lengths[(i + 1) * width + j + 1] = match r == c {
                true => lengths[i * width + j] + 1,
                false => lengths[i * width + j + 1].max(lengths[(i + 1) * width + j]),
            };
        }
    }
    (lengths, width)
}

/// Length of the longest common subsequence; keeps two rows only.
pub(super) fn length(reference: &[String], candidate: &[String]) -> usize {
    let mut row = vec![0usize; candidate.len() + 1];
    for r in reference {
        let mut diagonal = 0;
        for (j, c) in candidate.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if r == c {
                diagonal + 1
            } else {
                above.max(row[j])
            };
            diagonal = above;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Places in `reference` of one longest common subsequence. Of several, the one that walking back from the ends finds,
/// going up in the table on a tie: which one it is decides what a union of several holds.
fn places(reference: &[String], candidate: &[String]) -> Vec<usize> {
    let (lengths, width) = table(reference, candidate);
    let (mut i, mut j) = (reference.len(), candidate.len());
    let mut found = Vec::new();
    while i > 0 && j > 0 {
        if reference[i - 1] == candidate[j - 1] {
            found.push(i - 1);
            (i, j) = (i - 1, j - 1);
        } else if lengths[i * width + j - 1] > lengths[(i - 1) * width + j] {
            j -= 1;
        } else {
            i -= 1;
        }
    }
    found
}

/// Matches of ROUGE-Lsum: for every reference sentence the union of its common subsequences with all candidate
/// sentences, each word of either text counted at most as often as it occurs there.
pub(super) fn union_hits(reference: &[Vec<String>], candidate: &[Vec<String>]) -> usize {
    let mut left_reference = counts(reference);
    let mut left_candidate = counts(candidate);
    let mut hits = 0;
    for sentence in reference {
        let union: BTreeSet<usize> = candidate.iter().flat_map(|c| places(sentence, c)).collect();
        for place in union {
            let word = sentence[place].as_str();
            let left = (left_reference.get_mut(word), left_candidate.get_mut(word));
            if let (Some(r @ 1..), Some(c @ 1..)) = left {
                (*r, *c) = (*r - 1, *c - 1);
                hits += 1;
            }
        }
    }
    hits
}

fn counts(sentences: &[Vec<String>]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for word in sentences.iter().flatten() {
        *counts.entry(word.as_str()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ')
            .filter(|w| !w.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn both_ways_to_count_agree() {
        for (a, b, expected) in [
            ("a b c d", "d c b a", 1),
            ("a b c d e", "a x b y c z", 3),
            ("", "a", 0),
            ("a", "", 0),
            ("r r r", "r", 1),
            ("a b a b a", "b a b", 3),
        ] {
            let (a, b) = (words(a), words(b));
            assert_eq!(length(&a, &b), expected, "{a:?} {b:?}");
            assert_eq!(places(&a, &b).len(), expected, "{a:?} {b:?}");
        }
    }

    #[test]
    fn unions_count_a_word_once() {
        let reference = [words("a b c"), words("a d")];
        // "a" stands twice in the reference but once in the candidate.
        assert_eq!(union_hits(&reference, &[words("c a"), words("b d")]), 3);
        assert_eq!(union_hits(&reference, &[]), 0);
    }
}
