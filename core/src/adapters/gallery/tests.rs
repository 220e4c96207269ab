//! The manifest of a site: round trips, order, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use super::*;
use crate::weights::sha256_hex;
use serde_json::{Value, json};

fn entry(slug: &str) -> Entry {
    let metrics = json!({
        "base": {"perplexity": 86.0, "perplexity_ci": [80.0, 92.0], "examples": 40, "tokens": 900},
        "adapted": {"perplexity": 24.0, "perplexity_ci": [22.0, 26.5], "examples": 40, "tokens": 900},
    });
    let mut files: Vec<EntryFile> = REQUIRED_FILES
        .iter()
        .map(|name| EntryFile::of(name, name.as_bytes()))
        .collect();
    files.push(EntryFile::of("qloom.json", b"{}"));
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Entry {
        version: GALLERY_VERSION,
        slug: slug.into(),
        name: "<script>alert(1)</script>".into(),
        task: "sentiment".into(),
        description: None,
        base: GalleryBase {
            name: "owner/base".into(),
            fingerprint: Some(sha256_hex(b"base")),
            equivalent: vec![sha256_hex(b"dense")],
        },
        adapter: AdapterFacts::default(),
        data_sha256: Some(sha256_hex(b"data")),
        scores: scores_of(&metrics),
        licence: Some("MIT".into()),
        created: "2026-02-28".into(),
        tool_version: "0.1.0".into(),
        files,
    }
}

#[test]
fn index_and_entry_survive_their_files_and_stay_sorted() {
    let mut gallery = Gallery::default();
    for slug in ["b", "c", "a", "b"] {
        let entry = entry(slug);
        let bytes = entry.to_json().unwrap();
        assert_eq!(Entry::from_json(&bytes, "e").unwrap(), entry);
        gallery.insert(entry.row(&bytes));
    }
    let slugs: Vec<&str> = gallery.adapters.iter().map(|r| r.slug.as_str()).collect();
    assert_eq!(slugs, ["a", "b", "c"]);
    let bytes = gallery.to_json().unwrap();
    assert_eq!(Gallery::from_json(&bytes).unwrap(), gallery);
    // "adapter_config.json" + "adapter_model.safetensors" + "{}": the card is not downloaded to use an adapter.
    assert_eq!(gallery.adapters[0].size, 19 + 25 + 2);
    // Names are kept as they were typed; escaping is the reader's.
    assert!(String::from_utf8(bytes).unwrap().contains("<script>"));
}

#[test]
fn a_row_knows_its_entry_by_hash() {
    let e = entry("a");
    let bytes = e.to_json().unwrap();
    assert_eq!(e.row(&bytes).entry_sha256, sha256_hex(&bytes));
}

/// Applies `change` to the JSON of a good entry and returns what reading it says.
fn refused(change: impl FnOnce(&mut Value)) -> String {
    let mut value: Value = serde_json::from_slice(&entry("a").to_json().unwrap()).unwrap();
    change(&mut value);
    let error = Entry::from_json(value.to_string().as_bytes(), "adapters/a/entry.json");
    error.unwrap_err().to_string()
}

#[test]
fn hostile_or_broken_entries_are_refused_by_name() {
    for path in [
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../b",
        "C:\\x",
        "a\\b",
        "C:x",
        ".htaccess",
        "a/.git",
        "a//b",
        "",
        "a\0b",
        "nul.txt",
        "COM1",
        "é",
        "a b",
        "entry.json",
    ] {
        let text = refused(|v| v["files"][0]["path"] = json!(path));
        assert!(
            text.contains("adapters/a/entry.json") && text.contains("path"),
            "{path}: {text}"
        );
    }
    assert!(refused(|v| v["slug"] = json!("../x")).contains("slug"));
    assert!(refused(|v| v["slug"] = json!("A")).contains("slug"));
    assert!(refused(|v| v["version"] = json!(2)).contains("version 2"));
    assert!(refused(|v| v["created"] = json!("2025-02-29")).contains("2025-02-29"));
    assert!(refused(|v| v["created"] = json!("yesterday")).contains("yesterday"));
    assert!(refused(|v| v["name"] = json!(" ")).contains("name"));
    assert!(refused(|v| v["base"]["fingerprint"] = json!("abc")).contains("fingerprint"));
    assert!(refused(|v| v["files"][1]["sha256"] = json!("0")).contains("sha256"));
    assert!(
        refused(|v| {
            v["files"].as_array_mut().unwrap().remove(0);
        })
        .contains("README.md")
    );
    assert!(refused(|v| v["files"].as_array_mut().unwrap().swap(0, 1)).contains("ascending"));
    assert!(refused(|v| v["scores"][0]["base"]["interval"] = json!([3.0, 1.0])).contains("low"));
    assert!(refused(|v| v["files"] = json!("none")).contains("adapters/a/entry.json"));
}

#[test]
fn galleries_out_of_order_or_with_twins_are_refused() {
    let row = |slug: &str| entry(slug).row(b"x");
    for slugs in [["b", "a"], ["a", "a"]] {
        let gallery = Gallery {
            version: GALLERY_VERSION,
            adapters: slugs.map(row).to_vec(),
        };
        let error = Gallery::from_json(&gallery.to_json().unwrap()).unwrap_err();
        assert!(error.to_string().contains("ascending"), "{error}");
    }
    assert!(Gallery::from_json(b"[]").is_err());
    assert!(matches!(
        Gallery::from_json(br#"{"version": 9, "adapters": 1}"#),
        Err(GalleryError::Version { found: 9, .. })
    ));
}

#[test]
fn one_byte_more_less_or_other_is_noticed() {
    let file = EntryFile::of("f", b"abc");
    file.verify(b"abc", "f").unwrap();
    let said = |bytes: &[u8]| {
        let error = file.verify(bytes, "adapters/a/f").unwrap_err();
        error.to_string()
    };
    assert!(said(b"abd").contains("adapters/a/f: SHA-256"));
    assert!(said(b"ab").contains("size expected 3, found 2"));
}

#[test]
fn receipts_for_other_weights_are_noticed() {
    let e = entry("a");
    let mut receipt = crate::adapters::Receipt {
        base_fingerprint: e.base.fingerprint.clone(),
        equivalent_bases: e.base.equivalent.clone(),
        ..Default::default()
    };
    e.check_receipt(&receipt, "q").unwrap();
    receipt.base_fingerprint = Some(sha256_hex(b"other"));
    assert!(e.check_receipt(&receipt, "q").is_err());
    receipt.base_fingerprint = None;
    assert!(
        e.check_receipt(&receipt, "q")
            .unwrap_err()
            .to_string()
            .contains("found none")
    );
}

#[test]
fn slugs_of_names() {
    for (name, slug) in [
        ("Tweet sentiment (r=8)", "tweet-sentiment-r-8"),
        ("--a__B--", "a-b"),
        ("日本", ""),
        ("../../x", "x"),
    ] {
        assert_eq!(slug_of(name), slug);
    }
    let long = slug_of(&"a-".repeat(100));
    assert!(long.len() <= 80 && check_slug(&long, "f").is_ok());
    for bad in ["", "-a", "a-", "a--b", "a.b", "nul", "com1"] {
        assert!(check_slug(bad, "f").is_err(), "{bad}");
    }
}

#[test]
fn scores_are_the_numbers_with_intervals() {
    let scores = scores_of(&json!({
        "base": {"perplexity": null, "perplexity_ci": [1.0, 2.0], "macro_f1": 0.2, "macro_f1_ci": [0.1, 0.3], "unparsed": 4},
        "adapted": {"perplexity": 5.0, "perplexity_ci": [4.0, 6.0], "macro_f1": 0.9, "macro_f1_ci": null, "examples": 7},
        "data": {"sha256": "x"},
    }));
    assert_eq!(scores.len(), 2);
    assert_eq!(
        (scores[0].metric.as_str(), scores[0].base),
        ("perplexity", None)
    );
    assert!(scores[0].lower_is_better && !scores[1].lower_is_better);
    assert_eq!(scores[1].adapted.unwrap().interval, None);
    assert_eq!(scores[1].examples, Some(7));
    let tasks = scores_of(&json!({
        "a": {"base": null, "adapted": {"eval_loss": 1.0, "eval_loss_ci": [0.5, 1.5]}},
        "note": "text",
    }));
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0].task.as_deref(), Some("a"));
    assert!(tasks[0].lower_is_better && tasks[0].base.is_none());
    assert!(scores_of(&json!([])).is_empty());
}
