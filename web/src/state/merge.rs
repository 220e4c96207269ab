//! The merge that the visitor mixes: members, weights, method; what can be asked and what came of it.

use qloom_core::merge::{MergeOptions, Method};

use crate::protocol::{Failure, MergeInfo, MergeMember, MergeSettings, Request};

use super::adapters::MERGE_NAME;

/// The section's state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merge {
    /// Chosen adapters with their weights.
    pub members: Vec<MergeMember>,
    /// How.
    pub settings: MergeSettings,
    /// The request under way.
    pub running: Option<u64>,
    /// Whether something changed since that was sent.
    pub stale: bool,
    /// What the last merge came to.
    pub result: Option<MergeInfo>,
    /// Why it did not.
    pub failure: Option<Failure>,
}

impl Merge {
    /// Whether `name` is a member.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.members.iter().any(|m| m.name == name)
    }

    /// Takes `name` in with weight 1, or out.
    pub fn toggle(&mut self, name: &str) {
        if self.has(name) {
            self.members.retain(|m| m.name != name);
        } else {
            self.members.push(MergeMember {
                name: name.to_owned(),
                weight: 1.0,
            });
        }
    }

    /// Sets a member's weight.
    pub fn weigh(&mut self, name: &str, weight: f64) {
        if let Some(member) = self.members.iter_mut().find(|m| m.name == name) {
            member.weight = weight;
        }
    }

    /// Changes the method: parameters it does not take are dropped, those it needs get a start.
    pub fn choose(&mut self, method: Method) {
        let settings = &mut self.settings;
        settings.method = method;
        settings.density = match method.prunes() {
            true => settings.density.or(Some(0.5)),
            false => None,
        };
        if !self.options().truncates() {
            self.settings.rank = None;
            self.settings.clamp = None;
        }
    }

    /// Takes the exact weighted sum, or the method again.
    pub fn exactly(&mut self, exact: bool) {
        self.settings.exact = exact;
        self.choose(self.settings.method);
    }

    /// The core's options, which know what belongs to what.
    #[must_use]
    pub fn options(&self) -> MergeOptions {
        let s = &self.settings;
        MergeOptions {
            method: s.method,
            weights: self.members.iter().map(|m| m.weight).collect(),
            density: s.density,
            sign: s.sign,
            rank: s.rank,
            clamp: s.clamp,
            seed: s.seed,
            exact: s.exact,
            ..MergeOptions::default()
        }
    }

    /// Why nothing can be merged as things stand.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.members.is_empty() {
            return Some("Choose at least one adapter.".to_owned());
        }
        self.options()
            .check(self.members.len())
            .err()
            .map(|e| e.to_string())
    }

    /// The request, where it can be meant.
    pub(super) fn request(&self) -> Option<Request> {
        self.problem().is_none().then(|| Request::Merge {
            name: MERGE_NAME.to_owned(),
            members: self.members.clone(),
            settings: self.settings.clone(),
        })
    }

    /// The same on the command line; the names stand for the folders of the adapters.
    #[must_use]
    pub fn command(&self) -> String {
        let s = &self.settings;
        let name = |m: &MergeMember| format!("'{}'", m.name.replace('\'', ""));
        let names: Vec<String> = self.members.iter().map(name).collect();
        let weights: Vec<String> = self.members.iter().map(|m| m.weight.to_string()).collect();
        let mut text = format!(
            "trainer merge --adapters {} --weights {}",
            names.join(" "),
            weights.join(",")
        );
        match s.exact {
            true => text.push_str(" --exact"),
            false => text.push_str(&format!(" --method {}", s.method)),
        }
        if let Some(density) = s.density.filter(|_| !s.exact) {
            text.push_str(&format!(" --density {density}"));
        }
        if s.method.elects() && !s.exact && s.sign == qloom_core::merge::Sign::Frequency {
            text.push_str(" --sign frequency");
        }
        if let Some(rank) = s.rank {
            text.push_str(&format!(" --rank {rank}"));
        }
        if let Some(clamp) = s.clamp {
            text.push_str(&format!(" --clamp {clamp}"));
        }
        if s.method.draws() && !s.exact {
            text.push_str(&format!(" --seed {}", s.seed));
        }
        text + " --out merged"
    }

    pub(super) fn forget(&mut self, name: &str) {
        let before = self.members.len();
        self.members.retain(|m| m.name != name);
        self.stale |= before != self.members.len();
    }
}

/// What a method does, in a sentence.
#[must_use]
pub fn about(method: Method) -> &'static str {
    match method {
        Method::Linear => "Weighted sums of the factors A and B; the ranks must be equal.",
        Method::Cat => "The factors side by side: exact, and the ranks add up.",
        Method::Svd => "The weighted sum of the updates, truncated to a rank.",
        Method::Ties => {
            "Small entries of the factors are dropped, signs elected, the rest averaged."
        }
        Method::TiesSvd => "TIES on the updates themselves, truncated to a rank.",
        Method::DareLinear => {
            "Random entries of the factors are dropped, the rest rescaled and summed."
        }
        Method::DareTies => "Random entries of the factors are dropped, then signs elected.",
        Method::DareLinearSvd => "DARE and a weighted sum on the updates, truncated to a rank.",
        Method::DareTiesSvd => "DARE and sign election on the updates, truncated to a rank.",
        Method::MagnitudePrune => "The largest entries of each factor are kept and summed.",
        Method::MagnitudePruneSvd => {
            "The largest entries of each update are kept and summed, truncated to a rank."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Merge {
        let mut merge = Merge::default();
        merge.toggle("a");
        merge.toggle("b");
        merge
    }

    #[test]
    fn methods_bring_and_drop_their_parameters() {
        let mut merge = two();
        merge.choose(Method::TiesSvd);
        assert_eq!(merge.settings.density, Some(0.5));
        merge.settings.rank = Some(4);
        merge.settings.clamp = Some(0.99);
        assert_eq!(merge.problem(), None);
        merge.choose(Method::Linear);
        assert_eq!((merge.settings.density, merge.settings.rank), (None, None));
        assert_eq!(merge.problem(), None);
        merge.exactly(true);
        merge.settings.rank = Some(4);
        assert_eq!(merge.problem(), None);
        merge.exactly(false);
        assert_eq!(merge.settings.rank, None);
    }

    #[test]
    fn problems_are_said_before_the_worker_is_asked() {
        let mut merge = Merge::default();
        assert!(merge.problem().is_some() && merge.request().is_none());
        merge = two();
        merge.choose(Method::Ties);
        merge.settings.density = Some(1.5);
        assert!(merge.problem().is_some_and(|p| p.contains("1.5")));
        merge.settings.density = Some(0.5);
        merge.weigh("b", f64::NAN);
        assert!(merge.problem().is_some());
        merge.toggle("b");
        assert!(
            matches!(merge.request(), Some(Request::Merge { members, .. }) if members.len() == 1)
        );
    }

    #[test]
    fn the_command_says_the_same() {
        let mut merge = two();
        merge.weigh("b", -0.5);
        merge.choose(Method::DareTiesSvd);
        merge.settings.rank = Some(8);
        merge.settings.seed = 7;
        assert_eq!(
            merge.command(),
            "trainer merge --adapters 'a' 'b' --weights 1,-0.5 --method dare_ties_svd --density 0.5 --rank 8 --seed 7 --out merged"
        );
    }
}
