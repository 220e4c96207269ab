//! A base model's identity: one SHA-256 over its tensors and its configuration.
//!
//! It does not depend on how the model is sharded, on the order of tensors in a file, on file metadata, or on the parts of
//! `config.json` that say who wrote it; it does change with any bit of any tensor. An adapter carries it to find its base again.

use super::{HostTensor, WeightError, WeightSource};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Keys of `config.json` that differ between writers of one and the same model.
const VOLATILE: [&str; 4] = [
    "transformers_version",
    "_name_or_path",
    "use_cache",
    "_attn_implementation_autoset",
];

/// SHA-256 of `bytes` in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Collects tensors in any order; their names settle the order of the hash.
#[derive(Default)]
pub struct FingerprintBuilder {
    digests: BTreeMap<String, [u8; 32]>,
}

impl FingerprintBuilder {
    /// Adds one tensor: its type, shape and bytes.
    pub fn add(&mut self, name: &str, tensor: &HostTensor<'_>) {
        self.digests.insert(name.to_owned(), digest(tensor));
    }

    /// The fingerprint, with the bytes of `config.json`.
    pub fn finish(self, config_json: &[u8]) -> Result<String, WeightError> {
        let mut h = Sha256::new();
        h.update(b"qloom base 1\n");
        h.update(canonical_config(config_json)?);
        for (name, d) in self.digests {
            h.update((name.len() as u64).to_le_bytes());
            h.update(name);
            h.update(d);
        }
        Ok(hex(h.finalize().as_slice()))
    }
}

fn digest(tensor: &HostTensor<'_>) -> [u8; 32] {
    let mut h = Sha256::new();
    h.update(format!("{} {:?}\n", tensor.dtype, tensor.shape));
    h.update(&tensor.bytes);
    h.finalize().into()
}

/// `config.json` with sorted keys and without the volatile ones.
fn canonical_config(config_json: &[u8]) -> Result<Vec<u8>, WeightError> {
    let fail = |e: serde_json::Error| WeightError::Json {
        file: "config.json".into(),
        reason: e.to_string(),
    };
    let mut map: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(config_json).map_err(fail)?;
    map.retain(|k, _| !VOLATILE.contains(&k.as_str()));
    let mut value = serde_json::Value::Object(map);
    value.sort_all_objects();
    serde_json::to_vec(&value).map_err(fail)
}

/// The fingerprint of every tensor of `source` together with its `config.json`: 64 hexadecimal digits.
pub fn base_fingerprint<S: WeightSource + Sync + ?Sized>(
    source: &S,
    config_json: &[u8],
) -> Result<String, WeightError> {
    let names = source.names();
    let one = |name: &String| -> Result<(String, [u8; 32]), WeightError> {
        Ok((name.clone(), digest(&source.get(name)?)))
    };
    #[cfg(not(target_arch = "wasm32"))]
    let digests = {
        use rayon::prelude::*;
        names.par_iter().map(one).collect::<Result<_, _>>()?
    };
    #[cfg(target_arch = "wasm32")]
    let digests = names.iter().map(one).collect::<Result<_, _>>()?;
    FingerprintBuilder { digests }.finish(config_json)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::weights::{OwnedTensor, SafetensorsSource, serialize};

    fn file(tensors: &[(&str, [f32; 2])]) -> Vec<u8> {
        let list: Vec<_> = tensors
            .iter()
            .map(|(n, v)| (n.to_string(), OwnedTensor::from_f32(vec![2], v).unwrap()))
            .collect();
        serialize(&list, &BTreeMap::new()).unwrap()
    }

    #[test]
    fn ignores_sharding_and_writer_but_no_bit_of_a_tensor() {
        let one =
            SafetensorsSource::single("m", file(&[("a", [1.0, 2.0]), ("b", [3.0, 4.0])])).unwrap();
        let two = SafetensorsSource::new(vec![
            ("2".into(), file(&[("b", [3.0, 4.0])])),
            ("1".into(), file(&[("a", [1.0, 2.0])])),
        ])
        .unwrap();
        let config = br#"{"hidden_size":2,"x":{"b":1,"a":2},"transformers_version":"5"}"#;
        let same = br#"{"transformers_version":"4", "x":{"a":2,"b":1}, "hidden_size":2}"#;
        let f = base_fingerprint(&one, config).unwrap();
        assert_eq!(f, base_fingerprint(&two, same).unwrap());
        assert_eq!(f.len(), 64);
        let swapped =
            SafetensorsSource::single("m", file(&[("b", [1.0, 2.0]), ("a", [3.0, 4.0])])).unwrap();
        let zero =
            SafetensorsSource::single("m", file(&[("a", [1.0, 2.0]), ("b", [3.0, -4.0])])).unwrap();
        assert_ne!(f, base_fingerprint(&swapped, config).unwrap());
        assert_ne!(f, base_fingerprint(&zero, config).unwrap());
        assert_ne!(f, base_fingerprint(&one, br#"{"hidden_size":3}"#).unwrap());
    }

    #[test]
    fn sha256_is_the_standard_one() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
