//! A link that restores what the visitor sees: base, adapters, weights, prompt and settings, in the URL's fragment, which
//! no server gets to see.
//!
//! ```text
//! #compare?v=1&base=hub,owner%2Fname&adapter=pirate,gallery,pirate&a=pirate&prompt=Hello&temperature=0.7
//! ```
//!
//! Keys may repeat (`adapter`, `merge`, `stop`); a value is one or more percent-encoded parts with commas between. What a
//! link does not say is as on a first visit. Local files and trainings cannot be linked to and are named to whoever shares.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::decode;
pub use encode::encode;

use qloom_core::generation::SamplingConfig;
use thiserror::Error;

use crate::protocol::{AdapterSource, BaseSource, MergeMember, MergeSettings};

use super::adapters::MERGE_NAME;
use super::{Effect, Plan, State, Wanted};

/// The version that is written and read.
pub const VERSION: &str = "1";

/// What a link holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shared {
    /// The base; `None` is the site's.
    pub base: Option<BaseSource>,
    /// Adapters from the gallery or a URL.
    pub adapters: Vec<Wanted>,
    /// The first adapter compared.
    pub a: Option<String>,
    /// The second.
    pub b: Option<String>,
    /// Whether both are also stacked.
    pub stacked: bool,
    /// The merge, where there is one.
    pub merge: Option<(Vec<MergeMember>, MergeSettings)>,
    /// The prompt.
    pub prompt: String,
    /// The second of a pair.
    pub pair: String,
    /// The system turn.
    pub system: String,
    /// Whether the chat template is left out.
    pub plain: bool,
    /// How to sample.
    pub sampling: Option<SamplingConfig>,
}

/// A link that cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ShareError {
    /// Made by another version of the page.
    #[error(
        "this link was made by version {found} of the page's links, and this page reads version {VERSION}: ask for a new link"
    )]
    Version {
        /// What it says.
        found: String,
    },
    /// A value that is none.
    #[error(
        "this link is damaged: `{key}` is {found:?}, expected {expected}; copy it again, whole"
    )]
    Value {
        /// The key.
        key: String,
        /// What it says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// A key nobody knows.
    #[error(
        "this link has a part {0:?} that this page does not know: reload the page, or copy the link again"
    )]
    Key(String),
    /// Longer than anyone's link.
    #[error("this link has {found} characters, more than the {most} a link may have")]
    Long {
        /// What it has.
        found: usize,
        /// What it may have.
        most: usize,
    },
}

impl Shared {
    /// What `state` shows, and the names of what a link cannot hold.
    #[must_use]
    pub fn of(state: &State) -> (Self, Vec<String>) {
        let mut left_out = Vec::new();
        let mut adapters = Vec::new();
        for resident in state
            .adapters
            .resident
            .iter()
            .filter(|r| r.info.name != MERGE_NAME)
        {
            let name = resident.info.name.clone();
            match &resident.source {
                Some(AdapterSource::Gallery { slug, .. }) => adapters.push(Wanted::Gallery {
                    name,
                    slug: slug.clone(),
                }),
                Some(AdapterSource::Url { url }) => adapters.push(Wanted::Source {
                    name,
                    source: AdapterSource::Url { url: url.clone() },
                }),
                _ => left_out.push(name),
            }
        }
        let base = match &state.session.source {
            Some(BaseSource::Files { .. }) => {
                left_out.push("the base".to_owned());
                None
            }
            Some(source) if *source == state.site_base() => None,
            other => other.clone(),
        };
        let linked = |name: &Option<String>| name.clone().filter(|n| !left_out.contains(n));
        let compare = &state.compare;
        let members = &state.merge.members;
        let whole = !members.is_empty() && members.iter().all(|m| !left_out.contains(&m.name));
        let shared = Self {
            base,
            a: linked(&compare.a),
            b: linked(&compare.b),
            stacked: compare.stacked,
            merge: whole.then(|| (members.clone(), state.merge.settings.clone())),
            prompt: compare.prompt.clone(),
            pair: compare.pair.clone(),
            system: compare.system.clone(),
            plain: !compare.chat,
            sampling: Some(compare.sampling.clone()),
            adapters,
        };
        (shared, left_out)
    }

    /// Places outside the site that the link wants something from.
    #[must_use]
    pub fn outside(&self) -> Vec<String> {
        let mut places = Vec::new();
        match &self.base {
            Some(BaseSource::Hub { repository }) => {
                places.push(format!("{repository} on the Hugging Face hub"))
            }
            Some(BaseSource::Url { url, .. }) => places.push(url.clone()),
            _ => {}
        }
        for wanted in &self.adapters {
            if let Wanted::Source {
                source: AdapterSource::Url { url },
                ..
            } = wanted
            {
                places.push(url.clone());
            }
        }
        places
    }
}

impl State {
    /// Takes what a link holds, and starts from there.
    pub fn restore(&mut self, shared: Shared) -> Vec<Effect> {
        self.consent = None;
        let compare = &mut self.compare;
        compare.a = shared.a;
        compare.b = shared.b;
        compare.stacked = shared.stacked;
        compare.prompt = shared.prompt;
        compare.pair = shared.pair;
        compare.system = shared.system;
        compare.chat = !shared.plain;
        if let Some(sampling) = shared.sampling {
            compare.sampling = sampling;
        }
        let merge = shared.merge.is_some();
        if let Some((members, settings)) = shared.merge {
            self.merge.members = members;
            self.merge.settings = settings;
        }
        let plan = Plan {
            base: Some(shared.base.unwrap_or_else(|| self.site_base())),
            adapters: shared.adapters,
            merge,
            ..Plan::default()
        };
        self.start(plan)
    }
}
