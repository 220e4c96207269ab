//! [`PeftConfig`]: `adapter_config.json` as PEFT 0.21 writes it. A mirror of the file, not the settings of a run.

use super::AdapterError;
use crate::lora::{Init, Kind, LoraConfig, TargetModules};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// One value or a list of them, as several keys allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// A list.
    Many(Vec<T>),
    /// A single value.
    One(T),
}

impl<T: Clone> OneOrMany<T> {
    /// The values as a list.
    pub fn to_vec(&self) -> Vec<T> {
        match self {
            Self::Many(list) => list.clone(),
            Self::One(one) => vec![one.clone()],
        }
    }
}

/// Values by module pattern, in the file's order: the first pattern that matches a module wins.
pub type Pattern = Vec<(String, f64)>;

/// The file, with PEFT's names and defaults. Keys without a field here are kept in `rest`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeftConfig {
    /// `LORA` (DoRA and rsLoRA included) or `HIRA`.
    pub peft_type: String,
    /// `CAUSAL_LM`, `SEQ_CLS`, or null.
    pub task_type: Option<String>,
    /// The base as the trainer was given it: a hub id or a folder.
    pub base_model_name_or_path: Option<String>,
    /// The base's revision.
    pub revision: Option<String>,
    /// Rank.
    #[serde(deserialize_with = "or_default")]
    pub r: usize,
    /// Numerator of the scaling.
    #[serde(serialize_with = "short_number")]
    pub lora_alpha: f64,
    /// Dropout on the adapter's input while training.
    #[serde(deserialize_with = "or_default")]
    pub lora_dropout: f64,
    /// Scaling by `alpha / sqrt(r)`.
    #[serde(deserialize_with = "or_default")]
    pub use_rslora: bool,
    /// Weight decomposition (DoRA).
    #[serde(deserialize_with = "or_default")]
    pub use_dora: bool,
    /// Names, a regular expression, or `all-linear`.
    pub target_modules: Option<OneOrMany<String>>,
    /// As `target_modules`, for modules left out.
    pub exclude_modules: Option<OneOrMany<String>>,
    /// Modules trained in full and saved with the adapter.
    pub modules_to_save: Option<Vec<String>>,
    /// Layer indices adapted.
    pub layers_to_transform: Option<OneOrMany<usize>>,
    /// Names of the lists that `layers_to_transform` indexes.
    pub layers_pattern: Option<OneOrMany<String>>,
    /// Ranks of modules whose path a pattern matches.
    #[serde(with = "pattern")]
    pub rank_pattern: Pattern,
    /// Alphas of modules whose path a pattern matches.
    #[serde(with = "pattern")]
    pub alpha_pattern: Pattern,
    /// Which biases were trained: `none`, `all`, `lora_only`.
    pub bias: String,
    /// Whether weights are stored `[in, out]`.
    #[serde(deserialize_with = "or_default")]
    pub fan_in_fan_out: bool,
    /// True in a saved adapter.
    #[serde(deserialize_with = "or_default")]
    pub inference_mode: bool,
    /// `true`, or the name of an initialization.
    pub init_lora_weights: Value,
    /// Every other key, as it was.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for PeftConfig {
    fn default() -> Self {
        Self {
            peft_type: "LORA".into(),
            task_type: None,
            base_model_name_or_path: None,
            revision: None,
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            use_rslora: false,
            use_dora: false,
            target_modules: None,
            exclude_modules: None,
            modules_to_save: None,
            layers_to_transform: None,
            layers_pattern: None,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            bias: "none".into(),
            fan_in_fan_out: false,
            inference_mode: true,
            init_lora_weights: Value::Bool(true),
            rest: Map::new(),
        }
    }
}

/// Keys of `rest` that change what an adapter computes when set.
const CHANGING: [&str; 10] = [
    "layer_replication",
    "lora_bias",
    "use_qalora",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
];

/// Initializations that also change the base's weights, without which the adapter is wrong.
const CHANGES_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// PEFT's name for "no module": an adapter that only saves modules trained in full.
const NO_TARGETS: &str = "dummy-target-modules";

/// Whether the head follows a trained embedding that the base ties it to.
const TYING: &str = "ensure_weight_tying";

/// The type of HiRA adapters.
const HIRA: &str = "HIRA";
const HIRA_DROPOUT: &str = "hira_dropout";
const HIRA_INIT: &str = "init_weights";
/// Fields of the mirror that `HiraConfig` lacks.
const NOT_IN_HIRA: [&str; 7] = [
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "use_dora",
    "alpha_pattern",
    "bias",
    "init_lora_weights",
];

impl PeftConfig {
    /// Reads the bytes of an `adapter_config.json`.
    pub fn from_json(config_json: &[u8]) -> Result<Self, AdapterError> {
        let mut config: Self = serde_json::from_slice(config_json).map_err(json)?;
        if config.is_hira() {
            let dropout = config.rest.remove(HIRA_DROPOUT);
            config.lora_dropout = dropout.and_then(|v| v.as_f64()).unwrap_or_default();
            config.init_lora_weights = config.rest.remove(HIRA_INIT).unwrap_or_default();
        }
        Ok(config)
    }

    /// Whether it is a HiRA adapter's.
    pub fn is_hira(&self) -> bool {
        self.peft_type == HIRA
    }

    /// Whether it adapts nothing and only saves modules trained in full.
    pub fn is_head_only(&self) -> bool {
        self.target_modules == Some(OneOrMany::One(NO_TARGETS.to_owned()))
            && self.modules_to_save.as_ref().is_some_and(|m| !m.is_empty())
    }

    /// Whether a head tied to a trained embedding is trained with it.
    pub fn ensures_weight_tying(&self) -> bool {
        self.rest.get(TYING) == Some(&Value::Bool(true))
    }

    /// Says that a head tied to a trained embedding is trained with it, where the embedding is among the modules to save
    /// and the head is not. For a base whose head is tied; PEFT warns of the key on others.
    pub fn tie_head(&mut self) {
        let saved = self.modules_to_save.as_deref().unwrap_or_default();
        let has = |module: &str| saved.iter().any(|m| m.rsplit('.').next() == Some(module));
        if has("embed_tokens") && !has("lm_head") {
            self.rest.insert(TYING.to_owned(), Value::Bool(true));
        }
    }

    /// The bytes of an `adapter_config.json`, keys sorted as PEFT sorts them.
    pub fn to_json(&self) -> Result<Vec<u8>, AdapterError> {
        let Value::Object(mut map) = serde_json::to_value(self).map_err(json)? else {
            return Ok(Vec::new());
        };
        if self.is_hira() {
            NOT_IN_HIRA.iter().for_each(|key| drop(map.remove(*key)));
            map.insert(HIRA_DROPOUT.to_owned(), self.lora_dropout.into());
            map.insert(HIRA_INIT.to_owned(), self.init_lora_weights.clone());
        }
        map.sort_keys();
        serde_json::to_vec_pretty(&map).map_err(json)
    }

    /// The file for an adapter trained under `config`; `targets` are the module paths that were adapted.
    ///
    /// A list of names is written as it is; a regular expression too; `all-linear` becomes the distinct last parts of
    /// `targets`, because a file should say what was adapted.
    pub fn from_lora(config: &LoraConfig, task_type: &str, base: &str, targets: &[String]) -> Self {
        let target_modules = match &config.target_modules {
            _ if config.method.kind().is_none() => OneOrMany::One(NO_TARGETS.to_owned()),
            modules if modules.is_all_linear() => OneOrMany::Many(super::targets::last_parts(
                targets.iter().map(String::as_str),
            )),
            other => names(other),
        };
        let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        let kind = config.method.kind();
        let peft_type = if kind == Some(Kind::Hira) {
            HIRA
        } else {
            "LORA"
        };
        Self {
            peft_type: peft_type.to_owned(),
            use_dora: kind == Some(Kind::Dora),
            init_lora_weights: match config.init {
                Init::Gaussian => Value::from("gaussian"),
                // The others leave a pair that fits the base it names, so loading must not repeat them.
                _ => Value::Bool(true),
            },
            task_type: Some(task_type.to_owned()),
            base_model_name_or_path: Some(base.to_owned()),
            r: config.rank,
            lora_alpha: config.alpha,
            lora_dropout: config.dropout,
            use_rslora: config.uses_rslora(),
            target_modules: Some(target_modules),
            exclude_modules: config.exclude_modules.as_ref().map(names),
            modules_to_save: some(&config.modules_to_save),
            layers_to_transform: config.layers_to_transform.clone().map(OneOrMany::Many),
            rank_pattern: config
                .rank_pattern
                .iter()
                .map(|(k, v)| (k.clone(), *v as f64))
                .collect(),
            alpha_pattern: config
                .alpha_pattern
                .iter()
                .map(|(k, v)| (k.clone(), *v))
                .collect(),
            ..Self::default()
        }
    }

    /// Refuses by name what would be computed wrongly: other methods, and keys that change the forward pass.
    pub fn refuse_unsupported(&self) -> Result<(), AdapterError> {
        let refuse = |key: &str, found: String, supported| {
            Err(AdapterError::Unsupported {
                key: key.to_owned(),
                found,
                supported,
            })
        };
        if self.peft_type != "LORA" && !self.is_hira() {
            return refuse("peft_type", self.peft_type.clone(), "LORA, HIRA");
        }
        if self.fan_in_fan_out {
            return refuse(
                "fan_in_fan_out",
                "true".into(),
                "false (weights stored [out, in])",
            );
        }
        if let Some(name) = self.init_lora_weights.as_str()
            && CHANGES_BASE.iter().any(|c| name.starts_with(c))
        {
            let supported = "initializations that leave the base unchanged; convert the adapter when saving it in PEFT";
            return refuse("init_lora_weights", name.into(), supported);
        }
        if self.bias != "none" {
            let supported = "none; train the adapter without biases, or merge it in PEFT";
            return refuse("bias", self.bias.clone(), supported);
        }
        let ranks = self.rank_pattern.iter().map(|(key, rank)| {
            let key = format!("rank_pattern[{key:?}]");
            (key, *rank)
        });
        for (key, rank) in ranks.chain([("r".to_owned(), self.r as f64)]) {
            if rank < 1.0 || rank.fract() != 0.0 || !rank.is_finite() {
                return refuse(
                    &key,
                    number(rank).to_string(),
                    "a whole number of at least 1",
                );
            }
        }
        for key in CHANGING {
            match self.rest.get(key) {
                None | Some(Value::Null | Value::Bool(false)) => {}
                Some(Value::Array(list)) if list.is_empty() => {}
                Some(found) => return refuse(key, found.to_string(), "null"),
            }
        }
        Ok(())
    }

    /// The base's name for messages.
    pub fn base_name(&self) -> &str {
        self.base_model_name_or_path
            .as_deref()
            .unwrap_or("an unnamed base")
    }
}

fn names(targets: &TargetModules) -> OneOrMany<String> {
    match targets {
        TargetModules::List(list) => OneOrMany::Many(list.clone()),
        TargetModules::Pattern(pattern) => OneOrMany::One(pattern.clone()),
    }
}

fn json(e: serde_json::Error) -> AdapterError {
    AdapterError::Json {
        file: "adapter_config.json",
        reason: e.to_string(),
    }
}

/// Reads null as the type's default.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// 16.0 as 16, as PEFT writes it.
fn number(v: f64) -> Value {
    match v.fract() == 0.0 && v.abs() < 1e15 {
        true => Value::from(v as i64),
        false => Value::from(v),
    }
}

fn short_number<S: Serializer>(v: &f64, s: S) -> Result<S::Ok, S::Error> {
    number(*v).serialize(s)
}

/// A map with its order kept; null reads as empty.
mod pattern {
    use super::{Deserialize, Deserializer, Map, Pattern, Serialize, Serializer, Value, number};
    use serde::de::Error;

    pub(super) fn serialize<S: Serializer>(p: &Pattern, s: S) -> Result<S::Ok, S::Error> {
        let map: Map<String, Value> = p.iter().map(|(k, v)| (k.clone(), number(*v))).collect();
        map.serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Pattern, D::Error> {
        let map = Option::<Map<String, Value>>::deserialize(d)?.unwrap_or_default();
        let one = |(key, value): (String, Value)| match value.as_f64() {
            Some(v) => Ok((key, v)),
            None => Err(D::Error::custom(format!(
                "pattern {key:?}: expected a number, found {value}"
            ))),
        };
        map.into_iter().map(one).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_numbers_and_order_survive() {
        let text = br#"{"peft_type":"LORA","r":4,"lora_alpha":16,"new_key":{"b":[1],"a":null},"megatron_core":"megatron.core",
            "target_modules":["q_proj"],"rank_pattern":{"z":6,"a":2},"lora_dropout":null,"alpha_pattern":null}"#;
        let c = PeftConfig::from_json(text).unwrap();
        assert_eq!(
            c.rank_pattern,
            [("z".to_string(), 6.0), ("a".to_string(), 2.0)]
        );
        assert_eq!((c.r, c.lora_alpha, c.lora_dropout), (4, 16.0, 0.0));
        let out = c.to_json().unwrap();
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["new_key"], serde_json::json!({"b":[1],"a":null}));
        assert_eq!(value["lora_alpha"], serde_json::json!(16));
        assert_eq!(PeftConfig::from_json(&out).unwrap(), c);
        let keys: Vec<_> = value.as_object().unwrap().keys().collect();
        assert!(keys.is_sorted());
        assert!(PeftConfig::from_json(br#"{"rank_pattern":{"a":"six"}}"#).is_err());
    }

    #[test]
    fn what_would_be_wrong_is_refused_by_name() {
        for (text, word) in [
            (r#"{"peft_type":"IA3"}"#, "IA3"),
            (r#"{"lora_bias":true}"#, "lora_bias"),
            (r#"{"init_lora_weights":"pissa_niter_4"}"#, "pissa_niter_4"),
            (r#"{"layer_replication":[[0,2]]}"#, "layer_replication"),
            (r#"{"fan_in_fan_out":true}"#, "fan_in_fan_out"),
            (r#"{"bias":"lora_only"}"#, "bias is lora_only"),
            (r#"{"r":0}"#, "r is 0"),
            (r#"{"rank_pattern":{"q_proj":2.5}}"#, "2.5"),
            (r#"{"rank_pattern":{"q_proj":0}}"#, "q_proj"),
            (r#"{"rank_pattern":{"q_proj":-1}}"#, "q_proj"),
        ] {
            let e = PeftConfig::from_json(text.as_bytes())
                .unwrap()
                .refuse_unsupported()
                .unwrap_err()
                .to_string();
            assert!(e.contains(word), "{e}");
        }
        for text in [
            r#"{}"#,
            r#"{"lora_bias":false,"target_parameters":[],"init_lora_weights":"gaussian"}"#,
        ] {
            PeftConfig::from_json(text.as_bytes())
                .unwrap()
                .refuse_unsupported()
                .unwrap();
        }
    }

    #[test]
    fn hira_has_keys_of_its_own() {
        let config = LoraConfig {
            method: crate::lora::Method::Hira,
            rank: 4,
            dropout: 0.25,
            init: Init::Gaussian,
            ..LoraConfig::default()
        };
        let c = PeftConfig::from_lora(&config, "CAUSAL_LM", "base", &["a.q_proj".into()]);
        let bytes = c.to_json().unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["peft_type"], "HIRA");
        assert_eq!(
            (&value["hira_dropout"], &value["init_weights"]),
            (&0.25.into(), &"gaussian".into())
        );
        assert!(value.get("lora_alpha").is_none() && value.get("use_dora").is_none());
        let read = PeftConfig::from_json(&bytes).unwrap();
        read.refuse_unsupported().unwrap();
        assert_eq!((read.is_hira(), read.lora_dropout, read.r), (true, 0.25, 4));
        assert_eq!(read.to_json().unwrap(), bytes);
    }

    #[test]
    fn a_run_becomes_a_file() {
        let lora = LoraConfig {
            rank: 4,
            alpha: 9.5,
            modules_to_save: vec!["lm_head".into()],
            ..LoraConfig::default()
        };
        let targets = [
            "model.layers.0.mlp.up_proj",
            "model.layers.0.self_attn.q_proj",
            "model.layers.1.mlp.up_proj",
        ];
        let c = PeftConfig::from_lora(&lora, "CAUSAL_LM", "some/base", &targets.map(String::from));
        assert_eq!(
            c.target_modules,
            Some(OneOrMany::Many(vec!["q_proj".into(), "up_proj".into()]))
        );
        let value: Value = serde_json::from_slice(&c.to_json().unwrap()).unwrap();
        assert_eq!(
            (&value["r"], &value["lora_alpha"]),
            (&serde_json::json!(4), &serde_json::json!(9.5))
        );
        assert_eq!(value["exclude_modules"], Value::Null);
    }
}
