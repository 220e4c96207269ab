//! Devices and bases.

use super::*;
use crate::engine::Gpu;
use crate::protocol::{DeviceKind, FailureKind, FileRef, Stage};
use qloom_core::adapters::gallery::Gallery;

/// The files of the embedded base as they are dropped, in a folder of that name.
fn dropped() -> (Vec<FileRef>, Vec<Vec<u8>>) {
    let names = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    let files = names.iter().map(|n| read(embedded().join(n))).collect();
    let refs = names.iter().enumerate().map(|(attachment, n)| FileRef {
        name: format!("tiny/{n}"),
        attachment,
    });
    (refs.collect(), files)
}

#[test]
fn without_a_gpu_the_cpu_is_taken_and_the_reason_said() {
    let bench = Bench::new();
    let start = |prefer| {
        bench.ask(Request::Start {
            prefer,
            compute: None,
        })
    };
    let answer = start(None);
    let Event::Ready { device } = answer.last() else {
        panic!("{answer:?}")
    };
    assert_eq!((device.kind, device.f16), (DeviceKind::Cpu, false));
    assert_eq!(device.reason.as_deref(), Some("tests run on the CPU"));
    let failure = start(Some(DeviceKind::WebGpu)).failure().clone();
    assert_eq!(failure.kind, FailureKind::Device);
    assert!(failure.message.contains("tests run on the CPU"));
    let chosen = start(Some(DeviceKind::Cpu));
    assert!(matches!(chosen.last(), Event::Ready { .. }));
}

#[test]
fn nothing_works_before_a_device_and_a_base() {
    let bench = Bench::new();
    let options = BaseOptions::default();
    let source = url(BASE);
    let answer = bench.ask(Request::LoadBase { source, options });
    assert!(answer.failure().message.contains("no device"));
    bench.start();
    let export = Request::Export { name: "x".into() };
    assert!(bench.ask(export).failure().message.contains("\"x\""));
    let failure = bench.add_from("x", gallery("sentiment")).unwrap_err();
    assert!(failure.message.contains("no base"), "{failure:?}");
}

#[test]
fn the_embedded_base_is_streamed_with_the_fingerprint_its_adapters_name() {
    let bench = Bench::new();
    bench.start();
    let options = BaseOptions::default();
    let source = url(BASE);
    let answer = bench.ask(Request::LoadBase { source, options });
    let Event::BaseLoaded { base, dropped } = answer.last() else {
        panic!("{answer:?}")
    };
    assert!(dropped.is_empty());
    assert_eq!((base.quantization.as_str(), base.context), ("nf4", 512));
    assert_eq!((base.architecture.as_str(), base.chat), ("llama", true));
    assert!(!base.classifier && base.labels.is_empty());
    assert_eq!(base.modules.len(), 7);
    let index = read(workspace().join("web/site/adapters/index.json"));
    let index = Gallery::from_json(&index).unwrap();
    for row in &index.adapters {
        assert_eq!(row.base.fingerprint, base.fingerprint, "{}", row.slug);
    }
    let size = bench
        .around()
        .served(&format!("{BASE}/model.safetensors"))
        .len() as u64;
    let progress: Vec<(Stage, u64, u64, f64)> = answer
        .events
        .iter()
        .filter_map(|e| match e {
            Event::Progress {
                stage,
                done,
                total,
                rate,
            } => Some((*stage, *done, *total, *rate)),
            _ => None,
        })
        .collect();
    assert!(progress.len() >= 6, "a block at a time: {progress:?}");
    assert!(progress.windows(2).all(|w| w[0].1 <= w[1].1));
    assert!(
        progress
            .iter()
            .all(|p| p.0 == Stage::Download && p.2 == size)
    );
    assert!(progress.last().unwrap().3 > 0.0);
}

#[test]
fn dropped_files_and_a_sharded_base_are_the_same_base() {
    let bench = Bench::new();
    bench.start();
    let expected = bench.load(url(BASE));
    let (files, bytes) = dropped();
    let source = BaseSource::Files { files };
    let options = BaseOptions::default();
    let answer = bench.ask_with(Request::LoadBase { source, options }, bytes);
    let Event::BaseLoaded { base, .. } = answer.last() else {
        panic!("{answer:?}")
    };
    assert_eq!(base.name, "tiny");
    assert_eq!(base.fingerprint, expected.fingerprint);
    assert_eq!(base.bytes, expected.bytes);

    // In two shards, with an index.
    let sharded = "https://site.test/sharded";
    bench.around().serve_folder(sharded, &embedded());
    let whole = bench.around().served(&format!("{BASE}/model.safetensors"));
    let source = qloom_core::weights::SafetensorsSource::single("m", whole).unwrap();
    let names = qloom_core::weights::WeightSource::names(&source);
    let mut map = serde_json::Map::new();
    for (shard, names) in names.chunks(names.len() / 2 + 1).enumerate() {
        let file = format!("model-{shard}.safetensors");
        let tensors: Vec<_> = names
            .iter()
            .map(|n| {
                map.insert(n.clone(), file.as_str().into());
                let tensor = qloom_core::weights::WeightSource::get(&source, n).unwrap();
                (n.clone(), tensor.into_owned())
            })
            .collect();
        let bytes = qloom_core::weights::serialize(&tensors, source.metadata()).unwrap();
        bench.around().serve(&format!("{sharded}/{file}"), bytes);
    }
    let index = serde_json::json!({ "weight_map": map }).to_string();
    bench
        .around()
        .unserve(&format!("{sharded}/model.safetensors"));
    let place = format!("{sharded}/model.safetensors.index.json");
    bench.around().serve(&place, index.into_bytes());
    assert_eq!(bench.load(url(sharded)).fingerprint, expected.fingerprint);
}

#[test]
fn a_plain_base_stays_dense_unless_asked() {
    let Some(folder) = shared("data/stories260K") else {
        return;
    };
    let bench = Bench::new();
    bench.start();
    bench
        .around()
        .serve_folder("https://site.test/stories", &folder);
    let load = |quantize| {
        let source = url("https://site.test/stories");
        let options = BaseOptions {
            quantize,
            fingerprint: None,
        };
        match bench.ask(Request::LoadBase { source, options }).last() {
            Event::BaseLoaded { base, .. } => base.clone(),
            other => panic!("{other:?}"),
        }
    };
    let dense = load(None);
    assert_eq!(
        (dense.quantization.as_str(), dense.parameters),
        ("none", 260_032)
    );
    let packed = load(Some(true));
    assert_eq!(packed.quantization, "nf4");
    assert!(packed.bytes < dense.bytes);
    assert_eq!(packed.fingerprint, dense.fingerprint);
}

#[test]
fn a_base_of_the_hub_is_asked_for_by_its_address() {
    let bench = Bench::new();
    bench.start();
    let place = format!("{}/owner/name/resolve/main", crate::engine::HUB);
    bench.around().serve_folder(&place, &embedded());
    let repository = "owner/name".to_owned();
    let base = bench.load(BaseSource::Hub { repository });
    assert_eq!(base.name, "owner/name");
}

#[test]
fn what_does_not_fit_the_gpu_is_refused_before_its_weights_are_read() {
    // Not opened here: the limit is all that matters, and it is checked against what the page said.
    let mut opened = crate::engine::device::Opened::cpu(None);
    opened.info.kind = DeviceKind::WebGpu;
    opened.info.max_buffer = 1000;
    let bench = Bench::new();
    bench.engine.state.borrow_mut().device = Some(opened);
    let source = url(BASE);
    let options = BaseOptions::default();
    let answer = bench.ask(Request::LoadBase { source, options });
    let failure = answer.failure();
    assert_eq!(failure.kind, FailureKind::Memory);
    assert!(failure.message.contains("embed_tokens"), "{failure:?}");
    let progress = |e: &Event| matches!(e, Event::Progress { .. });
    assert!(
        !answer.events.iter().any(progress),
        "nothing was downloaded"
    );
}

#[test]
fn a_new_base_keeps_the_adapters_that_fit_it_and_names_the_others() {
    let bench = Bench::started();
    bench.add("sentiment");
    let options = BaseOptions::default();
    let source = url(BASE);
    let answer = bench.ask(Request::LoadBase { source, options });
    assert!(matches!(answer.last(), Event::BaseLoaded { dropped, .. } if dropped.is_empty()));
    let name = "sentiment".to_owned();
    let answer = bench.ask(Request::Export { name });
    assert!(matches!(answer.last(), Event::Exported { .. }));

    let Some(folder) = shared("data/stories260K") else {
        return;
    };
    bench
        .around()
        .serve_folder("https://site.test/stories", &folder);
    let source = url("https://site.test/stories");
    let options = BaseOptions::default();
    let answer = bench.ask(Request::LoadBase { source, options });
    assert!(
        matches!(answer.last(), Event::BaseLoaded { dropped, .. } if *dropped == ["sentiment"])
    );
}

#[test]
fn storage_is_cleared_and_adapters_forgotten() {
    let bench = Bench::started();
    bench.around().store("https://site.test/x", vec![0; 10]);
    let answer = bench.ask(Request::ClearCache);
    assert_eq!(answer.last(), &Event::Cleared { bytes: 10 });
    bench.add("sentiment");
    let remove = || Request::RemoveAdapter {
        name: "sentiment".to_owned(),
    };
    assert!(matches!(
        bench.ask(remove()).last(),
        Event::AdapterRemoved { .. }
    ));
    assert!(
        bench
            .ask(remove())
            .failure()
            .message
            .contains("none is loaded")
    );
}

#[test]
fn f16_is_taken_where_the_gpu_has_it_only() {
    let gpu = Gpu {
        name: "a".into(),
        f16: false,
        max_buffer: 1,
    };
    // The CPU never computes in f16, whatever is asked for.
    let bench = Bench::new();
    *bench.around().gpu.borrow_mut() = Ok(gpu);
    let answer = bench.ask(Request::Start {
        prefer: Some(DeviceKind::Cpu),
        compute: Some(crate::protocol::Compute::F16),
    });
    assert!(matches!(answer.last(), Event::Ready { device } if !device.f16));
}
