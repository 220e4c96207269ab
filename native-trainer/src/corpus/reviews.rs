//! Reviews and messages whose sentiment has to be read from what they say.
//!
//! The label words of the sentiment task never name a sentiment here. In pretraining a review ends in what follows from
//! it (a recommendation, a number of stars), which teaches the base to carry the sentiment forward under other names.

use super::draft::{Draft, Setback};

/// What a text feels about its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Sentiment {
    /// Complaint, disappointment, bad luck.
    Negative,
    /// Facts, plans, and verdicts that lean to neither side.
    Neutral,
    /// Praise, joy, good luck.
    Positive,
}

impl Sentiment {
    /// All three, in label order.
    pub(crate) const ALL: [Self; 3] = [Self::Negative, Self::Neutral, Self::Positive];

    /// The one-word answer of the task.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Negative => "negative",
            Self::Neutral => "neutral",
            Self::Positive => "positive",
        }
    }

    /// Ending of the grammar rules for this sentiment.
    fn key(self) -> &'static str {
        match self {
            Self::Negative => "neg",
            Self::Neutral => "neu",
            Self::Positive => "pos",
        }
    }
}

/// A review for pretraining: opening, cues, and an ending that follows from the sentiment.
pub(crate) fn review(draft: &mut Draft<'_>) -> Result<String, Setback> {
    let sentiment = Sentiment::ALL[draft.dice.below(3)];
    fix_domain(draft)?;
    let cues = 1 + draft.dice.below(3);
    let mut parts = message(draft, sentiment, cues, 75)?;
    let ending = draft.dice.below(100);
    if ending < 45 {
        parts.push(draft.sentence(&format!("stars.{}", sentiment.key()))?);
    }
    if ending >= 25 {
        parts.push(draft.sentence(&format!("close.{}", sentiment.key()))?);
    }
    Ok(parts.join(" "))
}

/// A message and what a listener answers to it.
pub(crate) fn message_and_reply(draft: &mut Draft<'_>) -> Result<(String, String), Setback> {
    let sentiment = Sentiment::ALL[draft.dice.below(3)];
    fix_domain(draft)?;
    let cues = 1 + draft.dice.below(2);
    let parts = message(draft, sentiment, cues, 85)?;
    let reply = draft.sentence(&format!("reply.{}", sentiment.key()))?;
    Ok((parts.join(" "), reply))
}

/// A text of the sentiment task: at least one cue sentence, no stars.
pub(crate) fn task_text(draft: &mut Draft<'_>, sentiment: Sentiment) -> Result<String, Setback> {
    fix_domain(draft)?;
    let cues = 1 + draft.dice.below(2);
    let mut parts = message(draft, sentiment, cues, 50)?;
    if draft.dice.chance(20) {
        parts.push(draft.sentence(&format!("close.{}", sentiment.key()))?);
    }
    Ok(parts.join(" "))
}

/// Points the shared frames to the words of one domain and fixes what the review is about.
fn fix_domain(draft: &mut Draft<'_>) -> Result<(), Setback> {
    let domain = draft.expand("{domain}")?;
    for slot in ["aspect", "good", "bad", "soso", "fact"] {
        draft.bindings.set(slot, format!("{{{domain}.{slot}}}"));
    }
    draft.bindings.set("domain", domain.as_str());
    draft.fix("thing", &format!("{{{domain}.thing}}"))
}

fn message(
    draft: &mut Draft<'_>,
    sentiment: Sentiment,
    cues: usize,
    opening_percent: usize,
) -> Result<Vec<String>, Setback> {
    let mut parts = Vec::new();
    if draft.dice.chance(opening_percent) {
        let domain = draft.expand("{domain}")?;
        parts.push(draft.sentence(&format!("{domain}.open"))?);
    }
    for _ in 0..cues {
        let cue = draft.sentence(&format!("cue.{}", sentiment.key()))?;
        if !parts.contains(&cue) {
            parts.push(cue);
        }
    }
    Ok(parts)
}
