//! Configurations of both generations, refusals, rotary frequencies against transformers, weights against configurations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use super::*;
use crate::weights::{OwnedTensor, SafetensorsSource, serialize};

fn shared(path: &str) -> Option<Vec<u8>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let root = std::env::var("QLOOM_SHARED").unwrap_or_else(|_| default.into());
    let bytes = std::fs::read(format!("{root}/{path}")).ok();
    if bytes.is_none() {
        eprintln!("skipped: {path} is absent");
    }
    bytes
}

/// A small valid configuration with `changes` laid over it; a null removes the key.
fn with(changes: Value) -> Vec<u8> {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32, "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu",
    });
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => config.as_object_mut().unwrap().remove(key),
            v => config
                .as_object_mut()
                .unwrap()
                .insert(key.clone(), v.clone()),
        };
    }
    config.to_string().into_bytes()
}

fn read(changes: Value) -> LlamaConfig {
    LlamaConfig::from_json(&with(changes)).unwrap()
}

fn refused(changes: Value) -> String {
    LlamaConfig::from_json(&with(changes))
        .unwrap_err()
        .to_string()
}

#[test]
fn both_generations_read_the_same() {
    let old = read(
        json!({"rope_theta": 5e5, "torch_dtype": "bfloat16", "rope_scaling": {"type": "linear", "factor": 2}}),
    );
    let new = read(json!({"dtype": "bfloat16",
        "rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 2.0}}));
    assert_eq!(old, new);
    assert_eq!(
        (old.rope_theta, old.dtype.as_str(), old.head_dim),
        (5e5, "bfloat16", 4)
    );
    assert_eq!(old.rope_scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn families_differ_in_biases_and_windows() {
    let qwen =
        json!({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "sliding_window": 8});
    let c = read(qwen);
    let names: Vec<_> = c.expected_tensors().into_iter().map(|t| t.0).collect();
    assert!(names.contains(&"model.layers.0.self_attn.q_proj.bias".into()));
    assert!(!names.contains(&"model.layers.0.self_attn.o_proj.bias".into()));
    assert!(c.eos_token_ids.is_empty());

    let mistral = |window: Value| {
        let mut config: Value = serde_json::from_slice(&with(
            json!({"model_type": "mistral", "architectures": ["MistralForCausalLM"]}),
        ))
        .unwrap();
        config["sliding_window"] = window;
        LlamaConfig::from_json(config.to_string().as_bytes())
    };
    assert!(mistral(Value::Null).is_ok() && mistral(json!(64)).is_ok());
    assert!(
        mistral(json!(63))
            .unwrap_err()
            .to_string()
            .contains("sliding_window is 63")
    );
    assert!(
        refused(json!({"model_type": "qwen2", "use_sliding_window": true, "sliding_window": 8}))
            .contains("sliding_window")
    );

    let biased = read(json!({"attention_bias": true, "mlp_bias": true}));
    assert_eq!(
        biased
            .expected_tensors()
            .iter()
            .filter(|t| t.0.ends_with(".bias"))
            .count(),
        14
    );
}

#[test]
fn refusals_name_the_key_and_what_would_do() {
    for (changes, words) in [
        (
            json!({"model_type": "gemma"}),
            ["gemma", "llama, mistral or qwen2"],
        ),
        (json!({"model_type": null}), ["model_type", "absent"]),
        (
            json!({"architectures": ["LlamaForSequenceClassification"]}),
            ["architectures", "LlamaForSequenceClassification"],
        ),
        (
            json!({"hidden_act": "gelu"}),
            ["hidden_act is gelu", "silu"],
        ),
        (
            json!({"rope_scaling": {"type": "yarn", "factor": 2}}),
            ["yarn", "llama3"],
        ),
        (
            json!({"rope_parameters": {"rope_type": "longrope"}}),
            ["longrope", "dynamic"],
        ),
        (
            json!({"rope_scaling": {"type": "linear"}}),
            ["linear", "factor"],
        ),
        (
            json!({"rope_scaling": {"type": "linear", "factor": 0}}),
            ["linear", "factor"],
        ),
        (
            json!({"partial_rotary_factor": 0.5}),
            ["partial_rotary_factor is 0.5", "1.0"],
        ),
        (
            json!({"num_attention_heads": 3}),
            ["hidden_size 16", "num_attention_heads 3"],
        ),
        (
            json!({"num_key_value_heads": 3}),
            ["num_attention_heads 4", "num_key_value_heads 3"],
        ),
        (json!({"head_dim": 5}), ["head_dim 5", "odd"]),
        (
            json!({"num_key_value_heads": 0}),
            ["num_key_value_heads is 0", "expected 1"],
        ),
        (
            json!({"num_attention_heads": 0}),
            ["num_attention_heads 0", "multiple"],
        ),
        (json!({"head_dim": 1u64 << 62}), ["head_dim", "expected 1"]),
        (json!({"vocab_size": null}), ["vocab_size", "missing"]),
        (
            json!({"vocab_size": -1}),
            ["vocab_size", "-1"].map(|w| if w == "vocab_size" { "config.json" } else { w }),
        ),
    ] {
        let e = refused(changes.clone());
        assert!(words.iter().all(|w| e.contains(w)), "{changes}: {e}");
    }
    assert!(LlamaConfig::from_json(b"[]").is_err() && LlamaConfig::from_json(b"{").is_err());
}

/// transformers 5.23: `LlamaRotaryEmbedding.compute_default_rope_parameters` and `ROPE_INIT_FUNCTIONS`, head_dim 16.
#[test]
fn rotary_frequencies_are_those_of_transformers() {
    let base = || LlamaConfig {
        head_dim: 16,
        max_position_embeddings: 64,
        ..LlamaConfig::default()
    };
    let close = |config: LlamaConfig, seq_len: usize, want: &[f32]| {
        let (got, scale) = config.inv_freq(seq_len);
        assert_eq!((got.len(), scale), (want.len(), 1.0));
        for (g, w) in got.iter().zip(want) {
            assert!(
                g.to_bits().abs_diff(w.to_bits()) <= 1,
                "{config:?}: {got:?} against {want:?}"
            );
        }
    };
    let plain = [
        1.0,
        0.316_227_76,
        0.1,
        0.031_622_78,
        0.01,
        0.003_162_277_9,
        0.001,
        0.000_316_227_76,
    ];
    close(base(), 64, &plain);
    let odd = LlamaConfig {
        head_dim: 12,
        rope_theta: 5e5,
        ..base()
    };
    close(
        odd,
        64,
        &[
            1.0,
            0.112_246_19,
            0.012_599_208,
            0.001_414_213_4,
            0.000_158_740_06,
            1.781_798e-5,
        ],
    );
    let linear = LlamaConfig {
        rope_scaling: RopeScaling::Linear { factor: 4.0 },
        ..base()
    };
    close(linear, 64, &plain.map(|f| f / 4.0));
    let dynamic = LlamaConfig {
        rope_scaling: RopeScaling::Dynamic { factor: 2.0 },
        ..base()
    };
    close(dynamic.clone(), 3, &plain);
    close(
        dynamic,
        200,
        &[
            1.0,
            0.249_528_47,
            0.062_264_454,
            0.015_536_753,
            0.003_876_862_8,
            0.000_967_387_5,
            0.000_241_390_74,
            6.023_386e-5,
        ],
    );
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 512,
    };
    close(
        LlamaConfig {
            rope_scaling: llama3,
            rope_theta: 5e5,
            ..base()
        },
        64,
        &[
            1.0,
            0.193_922_76,
            0.027_344_134,
            0.000_911_583_13,
            0.000_176_776_68,
            3.428_102_4e-5,
            6.647_87e-6,
            1.289_173_2e-6,
        ],
    );
}

#[test]
fn what_is_written_is_read_back() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0});
    for changes in [
        json!({}),
        json!({"attention_bias": true, "tie_word_embeddings": true, "eos_token_id": [2, 7], "pad_token_id": 0}),
        json!({"rope_scaling": llama3, "rope_theta": 5e5, "head_dim": 8}),
        json!({"model_type": "qwen2", "rope_scaling": {"type": "dynamic", "factor": 2.5}}),
        json!({"model_type": "mistral", "sliding_window": 64, "pad_token_id": -1}),
    ] {
        let c = read(changes);
        assert_eq!(LlamaConfig::from_json(&c.to_json()).unwrap(), c);
    }
}

#[test]
fn goldens_are_read_and_their_weights_fit() {
    for dir in [
        "reference/golden/llama_1/base",
        "reference/golden/llama_1/base_nf4",
        "data/stories260K",
    ] {
        let (Some(config), Some(weights)) = (
            shared(&format!("{dir}/config.json")),
            shared(&format!("{dir}/model.safetensors")),
        ) else {
            return;
        };
        let config = LlamaConfig::from_json(&config).unwrap();
        let source = SafetensorsSource::single("model.safetensors", weights).unwrap();
        config.validate_weights(&source).unwrap();
        let more = LlamaConfig {
            num_hidden_layers: config.num_hidden_layers + 1,
            ..config.clone()
        };
        assert!(matches!(
            more.validate_weights(&source),
            Err(ConfigError::Weights(WeightError::Missing { .. }))
        ));
        let fewer = LlamaConfig {
            num_hidden_layers: config.num_hidden_layers - 1,
            ..config.clone()
        };
        assert!(matches!(
            fewer.validate_weights(&source),
            Err(ConfigError::UnexpectedTensor { .. })
        ));
        let wider = LlamaConfig {
            intermediate_size: config.intermediate_size + 2,
            ..config
        };
        let e = wider.validate_weights(&source).unwrap_err().to_string();
        assert!(
            e.contains("model.safetensors")
                && e.contains("down_proj")
                && e.contains("expected shape"),
            "{e}"
        );
    }
}

#[test]
fn weights_are_held_to_the_configuration() {
    let config = read(json!({"num_hidden_layers": 1, "tie_word_embeddings": true}));
    type Tensors = Vec<(String, OwnedTensor)>;
    let tensors = |change: &dyn Fn(&mut Tensors)| {
        let zeros = |(name, shape): (String, Vec<usize>)| {
            let n = shape.iter().product();
            (name, OwnedTensor::from_f32(shape, &vec![0.0; n]).unwrap())
        };
        let mut list = config.expected_tensors().into_iter().map(zeros).collect();
        change(&mut list);
        let bytes = serialize(&list, &BTreeMap::new()).unwrap();
        config.validate_weights(&SafetensorsSource::single("m", bytes).unwrap())
    };
    tensors(&|_| ()).unwrap();
    let one = || OwnedTensor::from_f32(vec![1], &[0.0]).unwrap();
    tensors(&|l| l.push(("model.layers.0.self_attn.rotary_emb.inv_freq".into(), one()))).unwrap();
    tensors(&|l| l.push(("lm_head.weight".into(), one()))).unwrap();
    assert!(tensors(&|l| l.push(("model.layers.0.self_attn.q_proj.bias".into(), one()))).is_err());
    assert!(
        tensors(&|l| l.push(("model.layers.0.self_attn.q_norm.weight".into(), one()))).is_err()
    );
    assert!(tensors(&|l| l.push(("model.layers.0.mlp.up_proj.SCB".into(), one()))).is_err());
    assert!(tensors(&|l| l.truncate(3)).is_err());
    assert!(
        tensors(&|l| l[0].1 = OwnedTensor::from_u8(vec![32, 16], vec![0; 512]).unwrap()).is_err()
    );
}
