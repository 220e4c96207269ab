//! What to adapt, and how: the `[lora]` table of a run's configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Which modules get an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// Module names, matched as suffixes of module paths: `["q_proj", "v_proj"]`.
    List(Vec<String>),
    /// `"all-linear"`, or a regular expression that must match a whole module path.
    Pattern(String),
}

impl Default for TargetModules {
    fn default() -> Self {
        Self::Pattern("all-linear".to_owned())
    }
}

/// Settings of a low-rank adapter. Defaults are PEFT's, except `target_modules`, which follows the
/// QLoRA paper (every linear layer of the blocks).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// The adapter method; `"lora"` is the one that exists so far.
    pub method: String,
    /// Rank of the update. 8 suits style and format; 16 to 64 where knowledge must be taught.
    pub rank: usize,
    /// Numerator of the scaling `alpha / rank`. Commonly `rank` or `2 * rank`.
    pub alpha: f64,
    /// Probability of dropping an input feature of the adapter during training.
    pub dropout: f64,
    /// Which modules are adapted: a list of names, `"all-linear"`, or a regular expression.
    pub target_modules: TargetModules,
    /// Modules left out although `target_modules` matches them.
    pub exclude_modules: Option<TargetModules>,
    /// Scale by `alpha / sqrt(rank)` instead of `alpha / rank`, so that high ranks keep learning.
    pub rslora: bool,
    /// Ranks for modules whose path ends with, or matches, the key.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas for modules whose path ends with, or matches, the key.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Modules trained in full and saved with the adapter: `["lm_head"]`, `["embed_tokens"]`.
    pub modules_to_save: Vec<String>,
    /// Block indices to adapt; all when absent.
    pub layers_to_transform: Option<Vec<usize>>,
    /// Start from the adapter in this folder instead of a fresh one.
    pub adapter: Option<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            method: "lora".to_owned(),
            rank: 8,
            alpha: 16.0,
            dropout: 0.0,
            target_modules: TargetModules::default(),
            exclude_modules: None,
            rslora: false,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            modules_to_save: Vec::new(),
            layers_to_transform: None,
            adapter: None,
        }
    }
}

/// `alpha / rank`, or `alpha / sqrt(rank)` with rsLoRA.
pub fn scaling(alpha: f64, rank: usize, rslora: bool) -> f64 {
    let rank = rank as f64;
    alpha / if rslora { rank.sqrt() } else { rank }
}
