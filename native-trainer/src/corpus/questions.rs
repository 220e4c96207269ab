//! Questions and answers from tables of facts, and small arithmetic.

use super::draft::{Draft, Setback};

/// The domains of facts.txt, and arithmetic.
pub(crate) const DOMAINS: [&str; 8] = [
    "animals",
    "cooking",
    "places",
    "tools",
    "weather",
    "music",
    "health",
    "arithmetic",
];

const NUMBERS: [&str; 21] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// Fixes one subject of a random domain and returns what can be asked about it.
pub(crate) fn fix_subject(draft: &mut Draft<'_>) -> Result<Vec<String>, Setback> {
    let domain = DOMAINS[draft.dice.below(DOMAINS.len())];
    if domain == "arithmetic" {
        let left = draft.dice.below(11);
        let right = draft.dice.below(11);
        for (slot, number) in [("left", left), ("right", right), ("sum", left + right)] {
            draft.bindings.set(slot, NUMBERS[number]);
        }
        return Ok(vec!["sum".to_owned(), "rest".to_owned()]);
    }
    draft.fix_row(domain)?;
    let mut columns = draft.grammar.table(domain)?.columns[1..].to_vec();
    draft.dice.shuffle(&mut columns);
    Ok(columns)
}

/// Points `{q}` and `{fact}` to the wordings of one column of the fixed subject.
pub(crate) fn fix_relation(draft: &mut Draft<'_>, column: &str) {
    draft.bindings.set("q", format!("{{ask.{column}}}"));
    draft.bindings.set("fact", format!("{{say.{column}}}"));
}

/// A question and its answer.
pub(crate) fn pair(draft: &mut Draft<'_>, column: &str) -> Result<(String, String), Setback> {
    fix_relation(draft, column);
    Ok((draft.sentence("ask")?, draft.sentence("say")?))
}

/// Some questions with answers about one subject, or a paragraph that tells the same.
pub(crate) fn page(draft: &mut Draft<'_>) -> Result<String, Setback> {
    let columns = fix_subject(draft)?;
    let count = 2 + draft.dice.below(2);
    if draft.dice.chance(35) {
        let mut told = Vec::new();
        for column in columns.iter().take(count + 1) {
            fix_relation(draft, column);
            told.push(draft.sentence("say")?);
        }
        return Ok(told.join(" "));
    }
    let mut lines = Vec::new();
    for column in columns.iter().take(count) {
        let (question, answer) = pair(draft, column)?;
        lines.push(format!("{question}\n{answer}"));
    }
    Ok(lines.join("\n"))
}
