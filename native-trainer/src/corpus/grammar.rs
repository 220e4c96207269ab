//! A small context-free grammar that writes English, read from the text files in `grammar/`.
//!
//! Words and sentence frames are data, so that they can be read, judged and extended without touching code. A rule is
//! `@name` followed by lines of alternatives separated by ` | ` (or `@name = a | b` on one line); a frame inserts another
//! rule with `{name}`, its plural with `{name.s}`, its text with a small first letter with `{name.low}`. A binding of the
//! document in progress hides the rule of that name and may itself be a frame.

use std::collections::HashMap;

use super::dice::Dice;

/// Deepest nesting of rules; deeper means that a rule contains itself.
const MAX_DEPTH: usize = 16;
/// Random draws of a slot before its alternatives are gone through in order.
const RANDOM_TRIES: usize = 4;

/// Text the grammar cannot be read from, or a frame that names nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrammarError {
    /// A line stands before the first rule or table header.
    #[error("grammar line {line}: `{text}` belongs to no rule; start one with `@name`")]
    Orphan {
        /// One-based line number.
        line: usize,
        /// The line.
        text: String,
    },
    /// A table row has another number of cells than its header.
    #[error("table `{table}`: row `{row}` has {found} cells, its header has {expected}")]
    Row {
        /// Table name.
        table: String,
        /// The row as written.
        row: String,
        /// Cells in the header.
        expected: usize,
        /// Cells in the row.
        found: usize,
    },
    /// A frame names a slot that is neither a binding nor a rule.
    #[error("`{{{slot}}}` is neither bound nor a rule; define `@{slot}`")]
    UnknownSlot {
        /// The name between the braces.
        slot: String,
    },
    /// Rules contain each other without end.
    #[error("`{{{slot}}}` nests deeper than {MAX_DEPTH} rules; does it contain itself?")]
    TooDeep {
        /// The innermost slot.
        slot: String,
    },
}

/// Facts that belong together: columns name slots, rows hold one subject each.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Slot names, one per column; the first is the subject.
    pub(crate) columns: Vec<String>,
    /// Rows of as many cells as there are columns.
    pub(crate) rows: Vec<Vec<String>>,
}

/// Rules and tables by name.
#[derive(Debug, Default)]
pub(crate) struct Grammar {
    rules: HashMap<String, Vec<String>>,
    tables: Vec<(String, Table)>,
}

/// What a document has fixed: slot name to text (or to a frame that is expanded anew at each use).
#[derive(Debug, Default, Clone)]
pub(crate) struct Bindings(Vec<(String, String)>);

impl Bindings {
    /// Binds `slot`, replacing an earlier binding of that name.
    pub(crate) fn set(&mut self, slot: &str, text: impl Into<String>) {
        let text = text.into();
        match self.0.iter_mut().find(|(name, _)| name == slot) {
            Some(entry) => entry.1 = text,
            None => self.0.push((slot.to_owned(), text)),
        }
    }

    /// The text bound to `slot`.
    pub(crate) fn get(&self, slot: &str) -> Option<&str> {
        let entry = self.0.iter().find(|(name, _)| name == slot)?;
        Some(&entry.1)
    }
}

impl Grammar {
    /// The grammar of the embedded corpus.
    ///
    /// # Errors
    /// When one of the embedded files breaks the rules above; the tests rule that out.
    pub(crate) fn embedded() -> Result<Self, GrammarError> {
        let mut grammar = Self::default();
        for source in [
            include_str!("grammar/lexicon.txt"),
            include_str!("grammar/stories.txt"),
            include_str!("grammar/reviews.txt"),
            include_str!("grammar/questions.txt"),
            include_str!("grammar/facts.txt"),
            include_str!("grammar/chats.txt"),
            include_str!("grammar/glossary.txt"),
            include_str!("grammar/instructions.txt"),
        ] {
            grammar.read(source)?;
        }
        Ok(grammar)
    }

    /// Adds the rules and tables written in `source`.
    ///
    /// # Errors
    /// On a line outside any rule and on a ragged table row.
    pub(crate) fn read(&mut self, source: &str) -> Result<(), GrammarError> {
        let mut rule: Option<String> = None;
        let mut table: Option<usize> = None;
        for (index, line) in source.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let alternatives = if let Some(header) = line.strip_prefix("= ") {
                let (name, columns) = header.split_once(':').unwrap_or((header, ""));
                let columns = cells(columns);
                let rows = Vec::new();
                self.tables
                    .push((name.trim().to_owned(), Table { columns, rows }));
                (rule, table) = (None, Some(self.tables.len() - 1));
                continue;
            } else if let Some(header) = line.strip_prefix('@') {
                let (name, rest) = header.split_once('=').unwrap_or((header, ""));
                (rule, table) = (Some(name.trim().to_owned()), None);
                rest
            } else {
                line
            };
            match (&rule, table) {
                (Some(name), _) => {
                    let entry = self.rules.entry(name.clone()).or_default();
                    entry.extend(cells(alternatives));
                }
                (None, Some(position)) => self.push_row(position, line)?,
                (None, None) => {
                    return Err(GrammarError::Orphan {
                        line: index + 1,
                        text: line.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    fn push_row(&mut self, position: usize, line: &str) -> Result<(), GrammarError> {
        let (name, table) = &mut self.tables[position];
        let row = cells(line);
        if row.len() != table.columns.len() {
            return Err(GrammarError::Row {
                table: name.clone(),
                row: line.to_owned(),
                expected: table.columns.len(),
                found: row.len(),
            });
        }
        table.rows.push(row);
        Ok(())
    }

    /// The alternatives of a rule; empty when there is none of that name.
    pub(crate) fn alternatives(&self, rule: &str) -> &[String] {
        self.rules.get(rule).map_or(&[], Vec::as_slice)
    }

    /// The table called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn table(&self, name: &str) -> Result<&Table, GrammarError> {
        let found = self.tables.iter().find(|(other, _)| other == name);
        found
            .map(|(_, table)| table)
            .ok_or_else(|| GrammarError::UnknownSlot {
                slot: name.to_owned(),
            })
    }

    /// The names of the tables, in the order of the files.
    #[cfg(test)]
    pub(crate) fn table_names(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().map(|(name, _)| name.as_str())
    }

    /// The names of the rules, in no particular order.
    #[cfg(test)]
    pub(crate) fn rule_names(&self) -> impl Iterator<Item = &str> {
        self.rules.keys().map(String::as_str)
    }

    /// Writes one text for `frame`, with articles put right but the first letter as it stands.
    ///
    /// # Errors
    /// When the frame names an unknown slot or rules nest without end.
    pub(crate) fn expand(
        &self,
        frame: &str,
        bindings: &Bindings,
        dice: &mut Dice,
    ) -> Result<String, GrammarError> {
        let mut writer = Writer {
            grammar: self,
            bindings,
            dice,
            used: Vec::new(),
        };
        let text = writer.frame(frame, 0)?;
        Ok(fix_articles(&text))
    }
}

fn cells(line: &str) -> Vec<String> {
    let parts = line.split('|').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// One expansion in progress; remembers what each slot gave so that "a pear, a pear, and a pear" is not written.
struct Writer<'a> {
    grammar: &'a Grammar,
    bindings: &'a Bindings,
    dice: &'a mut Dice,
    used: Vec<(String, String)>,
}

impl Writer<'_> {
    fn frame(&mut self, frame: &str, depth: usize) -> Result<String, GrammarError> {
        let mut out = String::with_capacity(frame.len() * 2);
        let mut rest = frame;
        while let Some((before, after)) = rest.split_once('{') {
            let (slot, tail) = after.split_once('}').unwrap_or((after, ""));
            out.push_str(before);
            out.push_str(&self.slot(slot, depth)?);
            rest = tail;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn slot(&mut self, slot: &str, depth: usize) -> Result<String, GrammarError> {
        if depth >= MAX_DEPTH {
            return Err(GrammarError::TooDeep {
                slot: slot.to_owned(),
            });
        }
        if let Some(name) = slot.strip_suffix(".low") {
            return Ok(lower_first(&self.slot(name, depth)?));
        }
        if let Some(name) = slot.strip_suffix(".s") {
            return Ok(plural(&self.slot(name, depth)?));
        }
        if let Some(bound) = self.bindings.get(slot) {
            if bound.contains('{') {
                return self.frame(bound, depth + 1);
            }
            return Ok(bound.to_owned());
        }
        let alternatives = self.grammar.alternatives(slot);
        if alternatives.is_empty() {
            return Err(GrammarError::UnknownSlot {
                slot: slot.to_owned(),
            });
        }
        let mut text = String::new();
        let start = self.dice.below(alternatives.len());
        for attempt in 0..RANDOM_TRIES + alternatives.len() {
            // After some random tries, one by one: short lists would otherwise run out of luck now and then.
            let choice = match attempt.checked_sub(RANDOM_TRIES) {
                None => self.dice.pick(alternatives),
                Some(step) => &alternatives[(start + step) % alternatives.len()],
            };
            text = self.frame(choice, depth + 1)?;
            let key = text.to_lowercase();
            let bound_too = self.bindings.0.iter().any(|(_, bound)| *bound == text);
            if !bound_too && !self.used.iter().any(|(s, t)| s == slot && *t == key) {
                self.used.push((slot.to_owned(), key));
                break;
            }
        }
        Ok(text)
    }
}

/// Makes the first letter small, unless the word is a name or "I".
fn lower_first(text: &str) -> String {
    const PROPER: [&str; 2] = ["I ", "I'"];
    if PROPER.iter().any(|word| text.starts_with(word)) {
        return text.to_owned();
    }
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// Makes the first letter a capital.
pub(crate) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

fn plural(noun: &str) -> String {
    if noun.ends_with(['s', 'x']) || noun.ends_with("ch") || noun.ends_with("sh") {
        return format!("{noun}es");
    }
    format!("{noun}s")
}

/// Turns "a" into "an" before a vowel sound.
fn fix_articles(text: &str) -> String {
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    for i in 1..words.len() {
        if words[i - 1] == "a" && vowel_sound(&words[i]) {
            words[i - 1].push('n');
        } else if words[i - 1] == "A" && vowel_sound(&words[i]) {
            words[i - 1] = "An".to_owned();
        }
    }
    words.join(" ")
}

fn vowel_sound(word: &str) -> bool {
    let word = word.to_lowercase();
    if ["one", "use", "uni", "eu"]
        .iter()
        .any(|p| word.starts_with(p))
    {
        return false;
    }
    ["hour", "honest", "honour"]
        .iter()
        .any(|p| word.starts_with(p))
        || word.starts_with(['a', 'e', 'i', 'o', 'u'])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn grammar(source: &str) -> Grammar {
        let mut grammar = Grammar::default();
        grammar.read(source).unwrap();
        grammar
    }

    #[test]
    fn articles_follow_the_sound() {
        assert_eq!(fix_articles("a apple"), "an apple");
        assert_eq!(
            fix_articles("A honest man has a useful axe"),
            "An honest man has a useful axe"
        );
        assert_eq!(
            fix_articles("a one day trip and a hour"),
            "a one day trip and an hour"
        );
    }

    #[test]
    fn a_slot_does_not_repeat_within_a_sentence() {
        let grammar = grammar("@x = a | b | c");
        for seed in 0..50 {
            let mut dice = Dice::new(seed, 0);
            let text = grammar
                .expand("{x}{x}{x}", &Bindings::default(), &mut dice)
                .unwrap();
            let mut letters: Vec<char> = text.chars().collect();
            letters.sort_unstable();
            assert_eq!(letters, ['a', 'b', 'c'], "seed {seed} gave {text}");
        }
    }

    #[test]
    fn bindings_hide_rules_and_may_be_frames() {
        let grammar = grammar("@x = rule\n@y = deep");
        let mut bindings = Bindings::default();
        bindings.set("x", "{y} bound");
        let mut dice = Dice::new(1, 0);
        let text = grammar.expand("{x} {y.s}", &bindings, &mut dice).unwrap();
        assert_eq!(text, "deep bound deeps");
    }

    #[test]
    fn mistakes_are_named() {
        let loose = Grammar::default().read("words without a rule").unwrap_err();
        assert!(loose.to_string().contains("line 1"), "{loose}");
        let ragged = Grammar::default().read("= t: a | b\none").unwrap_err();
        assert!(ragged.to_string().contains("1 cells"), "{ragged}");
        let mut dice = Dice::new(1, 0);
        let none = Bindings::default();
        let unknown = grammar("@x = y")
            .expand("{z}", &none, &mut dice)
            .unwrap_err();
        assert!(unknown.to_string().contains("{z}"), "{unknown}");
        let endless = grammar("@x = {x}")
            .expand("{x}", &none, &mut dice)
            .unwrap_err();
        assert!(matches!(endless, GrammarError::TooDeep { .. }));
    }
}
