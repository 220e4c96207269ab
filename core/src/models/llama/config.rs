//! `config.json` of Llama and of the models that differ from it by switches only: Mistral and Qwen2.
//!
//! Both generations of transformers' spelling are read (`rope_theta` and `torch_dtype`; `rope_parameters` and `dtype`). What
//! would silently compute something else (another activation, YaRN, sliding windows) is refused by name.

mod file;
mod rope;

pub use rope::RopeScaling;

use crate::models::load::check_tensor;
use crate::models::parts::Part;
use crate::quantization::QuantizationError;
use crate::weights::{WeightError, WeightSource};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use thiserror::Error;

/// Largest size accepted for any dimension; keeps products from overflowing on hostile input.
const MAX_SIZE: usize = 1 << 24;

/// Why a configuration, or weights under it, cannot be run.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Not the JSON it should be.
    #[error("config.json: {reason}")]
    Json {
        /// The parser's words, which name the key.
        reason: String,
    },
    /// Another architecture.
    #[error(
        "config.json: {key} {found:?} is not supported; expected a causal language model of type llama, mistral or qwen2"
    )]
    Architecture {
        /// `model_type` or `architectures`.
        key: &'static str,
        /// What it says.
        found: String,
    },
    /// A switch whose value is not implemented.
    #[error("config.json: {key} is {found}; supported: {supported}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// Values that would do.
        supported: &'static str,
    },
    /// Sizes that contradict one another.
    #[error("config.json: {reason}")]
    Contradiction {
        /// Which sizes, and how.
        reason: String,
    },
    /// A tensor for which the configuration has no place.
    #[error(
        "tensor {name} in {file} has no place in the model that config.json describes; the two do not belong together"
    )]
    UnexpectedTensor {
        /// The tensor.
        name: String,
        /// The file that holds it.
        file: String,
    },
    /// A tensor missing or of another shape.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// A weight quantized in another way than NF4.
    #[error(transparent)]
    Quantization(#[from] QuantizationError),
}

/// Which family's defaults and biases apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Biases as `attention_bias` and `mlp_bias` say.
    Llama,
    /// No biases.
    Mistral,
    /// Biases on q, k and v.
    Qwen2,
}

/// A Llama's sizes and switches. `Default` is transformers' (Llama 2 7B).
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Family.
    pub architecture: Architecture,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Features of a head; even.
    pub head_dim: usize,
    /// Longest sequence trained on, tokens.
    pub max_position_embeddings: usize,
    /// Added to the variance in every norm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Their scaling.
    pub rope_scaling: RopeScaling,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Bias on q, k, v (and o, except in Qwen2).
    pub attention_bias: bool,
    /// Bias on gate, up, down.
    pub mlp_bias: bool,
    /// First token of every sequence.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a sequence; none, one or several.
    pub eos_token_ids: Vec<u32>,
    /// Padding token.
    pub pad_token_id: Option<u32>,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Type the weights are stored in, by PyTorch's name.
    pub dtype: String,
}

impl Default for LlamaConfig {
    fn default() -> Self {
        Self {
            architecture: Architecture::Llama,
            vocab_size: 32000,
            hidden_size: 4096,
            intermediate_size: 11008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 32,
            head_dim: 128,
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            rope_theta: 10000.0,
            rope_scaling: RopeScaling::Default,
            tie_word_embeddings: false,
            attention_bias: false,
            mlp_bias: false,
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
            pad_token_id: None,
            initializer_range: 0.02,
            dtype: "float32".into(),
        }
    }
}

impl LlamaConfig {
    /// Reads and checks the bytes of a `config.json`.
    pub fn from_json(config_json: &[u8]) -> Result<Self, ConfigError> {
        let json = |e: serde_json::Error| ConfigError::Json {
            reason: e.to_string(),
        };
        let value: Value = serde_json::from_slice(config_json).map_err(json)?;
        let found = value
            .get("model_type")
            .and_then(Value::as_str)
            .unwrap_or("(absent)")
            .to_owned();
        let architecture =
            Architecture::deserialize(Value::String(found.clone())).map_err(|_| {
                ConfigError::Architecture {
                    key: "model_type",
                    found,
                }
            })?;
        let file = file::File::deserialize(value).map_err(json)?;
        file.refuse_unsupported(architecture)?;
        let config = file.resolve(architecture)?;
        config.check()?;
        Ok(config)
    }

    /// Checks that the sizes agree; called by [`LlamaConfig::from_json`], and by those who fill the fields themselves.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (heads, kv_heads, dim) = (
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
        );
        let sizes = [
            ("vocab_size", Some(self.vocab_size)),
            ("hidden_size", Some(self.hidden_size)),
            ("intermediate_size", Some(self.intermediate_size)),
            ("num_hidden_layers", Some(self.num_hidden_layers)),
            ("num_attention_heads", Some(heads)),
            ("num_key_value_heads", Some(kv_heads)),
            ("head_dim", Some(dim)),
            (
                "max_position_embeddings",
                Some(self.max_position_embeddings),
            ),
            ("num_attention_heads * head_dim", heads.checked_mul(dim)),
        ];
        for (key, size) in sizes {
            if !size.is_some_and(|s| (1..=MAX_SIZE).contains(&s)) {
                let found = size.map_or("too large".into(), |s| s.to_string());
                return contradiction(format!("{key} is {found}; expected 1 to {MAX_SIZE}"));
            }
        }
        if heads % kv_heads != 0 {
            return contradiction(format!(
                "num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}"
            ));
        }
        if dim % 2 != 0 {
            return contradiction(format!(
                "head_dim {dim} is odd; rotary positions pair its features"
            ));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return contradiction(format!("rms_norm_eps is {}", self.rms_norm_eps));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return contradiction(format!("rope_theta is {}", self.rope_theta));
        }
        Ok(())
    }

    /// As a `config.json` that both transformers 4 and 5 read.
    pub fn to_json(&self) -> Vec<u8> {
        let (model_type, class) = match self.architecture {
            Architecture::Llama => ("llama", "LlamaForCausalLM"),
            Architecture::Mistral => ("mistral", "MistralForCausalLM"),
            Architecture::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
        };
        let eos = match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            many => json!(many),
        };
        let mut config = json!({
            "architectures": [class], "model_type": model_type,
            "vocab_size": self.vocab_size, "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size, "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads, "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim, "max_position_embeddings": self.max_position_embeddings,
            "hidden_act": "silu", "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta, "rope_scaling": self.rope_scaling.to_value(),
            "tie_word_embeddings": self.tie_word_embeddings,
            "bos_token_id": self.bos_token_id, "eos_token_id": eos, "pad_token_id": self.pad_token_id,
            "initializer_range": self.initializer_range, "torch_dtype": self.dtype, "use_cache": true,
        });
        match self.architecture {
            Architecture::Llama => {
                config["attention_bias"] = json!(self.attention_bias);
                config["mlp_bias"] = json!(self.mlp_bias);
            }
            Architecture::Mistral => config["sliding_window"] = Value::Null,
            Architecture::Qwen2 => config["use_sliding_window"] = json!(false),
        }
        format!("{config:#}\n").into_bytes()
    }

    /// Path and `[out, in]` of every linear of the blocks (`model.layers.0.self_attn.q_proj`), first to last.
    pub fn linear_modules(&self) -> Vec<(String, [usize; 2])> {
        let q = self.num_attention_heads * self.head_dim;
        let kv = self.num_key_value_heads * self.head_dim;
        let (h, m) = (self.hidden_size, self.intermediate_size);
        let of_block = [
            ("self_attn.q_proj", [q, h]),
            ("self_attn.k_proj", [kv, h]),
            ("self_attn.v_proj", [kv, h]),
            ("self_attn.o_proj", [h, q]),
            ("mlp.gate_proj", [m, h]),
            ("mlp.up_proj", [m, h]),
            ("mlp.down_proj", [h, m]),
        ];
        let block = |i| of_block.map(|(name, shape)| (format!("model.layers.{i}.{name}"), shape));
        (0..self.num_hidden_layers).flat_map(block).collect()
    }

    /// Every tensor a checkpoint of this configuration holds, with its shape. A tied head is not among them.
    pub fn expected_tensors(&self) -> Vec<(String, Vec<usize>)> {
        let h = self.hidden_size;
        let mut list = vec![(
            "model.embed_tokens.weight".to_owned(),
            vec![self.vocab_size, h],
        )];
        for (path, [out, input]) in self.linear_modules() {
            if self.has_bias(&path) {
                list.push((format!("{path}.bias"), vec![out]));
            }
            list.push((format!("{path}.weight"), vec![out, input]));
        }
        for i in 0..self.num_hidden_layers {
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                list.push((format!("model.layers.{i}.{norm}.weight"), vec![h]));
            }
        }
        list.push(("model.norm.weight".to_owned(), vec![h]));
        if !self.tie_word_embeddings {
            list.push(("lm_head.weight".to_owned(), vec![self.vocab_size, h]));
        }
        list
    }

    /// Every tensor an adapter may hold in full: the checkpoint's, and a head of its own where it is tied.
    pub fn adaptable_tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut list = self.expected_tensors();
        if self.tie_word_embeddings {
            let shape = vec![self.vocab_size, self.hidden_size];
            list.push(("lm_head.weight".to_owned(), shape));
        }
        list
    }

    fn has_bias(&self, path: &str) -> bool {
        match path.rsplit('.').next() {
            Some("q_proj" | "k_proj" | "v_proj") => self.attention_bias,
            Some("o_proj") => self.attention_bias && self.architecture != Architecture::Qwen2,
            _ => self.mlp_bias,
        }
    }

    /// Checks names, shapes and types of `source` against this configuration, without reading any weight.
    ///
    /// # Errors
    /// A missing tensor, a shape that contradicts `config.json`, a foreign quantization, or a tensor of the blocks that
    /// the configuration has no place for (more layers, biases it denies): it would silently be left out.
    pub fn validate_weights(
        &self,
        source: &(impl WeightSource + ?Sized),
    ) -> Result<(), ConfigError> {
        let expected: BTreeMap<String, Vec<usize>> = self.expected_tensors().into_iter().collect();
        for (name, shape) in &expected {
            check_tensor::<ConfigError>(source, name, shape)?;
        }
        self.refuse_unexpected(source)
    }

    /// As [`LlamaConfig::validate_weights`], from the names alone: what a source whose bytes are still to be fetched can
    /// be asked. [`super::LlamaBuilder::add`] checks the rest of each part.
    ///
    /// # Errors
    /// A missing tensor, or one of the blocks that the configuration has no place for.
    pub fn validate_names(&self, source: &(impl WeightSource + ?Sized)) -> Result<(), ConfigError> {
        for (name, _) in self.expected_tensors() {
            if !source.contains(&name) {
                let files = source.file_of(&name);
                return Err(WeightError::Missing { name, files }.into());
            }
        }
        self.refuse_unexpected(source)
    }

    /// Checks the tensors of `part` as [`LlamaConfig::validate_weights`] checks all.
    pub(super) fn validate_part(
        &self,
        part: Part,
        source: &(impl WeightSource + ?Sized),
    ) -> Result<(), ConfigError> {
        self.part_tensors(part)
            .iter()
            .try_for_each(|(name, shape)| check_tensor(source, name, shape))
    }

    /// Those of [`LlamaConfig::expected_tensors`] that are of `part`.
    pub(super) fn part_tensors(&self, part: Part) -> Vec<(String, Vec<usize>)> {
        let of = |name: &str| match name.strip_prefix("model.layers.") {
            Some(rest) => rest
                .split('.')
                .next()
                .and_then(|index| index.parse().ok())
                .map(Part::Block),
            None if name.starts_with("model.embed_tokens.") => Some(Part::Embedding),
            None => Some(Part::Head),
        };
        let mut tensors = self.expected_tensors();
        tensors.retain(|(name, _)| of(name) == Some(part));
        tensors
    }

    fn refuse_unexpected(&self, source: &(impl WeightSource + ?Sized)) -> Result<(), ConfigError> {
        let expected: BTreeMap<String, Vec<usize>> = self.expected_tensors().into_iter().collect();
        for name in source.names() {
            let known = expected.contains_key(&name)
                || expected.keys().any(|e| {
                    name.strip_prefix(e.as_str())
                        .is_some_and(|rest| rest.starts_with('.'))
                })
                || name.ends_with("rotary_emb.inv_freq");
            if name.starts_with("model.layers.") && !known {
                return Err(ConfigError::UnexpectedTensor {
                    file: source.file_of(&name),
                    name,
                });
            }
        }
        Ok(())
    }
}

fn contradiction(reason: String) -> Result<(), ConfigError> {
    Err(ConfigError::Contradiction { reason })
}

#[cfg(test)]
mod tests;
