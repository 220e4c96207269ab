//! Adapters merged into bases: the weights written, dense and quantized.

use super::*;
use crate::quantization::{Nf4Tensor, is_quantized, read_bnb};
use crate::weights::{Dtype, OwnedTensor, SafetensorsSource, WeightSource, serialize};

const WEIGHT: &str = "model.layers.0.self_attn.q_proj.weight";
const OTHER: &str = "model.layers.0.mlp.up_proj.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";
const SHAPE: [usize; 2] = [64, 32];

fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len)
        .map(|_| (f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5) as f32)
        .collect()
}

type File = SafetensorsSource<Vec<u8>>;

fn base() -> File {
    let tensor = |seed| OwnedTensor::from_f32(SHAPE.to_vec(), &values(64 * 32, seed)).unwrap();
    let list = [
        (WEIGHT.to_owned(), tensor(1)),
        (OTHER.to_owned(), tensor(2)),
        (EMBEDDING.to_owned(), tensor(3)),
    ];
    SafetensorsSource::single("base", serialize(&list, &Default::default()).unwrap()).unwrap()
}

const CONFIG: &[u8] =
    br#"{"model_type":"llama","tie_word_embeddings":true,"torch_dtype":"float32"}"#;

fn adapter(saved: Vec<(String, OwnedTensor)>) -> Adapter {
    let m = LoraModule {
        path: WEIGHT.strip_suffix(".weight").unwrap().into(),
        a: values(2 * 32, 4),
        b: values(64 * 2, 5),
        rank: 2,
        in_features: 32,
        out_features: 64,
        alpha: 4.0,
        scaling: 2.0,
        dropout: 0.0,
    };
    let mut modules: Vec<String> = saved
        .iter()
        .filter_map(|(name, _)| Some(name.rsplit_once('.')?.0.to_owned()))
        .collect();
    modules.dedup();
    let config = PeftConfig {
        r: 2,
        lora_alpha: 4.0,
        modules_to_save: (!modules.is_empty()).then_some(modules),
        ..PeftConfig::default()
    };
    Adapter::new(config, &[m], saved).unwrap()
}

fn merged(base: &File, config: &[u8], adapter: &Adapter, requantize: bool) -> (File, Vec<u8>) {
    let (bytes, report) =
        merge_into_base(base, config, adapter, requantize, Vec::new(), |_, _| {}).unwrap();
    assert_eq!(bytes.len() as u64, report.total_bytes);
    (
        SafetensorsSource::single("merged", bytes).unwrap(),
        report.config_json,
    )
}

fn expected(base: &[f32], adapter: &Adapter) -> Vec<f32> {
    let update = delta(&adapter.modules().unwrap()[0]);
    base.iter().zip(update).map(|(w, d)| w + d as f32).collect()
}

fn close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    let far = got.iter().zip(want).map(|(g, w)| (g - w).abs());
    assert!(far.fold(0.0, f32::max) <= tolerance);
}

#[test]
fn a_dense_base_changes_in_the_adapted_weights_only() {
    let (base, adapter) = (base(), adapter(vec![]));
    let (file, config) = merged(&base, CONFIG, &adapter, false);
    assert_eq!(file.names(), base.names());
    let want = expected(&base.get(WEIGHT).unwrap().to_f32().unwrap(), &adapter);
    close(&file.get(WEIGHT).unwrap().to_f32().unwrap(), &want, 1e-6);
    for same in [OTHER, EMBEDDING] {
        assert_eq!(file.get(same).unwrap(), base.get(same).unwrap());
    }
    let json = |b: &[u8]| serde_json::from_slice::<serde_json::Value>(b).unwrap();
    assert_eq!(json(&config), json(CONFIG));
    let errors = update_errors(&base, &file, &adapter).unwrap();
    assert!(UpdateError::relative(&errors).unwrap() < 1e-6);
}

#[test]
fn a_requantized_base_is_the_merged_one_quantized() {
    let (base, adapter) = (base(), adapter(vec![]));
    let (file, config) = merged(&base, CONFIG, &adapter, true);
    assert!(
        String::from_utf8(config)
            .unwrap()
            .contains("quantization_config")
    );
    let want = expected(&base.get(WEIGHT).unwrap().to_f32().unwrap(), &adapter);
    let want = Nf4Tensor::quantize(&want, &SHAPE, 64, true).unwrap();
    let got = read_bnb(&file, WEIGHT).unwrap();
    let same = got
        .codes
        .iter()
        .zip(&want.codes)
        .filter(|(a, b)| a == b)
        .count();
    assert!(
        same * 100 >= got.codes.len() * 99,
        "{same} of {}",
        got.codes.len()
    );
    assert!(is_quantized(&file, OTHER));
    let errors = update_errors(&base, &file, &adapter).unwrap();
    let relative = UpdateError::relative(&errors).unwrap();
    assert!(relative > 0.01 && relative < 0.5, "{relative}");
}

#[test]
fn a_quantized_base_keeps_what_is_not_adapted() {
    let plain = base();
    let options = crate::quantization::QuantizeOptions::default();
    let (bytes, report) =
        crate::quantization::quantize_checkpoint(&plain, CONFIG, &options, Vec::new(), |_, _| {})
            .unwrap();
    let nf4 = SafetensorsSource::single("nf4", bytes).unwrap();
    let config = report.config_json;
    let adapter = adapter(vec![]);
    let want = expected(
        &read_bnb(&nf4, WEIGHT).unwrap().dequantize().unwrap(),
        &adapter,
    );

    let (file, kept) = merged(&nf4, &config, &adapter, true);
    assert_eq!(kept, config);
    assert_eq!(file.names(), nf4.names());
    assert_eq!(
        read_bnb(&file, OTHER).unwrap(),
        read_bnb(&nf4, OTHER).unwrap()
    );
    assert_eq!(file.get(EMBEDDING).unwrap(), nf4.get(EMBEDDING).unwrap());
    let got = read_bnb(&file, WEIGHT).unwrap();
    assert_ne!(got.codes, read_bnb(&nf4, WEIGHT).unwrap().codes);
    close(&got.dequantize().unwrap(), &want, 0.3);
    // Every tensor lies aligned for readers that map the file.
    for name in file.names() {
        let spec = file.spec(&name).unwrap();
        if spec.dtype == Dtype::F32 {
            let at = file.get(&name).unwrap().bytes.as_ptr() as usize;
            let start = file.files()[0].1.as_ptr() as usize;
            assert_eq!((at - start) % 4, 0, "{name}");
        }
    }

    let (dense, config) = merged(&nf4, &config, &adapter, false);
    assert!(
        !String::from_utf8(config)
            .unwrap()
            .contains("quantization_config")
    );
    assert_eq!(dense.names(), plain.names());
    close(&dense.get(WEIGHT).unwrap().to_f32().unwrap(), &want, 1e-6);
    let other = read_bnb(&nf4, OTHER).unwrap().dequantize().unwrap();
    close(&dense.get(OTHER).unwrap().to_f32().unwrap(), &other, 0.0);
}

#[test]
fn a_trained_head_unties_itself() {
    let base = base();
    let head = OwnedTensor::from_f32(SHAPE.to_vec(), &values(64 * 32, 9)).unwrap();
    let adapter = adapter(vec![("lm_head.weight".into(), head.clone())]);
    let (file, config) = merged(&base, CONFIG, &adapter, false);
    assert_eq!(file.get("lm_head.weight").unwrap(), head);
    assert_eq!(file.get(EMBEDDING).unwrap(), base.get(EMBEDDING).unwrap());
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["tie_word_embeddings"], false);
}

/// DoRA and HiRA change a weight by their own formulas, restated here entry by entry.
#[test]
fn other_methods_merge_by_their_own_formulas() {
    let base = base();
    let plain = adapter(vec![]);
    let module = plain.modules().unwrap().remove(0);
    let weight = base.get(WEIGHT).unwrap().to_f32().unwrap();
    let product = delta(&module);
    let magnitude: Vec<f32> = values(64, 6).iter().map(|v| v + 1.0).collect();

    let dora = PeftConfig {
        use_dora: true,
        ..plain.config.clone()
    };
    let name = format!("{}.lora_magnitude_vector", module.path);
    let vector = OwnedTensor::from_f32(vec![64], &magnitude).unwrap();
    let dora = Adapter::new(dora, std::slice::from_ref(&module), vec![(name, vector)]).unwrap();
    let mut want: Vec<f64> = weight
        .iter()
        .zip(&product)
        .map(|(w, d)| f64::from(*w) + d)
        .collect();
    for (row, m) in want.chunks_mut(32).zip(&magnitude) {
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        row.iter_mut().for_each(|v| *v *= f64::from(*m) / norm);
    }
    check_formula(&base, &dora, &want);

    let hira = PeftConfig {
        peft_type: "HIRA".into(),
        ..plain.config
    };
    let hira = Adapter::new(hira, std::slice::from_ref(&module), vec![]).unwrap();
    let want: Vec<f64> = weight
        .iter()
        .zip(&product)
        // HiRA has no scaling.
        .map(|(w, d)| f64::from(*w) * (1.0 + d / module.scaling))
        .collect();
    check_formula(&base, &hira, &want);
}

fn check_formula(base: &File, adapter: &Adapter, want: &[f64]) {
    let (file, _) = merged(base, CONFIG, adapter, false);
    let got = file.get(WEIGHT).unwrap().to_f32().unwrap();
    let got: Vec<f64> = got.iter().map(|v| f64::from(*v)).collect();
    assert!(apart(&got, want) < 1e-6);
    let errors = update_errors(base, &file, adapter).unwrap();
    assert!(UpdateError::relative(&errors).unwrap() < 1e-6);
}

/// A classification head that the base lacks, or has for other classes, comes along, and a quantized base keeps it dense.
#[test]
fn a_classification_head_comes_along() {
    let tensor = |shape: &[usize], seed| {
        let count = shape.iter().product();
        OwnedTensor::from_f32(shape.to_vec(), &values(count, seed)).unwrap()
    };
    const HEAD: &str = "classifier.weight";
    let saved = vec![
        (HEAD.to_owned(), tensor(&[3, 32], 8)),
        ("classifier.bias".to_owned(), tensor(&[3], 9)),
    ];
    let adapter = adapter(saved.clone());
    let list: Vec<(String, OwnedTensor)> = [WEIGHT, OTHER]
        .map(|name| (name.to_owned(), tensor(&SHAPE, 1)))
        .into_iter()
        .chain([(HEAD.to_owned(), tensor(&[2, 32], 7))])
        .collect();
    let two = serialize(&list, &Default::default()).unwrap();
    let two = SafetensorsSource::single("two classes", two).unwrap();
    for base in [base(), two] {
        let options = crate::quantization::QuantizeOptions::default();
        let quantized = crate::quantization::quantize_checkpoint(
            &base,
            CONFIG,
            &options,
            Vec::new(),
            |_, _| {},
        );
        let (bytes, report) = quantized.unwrap();
        let nf4 = SafetensorsSource::single("nf4", bytes).unwrap();
        for (base, config) in [(&base, CONFIG), (&nf4, report.config_json.as_slice())] {
            for requantize in [false, true] {
                let (file, config) = merged(base, config, &adapter, requantize);
                for (name, want) in &saved {
                    let got = file.get(name).unwrap();
                    assert_eq!(got.shape, want.shape);
                    assert_eq!(got.to_f32().unwrap(), want.to_f32().unwrap());
                }
                assert_eq!(is_quantized(&file, WEIGHT), requantize);
                let text = String::from_utf8(config).unwrap();
                assert_eq!(text.contains("\"classifier\""), requantize, "{text}");
                update_errors(base, &file, &adapter).unwrap();
            }
        }
    }
    let other = self::adapter(vec![("pooled.weight".to_owned(), tensor(&[3, 32], 8))]);
    let e = merge_into_base(&base(), CONFIG, &other, false, Vec::new(), |_, _| {});
    assert!(e.unwrap_err().to_string().contains("pooled.weight"));
}

#[test]
fn an_adapter_of_another_base_has_no_place() {
    let mut other = adapter(vec![]);
    let (config, m) = (other.config.clone(), other.modules().unwrap().remove(0));
    let moved = LoraModule {
        path: "model.layers.7.self_attn.q_proj".into(),
        ..m.clone()
    };
    let narrow = LoraModule {
        out_features: 63,
        b: m.b[..126].to_vec(),
        ..m
    };
    for (m, word) in [(moved, "none of that name"), (narrow, "[64, 32]")] {
        other = Adapter::new(config.clone(), std::slice::from_ref(&m), vec![]).unwrap();
        let e = merge_into_base(&base(), CONFIG, &other, false, Vec::new(), |_, _| {})
            .unwrap_err()
            .to_string();
        assert!(e.contains(&m.path) && e.contains(word), "{e}");
    }
}

/// The NF4 base of these tests with other settings than the default ones.
fn nf4_base(double_quant: bool, skip: &[&str]) -> (File, Vec<u8>) {
    let options = crate::quantization::QuantizeOptions {
        double_quant,
        skip_modules: skip.iter().map(|s| (*s).to_owned()).collect(),
        ..Default::default()
    };
    let quantize = crate::quantization::quantize_checkpoint;
    let (bytes, report) = quantize(&base(), CONFIG, &options, Vec::new(), |_, _| {}).unwrap();
    let file = SafetensorsSource::single("nf4", bytes).unwrap();
    (file, report.config_json)
}

fn skipped(config: &[u8]) -> Option<Vec<String>> {
    let config = crate::quantization::QuantizationConfig::from_config_json(config).unwrap();
    config.unwrap().llm_int8_skip_modules
}

#[test]
fn an_nf4_base_whose_head_is_untied_keeps_its_settings() {
    let head = OwnedTensor::from_f32(SHAPE.to_vec(), &values(64 * 32, 9)).unwrap();
    let adapter = adapter(vec![("lm_head.weight".into(), head)]);
    let (nf4, config) = nf4_base(false, &["up_proj"]);
    assert!(!is_quantized(&nf4, OTHER));
    // The list replaces what transformers leaves dense by itself, so it names the tied head, which has no tensor.
    assert!(skipped(&config).unwrap().contains(&"lm_head".to_owned()));
    let (file, config) = merged(&nf4, &config, &adapter, true);
    assert!(is_quantized(&file, WEIGHT) && !is_quantized(&file, OTHER));
    let packed = read_bnb(&file, WEIGHT).unwrap();
    assert!(matches!(
        packed.absmax,
        crate::quantization::Absmax::Plain(_)
    ));
    let skipped = skipped(&config).unwrap();
    assert_eq!(skipped.iter().filter(|m| *m == "lm_head").count(), 1);
}

#[test]
fn a_weight_quantized_again_keeps_its_block_size() {
    let plain = base();
    let weight = plain.get(WEIGHT).unwrap().to_f32().unwrap();
    let packed = Nf4Tensor::quantize(&weight, &SHAPE, 128, true).unwrap();
    let mut list = crate::quantization::write_bnb(WEIGHT, &packed).unwrap();
    list.push((
        EMBEDDING.to_owned(),
        plain.get(EMBEDDING).unwrap().into_owned(),
    ));
    let bytes = serialize(&list, &Default::default()).unwrap();
    let nf4 = SafetensorsSource::single("nf4", bytes).unwrap();
    let (_, config) = nf4_base(true, &[]);
    let (file, _) = merged(&nf4, &config, &adapter(vec![]), true);
    let again = read_bnb(&file, WEIGHT).unwrap();
    assert_eq!(again.blocksize, 128);
    let want = expected(&packed.dequantize().unwrap(), &adapter(vec![]));
    let want = Nf4Tensor::quantize(&want, &SHAPE, 128, true).unwrap();
    let same = again.codes.iter().zip(&want.codes).filter(|(a, b)| a == b);
    assert!(same.count() * 100 >= want.codes.len() * 99);
}

#[test]
fn a_trained_embedding_takes_a_tied_head_along_only_where_the_file_says_so() {
    let table = OwnedTensor::from_f32(SHAPE.to_vec(), &values(64 * 32, 11)).unwrap();
    let plain = adapter(vec![]);
    for ties in [false, true] {
        let mut config = PeftConfig {
            modules_to_save: Some(vec!["embed_tokens".into()]),
            ..plain.config.clone()
        };
        if ties {
            config.tie_head();
        }
        let saved = vec![(EMBEDDING.to_owned(), table.clone())];
        let adapter = Adapter::new(config, &plain.modules().unwrap(), saved).unwrap();
        let (json, bytes) = adapter.to_bytes().unwrap();
        let adapter = Adapter::from_bytes(&json, &bytes).unwrap();
        // PEFT looks for both names where they are tied, and for one where they are not.
        let head = "base_model.model.lm_head.weight";
        assert_eq!(adapter.tensors.contains_key(head), ties);
        assert_eq!(adapter.saved().len(), 1);
        assert_eq!(adapter.unties_head(), !ties);
        let (file, config) = merged(&base(), CONFIG, &adapter, false);
        let of = |name: &str| file.get(name).unwrap().to_f32().unwrap();
        assert_eq!(of(EMBEDDING), table.to_f32().unwrap());
        assert_eq!(file.contains("lm_head.weight"), !ties);
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["tie_word_embeddings"], ties);
        if !ties {
            let before = base().get(EMBEDDING).unwrap().to_f32().unwrap();
            assert_eq!(of("lm_head.weight"), before);
        }
    }
}
