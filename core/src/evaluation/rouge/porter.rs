//! Porter's stemmer (1980) with the extensions of NLTK, as rouge-score uses it.
//!
//! Words come in as ASCII letters and digits, lower case. Each step tries its endings in order; the first that the word
//! has decides, whether or not its condition holds. The extensions are marked NLTK.

/// The irregular words NLTK looks up first.
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// The stem of a lower-case ASCII word; words of one or two letters are their own.
pub(super) fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(irregular, _)| *irregular == word) {
        return (*stem).to_owned();
    }
    if word.len() <= 2 {
        return word.to_owned();
    }
    let steps = [step1a, step1b, step1c, step2, step3, step4, step5a, step5b];
    steps.iter().fold(word.to_owned(), |word, step| step(&word))
}

/// Whether each letter is a consonant: y is one at the start and after a vowel.
fn consonants(word: &str) -> Vec<bool> {
    let mut flags: Vec<bool> = Vec::with_capacity(word.len());
    for letter in word.bytes() {
        flags.push(match letter {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => flags.last().is_none_or(|before| !before),
            _ => true,
        });
    }
    flags
}

/// Porter's m: how often a consonant follows a vowel.
fn measure(stem: &str) -> usize {
    consonants(stem)
        .windows(2)
        .filter(|pair| !pair[0] && pair[1])
        .count()
}

fn has_vowel(stem: &str) -> bool {
    consonants(stem).contains(&false)
}

/// Porter's *d.
fn ends_in_double_consonant(word: &str) -> bool {
    let bytes = word.as_bytes();
    let n = bytes.len();
    n >= 2 && bytes[n - 1] == bytes[n - 2] && consonants(word)[n - 1]
}

/// Porter's *o: consonant, vowel, consonant other than w, x and y. NLTK: or vowel and consonant alone.
fn ends_cvc(word: &str) -> bool {
    match consonants(word)[..] {
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        [false, true] => true,
        _ => false,
    }
}

/// An ending, what replaces it, and the condition on what stands before.
type Rule = (&'static str, &'static str, fn(&str) -> bool);

/// Applies the first rule whose ending the word has, if its condition holds.
fn apply(word: &str, rules: &[Rule]) -> String {
    for (ending, replacement, condition) in rules {
        if let Some(stem) = word.strip_suffix(ending) {
            return match condition(stem) {
                true => format!("{stem}{replacement}"),
                false => word.to_owned(),
            };
        }
    }
    word.to_owned()
}

fn always(_: &str) -> bool {
    true
}

fn positive(stem: &str) -> bool {
    measure(stem) > 0
}

fn above_one(stem: &str) -> bool {
    measure(stem) > 1
}

fn step1a(word: &str) -> String {
    // NLTK: "dies" is "die", "flies" is "fli".
    if word.len() == 4 && word.ends_with("ies") {
        return word[..3].to_owned();
    }
    apply(
        word,
        &[
            ("sses", "ss", always),
            ("ies", "i", always),
            ("ss", "ss", always),
            ("s", "", always),
        ],
    )
}

fn step1b(word: &str) -> String {
    // NLTK: "died" is "die", "spied" is "spi".
    if let Some(stem) = word.strip_suffix("ied") {
        return format!("{stem}{}", if word.len() == 4 { "ie" } else { "i" });
    }
    if let Some(stem) = word.strip_suffix("eed") {
        return if positive(stem) {
            format!("{stem}ee")
        } else {
            word.to_owned()
        };
    }
    let cut = ["ed", "ing"]
        .into_iter()
        .find_map(|e| word.strip_suffix(e).filter(|s| has_vowel(s)));
    let Some(stem) = cut else {
        return word.to_owned();
    };
    if ["at", "bl", "iz"].iter().any(|e| stem.ends_with(e)) {
        return format!("{stem}e");
    }
    if ends_in_double_consonant(stem) {
        let keep = stem.ends_with(['l', 's', 'z']);
        return stem[..stem.len() - usize::from(!keep)].to_owned();
    }
    match measure(stem) == 1 && ends_cvc(stem) {
        true => format!("{stem}e"),
        false => stem.to_owned(),
    }
}

fn step1c(word: &str) -> String {
    // NLTK: after a consonant that is not the whole stem ("happi", "enjoy", "by"), where Porter asks for a vowel.
    apply(
        word,
        &[("y", "i", |stem| {
            stem.len() > 1 && consonants(stem).last() == Some(&true)
        })],
    )
}

fn step2(word: &str) -> String {
    // NLTK: first of all, and the rest is tried again on the result.
    if let Some(stem) = word.strip_suffix("alli").filter(|s| positive(s)) {
        return step2(&format!("{stem}al"));
    }
    apply(
        word,
        &[
            ("ational", "ate", positive),
            ("tional", "tion", positive),
            ("enci", "ence", positive),
            ("anci", "ance", positive),
            ("izer", "ize", positive),
            ("bli", "ble", positive), // NLTK: instead of "abli"
            ("alli", "al", positive),
            ("entli", "ent", positive),
            ("eli", "e", positive),
            ("ousli", "ous", positive),
            ("ization", "ize", positive),
            ("ation", "ate", positive),
            ("ator", "ate", positive),
            ("alism", "al", positive),
            ("iveness", "ive", positive),
            ("fulness", "ful", positive),
            ("ousness", "ous", positive),
            ("aliti", "al", positive),
            ("iviti", "ive", positive),
            ("biliti", "ble", positive),
            ("fulli", "ful", positive), // NLTK
            // NLTK: the l counts as part of the stem, so that "geologi" is "geolog".
            ("logi", "log", |stem| positive(&format!("{stem}l"))),
        ],
    )
}

fn step3(word: &str) -> String {
    apply(
        word,
        &[
            ("icate", "ic", positive),
            ("ative", "", positive),
            ("alize", "al", positive),
            ("iciti", "ic", positive),
            ("ical", "ic", positive),
            ("ful", "", positive),
            ("ness", "", positive),
        ],
    )
}

fn step4(word: &str) -> String {
    apply(
        word,
        &[
            ("al", "", above_one),
            ("ance", "", above_one),
            ("ence", "", above_one),
            ("er", "", above_one),
            ("ic", "", above_one),
            ("able", "", above_one),
            ("ible", "", above_one),
            ("ant", "", above_one),
            ("ement", "", above_one),
            ("ment", "", above_one),
            ("ent", "", above_one),
            ("ion", "", |stem| {
                above_one(stem) && stem.ends_with(['s', 't'])
            }),
            ("ou", "", above_one),
            ("ism", "", above_one),
            ("ate", "", above_one),
            ("iti", "", above_one),
            ("ous", "", above_one),
            ("ive", "", above_one),
            ("ize", "", above_one),
        ],
    )
}

fn step5a(word: &str) -> String {
    match word.strip_suffix('e') {
        Some(stem) if measure(stem) > 1 || (measure(stem) == 1 && !ends_cvc(stem)) => {
            stem.to_owned()
        }
        _ => word.to_owned(),
    }
}

fn step5b(word: &str) -> String {
    match word.strip_suffix('l').filter(|stem| stem.ends_with('l')) {
        Some(stem) if measure(stem) > 1 => stem.to_owned(),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::evaluation::golden;

    #[test]
    fn the_papers_own_examples() {
        for (word, expected) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("plastered", "plaster"),
            ("motoring", "motor"),
            ("sing", "sing"),
            ("conflated", "conflat"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("hissing", "hiss"),
            ("failing", "fail"),
            ("filing", "file"),
            ("happy", "happi"),
            ("relational", "relat"),
            ("rational", "ration"),
            ("triplicate", "triplic"),
            ("goodness", "good"),
            ("revival", "reviv"),
            ("adoption", "adopt"),
            ("probate", "probat"),
            ("rate", "rate"),
            ("cease", "ceas"),
            ("controll", "control"),
            ("roll", "roll"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    #[test]
    fn nltks_extensions() {
        for (word, expected) in [
            ("dies", "die"),
            ("flies", "fli"),
            ("died", "die"),
            ("spied", "spi"),
            ("enjoy", "enjoy"),
            ("spy", "spi"),
            ("skies", "sky"),
            ("dying", "die"),
            ("innings", "inning"),
            ("geology", "geolog"),
            ("hopefully", "hope"),
            ("succeed", "succeed"),
            ("oed", "o"),
            ("yyyyy", "yyyyy"),
            ("yyyys", "yyyi"),
            ("sayyed", "sayi"),
            ("4th", "4th"),
            ("12345s", "12345"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    #[test]
    fn every_golden_word() {
        for case in golden::cases() {
            let words = case.json["porter_nltk_extensions"].as_object().unwrap();
            assert!(words.len() > 500);
            for (word, expected) in words {
                assert_eq!(
                    stem(word),
                    expected.as_str().unwrap(),
                    "{}: {word}",
                    case.name
                );
            }
        }
    }
}
