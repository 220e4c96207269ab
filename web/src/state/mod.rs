//! What the page knows, as plain data with plain transitions: no browser in it, so that all of it is tested natively.
//!
//! ```text
//! visitor ── State::ask(), merge_now(), ... ──> Effect::Send ──> worker
//! worker  ── Event ──> State::apply() ──> which sections changed, and further effects
//! ```
//!
//! The components read sections and call methods; what a request means when its answer comes is kept in [`pending`].

pub mod adapters;
mod apply;
pub mod chart;
pub mod compare;
pub mod diff;
mod end;
pub mod evaluate;
pub mod export;
pub mod losses;
pub mod merge;
pub mod numbers;
pub mod pending;
pub mod percent;
pub mod plan;
mod requests;
pub mod results;
pub mod session;
pub mod share;
pub mod site;
pub mod table;
#[cfg(test)]
mod tests;
pub mod train;

pub use pending::{Effect, FileKey};
pub use plan::{Plan, Wanted};

use crate::protocol::DeviceKind;

/// A part of the page that changes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Section {
    /// Device, base, notes.
    Session,
    /// Gallery and resident adapters.
    Adapters,
    /// The comparison.
    Compare,
    /// The merge.
    Merge,
    /// The evaluation.
    Evaluate,
    /// Losses by token.
    Losses,
    /// The training.
    Train,
    /// Opened results.
    Results,
}

impl Section {
    /// How many there are.
    pub const COUNT: usize = 8;

    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Session,
        Self::Adapters,
        Self::Compare,
        Self::Merge,
        Self::Evaluate,
        Self::Losses,
        Self::Train,
        Self::Results,
    ];
}

/// What an event came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Sections that changed.
    pub touched: Vec<Section>,
    /// What is to be done.
    pub effects: Vec<Effect>,
}

/// Everything the page knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// URL of the site's root, with a final slash.
    pub site: String,
    /// The device to ask for; `None` takes the best.
    pub prefer: Option<DeviceKind>,
    /// Device, base, notes.
    pub session: session::Session,
    /// Gallery and resident adapters.
    pub adapters: adapters::Adapters,
    /// The comparison.
    pub compare: compare::Compare,
    /// Whether the merge's answer is to be asked for again.
    pub follow: bool,
    /// The merge.
    pub merge: merge::Merge,
    /// The evaluation.
    pub evaluate: evaluate::Evaluate,
    /// Losses by token.
    pub losses: losses::Losses,
    /// The training.
    pub train: train::Train,
    /// Opened results.
    pub results: results::Results,
    /// What is still to be loaded.
    pub plan: plan::Plan,
    /// A link that wants something from elsewhere, until the visitor agrees.
    pub consent: Option<share::Shared>,
    /// Requests under way.
    pub pending: pending::Pending,
}

impl State {
    /// The state of a page whose site lies at `site`.
    #[must_use]
    pub fn new(site: &str) -> Self {
        Self {
            site: site.to_owned(),
            ..Self::default()
        }
    }
}
