//! What a merge is asked for.

use super::{MergeError, Method, Sign};

/// What becomes of tensors that adapters carry in full (a classifier's head, a trained embedding) where they differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SavedModules {
    /// Nothing is guessed: the merge is refused.
    #[default]
    Refuse,
    /// Their average with the adapters' weights, normalized to sum 1.
    Average,
    /// The first adapter's.
    First,
}

/// The settings of a merge. Defaults are PEFT's.
#[derive(Clone, Debug, PartialEq)]
pub struct MergeOptions {
    /// How to combine.
    pub method: Method,
    /// One per adapter; negative ones subtract.
    pub weights: Vec<f64>,
    /// Share of entries kept, in `(0, 1]`; for the methods that prune.
    pub density: Option<f64>,
    /// How TIES elects signs.
    pub sign: Sign,
    /// Rank of the result, for the methods that truncate. Default: the largest rank among the adapters.
    pub rank: Option<usize>,
    /// Quantile of the factors' values, in `[0.5, 1]`, beyond which truncating methods clamp both of them.
    pub clamp: Option<f64>,
    /// Seeds DARE's masks.
    pub seed: u64,
    /// Ignore the method: take the weighted sum of the updates itself and truncate it once, to `rank`, or to the rank it
    /// has.
    pub exact: bool,
    /// Reproduce PEFT where it is wrong: a merge whose first adapter is rsLoRA comes out `sqrt(rank)` times too large.
    pub peft: bool,
    /// Adapters that call their base differently are refused unless this is set.
    pub same_base: bool,
    /// Tensors carried in full.
    pub saved: SavedModules,
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self {
            method: Method::Svd,
            weights: Vec::new(),
            density: None,
            sign: Sign::Total,
            rank: None,
            clamp: None,
            seed: 0,
            exact: false,
            peft: false,
            same_base: false,
            saved: SavedModules::Refuse,
        }
    }
}

impl MergeOptions {
    /// Whether the result is truncated by a singular value decomposition.
    pub fn truncates(&self) -> bool {
        self.exact || self.method.truncates()
    }

    /// Refuses what cannot be meant, for a merge of `adapters` adapters.
    ///
    /// # Errors
    /// A [`MergeError`] that names the setting, what was expected and what was found.
    pub fn check(&self, adapters: usize) -> Result<(), MergeError> {
        if adapters == 0 {
            return Err(MergeError::NoAdapters);
        }
        if self.weights.len() != adapters {
            return Err(MergeError::WeightCount {
                adapters,
                found: self.weights.len(),
            });
        }
        if let Some(at) = self.weights.iter().position(|w| !w.is_finite()) {
            return Err(MergeError::Weight {
                position: at + 1,
                found: self.weights[at],
            });
        }
        match self.density {
            Some(d) if !(d > 0.0 && d <= 1.0) => return Err(MergeError::Density { found: d }),
            None if self.method.prunes() && !self.exact => {
                return Err(MergeError::DensityMissing {
                    method: self.method,
                });
            }
            _ => {}
        }
        if self.rank == Some(0) {
            return Err(MergeError::RankZero);
        }
        if self.rank.is_some() && !self.truncates() {
            return Err(MergeError::NotTruncating {
                setting: "a rank",
                method: self.method,
                instead: self.method.on_updates(),
            });
        }
        match self.clamp {
            Some(_) if !self.truncates() => Err(MergeError::NotTruncating {
                setting: "clamping",
                method: self.method,
                instead: self.method.on_updates(),
            }),
            Some(q) if !(0.5..=1.0).contains(&q) => Err(MergeError::Clamp { found: q }),
            _ => Ok(()),
        }
    }
}
