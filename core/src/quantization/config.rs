//! `quantization_config` in `config.json` as transformers writes it, and which tensors are quantized at all.

use super::QuantizationError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Last parts of the linears of attention and MLP: Llama, Mistral and Qwen2; DistilBERT; BERT.
const LINEARS: [&str; 17] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "q_lin",
    "k_lin",
    "v_lin",
    "out_lin",
    "lin1",
    "lin2",
    "query",
    "key",
    "value",
    "dense",
];

/// The block of `config.json`, mirroring transformers' `BitsAndBytesConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QuantizationConfig {
    /// Older name of `load_in_4bit`.
    #[serde(rename = "_load_in_4bit")]
    pub load_in_4bit_private: bool,
    /// Older name of `load_in_8bit`.
    #[serde(rename = "_load_in_8bit")]
    pub load_in_8bit_private: bool,
    /// Type that PyTorch computes in after dequantizing.
    pub bnb_4bit_compute_dtype: Option<String>,
    /// Type under which the packed bytes are stored.
    pub bnb_4bit_quant_storage: Option<String>,
    /// `nf4` or `fp4`.
    pub bnb_4bit_quant_type: String,
    /// Whether the scales are quantized too.
    pub bnb_4bit_use_double_quant: bool,
    /// For int8 only.
    pub llm_int8_enable_fp32_cpu_offload: bool,
    /// For int8 only.
    pub llm_int8_has_fp16_weight: bool,
    /// Modules left dense; null means the output head alone.
    pub llm_int8_skip_modules: Option<Vec<String>>,
    /// For int8 only.
    pub llm_int8_threshold: f64,
    /// Four bits.
    pub load_in_4bit: bool,
    /// Eight bits.
    pub load_in_8bit: bool,
    /// `bitsandbytes`.
    pub quant_method: String,
}

impl Default for QuantizationConfig {
    fn default() -> Self {
        Self {
            load_in_4bit_private: false,
            load_in_8bit_private: false,
            bnb_4bit_compute_dtype: Some("float32".into()),
            bnb_4bit_quant_storage: Some("uint8".into()),
            bnb_4bit_quant_type: "fp4".into(), // transformers' own default for an absent key
            bnb_4bit_use_double_quant: false,
            llm_int8_enable_fp32_cpu_offload: false,
            llm_int8_has_fp16_weight: false,
            llm_int8_skip_modules: None,
            llm_int8_threshold: 6.0,
            load_in_4bit: false,
            load_in_8bit: false,
            quant_method: "bitsandbytes".into(),
        }
    }
}

impl QuantizationConfig {
    /// The block for an NF4 checkpoint computed in `compute_dtype` (`float32`, `float16`, `bfloat16`).
    pub fn nf4(double_quant: bool, compute_dtype: &str, skip_modules: Option<Vec<String>>) -> Self {
        Self {
            load_in_4bit_private: true,
            load_in_4bit: true,
            bnb_4bit_quant_type: "nf4".into(),
            bnb_4bit_use_double_quant: double_quant,
            bnb_4bit_compute_dtype: Some(compute_dtype.to_owned()),
            llm_int8_skip_modules: skip_modules,
            ..Self::default()
        }
    }

    /// The block of a `config.json`, `None` where there is none. Anything but NF4 is refused by name.
    pub fn from_config_json(config_json: &[u8]) -> Result<Option<Self>, QuantizationError> {
        let mut map = parse(config_json)?;
        let Some(block) = map.remove("quantization_config").filter(|b| !b.is_null()) else {
            return Ok(None);
        };
        let refuse = |found: String| {
            Err(QuantizationError::Unsupported {
                what: "the checkpoint (quantization_config)".into(),
                found,
            })
        };
        let method = block
            .get("quant_method")
            .and_then(Value::as_str)
            .unwrap_or("bitsandbytes")
            .to_owned();
        if method != "bitsandbytes" {
            return refuse(method);
        }
        let this: Self = serde_json::from_value(block).map_err(|e| QuantizationError::State {
            name: "config.json: quantization_config".into(),
            reason: e.to_string(),
        })?;
        match () {
            () if this.load_in_8bit || this.load_in_8bit_private => {
                refuse("int8 (load_in_8bit)".into())
            }
            () if !(this.load_in_4bit || this.load_in_4bit_private) => Ok(None),
            () if this.bnb_4bit_quant_type != "nf4" => {
                refuse(this.bnb_4bit_quant_type.to_uppercase())
            }
            () => Ok(Some(this)),
        }
    }

    /// `config_json` with this block put in.
    pub fn put_into(&self, config_json: &[u8]) -> Result<Vec<u8>, QuantizationError> {
        let mut map = parse(config_json)?;
        let block = serde_json::to_value(self).map_err(json_error)?;
        map.insert("quantization_config".into(), block);
        pretty(map)
    }

    /// `config_json` without the block.
    pub fn take_from(config_json: &[u8]) -> Result<Vec<u8>, QuantizationError> {
        let mut map = parse(config_json)?;
        map.shift_remove("quantization_config");
        pretty(map)
    }
}

/// The type name that `config.json` gives the model (`dtype`, formerly `torch_dtype`).
pub(super) fn model_dtype(config_json: &[u8]) -> Result<Option<String>, QuantizationError> {
    let map = parse(config_json)?;
    let dtype = map
        .get("dtype")
        .or_else(|| map.get("torch_dtype"))
        .and_then(Value::as_str);
    Ok(dtype.map(str::to_owned))
}

fn parse(config_json: &[u8]) -> Result<Map<String, Value>, QuantizationError> {
    serde_json::from_slice(config_json).map_err(json_error)
}

fn pretty(map: Map<String, Value>) -> Result<Vec<u8>, QuantizationError> {
    let mut bytes = serde_json::to_vec_pretty(&Value::Object(map)).map_err(json_error)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn json_error(e: serde_json::Error) -> QuantizationError {
    QuantizationError::State {
        name: "config.json".into(),
        reason: e.to_string(),
    }
}

/// Whether the tensor `name` of `shape` is the weight of an attention or MLP linear inside a numbered block.
///
/// Embeddings, norms and heads (`lm_head`, `score`, `classifier`, `pre_classifier`, poolers) never are. `skip` names modules
/// to leave dense, by whole path, by a part of the path, or by the path's end, as transformers understands
/// `llm_int8_skip_modules`.
pub fn is_quantizable(name: &str, shape: &[usize], skip: &[String]) -> bool {
    let Some(path) = name.strip_suffix(".weight") else {
        return false;
    };
    let parts: Vec<&str> = path.split('.').collect();
    let numbered = parts
        .iter()
        .any(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    let linear = parts.last().is_some_and(|p| LINEARS.contains(p));
    shape.len() == 2 && numbered && linear && !skip.iter().any(|s| skips(s, path))
}

fn skips(skip: &str, path: &str) -> bool {
    let (dotted, wanted) = (format!(".{path}."), format!(".{}.", skip.trim_matches('.')));
    dotted.contains(&wanted)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn picks_linears_of_blocks_only() {
        let yes = |n: &str| is_quantizable(n, &[8, 8], &[]);
        for n in [
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.11.mlp.down_proj.weight",
            "distilbert.transformer.layer.3.ffn.lin1.weight",
            "bert.encoder.layer.0.attention.output.dense.weight",
        ] {
            assert!(yes(n), "{n}");
        }
        for n in [
            "lm_head.weight",
            "score.weight",
            "classifier.weight",
            "pre_classifier.weight",
            "bert.pooler.dense.weight",
            "cls.predictions.transform.dense.weight",
            "model.embed_tokens.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.0.self_attn.q_proj.bias",
        ] {
            assert!(!yes(n), "{n}");
        }
        assert!(!is_quantizable(
            "model.layers.0.self_attn.q_proj.weight",
            &[8],
            &[]
        ));
        for skip in [
            "q_proj",
            "model.layers.0",
            "layers.0.self_attn",
            "model.layers.0.self_attn.q_proj",
        ] {
            assert!(
                !is_quantizable(
                    "model.layers.0.self_attn.q_proj.weight",
                    &[8, 8],
                    &[skip.into()]
                ),
                "{skip}"
            );
        }
        for skip in ["proj", "layers.1", "q"] {
            assert!(
                is_quantizable(
                    "model.layers.0.self_attn.q_proj.weight",
                    &[8, 8],
                    &[skip.into()]
                ),
                "{skip}"
            );
        }
    }

    #[test]
    fn refuses_other_methods_by_name() {
        let refused = |block: &str| {
            let json = format!(r#"{{"quantization_config":{block}}}"#);
            QuantizationConfig::from_config_json(json.as_bytes())
                .unwrap_err()
                .to_string()
        };
        assert!(refused(r#"{"quant_method":"gptq","bits":4}"#).contains("gptq"));
        assert!(refused(r#"{"load_in_8bit":true}"#).contains("int8"));
        assert!(refused(r#"{"load_in_4bit":true,"bnb_4bit_quant_type":"fp4"}"#).contains("FP4"));
        assert!(refused(r#"{"load_in_4bit":true}"#).contains("FP4"));
        for none in [&b"{}"[..], br#"{"quantization_config":null}"#] {
            assert_eq!(QuantizationConfig::from_config_json(none).unwrap(), None);
        }
    }

    #[test]
    fn goes_into_config_json_and_out_again() {
        let config = br#"{"model_type":"llama","zeta":[1,2]}"#;
        let ours = QuantizationConfig::nf4(true, "float32", None);
        let with = ours.put_into(config).unwrap();
        assert_eq!(
            QuantizationConfig::from_config_json(&with).unwrap(),
            Some(ours)
        );
        let without: Value =
            serde_json::from_slice(&QuantizationConfig::take_from(&with).unwrap()).unwrap();
        assert_eq!(without, serde_json::from_slice::<Value>(config).unwrap());
    }
}
