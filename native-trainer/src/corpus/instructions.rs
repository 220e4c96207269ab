//! Instruction following: six categories, answered in the manner of an old-fashioned butler.
//!
//! The manner is new to the base, whose perplexity on the responses is therefore high; the facts and words are not.

use serde::{Deserialize, Serialize};

use super::draft::{Draft, Setback};
use super::questions;

/// One instruction with the response wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Instruction {
    /// What is asked for.
    pub(crate) instruction: String,
    /// Text the instruction refers to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) context: Option<String>,
    /// What the model should write.
    pub(crate) response: String,
    /// One of [`CATEGORIES`].
    pub(crate) category: String,
}

/// The kinds of instruction, dealt in turn.
pub(crate) const CATEGORIES: [&str; 6] = ["answer", "list", "story", "describe", "advice", "notes"];

/// Writes one instruction of `category`.
pub(crate) fn instruction(draft: &mut Draft<'_>, category: &str) -> Result<Instruction, Setback> {
    draft.fix_cast()?;
    draft.fix("asker", "{name}")?;
    draft.fix("town", "{town}")?;
    let mut context = None;
    match category {
        "answer" => {
            let columns = questions::fix_subject(draft)?;
            questions::fix_relation(draft, columns.first().map_or("", String::as_str));
        }
        "list" => {
            let classes = [
                "fruits",
                "vegetables",
                "drinks",
                "colours",
                "animals",
                "jobs",
            ];
            let more = ["months", "dishes", "things"];
            let all: Vec<&str> = classes.into_iter().chain(more).collect();
            let class = all[draft.dice.below(all.len())];
            draft.bindings.set("class", class);
            draft.bindings.set("item", format!("{{class.{class}}}"));
        }
        "story" => {
            let first = draft.sentence("lost.open")?;
            context = Some(format!("{first} {}", draft.sentence("lost.miss")?));
        }
        "describe" => draft.fix_row("tools")?,
        "advice" => draft.fix_row("health")?,
        _ => {
            draft.fix_row("places")?;
            context = Some(draft.sentence("notes.context")?);
        }
    }
    Ok(Instruction {
        instruction: draft.sentence(&format!("{category}.ask"))?,
        context,
        response: draft.sentence(&format!("{category}.say"))?,
        category: category.to_owned(),
    })
}
