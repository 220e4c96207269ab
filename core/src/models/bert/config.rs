//! [`BertConfig`]: an encoder's sizes and switches, from the `config.json` of either family.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::names::Names;
use super::{BertError, Prefixed};
use crate::adapters::Adapter;
use crate::models::load::check_tensor;
use crate::models::parts::Part;
use crate::weights::{WeightError, WeightSource};

/// Largest size taken seriously.
const MAX_SIZE: usize = 1 << 28;

/// Which family's names, head and extras apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Segments; a pooler before the classifier.
    Bert,
    /// No segments; `pre_classifier` in the pooler's place.
    DistilBert,
}

/// The nonlinearity of the feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x Φ(x)`, exact.
    Gelu,
    /// The tanh approximation (`gelu_new`).
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

/// An encoder's sizes and switches.
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// Family.
    pub family: Family,
    /// Rows of the word embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Rows of the position embedding: the longest sequence in tokens.
    pub max_position_embeddings: usize,
    /// Rows of the segment embedding; 0 where there is none.
    pub type_vocab_size: usize,
    /// Added to the variance in every norm.
    pub layer_norm_eps: f64,
    /// Nonlinearity of the feed-forward layer.
    pub activation: Activation,
    /// Dropout on embeddings and on what sub-layers add, while training.
    pub hidden_dropout: f64,
    /// Dropout on attention probabilities, while training.
    pub attention_dropout: f64,
    /// Dropout before the classifier, while training.
    pub classifier_dropout: f64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Classes of the head that the configuration describes.
    pub num_labels: usize,
    /// Their names, by class.
    pub labels: Vec<String>,
}

/// The keys of either family that are read; what only one has is optional.
#[derive(Deserialize)]
struct File {
    model_type: String,
    vocab_size: usize,
    #[serde(alias = "dim")]
    hidden_size: usize,
    #[serde(alias = "hidden_dim")]
    intermediate_size: usize,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    #[serde(default = "positions")]
    max_position_embeddings: usize,
    type_vocab_size: Option<usize>,
    layer_norm_eps: Option<f64>,
    #[serde(alias = "hidden_act")]
    activation: Option<String>,
    #[serde(alias = "hidden_dropout_prob")]
    dropout: Option<f64>,
    #[serde(alias = "attention_probs_dropout_prob")]
    attention_dropout: Option<f64>,
    classifier_dropout: Option<f64>,
    seq_classif_dropout: Option<f64>,
    initializer_range: Option<f64>,
    id2label: Option<Map<String, Value>>,
    num_labels: Option<usize>,
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
    add_cross_attention: Option<bool>,
    problem_type: Option<String>,
}

fn positions() -> usize {
    512
}

impl BertConfig {
    /// Reads and checks the bytes of a `config.json` whose `model_type` is `bert` or `distilbert`.
    ///
    /// # Errors
    /// JSON that does not parse, another model, a switch that changes the maths and is not supported, or sizes that
    /// contradict each other.
    pub fn from_json(config_json: &[u8]) -> Result<Self, BertError> {
        let file: File = serde_json::from_slice(config_json).map_err(|e| BertError::Json {
            reason: e.to_string(),
        })?;
        let family = match file.model_type.as_str() {
            "bert" => Family::Bert,
            "distilbert" => Family::DistilBert,
            other => return unsupported("model_type", other, "bert, distilbert"),
        };
        file.refuse_unsupported()?;
        let activation = match file.activation.as_deref().unwrap_or("gelu") {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            other => return unsupported("the activation", other, "gelu, gelu_new, relu"),
        };
        let labels = file.labels()?;
        let hidden_dropout = file.dropout.unwrap_or(0.1);
        let config = Self {
            family,
            vocab_size: file.vocab_size,
            hidden_size: file.hidden_size,
            intermediate_size: file.intermediate_size,
            num_hidden_layers: file.num_hidden_layers,
            num_attention_heads: file.num_attention_heads,
            max_position_embeddings: file.max_position_embeddings,
            type_vocab_size: match family {
                Family::Bert => file.type_vocab_size.unwrap_or(2),
                Family::DistilBert => 0,
            },
            layer_norm_eps: file.layer_norm_eps.unwrap_or(1e-12),
            activation,
            hidden_dropout,
            attention_dropout: file.attention_dropout.unwrap_or(0.1),
            classifier_dropout: match family {
                Family::Bert => file.classifier_dropout.unwrap_or(hidden_dropout),
                Family::DistilBert => file.seq_classif_dropout.unwrap_or(0.2),
            },
            initializer_range: file.initializer_range.unwrap_or(0.02),
            num_labels: labels.len(),
            labels,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), BertError> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size (dim)", self.hidden_size),
            ("intermediate_size (hidden_dim)", self.intermediate_size),
            ("num_hidden_layers (n_layers)", self.num_hidden_layers),
            ("num_attention_heads (n_heads)", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
            ("the number of labels", self.num_labels),
        ];
        for (key, size) in sizes {
            if !(1..=MAX_SIZE).contains(&size) {
                return contradiction(format!("{key} is {size}; expected 1 to {MAX_SIZE}"));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return contradiction(format!(
                "hidden_size {} is no multiple of num_attention_heads {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if !(self.layer_norm_eps.is_finite() && self.layer_norm_eps >= 0.0) {
            return contradiction(format!("layer_norm_eps is {}", self.layer_norm_eps));
        }
        for (key, p) in [
            ("hidden dropout", self.hidden_dropout),
            ("attention dropout", self.attention_dropout),
            ("classifier dropout", self.classifier_dropout),
        ] {
            if !(0.0..1.0).contains(&p) {
                return contradiction(format!("{key} is {p}; expected at least 0 and below 1"));
            }
        }
        Ok(())
    }

    /// What this family calls its tensors.
    pub(crate) fn names(&self) -> Names {
        Names::new(self.family)
    }

    /// Path and `[out, in]` of every linear of the blocks, first to last.
    fn block_linears(&self) -> Vec<(String, [usize; 2])> {
        let names = self.names();
        let (h, m) = (self.hidden_size, self.intermediate_size);
        (0..self.num_hidden_layers)
            .flat_map(|i| {
                let block = names.block(i);
                [
                    (block.query, [h, h]),
                    (block.key, [h, h]),
                    (block.value, [h, h]),
                    (block.output, [h, h]),
                    (block.up, [m, h]),
                    (block.down, [h, m]),
                ]
            })
            .collect()
    }

    /// Path and `[out, in]` of every linear that can be adapted: those of the blocks, and the one before the classifier.
    pub fn linear_modules(&self) -> Vec<(String, [usize; 2])> {
        let h = self.hidden_size;
        let mut list = self.block_linears();
        list.push((self.names().head_dense().to_owned(), [h, h]));
        list
    }

    /// Every tensor of the encoder, with its shape; the pooler and the classification head are not among them.
    pub fn encoder_tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (names, h) = (self.names(), self.hidden_size);
        let mut list = vec![
            (names.word_embeddings(), vec![self.vocab_size, h]),
            (
                names.position_embeddings(),
                vec![self.max_position_embeddings, h],
            ),
        ];
        if self.type_vocab_size > 0 {
            list.push((names.type_embeddings(), vec![self.type_vocab_size, h]));
        }
        let mut norms = vec![names.embedding_norm()];
        for (path, [out, input]) in self.block_linears() {
            list.push((format!("{path}.weight"), vec![out, input]));
            list.push((format!("{path}.bias"), vec![out]));
        }
        for i in 0..self.num_hidden_layers {
            let block = names.block(i);
            norms.extend([block.attention_norm, block.output_norm]);
        }
        for norm in norms {
            list.push((format!("{norm}.weight"), vec![h]));
            list.push((format!("{norm}.bias"), vec![h]));
        }
        list
    }

    /// The tensors of a head for `num_labels` classes, with their shapes.
    pub fn head_tensors(&self, num_labels: usize) -> Vec<(String, Vec<usize>)> {
        let (names, h) = (self.names(), self.hidden_size);
        let (dense, classifier) = (names.head_dense(), names.classifier());
        vec![
            (format!("{dense}.weight"), vec![h, h]),
            (format!("{dense}.bias"), vec![h]),
            (format!("{classifier}.weight"), vec![num_labels, h]),
            (format!("{classifier}.bias"), vec![num_labels]),
        ]
    }

    /// Every tensor of a classifier with `num_labels` classes.
    pub fn expected_tensors(&self, num_labels: usize) -> Vec<(String, Vec<usize>)> {
        let mut list = self.encoder_tensors();
        list.extend(self.head_tensors(num_labels));
        list
    }

    /// Every tensor `adapter` may hold in full. Its own classifier says how many classes there are.
    pub fn adaptable_tensors(&self, adapter: &Adapter) -> Vec<(String, Vec<usize>)> {
        let saved = adapter.saved();
        let own = saved.get("classifier.weight").and_then(|t| t.shape.first());
        self.expected_tensors(own.copied().unwrap_or(self.num_labels))
    }

    /// Checks names, shapes and types of the encoder in `source` against this configuration, without reading any
    /// weight; of the head, only what is there.
    ///
    /// # Errors
    /// A missing tensor, a shape that contradicts `config.json`, a foreign quantization.
    pub fn validate_weights(&self, source: &dyn WeightSource) -> Result<(), BertError> {
        Part::all(self.num_hidden_layers)
            .into_iter()
            .try_for_each(|part| self.validate_part(part, source))
    }

    /// Checks that `source` names every tensor of the encoder: what a source whose bytes are still to be fetched can be
    /// asked. [`super::BertBuilder::add`] checks the rest of each part.
    ///
    /// # Errors
    /// A missing tensor.
    pub fn validate_names(&self, source: &dyn WeightSource) -> Result<(), BertError> {
        let source = Prefixed::new(source, self.family);
        for (name, _) in self.encoder_tensors() {
            if !source.contains(&name) {
                let files = source.file_of(&name);
                return Err(WeightError::Missing { name, files }.into());
            }
        }
        Ok(())
    }

    /// Checks the tensors of `part` as [`BertConfig::validate_weights`] checks all.
    pub(super) fn validate_part(
        &self,
        part: Part,
        source: &dyn WeightSource,
    ) -> Result<(), BertError> {
        let source = Prefixed::new(source, self.family);
        for (name, shape) in self.part_tensors(part) {
            if part != Part::Head || source.contains(&name) {
                check_tensor::<BertError>(&source, &name, &shape)?;
            }
        }
        Ok(())
    }

    /// Those of [`BertConfig::expected_tensors`] that are of `part`.
    pub(super) fn part_tensors(&self, part: Part) -> Vec<(String, Vec<usize>)> {
        if part == Part::Head {
            return self.head_tensors(self.num_labels);
        }
        let names = self.names();
        let of = |name: &str| match name.strip_prefix(names.blocks()) {
            Some(rest) => rest
                .split('.')
                .next()
                .and_then(|index| index.parse().ok())
                .map(Part::Block),
            None => Some(Part::Embedding),
        };
        let mut tensors = self.encoder_tensors();
        tensors.retain(|(name, _)| of(name) == Some(part));
        tensors
    }
}

impl File {
    /// Switches that would change what is computed.
    fn refuse_unsupported(&self) -> Result<(), BertError> {
        match self.position_embedding_type.as_deref() {
            None | Some("absolute") => {}
            Some(other) => return unsupported("position_embedding_type", other, "absolute"),
        }
        if self.is_decoder == Some(true) || self.add_cross_attention == Some(true) {
            return unsupported("is_decoder", "true", "false (an encoder)");
        }
        match self.problem_type.as_deref() {
            None | Some("single_label_classification") => Ok(()),
            Some(other) => unsupported("problem_type", other, "single_label_classification"),
        }
    }

    /// Label names by class id; two nameless ones where the file says nothing, as transformers assumes.
    fn labels(&self) -> Result<Vec<String>, BertError> {
        let Some(map) = &self.id2label else {
            let count = self.num_labels.unwrap_or(2);
            return Ok((0..count.min(MAX_SIZE)).map(unnamed).collect());
        };
        let mut labels = vec![None; map.len()];
        for (id, name) in map {
            let slot = id
                .parse::<usize>()
                .ok()
                .and_then(|id| labels.get_mut(id))
                .ok_or_else(|| BertError::Contradiction {
                    reason: format!(
                        "id2label has the id {id:?}; expected 0 to {}",
                        map.len().saturating_sub(1)
                    ),
                })?;
            *slot = name.as_str().map(str::to_owned);
        }
        let named = labels.into_iter().enumerate();
        Ok(named
            .map(|(i, l)| l.unwrap_or_else(|| unnamed(i)))
            .collect())
    }
}

fn unnamed(class: usize) -> String {
    format!("LABEL_{class}")
}

fn unsupported<T>(key: &'static str, found: &str, supported: &'static str) -> Result<T, BertError> {
    Err(BertError::Unsupported {
        key,
        found: found.to_owned(),
        supported,
    })
}

fn contradiction(reason: String) -> Result<(), BertError> {
    Err(BertError::Contradiction { reason })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    const DISTIL: &str = r#"{"model_type":"distilbert","vocab_size":30522,"dim":768,"hidden_dim":3072,"n_layers":6,
        "n_heads":12,"max_position_embeddings":512,"dropout":0.1,"attention_dropout":0.1,"seq_classif_dropout":0.2,
        "activation":"gelu","sinusoidal_pos_embds":false,"tie_weights_":true}"#;

    fn with(text: &str, key: &str, value: Value) -> Result<BertConfig, BertError> {
        let mut map: Map<String, Value> = serde_json::from_str(text).unwrap();
        map.insert(key.to_owned(), value);
        BertConfig::from_json(&serde_json::to_vec(&map).unwrap())
    }

    #[test]
    fn both_families_are_read() {
        let distil = BertConfig::from_json(DISTIL.as_bytes()).unwrap();
        assert_eq!(distil.family, Family::DistilBert);
        assert_eq!((distil.hidden_size, distil.num_hidden_layers), (768, 6));
        assert_eq!((distil.type_vocab_size, distil.num_labels), (0, 2));
        assert_eq!(distil.classifier_dropout, 0.2);
        assert_eq!(distil.linear_modules().len(), 6 * 6 + 1);
        let bert = br#"{"model_type":"bert","vocab_size":100,"hidden_size":8,"intermediate_size":16,"num_hidden_layers":2,
            "num_attention_heads":2,"hidden_act":"gelu_new","hidden_dropout_prob":0.2,"classifier_dropout":null,
            "id2label":{"1":"positive","0":"negative","2":"neutral"}}"#;
        let bert = BertConfig::from_json(bert).unwrap();
        assert_eq!(bert.labels, ["negative", "positive", "neutral"]);
        assert_eq!(bert.activation, Activation::GeluTanh);
        assert_eq!((bert.classifier_dropout, bert.type_vocab_size), (0.2, 2));
        assert!(
            bert.encoder_tensors().iter().any(|(n, s)| n
                == "bert.encoder.layer.1.attention.self.query.weight"
                && *s == [8, 8])
        );
    }

    #[test]
    fn what_would_be_wrong_is_refused_by_name() {
        for (key, value, words) in [
            ("model_type", Value::from("roberta"), "roberta"),
            ("activation", Value::from("silu"), "silu"),
            ("n_heads", Value::from(7), "multiple"),
            ("n_layers", Value::from(0), "n_layers"),
            ("dropout", Value::from(1.0), "dropout"),
            (
                "position_embedding_type",
                Value::from("relative_key"),
                "relative_key",
            ),
            (
                "problem_type",
                Value::from("multi_label_classification"),
                "multi_label",
            ),
            (
                "id2label",
                serde_json::json!({"0": "a", "2": "b"}),
                "id2label",
            ),
        ] {
            let error = with(DISTIL, key, value).unwrap_err().to_string();
            assert!(error.contains(words), "{key}: {error}");
        }
    }
}
