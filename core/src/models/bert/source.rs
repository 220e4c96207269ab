//! A checkpoint under the names of a classifier, whatever its own are.

use super::Family;
use super::names::Names;
use crate::weights::{HostTensor, TensorSpec, WeightError, WeightSource};

/// Tensors of an encoder that was saved alone (`embeddings…` for `bert.embeddings…`), or by TensorFlow (`gamma` and
/// `beta` for a norm's `weight` and `bias`), found and listed under the classifier's names.
pub struct Prefixed<'a> {
    inner: &'a dyn WeightSource,
    prefix: &'static str,
}

impl<'a> Prefixed<'a> {
    /// `inner` seen as a checkpoint of `family`.
    pub fn new(inner: &'a dyn WeightSource, family: Family) -> Self {
        Self {
            inner,
            prefix: Names::new(family).prefix(),
        }
    }

    /// The name that `inner` has for `name`; `name` itself where it has none.
    pub fn stored(&self, name: &str) -> String {
        let bare = name.strip_prefix(self.prefix);
        let candidates = [Some(name), bare].into_iter().flatten();
        let old = |name: &str| {
            let renamed = name
                .strip_suffix("LayerNorm.weight")
                .map(|head| format!("{head}LayerNorm.gamma"));
            renamed.or_else(|| {
                name.strip_suffix("LayerNorm.bias")
                    .map(|head| format!("{head}LayerNorm.beta"))
            })
        };
        candidates
            .flat_map(|n| [Some(n.to_owned()), old(n)])
            .flatten()
            .find(|n| self.inner.contains(n))
            .unwrap_or_else(|| name.to_owned())
    }
}

/// What an encoder that was saved alone begins its names with.
const BARE: [&str; 4] = ["embeddings.", "encoder.", "transformer.", "pooler."];

impl Prefixed<'_> {
    /// The classifier's name for `name`, one of the checkpoint's.
    fn canonical(&self, name: &str) -> String {
        let norm = |old: &str, new: &str| Some(format!("{}{new}", name.strip_suffix(old)?));
        let named = norm("LayerNorm.gamma", "LayerNorm.weight")
            .or_else(|| norm("LayerNorm.beta", "LayerNorm.bias"))
            .unwrap_or_else(|| name.to_owned());
        match BARE.iter().any(|part| named.starts_with(part)) {
            true => format!("{}{named}", self.prefix),
            false => named,
        }
    }
}

impl WeightSource for Prefixed<'_> {
    fn names(&self) -> Vec<String> {
        let names = self.inner.names();
        names.iter().map(|name| self.canonical(name)).collect()
    }

    fn spec(&self, name: &str) -> Option<TensorSpec> {
        let spec = self.inner.spec(&self.stored(name))?;
        Some(TensorSpec {
            name: name.to_owned(),
            ..spec
        })
    }

    fn get(&self, name: &str) -> Result<HostTensor<'_>, WeightError> {
        self.inner.get(&self.stored(name))
    }

    fn file_of(&self, name: &str) -> String {
        self.inner.file_of(&self.stored(name))
    }
}
