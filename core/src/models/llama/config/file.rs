//! The keys of `config.json`, with both generations' spelling, resolved into a [`LlamaConfig`].

use super::{Architecture, ConfigError, LlamaConfig, RopeScaling};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The keys read from `config.json`; all others are of no consequence here.
#[derive(Deserialize)]
pub(super) struct File {
    #[serde(default)]
    architectures: Option<Vec<String>>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_parameters: Option<Map<String, Value>>,
    rope_scaling: Option<Map<String, Value>>,
    partial_rotary_factor: Option<f64>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
    #[serde(default, deserialize_with = "present")]
    sliding_window: Option<Option<usize>>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    bos_token_id: Option<Option<OneOrMany>>,
    #[serde(default, deserialize_with = "present")]
    eos_token_id: Option<Option<OneOrMany>>,
    pad_token_id: Option<i64>,
    initializer_range: Option<f64>,
    dtype: Option<String>,
    torch_dtype: Option<String>,
}

/// Tells an absent key from a null.
fn present<'de, D, T>(d: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(d).map(Some)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

impl File {
    /// Refuses what would silently compute something else.
    pub(super) fn refuse_unsupported(&self, architecture: Architecture) -> Result<(), ConfigError> {
        if let Some(found) = self
            .architectures
            .iter()
            .flatten()
            .find(|a| !a.ends_with("ForCausalLM"))
        {
            return Err(ConfigError::Architecture {
                key: "architectures",
                found: found.clone(),
            });
        }
        let unsupported = |key, found: String, supported| {
            Err(ConfigError::Unsupported {
                key,
                found,
                supported,
            })
        };
        match self.hidden_act.as_deref() {
            None | Some("silu" | "swish") => {}
            Some(act) => return unsupported("hidden_act", act.into(), "silu"),
        }
        let max = self.max_positions(architecture);
        let window = match architecture {
            Architecture::Llama => None,
            Architecture::Mistral => self.sliding_window.unwrap_or(Some(4096)), // transformers' default for an absent key
            Architecture::Qwen2 if self.use_sliding_window != Some(true) => None,
            Architecture::Qwen2 => self.sliding_window.unwrap_or(Some(4096)),
        };
        if let Some(window) = window.filter(|w| *w < max) {
            let supported = "null, or at least max_position_embeddings";
            return unsupported(
                "sliding_window",
                format!("{window} (max_position_embeddings {max})"),
                supported,
            );
        }
        if let Some(other) = self
            .layer_types
            .iter()
            .flatten()
            .find(|t| *t != "full_attention")
        {
            return unsupported("layer_types", other.clone(), "full_attention");
        }
        let scaled = [&self.rope_parameters, &self.rope_scaling]
            .into_iter()
            .flatten();
        let in_rope = scaled
            .filter_map(|m| m.get("partial_rotary_factor")?.as_f64())
            .next();
        match self.partial_rotary_factor.or(in_rope) {
            None | Some(1.0) => Ok(()),
            Some(part) => unsupported("partial_rotary_factor", part.to_string(), "1.0"),
        }
    }

    fn max_positions(&self, architecture: Architecture) -> usize {
        let default = match architecture {
            Architecture::Llama => 2048,
            Architecture::Mistral => 131_072,
            Architecture::Qwen2 => 32_768,
        };
        self.max_position_embeddings.unwrap_or(default)
    }

    /// Fills in the family's defaults.
    pub(super) fn resolve(self, architecture: Architecture) -> Result<LlamaConfig, ConfigError> {
        let defaults = LlamaConfig::default();
        let (heads, hidden) = (self.num_attention_heads, self.hidden_size);
        let head_dim = match self.head_dim {
            Some(dim) => dim,
            None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                let reason =
                    format!("hidden_size {hidden} is no multiple of num_attention_heads {heads}");
                return Err(ConfigError::Contradiction { reason });
            }
        };
        let max_position_embeddings = self.max_positions(architecture);
        let rope = self
            .rope_parameters
            .or(self.rope_scaling)
            .unwrap_or_default();
        let rope_theta = rope
            .get("rope_theta")
            .and_then(Value::as_f64)
            .or(self.rope_theta);
        let llama = architecture == Architecture::Llama;
        let kv_default = if architecture == Architecture::Mistral {
            8
        } else {
            heads
        };
        let only_llama = |id| {
            if architecture == Architecture::Qwen2 {
                None
            } else {
                Some(OneOrMany::One(id))
            }
        };
        let bos = self
            .bos_token_id
            .unwrap_or(only_llama(1))
            .map(OneOrMany::into_vec)
            .unwrap_or_default();
        Ok(LlamaConfig {
            architecture,
            vocab_size: self.vocab_size,
            hidden_size: hidden,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: self.num_key_value_heads.unwrap_or(kv_default),
            head_dim,
            max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps.unwrap_or(defaults.rms_norm_eps),
            rope_theta: rope_theta.unwrap_or(defaults.rope_theta),
            rope_scaling: RopeScaling::from_map(&rope, max_position_embeddings)?,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(false),
            attention_bias: match architecture {
                Architecture::Qwen2 => true,
                _ => llama && self.attention_bias.unwrap_or(false),
            },
            mlp_bias: llama && self.mlp_bias.unwrap_or(false),
            bos_token_id: bos.first().copied(),
            eos_token_ids: self
                .eos_token_id
                .unwrap_or(only_llama(2))
                .map(OneOrMany::into_vec)
                .unwrap_or_default(),
            pad_token_id: self.pad_token_id.and_then(|id| u32::try_from(id).ok()),
            initializer_range: self.initializer_range.unwrap_or(defaults.initializer_range),
            dtype: self.dtype.or(self.torch_dtype).unwrap_or(defaults.dtype),
        })
    }
}
