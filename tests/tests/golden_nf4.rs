//! NF4 bytes against bitsandbytes, through `trainer quantize` and `trainer dequantize`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use qloom_tests::cases::{self, json, own};
use qloom_tests::fixtures::arg;
use qloom_tests::tensors::{self, Stored, Tensors};
use qloom_tests::trainer::run;
use serde_json::{Value, json};
use tempfile::TempDir;

const BITSANDBYTES: &str = ".quant_state.bitsandbytes__nf4";

fn state(tensors: &Tensors, name: &str) -> Value {
    serde_json::from_slice(&tensors[&format!("{name}{BITSANDBYTES}")].bytes).unwrap()
}

/// bitsandbytes' CPU encoder looks nested scales up in a 65,536-bin table, so a rare byte is one step off the exact
/// nearest; either is right.
fn assert_scale_bytes(what: &str, got: &[u8], table: &[u8], exact: Option<&[u8]>) {
    assert_eq!(got.len(), table.len(), "{what}: number of scales");
    let mut apart = 0;
    for (i, (g, t)) in got.iter().zip(table).enumerate() {
        match exact {
            Some(exact) => assert!(
                g == t || *g == exact[i],
                "{what}: scale {i}: {g}, neither {t} nor {}",
                exact[i]
            ),
            None => assert!(g.abs_diff(*t) <= 1, "{what}: scale {i}: {g}, expected {t}"),
        }
        apart += usize::from(g != t);
    }
    assert!(
        apart * 50 <= got.len() + 49,
        "{what}: {apart} of {} scales differ from the table's",
        got.len()
    );
}

/// A whole base: the same tensors under the same names, codes identical.
#[test]
fn a_quantized_base_is_the_one_transformers_writes() {
    let dir = TempDir::new().unwrap();
    for case in cases::llamas() {
        let out = dir.path().join(case.name());
        run(&[
            "quantize",
            "--base",
            arg(&case.dir.join("base")),
            "--out",
            arg(&out),
        ])
        .ok();
        let got = tensors::load(&out.join("model.safetensors"));
        let want = tensors::load(&case.dir.join("base_nf4/model.safetensors"));
        assert_eq!(
            got.keys().collect::<Vec<_>>(),
            want.keys().collect::<Vec<_>>(),
            "{}: tensor names",
            case.name()
        );
        for (name, tensor) in &want {
            let what = format!("{}: {name}", case.name());
            let mine = &got[name];
            if !name.ends_with(BITSANDBYTES) {
                // A streamed state is padded with blanks, which JSON ignores: its length is settled first.
                assert_eq!(mine.shape, tensor.shape, "{what}");
            }
            assert_eq!(mine.dtype, tensor.dtype, "{what}");
            if name.ends_with(".absmax") {
                assert_scale_bytes(&what, &mine.bytes, &tensor.bytes, None);
            } else if let Some(weight) = name.strip_suffix(BITSANDBYTES) {
                assert_states(&what, &state(&got, weight), &state(&want, weight));
            } else {
                assert_eq!(mine.bytes, tensor.bytes, "{what}");
            }
        }
        let config = json(&out.join("config.json"));
        let kind = &config["quantization_config"];
        assert_eq!(kind["quant_method"], "bitsandbytes");
        assert_eq!(kind["bnb_4bit_quant_type"], "nf4");
        assert_eq!(kind["bnb_4bit_use_double_quant"], true);
        assert_eq!(kind["load_in_4bit"], true);
    }
}

fn assert_states(what: &str, got: &Value, want: &Value) {
    for (key, value) in want.as_object().unwrap() {
        match value.as_f64() {
            Some(number) if !value.is_u64() => {
                let mine = got[key].as_f64().unwrap();
                assert!(
                    (mine - number).abs() <= 1e-6 * number.abs(),
                    "{what}: {key} {mine}, expected {number}"
                );
            }
            _ => assert_eq!(&got[key], value, "{what}: {key}"),
        }
    }
}

/// A one-layer Llama whose `gate_proj` is `weight` (`[rows, columns]`) and whose other weights are small.
fn carrier(dir: &Path, weight: &Stored) {
    let (rows, columns) = (weight.shape[0], weight.shape[1]);
    std::fs::create_dir_all(dir).unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": columns,
        "intermediate_size": rows, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 2,
        "vocab_size": 5, "max_position_embeddings": 8, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "torch_dtype": "float32",
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let plain = |shape: &[usize]| {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| (i % 7) as f32 * 0.01 - 0.03).collect();
        Stored::from_f32(shape, &values)
    };
    let mut tensors = Tensors::new();
    for (name, shape) in [
        ("model.embed_tokens", vec![5, columns]),
        ("model.norm", vec![columns]),
        ("model.layers.0.input_layernorm", vec![columns]),
        ("model.layers.0.post_attention_layernorm", vec![columns]),
        ("model.layers.0.self_attn.q_proj", vec![2, columns]),
        ("model.layers.0.self_attn.k_proj", vec![2, columns]),
        ("model.layers.0.self_attn.v_proj", vec![2, columns]),
        ("model.layers.0.self_attn.o_proj", vec![columns, 2]),
        ("model.layers.0.mlp.up_proj", vec![rows, columns]),
        ("model.layers.0.mlp.down_proj", vec![columns, rows]),
    ] {
        tensors.insert(format!("{name}.weight"), plain(&shape));
    }
    tensors.insert(GATE.into(), weight.clone());
    tensors::save(&dir.join("model.safetensors"), &tensors);
}

const GATE: &str = "model.layers.0.mlp.gate_proj.weight";

/// `code x absmax` of what the trainer wrote, with its own scale bytes.
fn dequantized(tensors: &Tensors) -> Vec<f32> {
    let part = |suffix: &str| tensors[&format!("{GATE}{suffix}")].f32();
    let info = state(tensors, GATE);
    let offset = info["nested_offset"].as_f64().unwrap() as f32;
    let (bytes, nested, map, nf4) = (
        &tensors[&format!("{GATE}.absmax")].bytes,
        part(".nested_absmax"),
        part(".nested_quant_map"),
        part(".quant_map"),
    );
    let absmax: Vec<f32> = bytes
        .iter()
        .enumerate()
        .map(|(i, b)| map[usize::from(*b)] * nested[i / 256] + offset)
        .collect();
    let shape = info["shape"].as_array().unwrap();
    let count: u64 = shape.iter().map(|v| v.as_u64().unwrap()).product();
    let packed = &tensors[GATE].bytes;
    (0..usize::try_from(count).unwrap())
        .map(|i| {
            let byte = packed[i / 2];
            let code = if i % 2 == 0 { byte >> 4 } else { byte & 15 };
            nf4[usize::from(code)] * absmax[i / 64]
        })
        .collect()
}

/// Zeros, extremes, exact ties, ragged rows, a partial last block, bf16, many nested blocks: codes and scales of
/// every drawn matrix, plain and doubly quantized.
#[test]
fn awkward_matrices_quantize_to_the_same_bytes() {
    for file in cases::nf4_files() {
        let golden = tensors::load(&file);
        let names: Vec<&str> = golden
            .keys()
            .filter_map(|k| k.strip_suffix(".input"))
            .collect();
        assert!(names.len() > 3, "{}: no cases", file.display());
        for name in names {
            let what = format!("{}: {name}", file.display());
            let get = |key: &str| &golden[&format!("{name}.{key}")];
            let dir = TempDir::new().unwrap();
            let (base, double, plain, dense) = (
                dir.path().join("base"),
                dir.path().join("double"),
                dir.path().join("plain"),
                dir.path().join("dense"),
            );
            carrier(&base, get("input"));
            run(&["quantize", "--base", arg(&base), "--out", arg(&double)]).ok();
            let mine = tensors::load(&double.join("model.safetensors"));
            assert_eq!(mine[GATE].bytes, get("packed").bytes, "{what}: codes");
            assert_scale_bytes(
                &what,
                &mine[&format!("{GATE}.absmax")].bytes,
                &get("nested.absmax").bytes,
                Some(&get("nested.absmax_exact").bytes),
            );
            let nested = &mine[&format!("{GATE}.nested_absmax")];
            assert_eq!(
                nested.bytes,
                get("nested.nested_absmax").bytes,
                "{what}: nested absmax"
            );
            let offset = state(&mine, GATE)["nested_offset"].as_f64().unwrap() as f32;
            assert_eq!(offset, get("nested.offset").f32()[0], "{what}: offset");

            run(&[
                "quantize",
                "--base",
                arg(&base),
                "--out",
                arg(&plain),
                "--no-double-quant",
            ])
            .ok();
            let single = tensors::load(&plain.join("model.safetensors"));
            assert_eq!(single[GATE].bytes, get("packed").bytes, "{what}: codes");
            assert_eq!(
                single[&format!("{GATE}.absmax")].f32(),
                get("absmax").f32(),
                "{what}: absmax"
            );

            run(&["dequantize", "--base", arg(&double), "--out", arg(&dense)]).ok();
            let back = tensors::load(&dense.join("model.safetensors"));
            assert_eq!(back[GATE].shape, get("input").shape, "{what}");
            let want = dequantized(&mine);
            let got = back[GATE].f32();
            let same = got.iter().zip(&want).all(|(g, w)| g == w);
            assert!(same, "{what}: dequantized values differ from code x absmax");
        }
    }
}

/// Embeddings, norms and biases pass through untouched, and quantizing leaves its input alone.
#[test]
fn what_is_not_a_linear_stays_as_it_was() {
    let dir = TempDir::new().unwrap();
    let base = own().join("llama_ragged/base");
    let out = dir.path().join("out");
    run(&["quantize", "--base", arg(&base), "--out", arg(&out)]).ok();
    let (before, after) = (
        tensors::load(&base.join("model.safetensors")),
        tensors::load(&out.join("model.safetensors")),
    );
    let mut untouched = 0;
    for (name, tensor) in &before {
        if name.contains("norm") || name.contains("embed") || name.ends_with(".bias") {
            assert_eq!(after[name].bytes, tensor.bytes, "{name}");
            untouched += 1;
        }
    }
    assert!(untouched > 10, "norms, biases and the embedding");
    // A second run must not overwrite the first.
    run(&["quantize", "--base", arg(&base), "--out", arg(&out)]).refused(&["out"]);
    // And quantizing what is quantized is refused rather than done twice.
    let again = dir.path().join("again");
    run(&["quantize", "--base", arg(&out), "--out", arg(&again)]).refused(&["quantized"]);
    assert!(!again.exists());
}
