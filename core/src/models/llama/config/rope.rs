//! Rotary frequencies and their scaling, in f32 and in the order of transformers' `modeling_rope_utils.py`.

use super::{ConfigError, LlamaConfig};
use serde_json::{Map, Value, json};

/// How rotary frequencies are stretched beyond the trained length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All frequencies divided by `factor`.
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// The base grows with the sequence once it is longer than `max_position_embeddings` (NTK-aware).
    Dynamic {
        /// At least 1.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// At least 1.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context length of the original training, tokens.
        original_max_position_embeddings: usize,
    },
}

impl LlamaConfig {
    /// Rotary frequencies `[head_dim / 2]` for sequences of `seq_len` tokens, and the factor on cosine and sine.
    ///
    /// Computed in f32 in transformers' order. Only [`RopeScaling::Dynamic`] depends on `seq_len`.
    pub fn inv_freq(&self, seq_len: usize) -> (Vec<f32>, f32) {
        let dim = self.head_dim;
        let base = match self.rope_scaling {
            RopeScaling::Dynamic { factor } => {
                let max = self.max_position_embeddings as f64;
                let stretch = factor * (seq_len as f64).max(max) / max - (factor - 1.0);
                self.rope_theta * stretch.powf(dim as f64 / (dim as f64 - 2.0).max(1.0))
            }
            _ => self.rope_theta,
        };
        let frequency = |i: usize| {
            let exponent = i as f32 / dim as f32;
            1.0 / f64::from(base as f32).powf(f64::from(exponent)) as f32
        };
        let freqs = (0..dim)
            .step_by(2)
            .map(|i| self.rope_scaling.stretch(frequency(i)))
            .collect();
        (freqs, 1.0)
    }
}

impl RopeScaling {
    /// From the map under `rope_parameters` or `rope_scaling`.
    pub(super) fn from_map(
        rope: &Map<String, Value>,
        max_positions: usize,
    ) -> Result<Self, ConfigError> {
        let kind = rope
            .get("rope_type")
            .or_else(|| rope.get("type"))
            .and_then(Value::as_str);
        let number = |key: &str| match rope.get(key).and_then(Value::as_f64) {
            Some(v) if v.is_finite() && v > 0.0 => Ok(v),
            _ => Err(ConfigError::Contradiction {
                reason: format!(
                    "rope type {} needs a positive number {key}",
                    kind.unwrap_or("default")
                ),
            }),
        };
        match kind.unwrap_or("default") {
            "default" => Ok(Self::Default),
            "linear" => Ok(Self::Linear {
                factor: number("factor")?,
            }),
            "dynamic" => Ok(Self::Dynamic {
                factor: number("factor")?,
            }),
            "llama3" => Ok(Self::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_position_embeddings: match rope.get("original_max_position_embeddings")
                {
                    Some(_) => number("original_max_position_embeddings")? as usize,
                    None => max_positions,
                },
            }),
            other => Err(ConfigError::Unsupported {
                key: "rope type",
                found: other.to_owned(),
                supported: "default, linear, dynamic, llama3",
            }),
        }
    }

    /// As the map under `rope_scaling`; null for the default.
    pub(super) fn to_value(self) -> Value {
        match self {
            Self::Default => Value::Null,
            Self::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            Self::Dynamic { factor } => json!({"rope_type": "dynamic", "factor": factor}),
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
            }),
        }
    }

    /// One frequency, scaled.
    fn stretch(self, freq: f32) -> f32 {
        match self {
            Self::Default | Self::Dynamic { .. } => freq,
            Self::Linear { factor } => freq / factor as f32,
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let (factor, low, high) = (
                    factor as f32,
                    low_freq_factor as f32,
                    high_freq_factor as f32,
                );
                let length = original_max_position_embeddings as f32;
                let wavelength = std::f64::consts::TAU as f32 / freq;
                if wavelength > length / low {
                    freq / factor
                } else if wavelength < length / high {
                    freq
                } else {
                    let smooth = (length / wavelength - low) / (high - low);
                    (1.0 - smooth) * freq / factor + smooth * freq
                }
            }
        }
    }
}
