//! `trainer bench`: this machine's speed beside its floor.

use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::{DType, Device, Distribution, Tensor};
use qloom_core::data::Batch;
use qloom_core::host::{block_on, to_scalar, to_vec};
use qloom_core::kernels::nf4_matmul::Nf4Weight;
use qloom_core::lora::{LoraConfig, TargetModules, fresh_parameters};
use qloom_core::models::embedding::EmbeddingPlace;
use qloom_core::models::llama::{
    self, BaseQuantization, Llama, LlamaConfig, LoadOptions, random_weights,
};
use qloom_core::quantization::Nf4Tensor;
use qloom_core::train::{Accumulated, AdamW, Parameters, StepOptions, TrainConfig, accumulate};
use serde_json::{Value, json};

use super::{Common, UsageError};
use crate::cli::BenchArguments;
use crate::device::{self, ChosenDevice};

/// Token ids of both models.
const VOCABULARY: usize = 32_000;

/// Runs one benchmark and prints one row per measurement.
pub(super) fn run(common: &Common, arguments: BenchArguments) -> Result<()> {
    check(&arguments)?;
    let chosen = device::choose(&common.device)?;
    let dtype = device::compute_type(&arguments.dtype, &chosen)?;
    let rows = match arguments.what.as_str() {
        "step" => vec![step(&chosen, dtype, &arguments)?],
        "decode" => vec![decode(&chosen, dtype, &arguments)?],
        _ => kernels(&chosen.device)?,
    };
    for row in rows {
        if common.json {
            println!("{row}");
        } else if let Value::Object(fields) = row {
            let text: Vec<String> = fields.iter().map(|(k, v)| format!("{k} {v}")).collect();
            println!("{}", text.join("  "));
        }
    }
    Ok(())
}

/// Ranges under which there is something to measure.
fn check(arguments: &BenchArguments) -> Result<()> {
    const LONGEST: usize = 1 << 16;
    let decodes = arguments.what == "decode";
    // Decoding is prompted with distinct ids from 3 on; a trained sequence needs a next token.
    let (shortest, longest) = match decodes {
        true => (1, VOCABULARY - 3),
        false => (2, LONGEST),
    };
    for (flag, value, least, most) in [
        ("--batch", arguments.batch, 1, LONGEST),
        ("--seq", arguments.seq, shortest, longest),
        ("--steps", arguments.steps, 1, LONGEST),
    ] {
        if !(least..=most).contains(&value) {
            let message = format!("{flag} {value}: expected {least} to {most}");
            return Err(UsageError::new(message).into());
        }
    }
    Ok(())
}

/// Sizes of a published model.
fn dimensions(name: &str, positions: usize) -> Result<LlamaConfig> {
    let json = match name {
        "stories15m" => json!({
            "hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6,
            "num_key_value_heads": 6, "vocab_size": VOCABULARY, "tie_word_embeddings": true,
        }),
        _ => json!({
            "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
            "num_key_value_heads": 4, "vocab_size": VOCABULARY, "tie_word_embeddings": false,
        }),
    };
    let mut json = json;
    let common = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "max_position_embeddings": positions.max(256), "bos_token_id": 1, "eos_token_id": 2,
    });
    if let (Value::Object(sizes), Value::Object(rest)) = (&mut json, common) {
        sizes.extend(rest);
    }
    Ok(LlamaConfig::from_json(&serde_json::to_vec(&json)?)?)
}

fn random_model(chosen: &ChosenDevice, dtype: DType, arguments: &BenchArguments) -> Result<Llama> {
    let config = dimensions(&arguments.dims, arguments.seq + arguments.steps + 1)?;
    let source = random_weights(&config, 0.02, 0)?;
    let quantization = match arguments.quantization.as_str() {
        "nf4" => BaseQuantization::Nf4 { double_quant: true },
        _ => BaseQuantization::None,
    };
    let options = LoadOptions {
        quantization,
        dtype,
        max_positions: None,
        embedding: EmbeddingPlace::Device,
    };
    Ok(llama::load(
        &config,
        &source,
        options,
        &chosen.device,
        &mut |_, _| {},
    )?)
}

/// A batch of distinct ids in which every token is trained.
fn full_batch(rows: usize, width: usize, vocab: usize) -> Batch {
    let input_ids: Vec<u32> = (0..rows * width)
        .map(|i| (3 + (i * 7919) % (vocab - 3)) as u32)
        .collect();
    Batch {
        rows,
        width,
        labels: input_ids.iter().map(|&id| id as i32).collect(),
        input_ids,
        token_type_ids: Vec::new(),
        position_ids: (0..rows).flat_map(|_| 0..width as u32).collect(),
        segment_ids: vec![1; rows * width],
        target_tokens: rows * (width - 1),
        examples: (0..rows).collect(),
        classes: Vec::new(),
    }
}

/// One QLoRA training step: forward, backward, AdamW. LoRA of rank 8 on q, k, v and o, as the peer's
/// benchmark has it.
fn step(chosen: &ChosenDevice, dtype: DType, arguments: &BenchArguments) -> Result<Value> {
    let model = random_model(chosen, dtype, arguments)?;
    let lora = LoraConfig {
        target_modules: TargetModules::List(
            ["q_proj", "k_proj", "v_proj", "o_proj"]
                .map(String::from)
                .to_vec(),
        ),
        ..LoraConfig::default()
    };
    let mut parameters = Parameters::new(
        fresh_parameters(&lora, &model.config.linear_modules(), 0)?,
        &chosen.device,
    );
    let config = TrainConfig {
        lr: 1e-3,
        ..TrainConfig::default()
    };
    let mut optimizer = AdamW::new(&config, parameters.count(), &chosen.device);
    let batch = full_batch(arguments.batch, arguments.seq, model.config.vocab_size);
    let recompute = match arguments.recompute.as_str() {
        "on" => true,
        "off" => false,
        _ => arguments.dims == "tinyllama",
    };
    let options = StepOptions {
        recompute,
        loss_chunk: 512,
    };
    let mut seconds = Vec::new();
    for number in 0..=arguments.steps {
        let began = Instant::now();
        let mut sum = Accumulated::new(&parameters);
        let scale = 1.0 / batch.target_tokens as f64;
        accumulate(&model, &parameters, &batch, scale, 0, options, &mut sum);
        let loss = block_on(to_scalar(sum.loss.clone()))?;
        ensure!(loss.is_finite(), "the benchmark's loss is {loss}");
        let gradient = sum.flat(&parameters);
        parameters.values = optimizer.update(parameters.values.clone(), gradient, 1e-3, None);
        chosen.device.sync().map_err(|e| anyhow::anyhow!("{e:?}"))?;
        if number > 0 {
            seconds.push(began.elapsed().as_secs_f64());
        }
    }
    let tokens = (arguments.batch * arguments.seq) as f64;
    let (best, median) = spread(&mut seconds);
    Ok(json!({
        "bench": "step", "dims": arguments.dims, "device": chosen.name, "dtype": format!("{dtype:?}"),
        "quantization": arguments.quantization, "batch": arguments.batch, "seq": arguments.seq, "recompute": recompute,
        "tokens_per_s": round(tokens / median), "tokens_per_s_best": round(tokens / best),
        "ms_per_step": round(median * 1e3), "peak_gib": round(peak_gib(&chosen.device)),
    }))
}

/// Greedy decoding of one sequence after a short prompt.
fn decode(chosen: &ChosenDevice, dtype: DType, arguments: &BenchArguments) -> Result<Value> {
    let model = random_model(chosen, dtype, arguments)?;
    let prompt: Vec<u32> = (3..3 + arguments.seq as u32).collect();
    let mut cache = model.new_cache(1, arguments.seq + arguments.steps + 1);
    let began = Instant::now();
    let mut logits = model.step(&prompt, &[0], 0, &mut cache);
    let mut id = argmax(logits)?;
    let prefill = began.elapsed().as_secs_f64();
    let mut seconds = Vec::new();
    for past in 0..arguments.steps {
        let began = Instant::now();
        logits = model.step(&[id], &[0], arguments.seq + past, &mut cache);
        id = argmax(logits)?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    let (best, median) = spread(&mut seconds);
    Ok(json!({
        "bench": "decode", "dims": arguments.dims, "device": chosen.name, "dtype": format!("{dtype:?}"),
        "quantization": arguments.quantization, "prompt": arguments.seq, "prefill_s": round(prefill),
        "tokens_per_s": round(1.0 / median), "tokens_per_s_best": round(1.0 / best),
        "peak_gib": round(peak_gib(&chosen.device)),
    }))
}

fn argmax(logits: Tensor<2>) -> Result<u32> {
    let values = block_on(to_vec(logits))?;
    let best = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    Ok(best.map_or(0, |(i, _)| i as u32))
}

/// The NF4 product beside the dense one on the same shapes, checked equal before it is timed.
fn kernels(device: &Device) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for [m, n, k] in [
        [1, 2048, 2048],
        [128, 2048, 2048],
        [128, 5632, 2048],
        [512, 2048, 2048],
    ] {
        let weight = Tensor::<2>::random([n, k], Distribution::Normal(0.0, 0.02), device);
        let values = block_on(to_vec(weight))?;
        let packed =
            Nf4Weight::from_host(&Nf4Tensor::quantize(&values, &[n, k], 64, true)?, device);
        let dense = packed.dequantize(burn::tensor::FloatDType::F32);
        let x = Tensor::<2>::random([m, k], Distribution::Normal(0.0, 1.0), device);
        let expected = x.clone().matmul(dense.clone().transpose());
        let difference = block_on(to_scalar((packed.linear(x.clone()) - expected).abs().max()))?;
        ensure!(
            difference < 1e-3,
            "NF4 product differs from the dense one by {difference} at {m}x{n}x{k}"
        );
        let flops = 2.0 * (m * n * k) as f64;
        let time = |f: &dyn Fn() -> Tensor<2>| {
            let mut seconds: Vec<f64> = (0..12)
                .map(|_| {
                    let began = Instant::now();
                    let out = f();
                    let _ = device.sync();
                    drop(out);
                    began.elapsed().as_secs_f64()
                })
                .collect();
            spread(&mut seconds).1
        };
        let fused = time(&|| packed.linear(x.clone()));
        let plain = time(&|| x.clone().matmul(dense.clone().transpose()));
        rows.push(json!({
            "bench": "nf4_linear", "m": m, "n": n, "k": k, "nf4_gflops": round(flops / fused / 1e9),
            "dense_gflops": round(flops / plain / 1e9), "nf4_over_dense": round(plain / fused),
            "nf4_gb_per_s": round(packed.bytes() as f64 / fused / 1e9),
        }));
    }
    Ok(rows)
}

/// Best and median.
fn spread(seconds: &mut [f64]) -> (f64, f64) {
    seconds.sort_by(f64::total_cmp);
    (
        seconds.first().copied().unwrap_or(f64::NAN),
        seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN),
    )
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Peak memory in GiB.
fn peak_gib(device: &Device) -> f64 {
    const GIB: f64 = (1u64 << 30) as f64;
    crate::device::peak_bytes(device).map_or(f64::NAN, |bytes| bytes as f64 / GIB)
}
