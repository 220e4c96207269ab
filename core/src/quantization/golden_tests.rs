//! Against bitsandbytes: the stored golden and, where `QLOOM_NF4_GOLDENS` names a folder, every further seed drawn there.

use super::*;
use crate::weights::{HostTensor, OwnedTensor, SafetensorsSource, WeightSource, serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

type Source = SafetensorsSource<Vec<u8>>;

fn shared() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    std::env::var_os("QLOOM_SHARED").map_or_else(|| default.into(), PathBuf::from)
}

fn open(path: &std::path::Path) -> Option<Source> {
    match std::fs::read(path) {
        Ok(bytes) => Some(SafetensorsSource::single("golden", bytes).unwrap()),
        Err(_) => {
            eprintln!("skipped: {} is absent", path.display());
            None
        }
    }
}

fn goldens() -> Vec<Source> {
    let mut paths = vec![shared().join("reference/golden/nf4_1.safetensors")];
    if let Some(dir) = std::env::var_os("QLOOM_NF4_GOLDENS") {
        paths.extend(std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()));
    }
    paths.iter().filter_map(|p| open(p)).collect()
}

const CASES: [&str; 7] = [
    "main",
    "zeros_extremes",
    "ties",
    "ragged",
    "tail",
    "bf16_in",
    "many_blocks",
];

#[test]
fn codes_scales_and_values_are_bitsandbytes() {
    for g in goldens() {
        assert_eq!(g.get("nf4_code").unwrap().to_f32().unwrap(), NF4_CODEBOOK);
        assert_eq!(
            g.get("nf4_bounds").unwrap().to_f32().unwrap(),
            NF4_MIDPOINTS
        );
        assert_eq!(g.get("dyn_code").unwrap().to_f32().unwrap(), DYNAMIC_MAP);
        for case in CASES {
            let f32s = |k: &str| g.get(&format!("{case}.{k}")).unwrap().to_f32().unwrap();
            let bytes = |k: &str| g.get(&format!("{case}.{k}")).unwrap().bytes.into_owned();
            let input = g.get(&format!("{case}.input")).unwrap();
            let x = input.to_f32().unwrap();

            let plain = Nf4Tensor::quantize(&x, &input.shape, 64, false).unwrap();
            assert_eq!(plain.codes, bytes("packed"), "{case} codes");
            assert_eq!(plain.absmax_f32(), f32s("absmax"), "{case} absmax");
            assert_eq!(
                plain.dequantize().unwrap(),
                f32s("dequant"),
                "{case} values"
            );

            let double = Nf4Tensor::quantize(&x, &input.shape, 64, true).unwrap();
            let Absmax::Double {
                codes,
                nested_absmax,
                offset,
                ..
            } = &double.absmax
            else {
                panic!("{case}")
            };
            assert_eq!(double.codes, plain.codes);
            assert_eq!([*offset][..], f32s("nested.offset"), "{case} offset");
            assert_eq!(
                *nested_absmax,
                f32s("nested.nested_absmax"),
                "{case} nested absmax"
            );
            assert_eq!(*codes, bytes("nested.absmax"), "{case} nested codes");

            assert_eq!(
                double.absmax_f32(),
                f32s("nested.absmax_deq"),
                "{case} nested scales"
            );
            assert_eq!(
                double.dequantize().unwrap(),
                f32s("nested.dequant"),
                "{case} nested values"
            );
        }
    }
}

#[test]
fn the_stored_layout_is_bitsandbytes() {
    for g in goldens() {
        let theirs = read_bnb(&g, "hf.lin.weight").unwrap();
        for (name, t) in write_bnb("hf.lin.weight", &theirs).unwrap() {
            assert_eq!(t, g.get(&name).unwrap(), "{name}");
        }
        let x = g.get("main.input").unwrap();
        let ours = Nf4Tensor::quantize(&x.to_f32().unwrap(), &x.shape, 64, true).unwrap();
        assert_eq!(ours, theirs);
    }
}

fn llama(folder: &str) -> Option<(Source, Vec<u8>)> {
    let dir = shared().join("reference/golden").join(folder);
    Some((
        open(&dir.join("model.safetensors"))?,
        std::fs::read(dir.join("config.json")).ok()?,
    ))
}

#[test]
fn a_quantized_checkpoint_is_what_transformers_saves() {
    for model in ["llama_1", "distilbert_1"] {
        let (Some((base, config)), Some((theirs, their_config))) = (
            llama(&format!("{model}/base")),
            llama(&format!("{model}/base_nf4")),
        ) else {
            return;
        };
        let mut calls = Vec::new();
        let options = QuantizeOptions::default();
        let (file, report) = quantize_checkpoint(&base, &config, &options, Vec::new(), |a, b| {
            calls.push((a, b))
        })
        .unwrap();
        assert_eq!(report.total_bytes, file.len() as u64);
        assert_eq!(
            calls.last(),
            Some(&(base.names().len(), base.names().len()))
        );
        let ours = SafetensorsSource::single("ours", file).unwrap();
        assert_eq!(ours.names(), theirs.names());
        for name in ours.names() {
            let (a, b) = (ours.get(&name).unwrap(), theirs.get(&name).unwrap());
            if name.contains("quant_state") {
                let json = |t: &HostTensor<'_>| {
                    serde_json::from_slice::<serde_json::Value>(&t.bytes).unwrap()
                };
                assert_eq!(json(&a), json(&b), "{name}");
            } else {
                assert_eq!(a, b, "{name}");
            }
        }
        let json = |b: &[u8]| {
            serde_json::from_slice::<serde_json::Value>(b).unwrap()["quantization_config"].clone()
        };
        let (a, mut b) = (json(&report.config_json), json(&their_config));
        if let (Some(a), Some(b)) = (
            a["llm_int8_skip_modules"].as_array(),
            b["llm_int8_skip_modules"].as_array_mut(),
        ) {
            b.sort_by_key(|v| v.to_string());
            assert_eq!(a, b);
        }
        assert_eq!(a, b);

        let (dense, report) =
            dequantize_checkpoint(&ours, &report.config_json, None, Vec::new(), |_, _| ()).unwrap();
        let dense = SafetensorsSource::single("dense", dense).unwrap();
        assert_eq!(dense.names(), base.names());
        assert!(!report.config_json.windows(12).any(|w| w == b"quantization"));
        for name in dense.names() {
            assert_eq!(dense.spec(&name), base.spec(&name));
        }
    }
}

fn small(odd: usize) -> Source {
    let f = |n: usize| (0..n).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>();
    let list = [
        ("model.embed_tokens.weight", vec![5, odd]),
        ("model.layers.0.self_attn.q_proj.weight", vec![odd, odd]),
        ("model.layers.0.mlp.up_proj.weight", vec![2 * odd, odd]),
        ("model.norm.weight", vec![odd]),
    ]
    .map(|(n, s)| {
        (
            n.to_string(),
            OwnedTensor::from_f32(s.clone(), &f(s.iter().product())).unwrap(),
        )
    });
    let half = vec![odd];
    let bytes: Vec<u8> = (0..odd)
        .flat_map(|i| half::bf16::from_f32(i as f32).to_le_bytes())
        .collect();
    let mut list = list.to_vec();
    list.push((
        "model.a_bf16".into(),
        HostTensor::new(crate::weights::Dtype::BF16, half, bytes).unwrap(),
    ));
    SafetensorsSource::single("small", serialize(&list, &BTreeMap::new()).unwrap()).unwrap()
}

#[test]
fn awkward_shapes_round_trip_and_stay_aligned() {
    for (odd, double_quant) in [(1, true), (3, false), (7, true), (64, false), (65, true)] {
        let source = small(odd);
        let options = QuantizeOptions {
            double_quant,
            skip_modules: vec!["up_proj".into()],
            source_fingerprint: Some("f0".into()),
        };
        let (file, report) =
            quantize_checkpoint(&source, b"{}", &options, Vec::new(), |_, _| ()).unwrap();
        assert_eq!((report.converted, report.copied), (1, 4));
        let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let json: serde_json::Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
        for (name, entry) in json.as_object().unwrap() {
            let at = entry["data_offsets"][0].as_u64().unwrap_or(0);
            let align = match entry["dtype"].as_str() {
                Some("F32") => 4,
                Some("BF16") => 2,
                _ => 1,
            };
            assert_eq!(at % align, 0, "{name}");
        }
        let q = SafetensorsSource::single("q", file).unwrap();
        assert_eq!(q.metadata()[SOURCE_FINGERPRINT], "f0");
        let name = "model.layers.0.self_attn.q_proj.weight";
        let x = source.get(name).unwrap().to_f32().unwrap();
        let want = Nf4Tensor::quantize(&x, &[odd, odd], 64, double_quant).unwrap();
        assert_eq!(read_bnb(&q, name).unwrap(), want);
        assert!(matches!(
            quantize_checkpoint(&q, b"{}", &options, Vec::new(), |_, _| ()),
            Err(QuantizationError::AlreadyQuantized { .. })
        ));
        let (dense, _) = dequantize_checkpoint(&q, b"{}", None, Vec::new(), |_, _| ()).unwrap();
        let dense = SafetensorsSource::single("d", dense).unwrap();
        assert_eq!(
            dense.get(name).unwrap().to_f32().unwrap(),
            want.dequantize().unwrap()
        );
    }
}

#[test]
fn other_quantizations_and_broken_states_are_refused() {
    let u8s = |n: usize| OwnedTensor::from_u8(vec![n], vec![0; n]).unwrap();
    let source = |names: &[&str]| {
        let list: Vec<_> = names.iter().map(|n| (n.to_string(), u8s(2))).collect();
        SafetensorsSource::single("x", serialize(&list, &BTreeMap::new()).unwrap()).unwrap()
    };
    for (names, word) in [
        (
            ["a.weight", "a.weight.quant_state.bitsandbytes__fp4"],
            "FP4",
        ),
        (["a.weight", "a.SCB"], "int8"),
        (["a.weight", "a.qweight"], "GPTQ"),
    ] {
        let e = stored_format(&source(&names), "a.weight")
            .unwrap_err()
            .to_string();
        assert!(e.contains(word) && e.contains("a.weight"), "{e}");
    }
    assert!(
        read_bnb(
            &source(&["a.weight", "a.weight.quant_state.bitsandbytes__nf4"]),
            "a.weight"
        )
        .is_err()
    );

    let good = Nf4Tensor::quantize(&[0.5; 128], &[2, 64], 64, true).unwrap();
    let whole = write_bnb("a.weight", &good).unwrap();
    for skip in 1..whole.len() {
        let list: Vec<_> = whole
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != skip)
            .map(|(_, t)| t.clone())
            .collect();
        let s =
            SafetensorsSource::single("x", serialize(&list, &BTreeMap::new()).unwrap()).unwrap();
        assert!(
            read_bnb(&s, "a.weight").is_err(),
            "without {}",
            whole[skip].0
        );
    }
    let mut short = whole.clone();
    let codes = short.iter_mut().find(|(n, _)| n == "a.weight").unwrap();
    codes.1 = OwnedTensor::from_u8(vec![63, 1], vec![0; 63]).unwrap();
    let s = SafetensorsSource::single("x", serialize(&short, &BTreeMap::new()).unwrap()).unwrap();
    let e = read_bnb(&s, "a.weight").unwrap_err().to_string();
    assert!(
        e.contains("a.weight") && e.contains("64") && e.contains("63"),
        "{e}"
    );

    let nothing = SafetensorsSource::single(
        "x",
        serialize(&[("n".into(), u8s(1))], &BTreeMap::new()).unwrap(),
    );
    assert!(matches!(
        quantize_checkpoint(
            &nothing.unwrap(),
            b"{}",
            &QuantizeOptions::default(),
            Vec::new(),
            |_, _| ()
        ),
        Err(QuantizationError::NothingToQuantize { found: 1 })
    ));
}
