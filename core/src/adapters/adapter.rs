//! [`Adapter`]: an adapter on the host, from PEFT's two files and back.

use super::module::Settings;
use super::{AdapterError, LoraModule, PeftConfig};
use crate::weights::{OwnedTensor, SafetensorsSource, WeightSource, serialize};
use std::collections::BTreeMap;

/// What PEFT puts before a module's path in every key.
pub const PREFIX: &str = "base_model.model.";

const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";

/// Keys of tensors whose method is not plain LoRA on linears.
const FOREIGN: [(&str, &str); 4] = [
    (".lora_magnitude_vector", "DoRA"),
    (".lora_embedding_", "LoRA on an embedding"),
    (".lora_A.bias", "a biased LoRA"),
    (".lora_B.bias", "a biased LoRA"),
];

/// An adapter as saved.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// `adapter_config.json`.
    pub config: PeftConfig,
    /// `adapter_model.safetensors`, under PEFT's keys, in the types of the file.
    pub tensors: BTreeMap<String, OwnedTensor>,
    /// The safetensors file's metadata, usually `format: pt`.
    pub metadata: BTreeMap<String, String>,
}

impl Adapter {
    /// Reads the two files. What cannot be applied is refused by name here.
    pub fn from_bytes(config_json: &[u8], safetensors: &[u8]) -> Result<Self, AdapterError> {
        let config = PeftConfig::from_json(config_json)?;
        config.refuse_unsupported()?;
        let source = SafetensorsSource::single("adapter_model.safetensors", safetensors)?;
        let tensor = |name: String| Ok((name.clone(), source.get(&name)?.into_owned()));
        let tensors = source
            .names()
            .into_iter()
            .map(tensor)
            .collect::<Result<_, AdapterError>>()?;
        let adapter = Self {
            config,
            tensors,
            metadata: source.metadata().clone(),
        };
        adapter.check_keys()?;
        Ok(adapter)
    }

    /// An adapter from its parts: pairs, and tensors trained in full by their names in the base (`lm_head.weight`).
    pub fn new(
        config: PeftConfig,
        modules: &[LoraModule],
        saved: Vec<(String, OwnedTensor)>,
    ) -> Result<Self, AdapterError> {
        let mut tensors: BTreeMap<String, OwnedTensor> = saved
            .into_iter()
            .map(|(name, t)| (format!("{PREFIX}{name}"), t))
            .collect();
        for m in modules {
            let a = OwnedTensor::from_f32(vec![m.rank, m.in_features], &m.a);
            let b = OwnedTensor::from_f32(vec![m.out_features, m.rank], &m.b);
            let (a_key, b_key) = (key(&m.path, A), key(&m.path, B));
            tensors.insert(a_key.clone(), a.map_err(|e| e.named(&a_key))?);
            tensors.insert(b_key.clone(), b.map_err(|e| e.named(&b_key))?);
        }
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let adapter = Self {
            config,
            tensors,
            metadata,
        };
        adapter.check_keys()?;
        Ok(adapter)
    }

    /// The bytes of `adapter_config.json` and of `adapter_model.safetensors`.
    pub fn to_bytes(&self) -> Result<(Vec<u8>, Vec<u8>), AdapterError> {
        let list: Vec<_> = self
            .tensors
            .iter()
            .map(|(n, t)| (n.clone(), t.clone()))
            .collect();
        Ok((self.config.to_json()?, serialize(&list, &self.metadata)?))
    }

    /// The pairs, in f32, sorted by path, with rank, alpha and scaling resolved.
    pub fn modules(&self) -> Result<Vec<LoraModule>, AdapterError> {
        let settings = Settings::new(&self.config)?;
        self.paths()
            .map(|path| self.module(path, &settings))
            .collect()
    }

    /// Paths of the adapted linears, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().filter_map(|k| path_of(k, A))
    }

    /// Tensors trained in full (`modules_to_save`, biases), by their names in the base: `classifier.weight`.
    pub fn saved(&self) -> BTreeMap<&str, &OwnedTensor> {
        let full = |k: &str| path_of(k, A).is_none() && path_of(k, B).is_none();
        self.tensors
            .iter()
            .filter(|(k, _)| full(k))
            .map(|(k, t)| (strip(k), t))
            .collect()
    }

    /// Holds the adapter to a base: `linears` are its modules as path and `[out, in]`, `expected` all its tensors.
    ///
    /// # Errors
    /// [`AdapterError::Shape`] or [`AdapterError::UnknownModule`], naming tensor and base.
    pub fn validate(
        &self,
        linears: &[(String, [usize; 2])],
        expected: &[(String, Vec<usize>)],
    ) -> Result<(), AdapterError> {
        let modules: BTreeMap<&str, [usize; 2]> =
            linears.iter().map(|(p, s)| (p.as_str(), *s)).collect();
        let unknown = |tensor: String| AdapterError::UnknownModule {
            tensor,
            valid: super::valid_targets(linears).join(", "),
            base: self.config.base_name().to_owned(),
        };
        let settings = Settings::new(&self.config)?;
        for path in self.paths() {
            let [out, input] = *modules.get(path).ok_or_else(|| unknown(key(path, A)))?;
            let (rank, _) = settings.of(path);
            self.expect_shape(&key(path, A), &[rank, input])?;
            self.expect_shape(&key(path, B), &[out, rank])?;
        }
        let expected: BTreeMap<&str, &Vec<usize>> =
            expected.iter().map(|(n, s)| (n.as_str(), s)).collect();
        for name in self.saved().keys() {
            let tensor = format!("{PREFIX}{name}");
            let shape = expected.get(name).ok_or_else(|| unknown(tensor.clone()))?;
            self.expect_shape(&tensor, shape)?;
        }
        Ok(())
    }

    fn expect_shape(&self, tensor: &str, expected: &[usize]) -> Result<(), AdapterError> {
        match self.tensors.get(tensor) {
            Some(t) if t.shape == expected => Ok(()),
            Some(t) => Err(AdapterError::Shape {
                tensor: tensor.to_owned(),
                expected: expected.to_vec(),
                found: t.shape.clone(),
                base: self.config.base_name().to_owned(),
            }),
            None => Err(AdapterError::MissingHalf {
                missing: tensor.to_owned(),
            }),
        }
    }

    fn module(&self, path: &str, settings: &Settings<'_>) -> Result<LoraModule, AdapterError> {
        let (a_key, b_key) = (key(path, A), key(path, B));
        let get = |k: &str| {
            self.tensors
                .get(k)
                .ok_or_else(|| AdapterError::MissingHalf {
                    missing: k.to_owned(),
                })
        };
        let (a, b) = (get(&a_key)?, get(&b_key)?);
        let (rank, alpha) = settings.of(path);
        let in_features = a.shape.last().copied().unwrap_or(0);
        let out_features = b.shape.first().copied().unwrap_or(0);
        self.expect_shape(&a_key, &[rank, in_features])?;
        self.expect_shape(&b_key, &[out_features, rank])?;
        Ok(LoraModule {
            path: path.to_owned(),
            a: a.to_f32().map_err(|e| e.named(&a_key))?,
            b: b.to_f32().map_err(|e| e.named(&b_key))?,
            rank,
            in_features,
            out_features,
            alpha,
            scaling: crate::lora::scaling(alpha, rank, self.config.use_rslora),
            dropout: self.config.lora_dropout,
        })
    }

    /// Both halves of every pair, no foreign method, at least one pair, and the head where one was to be saved.
    fn check_keys(&self) -> Result<(), AdapterError> {
        for name in self.tensors.keys() {
            if let Some((_, method)) = FOREIGN.iter().find(|(part, _)| name.contains(part)) {
                let found = format!("{method} (tensor {name})");
                return Err(AdapterError::Unsupported {
                    key: "method".into(),
                    found,
                    supported: "LoRA on linears",
                });
            }
            let half = path_of(name, A)
                .map(|p| key(p, B))
                .or_else(|| path_of(name, B).map(|p| key(p, A)));
            if let Some(missing) = half.filter(|h| !self.tensors.contains_key(h)) {
                return Err(AdapterError::MissingHalf { missing });
            }
        }
        let nothing = |expected: String| {
            Err(AdapterError::Nothing {
                expected,
                found: self.tensors.len(),
            })
        };
        let wanted = self.config.modules_to_save.clone().unwrap_or_default();
        if !wanted.is_empty()
            && !self
                .saved()
                .keys()
                .any(|n| wanted.iter().any(|w| n.contains(w.as_str())))
        {
            return nothing(format!("the modules_to_save {wanted:?}"));
        }
        match self.paths().next() {
            None => nothing(format!("pairs {PREFIX}*{A} and *{B}")),
            Some(_) => Ok(()),
        }
    }
}

fn key(path: &str, suffix: &str) -> String {
    format!("{PREFIX}{path}{suffix}")
}

fn strip(key: &str) -> &str {
    key.strip_prefix(PREFIX).unwrap_or(key)
}

fn path_of<'a>(key: &'a str, suffix: &str) -> Option<&'a str> {
    key.strip_prefix(PREFIX)?.strip_suffix(suffix)
}

#[cfg(test)]
#[path = "adapter_tests.rs"]
mod tests;
