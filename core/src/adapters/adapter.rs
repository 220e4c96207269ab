//! [`Adapter`]: an adapter on the host, from PEFT's two files and back.

use super::module::Settings;
use super::{AdapterError, LoraModule, PeftConfig};
use crate::lora::Kind;
use crate::weights::{OwnedTensor, SafetensorsSource, WeightSource, serialize};
use std::collections::BTreeMap;

/// What PEFT puts before a module's path in every key.
pub const PREFIX: &str = "base_model.model.";

/// Ends of the keys of a pair: LoRA's and DoRA's, and HiRA's, which are plain parameters in PEFT.
const LORA: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];
const HIRA: [&str; 2] = [".hira_A", ".hira_B"];
const MAGNITUDE: &str = ".lora_magnitude_vector";

/// The tensors that a base may tie.
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Keys of tensors that no method here has.
const FOREIGN: [(&str, &str); 4] = [
    (".hira_embedding_", "HiRA on an embedding"),
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
        let head = format!("{PREFIX}{HEAD}");
        if config.ensures_weight_tying()
            && !tensors.contains_key(&head)
            && let Some(table) = tensors.get(&format!("{PREFIX}{EMBEDDING}")).cloned()
        {
            // PEFT looks for both names.
            tensors.insert(head, table);
        }
        let [down, up] = halves(&config);
        for m in modules {
            let a = OwnedTensor::from_f32(vec![m.rank, m.in_features], &m.a);
            let b = OwnedTensor::from_f32(vec![m.out_features, m.rank], &m.b);
            let (a_key, b_key) = (key(&m.path, down), key(&m.path, up));
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

    /// What kind of layers it has. Sparse LoRA is saved as plain LoRA.
    pub fn kind(&self) -> Kind {
        if self.config.is_hira() {
            Kind::Hira
        } else if self.config.use_dora {
            Kind::Dora
        } else {
            Kind::Lora
        }
    }

    /// The pairs of a plain LoRA adapter, whose `scaling · B·A` is the whole change of a weight.
    ///
    /// # Errors
    /// [`AdapterError::NotPlain`] for DoRA and HiRA; damaged pairs.
    pub fn modules(&self) -> Result<Vec<LoraModule>, AdapterError> {
        match self.kind() {
            Kind::Dora | Kind::Hira => Err(AdapterError::NotPlain {
                kind: self.kind().to_string(),
                what: "taking its pairs apart or combining it with others",
            }),
            Kind::Lora | Kind::Sparse => self.pairs(),
        }
    }

    /// The pairs of an adapter of any kind, in f32, sorted by path, with rank, alpha and scaling resolved. What they do
    /// to a weight depends on [`Adapter::kind`].
    pub fn pairs(&self) -> Result<Vec<LoraModule>, AdapterError> {
        let settings = Settings::new(&self.config)?;
        self.paths()
            .map(|path| self.module(path, &settings))
            .collect()
    }

    /// DoRA's magnitudes of the module at `path`, `[out_features]`; `None` for other kinds.
    pub fn magnitude(&self, path: &str) -> Result<Option<Vec<f32>>, AdapterError> {
        if self.kind() != Kind::Dora {
            return Ok(None);
        }
        let name = key(path, MAGNITUDE);
        let tensor = self.get(&name)?;
        Ok(Some(tensor.to_f32().map_err(|e| e.named(&name))?))
    }

    /// Paths of the adapted linears, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let [down, _] = halves(&self.config);
        self.tensors.keys().filter_map(move |k| path_of(k, down))
    }

    /// Whether it trains the embedding alone, so that a head tied to it in the base keeps the base's table: PEFT ties the
    /// two only where `ensure_weight_tying` is set.
    pub fn unties_head(&self) -> bool {
        let has = |name: &str| self.tensors.contains_key(&format!("{PREFIX}{name}"));
        has(EMBEDDING) && !has(HEAD) && !self.config.ensures_weight_tying()
    }

    /// Whether its head is a copy of its embedding, as PEFT saves tied ones.
    fn ties_head(&self) -> bool {
        let of = |name: &str| self.tensors.get(&format!("{PREFIX}{name}"));
        self.config.ensures_weight_tying() && of(HEAD).is_some() && of(HEAD) == of(EMBEDDING)
    }

    /// Tensors trained in full (`modules_to_save`, biases), by their names in the base: `classifier.weight`. A head that
    /// is the embedding again is left out.
    pub fn saved(&self) -> BTreeMap<&str, &OwnedTensor> {
        let [down, up] = halves(&self.config);
        let full = |k: &str| {
            [down, up, MAGNITUDE]
                .iter()
                .all(|end| path_of(k, end).is_none())
        };
        let mut saved: BTreeMap<&str, &OwnedTensor> = self
            .tensors
            .iter()
            .filter(|(k, _)| full(k))
            .map(|(k, t)| (strip(k), t))
            .collect();
        if self.ties_head() {
            saved.remove(HEAD);
        }
        saved
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
        let [down, up] = halves(&self.config);
        for path in self.paths() {
            let [out, input] = *modules.get(path).ok_or_else(|| unknown(key(path, down)))?;
            let (rank, _) = settings.of(path);
            self.expect_shape(&key(path, down), &[rank, input])?;
            self.expect_shape(&key(path, up), &[out, rank])?;
            if self.kind() == Kind::Dora {
                self.expect_shape(&key(path, MAGNITUDE), &[out])?;
            }
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

    fn get(&self, key: &str) -> Result<&OwnedTensor, AdapterError> {
        let missing = || AdapterError::MissingHalf {
            missing: key.to_owned(),
        };
        self.tensors.get(key).ok_or_else(missing)
    }

    fn module(&self, path: &str, settings: &Settings<'_>) -> Result<LoraModule, AdapterError> {
        let [down, up] = halves(&self.config);
        let (a_key, b_key) = (key(path, down), key(path, up));
        let (a, b) = (self.get(&a_key)?, self.get(&b_key)?);
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
            scaling: match self.kind() {
                Kind::Hira => 1.0,
                _ => crate::lora::scaling(alpha, rank, self.config.use_rslora),
            },
            dropout: self.config.lora_dropout,
        })
    }

    /// Both halves of every pair, a magnitude for every one of DoRA's, no foreign method, at least one pair (unless only a
    /// head was trained), and the head where one was to be saved.
    fn check_keys(&self) -> Result<(), AdapterError> {
        let [down, up] = halves(&self.config);
        let other = if self.config.is_hira() { LORA } else { HIRA };
        let own = [(other[0], "another method"), (other[1], "another method")];
        let magnitude = [(MAGNITUDE, "DoRA, and use_dora is not set")];
        let magnitude = &magnitude[usize::from(self.kind() == Kind::Dora)..];
        for name in self.tensors.keys() {
            let mut foreign = FOREIGN.iter().chain(&own).chain(magnitude);
            if let Some((_, method)) = foreign.find(|(part, _)| name.contains(part)) {
                let found = format!("{method} (tensor {name})");
                return Err(AdapterError::Unsupported {
                    key: "method".into(),
                    found,
                    supported: "LoRA, DoRA and HiRA on linears, each with its own tensors",
                });
            }
            let half = path_of(name, down)
                .map(|p| key(p, up))
                .or_else(|| path_of(name, up).map(|p| key(p, down)));
            if let Some(missing) = half.filter(|h| !self.tensors.contains_key(h)) {
                return Err(AdapterError::MissingHalf { missing });
            }
        }
        for path in self.paths() {
            self.magnitude(path)?;
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
            None if !self.config.is_head_only() => {
                nothing(format!("pairs {PREFIX}*{down} and *{up}"))
            }
            _ => Ok(()),
        }
    }
}

/// How the keys of a pair end, `A` then `B`.
fn halves(config: &PeftConfig) -> [&'static str; 2] {
    if config.is_hira() { HIRA } else { LORA }
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
