//! Tokenizers for tests: one built here, and the real ones where the shared data folder is present.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::PathBuf;

use super::Tokenizer;

/// The template of TinyLlama-1.1B-Chat-v1.0.
pub(crate) const TINYLLAMA: &str = "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}";

/// A byte-fallback tokenizer without merges: one token per ASCII character, four or fewer per other character.
pub(crate) fn bytes(chat_template: Option<&str>) -> Tokenizer {
    let mut vocab = serde_json::Map::new();
    for token in ["<unk>", "<s>", "</s>"] {
        vocab.insert(token.into(), vocab.len().into());
    }
    for byte in 0..=255u8 {
        vocab.insert(format!("<0x{byte:02X}>"), vocab.len().into());
    }
    for c in (0x21..0x7fu8).map(char::from).chain(['▁']) {
        vocab.insert(c.to_string(), vocab.len().into());
    }
    let added = |id: u32, content: &str| serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": []}
    });
    let mut config = serde_json::json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": true});
    if let Some(template) = chat_template {
        config["chat_template"] = template.into();
    }
    Tokenizer::from_bytes(
        json.to_string().as_bytes(),
        Some(config.to_string().as_bytes()),
        None,
    )
    .unwrap()
}

/// A file of the shared data folder; `None`, with a note, where it is absent.
pub(crate) fn shared(path: &str) -> Option<Vec<u8>> {
    let root = std::env::var_os("QLOOM_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")),
        PathBuf::from,
    );
    match std::fs::read(root.join(path)) {
        Ok(bytes) => Some(bytes),
        Err(_) => {
            eprintln!("skipped: {path} is not in the shared data folder");
            None
        }
    }
}

/// A real tokenizer, by its folder under `data/`.
pub(crate) fn real(folder: &str) -> Option<Tokenizer> {
    let json = shared(&format!("data/{folder}/tokenizer.json"))?;
    let config = shared(&format!("data/{folder}/tokenizer_config.json"))?;
    Some(Tokenizer::from_bytes(&json, Some(&config), None).unwrap())
}
