//! A base whose weights have lost the pairs an initialization took: what is quantized and written beside the adapter.

use std::collections::BTreeMap;

use super::loftq::without;
use crate::adapters::LoraModule;
use crate::weights::{Dtype, HostTensor, OwnedTensor, TensorSpec, WeightError, WeightSource};

/// A dense source that reads `W - s·B·A` where pairs were taken, a tensor at a time.
pub struct ResidualSource<'a, S: ?Sized> {
    source: &'a S,
    taken: BTreeMap<String, &'a LoraModule>,
}

impl<'a, S: WeightSource + ?Sized> ResidualSource<'a, S> {
    /// `source` without `taken`.
    pub fn new(source: &'a S, taken: &'a [LoraModule]) -> Self {
        let named = taken.iter().map(|m| (format!("{}.weight", m.path), m));
        Self {
            source,
            taken: named.collect(),
        }
    }
}

impl<S: WeightSource + ?Sized> WeightSource for ResidualSource<'_, S> {
    fn names(&self) -> Vec<String> {
        self.source.names()
    }

    fn spec(&self, name: &str) -> Option<TensorSpec> {
        let mut spec = self.source.spec(name)?;
        if self.taken.contains_key(name) {
            spec.dtype = Dtype::F32;
        }
        Some(spec)
    }

    fn get(&self, name: &str) -> Result<HostTensor<'_>, WeightError> {
        let tensor = self.source.get(name)?;
        let Some(module) = self.taken.get(name) else {
            return Ok(tensor);
        };
        let values = tensor.to_f32().map_err(|e| e.named(name))?;
        OwnedTensor::from_f32(tensor.shape, &without(&values, module))
    }

    fn file_of(&self, name: &str) -> String {
        self.source.file_of(name)
    }
}
