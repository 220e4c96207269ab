//! Real adapters and goldens in and out, and adapters that belong elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use super::*;
use crate::models::llama::LlamaConfig;

fn shared(path: &str) -> Option<Vec<u8>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let root = std::env::var("QLOOM_SHARED").unwrap_or_else(|_| default.into());
    let bytes = std::fs::read(format!("{root}/{path}")).ok();
    if bytes.is_none() {
        eprintln!("skipped: {path} is absent");
    }
    bytes
}

fn files(dir: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    Some((
        shared(&format!("{dir}/adapter_config.json"))?,
        shared(&format!("{dir}/adapter_model.safetensors"))?,
    ))
}

#[test]
fn saved_again_nothing_is_lost() {
    for dir in [
        "data/lora_adapters/distilbert_imdb_tashu",
        "data/lora_adapters/tinyllama_arona_finetuned_ckpt75",
        "data/lora_adapters/tinyllama_arona_lora_ckpt180",
        "reference/golden/llama_1/adapter_rs",
        "reference/golden/llama_1/adapter_final_nf4",
        "reference/golden/merge_1/adapters/rs",
        "reference/golden/distilbert_1/adapter_init",
    ] {
        let Some((config, weights)) = files(dir) else {
            return;
        };
        let adapter = Adapter::from_bytes(&config, &weights).unwrap();
        let (config_again, weights_again) = adapter.to_bytes().unwrap();
        assert!(weights_again == weights, "{dir}: the files differ");
        let json = |b: &[u8]| serde_json::from_slice::<serde_json::Value>(b).unwrap();
        assert_eq!(json(&config_again), json(&config), "{dir}");
        assert!(!adapter.modules().unwrap().is_empty());
    }
}

#[test]
fn patterns_rslora_and_heads_are_resolved() {
    let Some((config, weights)) = files("reference/golden/llama_1/adapter_rs") else {
        return;
    };
    let modules = Adapter::from_bytes(&config, &weights)
        .unwrap()
        .modules()
        .unwrap();
    let of = |path: &str| modules.iter().find(|m| m.path == path).unwrap();
    let q = of("model.layers.0.self_attn.q_proj");
    assert_eq!(
        (q.rank, q.alpha, q.in_features, q.out_features),
        (2, 8.0, 128, 128)
    );
    assert!((q.scaling - 8.0 / 2f64.sqrt()).abs() < 1e-12);
    let v = of("model.layers.3.self_attn.v_proj");
    assert_eq!(
        (v.rank, v.alpha, v.scaling, v.out_features),
        (4, 32.0, 16.0, 32)
    );
    assert_eq!(of("model.layers.1.mlp.down_proj").rank, 6);
    assert_eq!(of("model.layers.2.mlp.down_proj").rank, 4);
    assert_eq!(modules.len(), 28);

    let Some((config, weights)) = files("data/lora_adapters/distilbert_imdb_tashu") else {
        return;
    };
    let adapter = Adapter::from_bytes(&config, &weights).unwrap();
    let saved: Vec<_> = adapter.saved().into_keys().collect();
    assert_eq!(
        saved,
        [
            "classifier.bias",
            "classifier.weight",
            "pre_classifier.bias",
            "pre_classifier.weight"
        ]
    );
    assert_eq!(adapter.paths().count(), 12);
}

#[test]
fn an_adapter_for_another_base_is_refused() {
    let (Some((config, weights)), Some(base)) = (
        files("reference/golden/llama_1/adapter_init"),
        shared("reference/golden/llama_1/base/config.json"),
    ) else {
        return;
    };
    let adapter = Adapter::from_bytes(&config, &weights).unwrap();
    let base = LlamaConfig::from_json(&base).unwrap();
    let check = |c: &LlamaConfig| adapter.validate(&c.linear_modules(), &c.expected_tensors());
    check(&base).unwrap();
    let e = check(&LlamaConfig {
        hidden_size: 64,
        ..base.clone()
    })
    .unwrap_err()
    .to_string();
    for word in [
        "another base",
        "lora_A.weight",
        "[8, 64]",
        "[8, 128]",
        "golden/llama_1/base",
    ] {
        assert!(e.contains(word), "{word}: {e}");
    }
    let e = check(&LlamaConfig {
        num_hidden_layers: 2,
        ..base
    })
    .unwrap_err()
    .to_string();
    assert!(
        e.contains("model.layers.2.self_attn") && e.contains("q_proj, up_proj, v_proj"),
        "{e}"
    );
}

fn pair(path: &str) -> LoraModule {
    LoraModule {
        path: path.into(),
        a: vec![0.5; 6],
        b: vec![0.25; 8],
        rank: 2,
        in_features: 3,
        out_features: 4,
        alpha: 4.0,
        scaling: 2.0,
        dropout: 0.0,
    }
}

fn config() -> PeftConfig {
    PeftConfig {
        r: 2,
        lora_alpha: 4.0,
        ..PeftConfig::default()
    }
}

#[test]
fn built_from_parts_it_reads_back() {
    let head = OwnedTensor::from_f32(vec![1, 2], &[1.0, 2.0]).unwrap();
    let parts = [pair("a.q_proj"), pair("b.q_proj")];
    let config = PeftConfig {
        modules_to_save: Some(vec!["lm_head".into()]),
        ..config()
    };
    let built = Adapter::new(
        config.clone(),
        &parts,
        vec![("lm_head.weight".into(), head.clone())],
    )
    .unwrap();
    let (json, bytes) = built.to_bytes().unwrap();
    let read = Adapter::from_bytes(&json, &bytes).unwrap();
    assert_eq!(read, built);
    assert_eq!(read.modules().unwrap(), parts);
    assert_eq!(read.saved(), BTreeMap::from([("lm_head.weight", &head)]));

    let e = Adapter::new(config, &parts, vec![])
        .unwrap_err()
        .to_string();
    assert!(e.contains("lm_head"), "{e}");
    let mut short = pair("a.q_proj");
    short.a.pop();
    let e = Adapter::new(self::config(), &[short], vec![])
        .unwrap_err()
        .to_string();
    assert!(e.contains("a.q_proj.lora_A.weight"), "{e}");
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let whole = Adapter::new(config(), &[pair("a.q_proj")], vec![]).unwrap();
    let with = |change: &dyn Fn(&mut Adapter)| {
        let mut bad = whole.clone();
        change(&mut bad);
        let (json, bytes) = bad.to_bytes().unwrap();
        Adapter::from_bytes(&json, &bytes)
            .and_then(|a| a.modules())
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let b_key = "base_model.model.a.q_proj.lora_B.weight";
    assert!(with(&|a| drop(a.tensors.remove(b_key))).contains(b_key));
    assert!(with(&|a| a.tensors.clear()).contains("lora_A"));
    assert!(with(&|a| a.config.r = 3).contains("[3, 3]"));
    let one = || OwnedTensor::from_f32(vec![1], &[0.0]).unwrap();
    let dora = "base_model.model.a.q_proj.lora_magnitude_vector";
    assert!(with(&|a| drop(a.tensors.insert(dora.into(), one()))).contains("DoRA"));
    assert!(with(&|a| a.config.use_dora = true).contains(dora));
    assert!(with(&|a| a.config.peft_type = "HIRA".into()).contains("another method"));
    assert!(with(&|a| a.config.peft_type = "LOHA".into()).contains("LOHA"));
    let (json, bytes) = whole.to_bytes().unwrap();
    assert!(Adapter::from_bytes(&json, &bytes[..bytes.len() - 1]).is_err());
    assert!(Adapter::from_bytes(b"[]", &bytes).is_err());
}

#[test]
fn dora_and_hira_read_back_and_are_not_taken_for_plain_pairs() {
    let magnitude = OwnedTensor::from_f32(vec![4], &[1.0, 2.0, 3.0, 4.0]).unwrap();
    let dora = PeftConfig {
        use_dora: true,
        ..config()
    };
    let extra = vec![("a.q_proj.lora_magnitude_vector".to_owned(), magnitude)];
    let hira = PeftConfig {
        peft_type: "HIRA".into(),
        init_lora_weights: serde_json::Value::Bool(true),
        lora_alpha: PeftConfig::default().lora_alpha,
        ..config()
    };
    for (config, extra, kind) in [(dora, extra, Kind::Dora), (hira, vec![], Kind::Hira)] {
        let built = Adapter::new(config, &[pair("a.q_proj")], extra).unwrap();
        let (json, bytes) = built.to_bytes().unwrap();
        let read = Adapter::from_bytes(&json, &bytes).unwrap();
        assert_eq!(read, built);
        assert_eq!(read.kind(), kind);
        assert!(read.saved().is_empty());
        assert_eq!(read.pairs().unwrap().len(), 1);
        let error = read.modules().unwrap_err().to_string();
        assert!(error.contains(&kind.to_string()), "{error}");
        let linears = |out| [("a.q_proj".to_owned(), [out, 3])];
        read.validate(&linears(4), &[]).unwrap();
        read.validate(&linears(5), &[]).unwrap_err();
    }
}
