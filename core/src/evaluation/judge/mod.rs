//! A language model as judge of two answers: what it is asked, how its reply is read, and what follows from all replies.
//!
//! Every pair is asked twice, once with the base's answer first and once with the adapted one's, because judges favour a
//! position whatever stands there (Zheng et al., "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", arXiv
//! 2306.05685, section 3.4). Verdicts that do not agree count as a tie, and how often they agree is reported beside the score:
//! a judge that contradicts itself measures nothing.
//!
//! | file | holds |
//! |---|---|
//! | `prompt` | the question: system and user message, and a request's cache key |
//! | `verdict` | reading A, B or tie from a reply |
//! | `report` | wins, ties and losses with their interval, sign test, consistency, position bias |
//!
//! Nothing here talks to a judge: whoever does (a program over HTTP, a page, a local model) sends [`JudgeRequest`]s and brings
//! replies back.

mod prompt;
mod report;
mod verdict;

pub use prompt::{JudgePair, JudgeParameters, JudgeRequest, SYSTEM_PROMPT};
pub use report::{JudgeReport, PairVerdict, Tally, judge_report};
pub use verdict::{Choice, read_choice};

use serde::{Deserialize, Serialize};

/// Which answer stands first in the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// A is the base's answer.
    BaseFirst,
    /// A is the adapted model's answer.
    AdaptedFirst,
}

/// Which model a verdict is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preference {
    /// The base's answer is better.
    Base,
    /// The adapted model's answer is better.
    Adapted,
    /// Neither is.
    Tie,
}

impl Order {
    /// Both orders, in the order they are asked.
    pub const BOTH: [Self; 2] = [Self::BaseFirst, Self::AdaptedFirst];

    /// Whose answer `choice` names when asked in this order.
    #[must_use]
    pub fn resolve(self, choice: Choice) -> Preference {
        match (choice, self) {
            (Choice::Tie, _) => Preference::Tie,
            (Choice::A, Self::BaseFirst) | (Choice::B, Self::AdaptedFirst) => Preference::Base,
            (Choice::B, Self::BaseFirst) | (Choice::A, Self::AdaptedFirst) => Preference::Adapted,
        }
    }
}
