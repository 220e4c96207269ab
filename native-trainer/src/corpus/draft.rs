//! A document in progress: its fixed people and things, and the draw of sentences until one suits the split.

use super::dice::Dice;
use super::grammar::{Bindings, Grammar, GrammarError, capitalize};
use super::heldout::Split;

/// Draws per sentence before the document gives up; one in twenty suits the held-out split.
const SENTENCE_DRAWS: usize = 400;

/// Why a document did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Setback {
    /// The frames leave too little choice for this split with these bindings: start the document afresh.
    #[error("no sentence of rule `{rule}` suits the split")]
    Exhausted {
        /// The rule that ran dry.
        rule: String,
    },
    /// The grammar itself is wrong.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
}

/// One document being written.
pub(crate) struct Draft<'a> {
    pub(crate) grammar: &'a Grammar,
    pub(crate) dice: &'a mut Dice,
    pub(crate) split: Split,
    pub(crate) bindings: Bindings,
}

impl<'a> Draft<'a> {
    /// An empty draft.
    pub(crate) fn new(grammar: &'a Grammar, dice: &'a mut Dice, split: Split) -> Self {
        let bindings = Bindings::default();
        Self {
            grammar,
            dice,
            split,
            bindings,
        }
    }

    /// One text for `frame`, whatever the split.
    pub(crate) fn expand(&mut self, frame: &str) -> Result<String, Setback> {
        Ok(self.grammar.expand(frame, &self.bindings, self.dice)?)
    }

    /// Fixes `slot` for the rest of the document to one text of `frame`.
    pub(crate) fn fix(&mut self, slot: &str, frame: &str) -> Result<(), Setback> {
        let text = self.expand(frame)?;
        self.bindings.set(slot, text);
        Ok(())
    }

    /// A sentence of `rule` that the split admits, with a capital first letter.
    pub(crate) fn sentence(&mut self, rule: &str) -> Result<String, Setback> {
        let frame = format!("{{{rule}}}");
        for _ in 0..SENTENCE_DRAWS {
            let text = capitalize(&self.expand(&frame)?);
            if self.split.admits_text(&text) {
                return Ok(text);
            }
        }
        Err(Setback::Exhausted {
            rule: rule.to_owned(),
        })
    }

    /// Fixes a hero and a friend with their pronouns, an object, an animal and a place.
    pub(crate) fn fix_cast(&mut self) -> Result<(), Setback> {
        self.fix_person("hero", ["he", "him", "his"])?;
        self.fix_person("friend", ["fhe", "fhim", "fhis"])?;
        self.fix("thing", "{object}")?;
        self.fix("pet", "{animal_n}")?;
        self.fix("spot", "{place}")
    }

    fn fix_person(&mut self, slot: &str, pronouns: [&str; 3]) -> Result<(), Setback> {
        let girl = self.dice.chance(50);
        let forms = if girl {
            ["she", "her", "her"]
        } else {
            ["he", "him", "his"]
        };
        self.fix(slot, if girl { "{girl}" } else { "{boy}" })?;
        for (pronoun, form) in pronouns.into_iter().zip(forms) {
            self.bindings.set(pronoun, form);
        }
        if slot == "hero" {
            self.bindings.set("kid", if girl { "girl" } else { "boy" });
        }
        Ok(())
    }

    /// Fixes the slots of one random row of `table`.
    pub(crate) fn fix_row(&mut self, table: &str) -> Result<(), Setback> {
        let table = self.grammar.table(table)?;
        let row = &table.rows[self.dice.below(table.rows.len())];
        for (column, cell) in table.columns.iter().zip(row) {
            self.bindings.set(column, cell.as_str());
        }
        Ok(())
    }
}
