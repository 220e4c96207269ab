//! Which tokens end an answer.

use serde_json::{Map, Value};

use crate::models::llama::LlamaConfig;
use crate::tokenizer::Tokenizer;

/// Ids that end an answer, sorted: those of `config.json` and `generation_config.json`, the tokenizer's end of sequence,
/// and the end of turn of its chat template.
pub fn end_ids(
    config: &LlamaConfig,
    generation_config: &Map<String, Value>,
    tokenizer: &Tokenizer,
) -> Vec<u32> {
    let mut ids = config.eos_token_ids.clone();
    ids.extend(tokenizer.eos_id());
    let listed = match generation_config.get("eos_token_id") {
        Some(Value::Array(many)) => many.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let number = |id: &Value| u32::try_from(id.as_u64()?).ok();
    ids.extend(listed.iter().filter_map(number));
    if let Ok(Some(template)) = tokenizer.chat_template() {
        let specials: Vec<String> = tokenizer.special_texts().collect();
        let end = template.end_of_turn(&specials);
        ids.extend(end.and_then(|token| tokenizer.token_to_id(&token)));
    }
    ids.sort_unstable();
    ids.dedup();
    ids
}
