//! The classification head: the first token's state through one dense layer to a logit per class.
//!
//! BERT: `classifier(dropout(tanh(pooler(h))))`. DistilBERT: `classifier(dropout(relu(pre_classifier(h))))`.

use burn::tensor::activation::relu;
use burn::tensor::{DType, Tensor};

use super::names::Names;
use super::{BertConfig, BertError, Family};
use crate::lora::Overlay;
use crate::models::dropout::dropout;
use crate::models::linear::{Linear, Weight};
use crate::models::random::normal;

/// What a base has of a head. Either part may be missing: then an overlay has to bring it.
#[derive(Clone, Debug)]
pub struct Head {
    /// Pooler or `pre_classifier`, `[hidden, hidden]`.
    pub dense: Option<Linear>,
    /// `[classes, hidden]`.
    pub classifier: Option<Linear>,
    /// Which nonlinearity lies between.
    pub family: Family,
    /// Dropout before the classifier, while training.
    pub dropout: f64,
    /// Type of activations.
    pub dtype: DType,
}

impl Head {
    /// This head with what `overlay` holds for it.
    pub fn with(&self, overlay: &Overlay) -> Self {
        let names = Names::new(self.family);
        let part = |base: &Option<Linear>, path: &str| {
            let trained = || {
                let weight = overlay.matrix(&format!("{path}.weight"))?;
                let fresh = Linear::new(Weight::Dense(weight.cast(self.dtype)), None);
                Some(fresh)
            };
            base.clone()
                .or_else(trained)
                .map(|linear| linear.with(overlay, path))
        };
        Self {
            dense: part(&self.dense, names.head_dense()),
            classifier: part(&self.classifier, names.classifier()),
            ..*self
        }
    }

    /// Logits, `[documents, classes]`, f32, of the first tokens' states, `[documents, hidden]`.
    ///
    /// # Errors
    /// [`BertError::NoHead`] where a part is missing.
    pub fn forward(&self, first: Tensor<2>, training: bool) -> Result<Tensor<2>, BertError> {
        let (dense, classifier) = self.parts()?;
        let x = dense.forward(first);
        let x = match self.family {
            Family::Bert => x.tanh(),
            Family::DistilBert => relu(x),
        };
        let x = dropout(x, if training { self.dropout } else { 0.0 });
        Ok(classifier.forward(x).cast(DType::F32))
    }

    /// Both parts.
    ///
    /// # Errors
    /// [`BertError::NoHead`] naming the one that is missing.
    pub fn parts(&self) -> Result<(&Linear, &Linear), BertError> {
        let names = Names::new(self.family);
        let missing = |path: &str| BertError::NoHead {
            missing: format!("{path}.weight"),
        };
        let dense = self.dense.as_ref();
        let classifier = self.classifier.as_ref();
        Ok((
            dense.ok_or_else(|| missing(names.head_dense()))?,
            classifier.ok_or_else(|| missing(names.classifier()))?,
        ))
    }

    /// Classes, where there is a classifier.
    pub fn num_labels(&self) -> Option<usize> {
        self.classifier.as_ref().map(|c| c.shape()[0])
    }
}

impl BertConfig {
    /// Modules of the head that training saves beside the adapter, by the names PEFT uses for them: `pre_classifier` and
    /// `classifier` in DistilBERT; in BERT `classifier`, and `pooler` only where the base has none to keep.
    pub fn head_modules(&self, head: &Head) -> Vec<String> {
        let mut modules = match (self.family, &head.dense) {
            (Family::DistilBert, _) => vec!["pre_classifier".to_owned()],
            (Family::Bert, None) => vec!["pooler".to_owned()],
            (Family::Bert, Some(_)) => Vec::new(),
        };
        modules.push(self.names().classifier().to_owned());
        modules
    }

    /// The module that holds the whole encoder: `bert`, `distilbert`.
    pub fn root(&self) -> &'static str {
        self.names().prefix().trim_end_matches('.')
    }

    /// Fresh values of the head's tensor `name`: normal matrices of `initializer_range`, zero biases, decided by `seed`.
    pub fn fresh_head_tensor(&self, name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
        let count = shape.iter().product();
        if shape.len() < 2 {
            return vec![0.0; count];
        }
        normal(seed, name, count, self.initializer_range)
    }
}
