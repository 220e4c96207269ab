//! The eleven ways to combine adapters, under PEFT's names, and what each is made of.

use super::MergeError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A combination type of PEFT's `add_weighted_adapter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Weighted sums of the factors. Approximates the weighted sum of the updates.
    Linear,
    /// The factors side by side: the weighted sum of the updates exactly, at the sum of the ranks.
    Cat,
    /// The weighted sum of the updates, truncated to a rank.
    Svd,
    /// TIES on the factors.
    Ties,
    /// TIES on the updates, truncated to a rank.
    TiesSvd,
    /// DARE and a weighted sum, on the factors.
    DareLinear,
    /// DARE and TIES' sign election, on the factors.
    DareTies,
    /// DARE and a weighted sum, on the updates, truncated to a rank.
    DareLinearSvd,
    /// DARE and TIES' sign election, on the updates, truncated to a rank.
    DareTiesSvd,
    /// The largest entries of each factor, and a weighted sum.
    MagnitudePrune,
    /// The largest entries of each update, and a weighted sum, truncated to a rank.
    MagnitudePruneSvd,
}

/// What a method works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// `A` and `B`, each for itself.
    Factors,
    /// `A` and `B`, stacked.
    Stacked,
    /// The update `scaling · B·A`.
    Updates,
}

/// How entries are dropped before combining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pruning {
    /// None is.
    Keep,
    /// The smallest are.
    Magnitude,
    /// Random ones are, and the others grow to make up for them.
    Random,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Linear,
        Self::Cat,
        Self::Svd,
        Self::Ties,
        Self::TiesSvd,
        Self::DareLinear,
        Self::DareTies,
        Self::DareLinearSvd,
        Self::DareTiesSvd,
        Self::MagnitudePrune,
        Self::MagnitudePruneSvd,
    ];

    /// PEFT's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Cat => "cat",
            Self::Svd => "svd",
            Self::Ties => "ties",
            Self::TiesSvd => "ties_svd",
            Self::DareLinear => "dare_linear",
            Self::DareTies => "dare_ties",
            Self::DareLinearSvd => "dare_linear_svd",
            Self::DareTiesSvd => "dare_ties_svd",
            Self::MagnitudePrune => "magnitude_prune",
            Self::MagnitudePruneSvd => "magnitude_prune_svd",
        }
    }

    /// Whether entries are dropped, so that a density is needed.
    pub fn prunes(self) -> bool {
        self.pruning() != Pruning::Keep
    }

    /// Whether a sign is elected for every entry.
    pub fn elects(self) -> bool {
        matches!(
            self,
            Self::Ties | Self::TiesSvd | Self::DareTies | Self::DareTiesSvd
        )
    }

    /// Whether masks are drawn, so that a seed matters.
    pub fn draws(self) -> bool {
        self.pruning() == Pruning::Random
    }

    /// Whether the result is truncated to a rank that can be chosen.
    pub fn truncates(self) -> bool {
        self.space() == Space::Updates
    }

    /// The method that does the same on the updates themselves, where ranks may differ.
    pub fn on_updates(self) -> Self {
        match self {
            Self::Linear | Self::Cat => Self::Svd,
            Self::Ties => Self::TiesSvd,
            Self::DareLinear => Self::DareLinearSvd,
            Self::DareTies => Self::DareTiesSvd,
            Self::MagnitudePrune => Self::MagnitudePruneSvd,
            other => other,
        }
    }

    pub(super) fn space(self) -> Space {
        match self {
            Self::Cat => Space::Stacked,
            _ if self == self.on_updates() => Space::Updates,
            _ => Space::Factors,
        }
    }

    pub(super) fn pruning(self) -> Pruning {
        match self {
            Self::Linear | Self::Cat | Self::Svd => Pruning::Keep,
            Self::Ties | Self::TiesSvd | Self::MagnitudePrune | Self::MagnitudePruneSvd => {
                Pruning::Magnitude
            }
            Self::DareLinear | Self::DareTies | Self::DareLinearSvd | Self::DareTiesSvd => {
                Pruning::Random
            }
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = MergeError;

    fn from_str(text: &str) -> Result<Self, MergeError> {
        let known = |m: &Self| m.name() == text;
        Self::ALL
            .into_iter()
            .find(known)
            .ok_or_else(|| unknown("method", text, &Self::ALL.map(Self::name)))
    }
}

/// How TIES elects the sign of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// The sign of the sum.
    #[default]
    Total,
    /// The sign that more adapters have.
    Frequency,
}

impl FromStr for Sign {
    type Err = MergeError;

    fn from_str(text: &str) -> Result<Self, MergeError> {
        match text {
            "total" => Ok(Self::Total),
            "frequency" => Ok(Self::Frequency),
            _ => Err(unknown("sign", text, &["total", "frequency"])),
        }
    }
}

/// A name that is none of `known`, with the nearest.
fn unknown(what: &'static str, name: &str, known: &[&str]) -> MergeError {
    let near = known
        .iter()
        .map(|k| (strsim::jaro_winkler(&name.to_lowercase(), k), k))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    MergeError::Unknown {
        what,
        name: name.to_owned(),
        known: known.join(", "),
        hint: match near {
            Some((score, k)) if score > 0.7 => format!("; did you mean {k}?"),
            _ => String::new(),
        },
    }
}
