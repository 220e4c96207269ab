//! Encoder and classifier against transformers' numbers, and what the layout of a batch must not change.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor};

use super::{BertBuilder, BertClassifier, BertConfig, BertError, load_classifier};
use crate::adapters::Adapter;
use crate::data::Batch;
use crate::host::block_on;
use crate::lora::overlay;
use crate::models::embedding::EmbeddingPlace;
use crate::models::load::{BaseQuantization, LoadOptions};
use crate::models::random::RandomWeights;
use crate::weights::{Catalog, FileHeader, PartialSource, SafetensorsSource, WeightSource};

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden")
        .join(case)
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn options(dtype: DType) -> LoadOptions {
    LoadOptions {
        quantization: BaseQuantization::None,
        dtype,
        max_positions: None,
        embedding: EmbeddingPlace::Device,
    }
}

fn model(folder: &Path, dtype: DType) -> BertClassifier {
    let config = BertConfig::from_json(&read(&folder.join("config.json"))).unwrap();
    let bytes = read(&folder.join("model.safetensors"));
    let source = SafetensorsSource::single("model.safetensors", bytes).unwrap();
    load_classifier(
        &config,
        &source,
        options(dtype),
        &Device::flex(),
        &mut |_, _| {},
    )
    .unwrap()
}

struct Golden(SafetensorsSource<Vec<u8>>);

impl Golden {
    fn open(case: &str) -> Self {
        let bytes = read(&golden(case).join("golden.safetensors"));
        Self(SafetensorsSource::single("golden.safetensors", bytes).unwrap())
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.0.get(name).unwrap().to_f32().unwrap()
    }

    fn ints(&self, name: &str) -> Vec<u32> {
        let tensor = self.0.get(name).unwrap();
        let (words, _) = tensor.bytes.as_chunks::<8>();
        words
            .iter()
            .map(|w| i64::from_le_bytes(*w) as u32)
            .collect()
    }

    /// The batch as it was padded, with its pairs where `typed`.
    fn batch(&self, typed: bool) -> Batch {
        let shape = self.0.spec("input_ids").unwrap().shape;
        let (ids, mask) = (self.ints("input_ids"), self.ints("attention_mask"));
        let rows: Vec<Vec<u32>> = ids.chunks(shape[1]).map(<[u32]>::to_vec).collect();
        let mut batch = Batch::of_sequences(&rows);
        batch.segment_ids = mask;
        if typed {
            batch.token_type_ids = self.ints("token_type_ids");
        }
        batch
    }
}

fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    block_on(crate::host::to_vec(tensor)).unwrap()
}

/// The largest difference at real tokens, relative to the largest value expected.
fn error(found: &[f32], expected: &[f32], mask: &[u32]) -> f32 {
    let width = found.len() / mask.len();
    let seen = |i: usize| mask[i / width] != 0;
    let size = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let off = (0..found.len()).filter(|&i| seen(i));
    off.map(|i| (found[i] - expected[i]).abs())
        .fold(0.0, f32::max)
        / size
}

#[test]
fn hidden_states_of_every_layer_equal_the_reference() {
    for case in ["distilbert_tiny", "bert_tiny"] {
        let (golden_case, encoder) = (
            Golden::open(case),
            model(&golden(case).join("base"), DType::F32).encoder,
        );
        let batch = golden_case.batch(false);
        for layer in 0..=encoder.blocks.len() {
            let states = encoder.hidden_states(&batch, layer).unwrap();
            assert_eq!(
                states.dims(),
                [batch.rows, batch.width, encoder.config.hidden_size]
            );
            let expected = golden_case.floats(&format!("hidden|{layer}"));
            let error = error(&to_vec(states), &expected, &batch.segment_ids);
            assert!(error < 1e-5, "{case} layer {layer}: {error}");
        }
        assert!(matches!(
            encoder.hidden_states(&batch, 9),
            Err(BertError::Layer { found: 9, last: 2 })
        ));
    }
}

#[test]
fn the_second_text_of_a_pair_is_told_apart() {
    let (golden_case, encoder) = (
        Golden::open("bert_tiny"),
        model(&golden("bert_tiny").join("base"), DType::F32).encoder,
    );
    let batch = golden_case.batch(true);
    let states = encoder.hidden_states(&batch, 2).unwrap();
    let expected = golden_case.floats("pair_hidden");
    let off = error(&to_vec(states.clone()), &expected, &batch.segment_ids);
    assert!(off < 1e-5, "{off}");
    let untyped = encoder.hidden_states(&golden_case.batch(false), 2).unwrap();
    assert!(error(&to_vec(untyped), &expected, &batch.segment_ids) > 1e-2);
    // The head lives in the quantized base only; its dense twin gives the pairs' logits.
    let whole = model(&golden("bert_tiny").join("base_nf4"), DType::F32);
    assert_eq!(to_vec(whole.logits(&batch).unwrap()).len(), 4 * 3);
}

#[test]
fn embedding_gives_each_sequence_its_own_states_whatever_it_is_padded_with() {
    let encoder = model(&golden("distilbert_tiny").join("base"), DType::F32).encoder;
    let sequences = vec![vec![5, 6, 7], vec![9], vec![8, 7, 6, 5, 4, 3]];
    let together = block_on(encoder.embed(&sequences, 2)).unwrap();
    for (sequence, states) in sequences.iter().zip(&together) {
        assert_eq!(states.len(), sequence.len() * encoder.config.hidden_size);
        let alone = block_on(encoder.embed(std::slice::from_ref(sequence), 2)).unwrap();
        let mask = vec![1; sequence.len()];
        assert!(error(states, &alone[0], &mask) < 1e-5);
    }
}

#[test]
fn documents_side_by_side_answer_as_they_do_alone() {
    let classifier = model(&golden("distilbert_tiny").join("base"), DType::F32);
    let draw = |seed: usize, len: usize| -> Vec<u32> {
        (0..len)
            .map(|i| (3 + (seed * 31 + i * 17) % 60) as u32)
            .collect()
    };
    // Enough tokens for several rows of the layout, the longest document as long as the model takes.
    let sequences: Vec<Vec<u32>> = (0..70).map(|i| draw(i, 1 + (i * 11) % 24)).collect();
    let together = to_vec(classifier.logits(&Batch::of_sequences(&sequences)).unwrap());
    let mask = [1; 3];
    for (sequence, logits) in sequences.iter().zip(together.chunks(3)) {
        let alone = Batch::of_sequences(std::slice::from_ref(sequence));
        let alone = to_vec(classifier.logits(&alone).unwrap());
        assert!(error(logits, &alone, &mask) < 1e-5, "{sequence:?}");
    }
}

#[test]
fn half_precision_stays_near() {
    let golden_case = Golden::open("distilbert_tiny");
    let batch = golden_case.batch(false);
    let expected = golden_case.floats("base_logits");
    for (dtype, limit) in [(DType::BF16, 6e-2), (DType::F16, 1e-2)] {
        let found = model(&golden("distilbert_tiny").join("base"), dtype);
        let logits = to_vec(found.logits(&batch).unwrap());
        let off = error(&logits, &expected, &vec![1; logits.len()]);
        assert!(off < limit, "{dtype:?}: {off}");
    }
}

#[test]
fn what_the_tables_have_no_row_for_is_refused() {
    let classifier = model(&golden("distilbert_tiny").join("base"), DType::F32);
    let refused = |ids: Vec<u32>| {
        let batch = Batch::of_sequences(&[ids]);
        classifier.logits(&batch).unwrap_err().to_string()
    };
    let error = refused(vec![3, 71]);
    assert!(
        error.contains("token id 71") && error.contains("71"),
        "{error}"
    );
    assert!(refused(vec![3; 25]).contains("position 24"));
}

/// The published DistilBERT configuration with random weights, and a real adapter of it with its head.
#[test]
fn the_real_imdb_adapter_loads_with_its_head() {
    let shared = std::env::var_os("QLOOM_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let folder = shared.join("data/lora_adapters/distilbert_imdb_tashu");
    if !folder.is_dir() {
        eprintln!(
            "skipped: no adapter at {} (set QLOOM_SHARED)",
            folder.display()
        );
        return;
    }
    let config = br#"{"model_type":"distilbert","activation":"gelu","architectures":["DistilBertForMaskedLM"],
        "attention_dropout":0.1,"dim":768,"dropout":0.1,"hidden_dim":3072,"initializer_range":0.02,
        "max_position_embeddings":512,"n_heads":12,"n_layers":6,"pad_token_id":0,"qa_dropout":0.1,
        "seq_classif_dropout":0.2,"sinusoidal_pos_embds":false,"tie_weights_":true,"vocab_size":30522}"#;
    let config = BertConfig::from_json(config).unwrap();
    let source = RandomWeights::new(config.encoder_tensors(), 0.02, 1);
    let options = LoadOptions {
        quantization: BaseQuantization::Nf4 { double_quant: true },
        ..options(DType::F32)
    };
    let base = load_classifier(&config, &source, options, &Device::flex(), &mut |_, _| {}).unwrap();
    let batch = Batch::of_sequences(&[vec![101, 2307, 3185, 102], vec![101, 6659, 102]]);
    let error = base.logits(&batch).unwrap_err().to_string();
    assert!(error.contains("no trained classification head"), "{error}");

    let adapter = Adapter::from_bytes(
        &read(&folder.join("adapter_config.json")),
        &read(&folder.join("adapter_model.safetensors")),
    )
    .unwrap();
    let saved = adapter.saved();
    assert!(saved.contains_key("pre_classifier.weight") && saved.contains_key("classifier.bias"));
    adapter
        .validate(&config.linear_modules(), &config.expected_tensors(2))
        .unwrap();
    let adapted = base.with(&overlay(&adapter, &Device::flex()).unwrap());
    let logits = to_vec(adapted.logits(&batch).unwrap());
    assert_eq!(logits.len(), 4);
    assert!(logits.iter().all(|l| l.is_finite()));
    // The classifier is the adapter's own.
    let (_, classifier) = adapted.head.parts().unwrap();
    let bias = to_vec(classifier.bias.clone().unwrap());
    assert_eq!(bias, saved["classifier.bias"].to_f32().unwrap());
}

#[test]
fn parts_from_ranges_of_a_file_are_the_classifier_from_the_whole() {
    for (case, folder, nf4) in [
        ("distilbert_tiny", "base", false),
        ("bert_tiny", "base_nf4", true),
    ] {
        let folder = golden(case).join(folder);
        let quantization = match nf4 {
            true => BaseQuantization::Nf4 { double_quant: true },
            false => BaseQuantization::None,
        };
        let config = BertConfig::from_json(&read(&folder.join("config.json"))).unwrap();
        let file = read(&folder.join("model.safetensors"));
        let whole = SafetensorsSource::single("m", &file).unwrap();
        let header = FileHeader::parse("m", &file).unwrap();
        let catalog = Catalog::new(vec![("m".to_owned(), header)]).unwrap();
        config
            .validate_names(&PartialSource::new(&catalog))
            .unwrap();
        let batch = Batch::of_sequences(&[vec![5, 6, 7], vec![9]]);
        for embedding in [EmbeddingPlace::Device, EmbeddingPlace::Host] {
            let options = LoadOptions {
                quantization,
                embedding,
                ..options(DType::F32)
            };
            let mut builder = BertBuilder::new(&config, options, &Device::flex());
            for part in builder.parts() {
                let mut source = PartialSource::new(&catalog);
                for range in catalog.ranges(&builder.tensors(part, &source)).unwrap() {
                    let bytes = range.bytes.start as usize..range.bytes.end as usize;
                    source.hold(&range, file[bytes].to_vec()).unwrap();
                }
                builder.add(part, &source).unwrap();
            }
            let found = builder.finish().unwrap();
            let options = LoadOptions {
                embedding: EmbeddingPlace::Device,
                ..options
            };
            let device = Device::flex();
            let expected = load_classifier(&config, &whole, options, &device, &mut |_, _| {});
            assert_eq!(
                to_vec(found.logits(&batch).unwrap()),
                to_vec(expected.unwrap().logits(&batch).unwrap()),
                "{case} {embedding:?}"
            );
        }
    }
}
