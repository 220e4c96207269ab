//! `model.safetensors.index.json`: which shard files a model is split into.

use super::WeightError;
use std::collections::{BTreeMap, BTreeSet};

/// The index's usual file name.
const INDEX: &str = "model.safetensors.index.json";

/// The shard file names of an index, sorted, each once.
///
/// A name that leaves its folder (`..`, `/`, `\`) is refused: an index is untrusted input.
pub fn shards(index_json: &[u8]) -> Result<Vec<String>, WeightError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let fail = |reason: String| WeightError::Json {
        file: INDEX.to_owned(),
        reason,
    };
    let index: Index = serde_json::from_slice(index_json).map_err(|e| {
        fail(format!(
            "expected {{\"weight_map\": {{tensor: file}}}}: {e}"
        ))
    })?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    if names.is_empty() {
        return Err(fail("its weight_map is empty".into()));
    }
    match names
        .iter()
        .find(|n| n.contains(['/', '\\']) || n.contains("..") || n.is_empty())
    {
        Some(bad) => Err(fail(format!("shard name {bad:?} is not a plain file name"))),
        None => Ok(names.into_iter().collect()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn lists_each_shard_once_and_refuses_escapes() {
        let ok = br#"{"metadata":{"total_size":1},"weight_map":{"b":"m-2.safetensors","a":"m-1.safetensors","c":"m-1.safetensors"}}"#;
        assert_eq!(shards(ok).unwrap(), ["m-1.safetensors", "m-2.safetensors"]);
        for bad in [
            &br#"{"weight_map":{"a":"../x"}}"#[..],
            br#"{"weight_map":{}}"#,
            br#"{}"#,
            b"not json",
        ] {
            assert!(shards(bad).is_err());
        }
    }
}
