//! [`LoraModule`]: the low-rank pair of one linear, with rank, alpha and scaling resolved from the patterns.

use super::targets::compile;
use super::{AdapterError, Pattern, PeftConfig};
use regex::Regex;

/// The pair of matrices that adapts one linear: `y += scaling * B(A(x))`.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraModule {
    /// The linear's path in the base: `model.layers.0.self_attn.q_proj`.
    pub path: String,
    /// `[rank, in_features]`, row-major.
    pub a: Vec<f32>,
    /// `[out_features, rank]`, row-major.
    pub b: Vec<f32>,
    /// Rank of the update.
    pub rank: usize,
    /// Width of the linear's input.
    pub in_features: usize,
    /// Width of the linear's output.
    pub out_features: usize,
    /// Numerator of the scaling.
    pub alpha: f64,
    /// `alpha / rank`, or `alpha / sqrt(rank)` with rsLoRA.
    pub scaling: f64,
    /// Dropout on the input while training.
    pub dropout: f64,
}

/// Ranks and alphas of modules, from a configuration and its patterns.
pub(super) struct Settings<'a> {
    config: &'a PeftConfig,
    ranks: Vec<(Regex, f64)>,
    alphas: Vec<(Regex, f64)>,
}

impl<'a> Settings<'a> {
    pub(super) fn new(config: &'a PeftConfig) -> Result<Self, AdapterError> {
        // As PEFT: a key is a regular expression for the end of a path that begins at the start or after a dot.
        let compiled = |p: &Pattern| -> Result<Vec<_>, AdapterError> {
            p.iter()
                .map(|(key, v)| Ok((compile(&format!(r"^(.*\.)?({key})$"))?, *v)))
                .collect()
        };
        Ok(Self {
            config,
            ranks: compiled(&config.rank_pattern)?,
            alphas: compiled(&config.alpha_pattern)?,
        })
    }

    /// Rank and alpha of the module at `path`.
    pub(super) fn of(&self, path: &str) -> (usize, f64) {
        let first =
            |list: &[(Regex, f64)]| list.iter().find(|(r, _)| r.is_match(path)).map(|(_, v)| *v);
        let rank = first(&self.ranks).map_or(self.config.r, |r| r as usize);
        (rank, first(&self.alphas).unwrap_or(self.config.lora_alpha))
    }
}

impl PeftConfig {
    /// Rank and alpha of the module at `path`, patterns applied.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub fn rank_and_alpha(&self, path: &str) -> Result<(usize, f64), AdapterError> {
        Ok(Settings::new(self)?.of(path))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_ends_and_the_first_wins() {
        let p = |k: &str, v: f64| (k.to_string(), v);
        let config = PeftConfig {
            r: 8,
            lora_alpha: 16.0,
            rank_pattern: vec![
                p("layers.1.mlp.down_proj", 6.0),
                p("down_proj", 2.0),
                p("^model.*.q_proj", 3.0),
            ],
            alpha_pattern: vec![p("(v|o)_proj", 32.0)],
            ..PeftConfig::default()
        };
        let s = Settings::new(&config).unwrap();
        assert_eq!(s.of("model.layers.1.mlp.down_proj"), (6, 16.0));
        assert_eq!(s.of("model.layers.11.mlp.down_proj"), (2, 16.0));
        assert_eq!(s.of("model.layers.0.self_attn.q_proj"), (3, 16.0));
        assert_eq!(s.of("model.layers.0.self_attn.o_proj"), (8, 32.0));
        assert_eq!(s.of("model.layers.0.self_attn.co_proj"), (8, 16.0));
        let bad = PeftConfig {
            rank_pattern: vec![p("(", 1.0)],
            ..PeftConfig::default()
        };
        assert!(Settings::new(&bad).is_err());
    }
}
