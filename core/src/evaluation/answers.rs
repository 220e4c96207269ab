//! Exact match and token F1 of short answers, after SQuAD's normalization (Rajpurkar et al. 2016 and 2018).
//!
//! Lower case, no ASCII punctuation, no `a`, `an`, `the`, single spaces. F1 is over the words as a bag. As SQuAD 2.0 has
//! it, two texts of which one is empty after normalization score 1 if both are and 0 otherwise.

use std::collections::HashMap;

use super::python_text::split;

/// SQuAD's normal form of an answer.
pub fn normalize_answer(text: &str) -> String {
    let lower = text.to_lowercase();
    let bare: String = lower
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    let mut out = String::with_capacity(bare.len());
    let mut rest = bare.as_str();
    // A word here is a run of letters and digits, so "the–cat" holds the article and "thecat" does not.
    while !rest.is_empty() {
        let word = rest
            .find(|c: char| !c.is_alphanumeric())
            .unwrap_or(rest.len());
        match &rest[..word] {
            "a" | "an" | "the" => out.push(' '),
            other => out.push_str(other),
        }
        let between = rest[word..]
            .find(char::is_alphanumeric)
            .map_or(rest.len(), |i| word + i);
        out.push_str(&rest[word..between]);
        rest = &rest[between..];
    }
    split(&out).collect::<Vec<_>>().join(" ")
}

/// 1 where both are the same after normalization, else 0.
pub fn exact_match(prediction: &str, reference: &str) -> f64 {
    f64::from(u8::from(
        normalize_answer(prediction) == normalize_answer(reference),
    ))
}

/// Harmonic mean of precision and recall over the normalized words.
pub fn token_f1(prediction: &str, reference: &str) -> f64 {
    let (prediction, reference) = (normalize_answer(prediction), normalize_answer(reference));
    let words = |text: &str| split(text).count();
    let (answered, expected) = (words(&prediction), words(&reference));
    if answered == 0 || expected == 0 {
        return f64::from(u8::from(answered == expected));
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    split(&reference).for_each(|word| *left.entry(word).or_default() += 1);
    let hits = split(&prediction).filter(|word| match left.get_mut(word) {
        Some(count @ 1..) => {
            *count -= 1;
            true
        }
        _ => false,
    });
    // 2PR / (P + R) with P = hits / answered and R = hits / expected.
    2.0 * hits.count() as f64 / (answered + expected) as f64
}

#[cfg(test)]
#[allow(clippy::float_cmp)]
mod tests {
    use super::*;

    #[test]
    fn normal_forms() {
        for (text, expected) in [
            ("The  Eiffel Tower!", "eiffel tower"),
            ("a an the", ""),
            ("AN apple, a day.", "apple day"),
            ("anthem theatre", "anthem theatre"),
            ("the-cat", "thecat"),
            ("the–cat", "–cat"),
            ("$3.50", "350"),
            ("«Größe»", "«größe»"),
            ("snake_case", "snakecase"),
            ("", ""),
            ("\u{1c}x\u{1f}y", "x y"),
            ("d'a", "da"),
            ("naïve a é", "naïve é"),
        ] {
            assert_eq!(normalize_answer(text), expected, "{text:?}");
        }
    }

    /// Cases may hold `squad`: per pair the normal form, exact match and F1 of the official script.
    #[test]
    fn drawn_pairs_equal_the_official_script() {
        for case in crate::evaluation::golden::cases() {
            let Some(expected) = case.json["squad"].as_array() else {
                continue;
            };
            for ((h, r), e) in case
                .strings("hyp")
                .iter()
                .zip(case.strings("ref"))
                .zip(expected)
            {
                assert_eq!(Some(normalize_answer(h).as_str()), e[0].as_str(), "{h:?}");
                assert_eq!(Some(exact_match(h, &r)), e[1].as_f64(), "{h:?} {r:?}");
                let difference = token_f1(h, &r) - e[2].as_f64().unwrap_or(f64::NAN);
                assert!(difference.abs() < 1e-12, "{h:?} {r:?}");
            }
        }
    }

    #[test]
    fn scores_of_answers() {
        for (prediction, reference, exact, f1) in [
            ("The cat.", "cat", 1.0, 1.0),
            ("the black cat", "a cat", 0.0, 2.0 / 3.0),
            ("cat cat cat", "cat", 0.0, 0.5),
            ("cat", "cat cat cat", 0.0, 0.5),
            ("dog", "cat", 0.0, 0.0),
            ("", "", 1.0, 1.0),
            ("the", "", 1.0, 1.0),
            ("", "cat", 0.0, 0.0),
            ("cat", "", 0.0, 0.0),
            ("日本", "日本", 1.0, 1.0),
        ] {
            assert_eq!(
                exact_match(prediction, reference),
                exact,
                "{prediction:?} {reference:?}"
            );
            assert_eq!(
                token_f1(prediction, reference),
                f1,
                "{prediction:?} {reference:?}"
            );
        }
    }
}
