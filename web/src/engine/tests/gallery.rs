//! Adapters from the gallery, from URLs, as files and as zips.

use super::*;
use crate::archive;
use crate::protocol::{AdapterOrigin, FailureKind, FileRef};

const FILES: [&str; 3] = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "qloom.json",
];

fn bytes_of(slug: &str) -> Vec<Vec<u8>> {
    let folder = workspace().join("web/site/adapters").join(slug);
    FILES.iter().map(|f| read(folder.join(f))).collect()
}

fn refs(names: &[&str]) -> Vec<FileRef> {
    let file = |(attachment, name): (usize, &&str)| FileRef {
        name: (*name).to_owned(),
        attachment,
    };
    names.iter().enumerate().map(file).collect()
}

fn drop_files(bench: &Bench, names: &[&str], files: Vec<Vec<u8>>) -> Result<AdapterInfo, Failure> {
    let request = Request::AddAdapter {
        name: "dropped".into(),
        source: AdapterSource::Files { files: refs(names) },
    };
    match bench.ask_with(request, files).last() {
        Event::AdapterAdded { adapter } => Ok(adapter.clone()),
        Event::Failed { failure } => Err(failure.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_adapter_is_the_same_however_it_comes() {
    let bench = Bench::started();
    let known = bench.add("sentiment");
    assert_eq!(known.origin, AdapterOrigin::Gallery);
    assert!(known.warnings.is_empty(), "{:?}", known.warnings);
    assert_eq!((known.facts.rank, known.facts.method.as_str()), (6, "lora"));
    assert_eq!(known.base.as_deref(), Some("qloom/tiny-llama"));
    assert_eq!(known.bytes, 381_336);

    let at = AdapterSource::Url {
        url: format!("{SITE}/adapters/sentiment/"),
    };
    let by_url = bench.add_from("by url", at).unwrap();
    let folder: Vec<String> = FILES.iter().map(|f| format!("run/adapter/{f}")).collect();
    let folder: Vec<&str> = folder.iter().map(String::as_str).collect();
    let by_folder = drop_files(&bench, &folder, bytes_of("sentiment")).unwrap();
    let files = bytes_of("sentiment");
    let named: Vec<(&str, &[u8])> = FILES
        .iter()
        .copied()
        .zip(files.iter().map(Vec::as_slice))
        .collect();
    let zip = archive::pack(&named).unwrap();
    let by_zip = drop_files(&bench, &["sentiment.zip"], vec![zip]).unwrap();
    for other in [&by_url, &by_folder, &by_zip] {
        assert_eq!(other.sha256, known.sha256);
        assert_eq!(other.facts, known.facts);
        assert_eq!(other.warnings, known.warnings);
    }
    assert_eq!(by_url.origin, AdapterOrigin::Url);
    assert_eq!(by_zip.origin, AdapterOrigin::File);
}

#[test]
fn without_its_receipt_an_adapter_is_taken_with_a_warning() {
    let bench = Bench::started();
    let mut files = bytes_of("sentiment");
    files.truncate(2);
    let added = drop_files(&bench, &FILES[..2], files).unwrap();
    assert_eq!(added.warnings.len(), 1);
    assert!(
        added.warnings[0].contains("receipt"),
        "{:?}",
        added.warnings
    );
}

#[test]
fn an_adapter_of_another_base_is_refused_with_both_names() {
    let bench = Bench::started();
    let mut files = bytes_of("sentiment");
    let receipt = String::from_utf8(files[2].clone()).unwrap();
    let own = bench.load(url(BASE)).fingerprint.unwrap();
    files[2] = receipt.replace(&own, &"ab".repeat(32)).into_bytes();
    let failure = drop_files(&bench, &FILES, files).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Mismatch);
    for word in ["dropped", "qloom/tiny-llama", &own, &"ab".repeat(32)] {
        assert!(failure.message.contains(word), "{}", failure.message);
    }
    // Other shapes are told by the tensor.
    let Some(folder) = shared("data/lora_adapters/tinyllama_arona_lora_ckpt180") else {
        return;
    };
    let files = FILES[..2].iter().map(|f| read(folder.join(f))).collect();
    let failure = drop_files(&bench, &FILES[..2], files).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Mismatch);
    assert!(failure.message.contains("TinyLlama"), "{}", failure.message);
}

#[test]
fn the_chain_of_hashes_holds_every_file() {
    let bench = Bench::started();
    let place = |file: &str| format!("{SITE}/adapters/sentiment/{file}");
    for file in [
        "entry.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "qloom.json",
    ] {
        let whole = bench.around().served(&place(file));
        let mut flipped = whole.clone();
        let at = flipped.len() / 2;
        flipped[at] ^= 1;
        // Stored damaged: fetched again, and all is well.
        bench.around().store(&place(file), flipped.clone());
        bench.add("sentiment");
        assert!(
            bench.around().forgotten.borrow().contains(&place(file)),
            "{file}"
        );
        // Served damaged: refused, naming the file.
        bench.around().serve(&place(file), flipped);
        let failure = bench.add_from("bad", gallery("sentiment")).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Integrity, "{file}: {failure:?}");
        assert!(failure.message.contains(file), "{failure:?}");
        bench.around().serve(&place(file), whole);
    }
    bench.around().unserve(&place("adapter_model.safetensors"));
    let failure = bench.add_from("bad", gallery("sentiment")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Network);
    let slip = AdapterSource::Gallery {
        site: SITE.into(),
        slug: "../../x".into(),
        entry_sha256: "00".into(),
    };
    assert_eq!(
        bench.add_from("bad", slip).unwrap_err().kind,
        FailureKind::Request
    );
}

#[test]
fn what_is_no_adapter_is_said_to_be_none() {
    let bench = Bench::started();
    let refused = |names: &[&str], files: Vec<Vec<u8>>, word: &str| {
        let failure = drop_files(&bench, names, files).unwrap_err();
        assert!(
            failure.message.contains(word),
            "{word}: {}",
            failure.message
        );
    };
    refused(&["notes.txt"], vec![b"hello".to_vec()], "no zip");
    let empty = archive::pack(&[("a.txt", b"x")]).unwrap();
    refused(&["a.zip"], vec![empty], "adapter_config.json");
    let files = bytes_of("sentiment");
    let two = archive::pack(&[
        ("a/adapter_config.json", &files[0]),
        ("b/adapter_config.json", &files[0]),
    ])
    .unwrap();
    refused(&["two.zip"], vec![two], "2 adapters");
    let pickled = vec![files[0].clone(), vec![1, 2, 3]];
    refused(
        &["adapter_config.json", "adapter_model.bin"],
        pickled,
        "pickle",
    );
    let cut = vec![files[0].clone(), files[1][..1000].to_vec()];
    refused(&FILES[..2], cut, "truncated");
    let request = Request::AddAdapter {
        name: "x".into(),
        source: AdapterSource::Files {
            files: refs(&FILES),
        },
    };
    let answer = bench.ask_with(request, files[..1].to_vec());
    assert!(answer.failure().message.contains("attachment 1"));
}
