//! Small models of random weights, for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;

use burn::tensor::{DType, Device};
use serde_json::{Value, json};

use super::{BaseQuantization, Llama, LlamaConfig, LoadOptions, load, random_weights};
use crate::models::embedding::EmbeddingPlace;
use crate::quantization::{QuantizeOptions, quantize_checkpoint};
use crate::weights::{SafetensorsSource, WeightSource, serialize};

/// A model of two blocks over the byte tokenizer's vocabulary.
pub(crate) fn config(tied: bool) -> LlamaConfig {
    let json: Value = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 360, "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": tied,
    });
    LlamaConfig::from_json(json.to_string().as_bytes()).unwrap()
}

/// Its checkpoint as a file, packed or not.
pub(crate) fn checkpoint(config: &LlamaConfig, nf4: bool) -> Vec<u8> {
    let random = random_weights(config, 0.5, 3).unwrap();
    let tensor = |name: String| {
        let tensor = random.get(&name).unwrap().into_owned();
        (name, tensor)
    };
    let tensors: Vec<_> = random.names().into_iter().map(tensor).collect();
    let plain = serialize(&tensors, &BTreeMap::new()).unwrap();
    if !nf4 {
        return plain;
    }
    let source = SafetensorsSource::single("m", plain).unwrap();
    let options = QuantizeOptions::default();
    let packed = quantize_checkpoint(&source, &config.to_json(), &options, Vec::new(), |_, _| {});
    packed.unwrap().0
}

pub(crate) fn options(nf4: bool) -> LoadOptions {
    LoadOptions {
        quantization: match nf4 {
            true => BaseQuantization::Nf4 { double_quant: true },
            false => BaseQuantization::None,
        },
        dtype: DType::F32,
        max_positions: None,
        embedding: EmbeddingPlace::Device,
    }
}

/// The model on the CPU, dense.
pub(crate) fn model() -> Llama {
    let source = SafetensorsSource::single("m", checkpoint(&config(false), false)).unwrap();
    let device = Device::flex();
    load(
        &config(false),
        &source,
        options(false),
        &device,
        &mut |_, _| {},
    )
    .unwrap()
}
