//! What to adapt, and how: the `[lora]` table of a run's configuration.

use serde::{Deserialize, Serialize};

use super::{ByModule, Init, Kind, Method};

/// Which modules get an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// Module names, matched as suffixes of module paths: `["q_proj", "v_proj"]`.
    List(Vec<String>),
    /// `"all-linear"`, or a regular expression that must match a whole module path.
    Pattern(String),
}

impl TargetModules {
    /// Whether it is `all-linear`, which is not taken for a regular expression.
    pub fn is_all_linear(&self) -> bool {
        matches!(self, Self::Pattern(p) if p.eq_ignore_ascii_case("all-linear"))
    }
}

impl Default for TargetModules {
    fn default() -> Self {
        Self::Pattern("all-linear".to_owned())
    }
}

/// Settings of what is trained. Defaults are PEFT's, except `target_modules`, which follows the
/// QLoRA paper (every linear layer of the blocks).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// How the base is adapted: `"lora"`, `"rslora"`, `"dora"`, `"sparse"`, `"hira"`, or one of the
    /// baselines `"full"` and `"head"`; [`Method`] says what each does and where it comes from.
    pub method: Method,
    /// How a fresh adapter starts: `"default"`, `"gaussian"`, `"pissa"`, `"pissa_niter_4"`, `"loftq"`;
    /// see [`Init`]. PEFT calls it `init_lora_weights`.
    pub init: Init,
    /// Rank of the update. 8 suits style and format; 16 to 64 where knowledge must be taught.
    pub rank: usize,
    /// Numerator of the scaling `alpha / rank`. Commonly `rank` or `2 * rank`. HiRA has no scaling
    /// and ignores it.
    pub alpha: f64,
    /// Probability of dropping an input feature of the adapter during training.
    pub dropout: f64,
    /// Which modules are adapted: a list of names, `"all-linear"`, or a regular expression.
    pub target_modules: TargetModules,
    /// Modules left out although `target_modules` matches them.
    pub exclude_modules: Option<TargetModules>,
    /// Scale by `alpha / sqrt(rank)` instead of `alpha / rank`, so that high ranks keep learning.
    /// `method = "rslora"` means the same.
    pub rslora: bool,
    /// LoRA+: how many times faster `B` learns than `A` (the paper advises 16 with a halved `lr`).
    /// 1 is plain AdamW. Vectors (DoRA's magnitudes, biases) learn at `B`'s rate, as PEFT groups
    /// them. PEFT's and other trainers' name `loraplus_lr_ratio` is read too.
    #[serde(alias = "loraplus_lr_ratio")]
    pub lora_plus_ratio: f64,
    /// `method = "sparse"`: the share of all rank-one components that may remain, over all modules.
    pub density: f64,
    /// `init = "loftq"`: alternations between quantizing and decomposing. Above 1 the quantized base
    /// changes and is written beside the adapter.
    pub loftq_iter: usize,
    /// Ranks for modules whose path ends with, or matches, the key. The first key that matches counts.
    pub rank_pattern: ByModule<usize>,
    /// Alphas for modules whose path ends with, or matches, the key. The first key that matches counts.
    pub alpha_pattern: ByModule<f64>,
    /// Modules trained in full and saved with the adapter: `["lm_head"]`, `["embed_tokens"]`.
    pub modules_to_save: Vec<String>,
    /// Block indices to adapt; all when absent. Not together with a regular expression in `target_modules`, which can
    /// name blocks itself.
    pub layers_to_transform: Option<Vec<usize>>,
    /// Start from the adapter in this folder instead of a fresh one.
    pub adapter: Option<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            method: Method::Lora,
            init: Init::Default,
            rank: 8,
            alpha: 16.0,
            dropout: 0.0,
            target_modules: TargetModules::default(),
            exclude_modules: None,
            rslora: false,
            lora_plus_ratio: 1.0,
            density: 0.5,
            loftq_iter: 1,
            rank_pattern: ByModule::default(),
            alpha_pattern: ByModule::default(),
            modules_to_save: Vec::new(),
            layers_to_transform: None,
            adapter: None,
        }
    }
}

impl LoraConfig {
    /// Whether the scaling is rsLoRA's.
    pub fn uses_rslora(&self) -> bool {
        self.rslora || self.method == Method::Rslora
    }

    /// What contradicts itself or is out of range, as `key = value: what to do`.
    pub fn validate(&self) -> Result<(), String> {
        let bad = |key: &str, value: String, expected: &str| {
            Err(format!("lora.{key} = {value}: expected {expected}"))
        };
        if self.rank == 0 {
            return bad("rank", "0".into(), "at least 1");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return bad(
                "dropout",
                self.dropout.to_string(),
                "a share from 0 to below 1",
            );
        }
        if !self.alpha.is_finite() || self.alpha <= 0.0 {
            return bad("alpha", self.alpha.to_string(), "a positive number");
        }
        for (key, rank) in self.rank_pattern.iter() {
            if *rank == 0 {
                return bad(&format!("rank_pattern.{key:?}"), "0".into(), "at least 1");
            }
        }
        for (key, alpha) in self.alpha_pattern.iter() {
            if !alpha.is_finite() || *alpha <= 0.0 {
                let key = format!("alpha_pattern.{key:?}");
                return bad(&key, alpha.to_string(), "a positive number");
            }
        }
        if !(self.density > 0.0 && self.density <= 1.0) {
            return bad("density", self.density.to_string(), "a share in (0, 1]");
        }
        if !self.lora_plus_ratio.is_finite() || self.lora_plus_ratio <= 0.0 {
            let ratio = self.lora_plus_ratio.to_string();
            return bad(
                "lora_plus_ratio",
                ratio,
                "a positive number; 1 switches LoRA+ off",
            );
        }
        if self.loftq_iter == 0 {
            return bad("loftq_iter", "0".into(), "at least 1");
        }
        self.refuse_contradictions()
    }

    fn refuse_contradictions(&self) -> Result<(), String> {
        let method = self.method;
        let indexed = self
            .layers_to_transform
            .as_ref()
            .is_some_and(|l| !l.is_empty());
        if let (TargetModules::Pattern(regex), true) = (&self.target_modules, indexed)
            && !self.target_modules.is_all_linear()
        {
            return Err(format!(
                "lora.layers_to_transform has no effect on the regular expression lora.target_modules = {regex:?}; name the \
                 blocks in the expression, as in \".*\\\\.layers\\\\.(0|1)\\\\..*\", or give a list of names"
            ));
        }
        if method.kind() == Some(Kind::Hira) {
            self.refuse_with_hira()?;
        }
        let needs_plain_pairs = !matches!(self.init, Init::Default | Init::Gaussian);
        if needs_plain_pairs && !matches!(method.kind(), Some(Kind::Lora | Kind::Dora)) {
            return Err(format!(
                "lora.init = \"{}\" starts a low-rank pair from the base's weights, which lora.method = \"{method}\" does \
                 not train; use \"default\" or \"gaussian\"",
                self.init
            ));
        }
        if needs_plain_pairs && method.kind() == Some(Kind::Dora) {
            return Err(format!(
                "lora.init = \"{}\" changes the weights whose norms DoRA's magnitudes start from; use lora.method = \"lora\" \
                 or \"rslora\" with it",
                self.init
            ));
        }
        if self.adapter.is_some() && self.init != Init::Default {
            return Err(format!(
                "lora.init = \"{}\" is for a fresh adapter, and lora.adapter continues one; leave one of them out",
                self.init
            ));
        }
        if self.adapter.is_some() && method.kind().is_none() {
            return Err(format!(
                "lora.adapter continues an adapter, and lora.method = \"{method}\" trains none; leave one of them out"
            ));
        }
        if method == Method::Full && !self.modules_to_save.is_empty() {
            return Err("lora.modules_to_save has no meaning with lora.method = \"full\", which trains every weight".into());
        }
        Ok(())
    }

    /// HiRA has no scaling, and PEFT 0.21 does not apply its `rank_pattern`.
    fn refuse_with_hira(&self) -> Result<(), String> {
        let refused = [
            ("rslora", self.rslora, "it has no scaling"),
            (
                "alpha_pattern",
                !self.alpha_pattern.is_empty(),
                "it has no scaling",
            ),
            (
                "rank_pattern",
                !self.rank_pattern.is_empty(),
                "PEFT gives every HiRA pair the rank lora.rank",
            ),
        ];
        let saved = |module: &str| self.modules_to_save.iter().any(|m| m.ends_with(module));
        if saved("embed_tokens") && !saved("lm_head") {
            return Err(
                "lora.modules_to_save has \"embed_tokens\" without \"lm_head\": PEFT's HiRA cannot keep a head tied to it; \
                 add \"lm_head\""
                    .into(),
            );
        }
        match refused.iter().find(|(_, set, _)| *set) {
            Some((key, _, why)) => Err(format!(
                "lora.{key} cannot be combined with lora.method = \"hira\": {why}; leave it out"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<(), String> {
        let config: LoraConfig = toml::from_str(text).map_err(|e| e.to_string())?;
        config.validate()
    }

    #[test]
    fn methods_and_initializations_are_named_and_checked() {
        for good in [
            "",
            "method = \"dora\"",
            "method = \"sparse\"\ndensity = 0.25",
            "method = \"hira\"\ninit = \"gaussian\"",
            "init = \"pissa_niter_4\"",
            "method = \"rslora\"\ninit = \"loftq\"\nloftq_iter = 5",
            "method = \"head\"",
            "lora_plus_ratio = 16",
            "loraplus_lr_ratio = 16",
            "layers_to_transform = [0]",
            "layers_to_transform = [0]\ntarget_modules = [\"q_proj\"]",
            "layers_to_transform = []\ntarget_modules = \".*q_proj\"",
            "rank_pattern = { q_proj = 2 }\nalpha_pattern = { q_proj = 0.5 }",
        ] {
            checked(good).unwrap();
        }
        for (bad, word) in [
            ("method = \"dorra\"", "dora"),
            ("init = \"pisa\"", "pissa"),
            ("init = \"pissa_niter_0\"", "pissa_niter_"),
            ("density = 0.0", "density"),
            ("density = 1.5", "density"),
            ("lora_plus_ratio = 0", "lora_plus_ratio"),
            ("loraplus_lr_ratio = 0", "lora_plus_ratio"),
            ("lora_plus_ratio = 2\nloraplus_lr_ratio = 2", "duplicate"),
            ("loftq_iter = 0", "loftq_iter"),
            ("rank = 0", "rank"),
            ("alpha = nan", "alpha"),
            ("rank_pattern = { q_proj = 0 }", "rank_pattern.\"q_proj\""),
            (
                "alpha_pattern = { q_proj = -8 }",
                "alpha_pattern.\"q_proj\"",
            ),
            (
                "alpha_pattern = { q_proj = inf }",
                "alpha_pattern.\"q_proj\"",
            ),
            (
                "layers_to_transform = [0]\ntarget_modules = \".*q_proj\"",
                "layers_to_transform",
            ),
            (
                "method = \"hira\"\nmodules_to_save = [\"embed_tokens\"]",
                "lm_head",
            ),
            ("method = \"hira\"\nrslora = true", "lora.rslora"),
            (
                "method = \"hira\"\nalpha_pattern = { q_proj = 8 }",
                "lora.alpha_pattern",
            ),
            (
                "method = \"hira\"\nrank_pattern = { q_proj = 8 }",
                "lora.rank_pattern",
            ),
            ("method = \"hira\"\ninit = \"pissa\"", "hira"),
            ("method = \"dora\"\ninit = \"loftq\"", "DoRA"),
            ("adapter = \"x\"\ninit = \"pissa\"", "lora.adapter"),
            ("adapter = \"x\"\nmethod = \"full\"", "full"),
            (
                "method = \"full\"\nmodules_to_save = [\"lm_head\"]",
                "modules_to_save",
            ),
        ] {
            let error = checked(bad).unwrap_err();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}
