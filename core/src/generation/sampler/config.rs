//! Settings of the sampler, their defaults and ranges. They mean what they mean to Hugging Face's
//! `generate`, so that outputs can be compared.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How to choose tokens and when to stop. The defaults are Hugging Face's, except that
/// [`max_new_tokens`](Self::max_new_tokens) is 128 and the default is greedy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingConfig {
    /// Most tokens to generate after the prompt, at least 1. Default 128 (Hugging Face stops at 20
    /// tokens in total, prompt included, which cuts nearly every answer).
    pub max_new_tokens: usize,
    /// Divides the logits. Below 1 sharpens, above 1 flattens. 0 (default) takes the most likely
    /// token always, as Hugging Face's `do_sample = false`, and ignores `top_k`, `top_p`, `min_p`.
    pub temperature: f64,
    /// Keep only the `top_k` most likely tokens; those level with the last one stay too, as in
    /// Hugging Face. 0 keeps all. Default 50, which is Hugging Face's.
    pub top_k: usize,
    /// Nucleus sampling (arXiv 1904.09751): keep the most likely tokens until their probabilities,
    /// taken after top-k, sum to at least this. In (0, 1]; 1 (default) keeps all.
    pub top_p: f64,
    /// Keep tokens at least `min_p` times as probable as the most probable one
    /// (arXiv 2407.01082). In [0, 1]; 0 (default) keeps all.
    pub min_p: f64,
    /// Penalty on every token already in the prompt or the output (CTRL, arXiv 1909.05858):
    /// positive logits are divided by it, negative ones multiplied, once per distinct token.
    /// Above 0; 1 (default) changes nothing. Applies to greedy decoding too.
    pub repetition_penalty: f64,
    /// Seed of every sequence's random stream. Default 0.
    pub seed: u64,
    /// Strings that end a sequence; the text stops before the first one. Default none: only the
    /// end-of-sequence tokens and `max_new_tokens` stop it.
    pub stop: Vec<String>,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            temperature: 0.0,
            top_k: 50,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
            stop: Vec::new(),
        }
    }
}

/// A sampling setting outside its range.
#[derive(Debug, Clone, PartialEq, Error)]
#[error(
    "`{field}` is {found}, but it must be {expected}; \
     set it to {neutral} to switch it off, or leave it out"
)]
pub struct SamplingConfigError {
    /// Name of the field as it is written in a config file.
    pub field: &'static str,
    /// The value given.
    pub found: String,
    /// The range that is allowed.
    pub expected: &'static str,
    /// The value that has no effect.
    pub neutral: &'static str,
}

impl SamplingConfig {
    /// True where the most likely token is always taken and no random number is used.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Checks every field's range.
    ///
    /// # Errors
    /// The first field that is out of range or not a number, with what it may be.
    pub fn validate(&self) -> Result<(), SamplingConfigError> {
        let error = |field, found: String, expected, neutral| {
            Err(SamplingConfigError {
                field,
                found,
                expected,
                neutral,
            })
        };
        if self.max_new_tokens == 0 {
            return error("max_new_tokens", "0".into(), "at least 1", "128");
        }
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return error(
                "temperature",
                self.temperature.to_string(),
                "0 (greedy) or a positive number",
                "0",
            );
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return error(
                "top_p",
                self.top_p.to_string(),
                "above 0 and at most 1",
                "1",
            );
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return error("min_p", self.min_p.to_string(), "between 0 and 1", "0");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return error(
                "repetition_penalty",
                self.repetition_penalty.to_string(),
                "above 0",
                "1",
            );
        }
        if self.stop.iter().any(String::is_empty) {
            return error("stop", "an empty string".into(), "non-empty strings", "[]");
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp
)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        type Change = fn(&mut SamplingConfig);
        let bad: [(&str, Change); 9] = [
            ("max_new_tokens", |c| c.max_new_tokens = 0),
            ("temperature", |c| c.temperature = -0.1),
            ("temperature", |c| c.temperature = f64::NAN),
            ("top_p", |c| c.top_p = 0.0),
            ("top_p", |c| c.top_p = 1.01),
            ("min_p", |c| c.min_p = -0.5),
            ("repetition_penalty", |c| c.repetition_penalty = 0.0),
            ("repetition_penalty", |c| {
                c.repetition_penalty = f64::INFINITY;
            }),
            ("stop", |c| c.stop = vec!["###".into(), String::new()]),
        ];
        for (field, change) in bad {
            let mut config = SamplingConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert_eq!(error.field, field);
            assert!(error.to_string().contains(field));
        }
        SamplingConfig::default().validate().unwrap();
    }

    #[test]
    fn config_files_may_be_partial_but_not_misspelt() {
        let config: SamplingConfig =
            serde_json::from_str(r#"{"temperature": 0.7, "stop": ["\n\n"]}"#).unwrap();
        assert_eq!(
            (config.temperature, config.top_k, config.max_new_tokens),
            (0.7, 50, 128)
        );
        let error = serde_json::from_str::<SamplingConfig>(r#"{"topk": 3}"#).unwrap_err();
        assert!(error.to_string().contains("topk"), "{error}");
    }
}
