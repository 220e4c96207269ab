//! The tokenizer of the embedded base: byte-level BPE, special tokens first, and its chat template.
//!
//! Sources: Sennrich et al. 2016 (BPE), Radford et al. 2019 (byte level); the template has the shape of TinyLlama-Chat's,
//! with a marker of its own for the end of a turn.

use anyhow::{Result, anyhow};
use serde_json::json;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

/// The special tokens; a token's id is its place.
pub(crate) const SPECIAL_TOKENS: [&str; 7] = [
    "<pad>",
    "<s>",
    "</s>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
];

/// Ends a turn and, in pretraining, a document.
pub(crate) const END: &str = "<|end|>";

/// The chat template in jinja, as it goes into tokenizer_config.json. It writes no beginning-of-sequence token.
pub(crate) const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}";

/// One turn as the template writes it.
pub(crate) fn render_turn(role: &str, content: &str) -> String {
    format!("<|{role}|>\n{content}{END}\n")
}

/// Learns a tokenizer of `vocab_size` tokens, special ones and the 256 bytes included. The same texts in the same order
/// give the same bytes.
///
/// # Errors
/// When training fails inside the tokenizers library.
pub(crate) fn train_tokenizer<'a>(
    texts: impl Iterator<Item = &'a str> + Send,
    vocab_size: usize,
) -> Result<Tokenizer> {
    let special = SPECIAL_TOKENS.map(|token| AddedToken::from(token, true).normalized(false));
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(special.to_vec())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let byte_level = ByteLevel::new(false, true, true);
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer
        .with_pre_tokenizer(Some(byte_level))
        .with_decoder(Some(byte_level));
    tokenizer
        .train(&mut TrainerWrapper::from(trainer), texts)
        .map_err(|error| anyhow!("training the tokenizer: {error}"))?;
    Ok(tokenizer)
}

/// tokenizer.json, on one line.
///
/// # Errors
/// When the tokenizer cannot be written as JSON.
pub(crate) fn tokenizer_json(tokenizer: &Tokenizer) -> Result<String> {
    let written = tokenizer.to_string(false);
    written.map_err(|error| anyhow!("writing tokenizer.json: {error}"))
}

/// tokenizer_config.json for sequences of at most `model_max_length` tokens.
pub(crate) fn tokenizer_config(model_max_length: usize) -> String {
    let decoder: serde_json::Map<String, serde_json::Value> = SPECIAL_TOKENS
        .iter()
        .enumerate()
        .map(|(id, token)| {
            let entry = json!({
                "content": token, "lstrip": false, "normalized": false,
                "rstrip": false, "single_word": false, "special": true,
            });
            (id.to_string(), entry)
        })
        .collect();
    let config = json!({
        "added_tokens_decoder": decoder,
        "add_bos_token": false,
        "add_eos_token": false,
        "bos_token": "<s>",
        "eos_token": END,
        "pad_token": "<pad>",
        "unk_token": null,
        "additional_special_tokens": ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"],
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "model_max_length": model_max_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    format!("{config:#}\n")
}
