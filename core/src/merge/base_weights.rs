//! A base with an adapter merged into it, seen tensor by tensor: nothing is computed before it is asked for.

use super::{MergeError, updates};
use crate::adapters::{Adapter, LoraModule};
use crate::lora::{Kind, change_of_weight};
use crate::quantization::{self, Stored, encode, read_bnb, stored_format};
use crate::weights::{HostTensor, OwnedTensor, TensorSpec, WeightError, WeightSource};
use std::collections::BTreeMap;

/// What an adapter changes in a base, by the name of the base's tensor.
pub(super) struct Changes {
    kind: Kind,
    updates: BTreeMap<String, (LoraModule, Option<Vec<f32>>)>,
    saved: BTreeMap<String, OwnedTensor>,
    brought: BTreeMap<String, TensorSpec>,
}

impl Changes {
    /// Holds the adapter to the base: every module must be there, in its size.
    ///
    /// # Errors
    /// [`MergeError::NoPlace`], naming the tensor.
    pub(super) fn new<S: WeightSource + ?Sized>(
        source: &S,
        adapter: &Adapter,
    ) -> Result<Self, MergeError> {
        let mut updates = BTreeMap::new();
        for m in adapter.pairs()? {
            let name = format!("{}.weight", m.path);
            expect_place(source, &name, &[m.out_features, m.in_features])?;
            let magnitude = adapter.magnitude(&m.path)?;
            updates.insert(name, (m, magnitude));
        }
        let (mut saved, mut brought) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in adapter.saved() {
            let shape = &tensor.shape;
            if adds_head(source, name) {
                expect_place(source, EMBEDDING, shape)?;
                let like = source.spec(EMBEDDING).map_or(tensor.dtype, |s| s.dtype);
                brought.insert(name.to_owned(), TensorSpec::new(name, like, shape.clone()));
            } else if brings_classes(source, name, shape) {
                let spec = TensorSpec::new(name, tensor.dtype, shape.clone());
                brought.insert(name.to_owned(), spec);
            } else {
                expect_place(source, name, shape)?;
            }
            saved.insert(name.to_owned(), tensor.clone());
        }
        if adapter.unties_head() && adds_head(source, HEAD) {
            // The embedding changes and the head does not: it becomes a matrix of its own.
            let table = source.get(EMBEDDING)?.into_owned();
            let spec = TensorSpec::new(HEAD, table.dtype, table.shape.clone());
            brought.insert(HEAD.to_owned(), spec);
            saved.insert(HEAD.to_owned(), table);
        }
        Ok(Self {
            kind: adapter.kind(),
            updates,
            saved,
            brought,
        })
    }

    /// Whether the tensor `name` becomes another.
    pub(super) fn touches(&self, name: &str) -> bool {
        self.updates.contains_key(name) || self.saved.contains_key(name)
    }

    /// The names of the adapted weights, and the paths of their modules.
    pub(super) fn adapted(&self) -> impl Iterator<Item = (&str, &str)> {
        let named = self.updates.iter();
        named.map(|(name, (module, _))| (name.as_str(), module.path.as_str()))
    }

    /// What the adapter adds to `weight`, the dense weight `name`; `None` where it adapts no such weight. DoRA's and
    /// HiRA's change depends on the weight itself.
    pub(super) fn change(&self, name: &str, weight: &[f32]) -> Option<Vec<f32>> {
        let (module, magnitude) = self.updates.get(name)?;
        let product = updates::update(module);
        let magnitude = magnitude.as_deref();
        Some(change_of_weight(
            self.kind,
            weight,
            product,
            module.in_features,
            magnitude,
        ))
    }

    /// The changed tensor `name`, in `f32`; `None` where it is unchanged.
    pub(super) fn values<S: WeightSource + ?Sized>(
        &self,
        source: &S,
        name: &str,
    ) -> Result<Option<Vec<f32>>, MergeError> {
        if let Some(saved) = self.saved.get(name) {
            return Ok(Some(saved.to_f32().map_err(|e| e.named(name))?));
        }
        if !self.updates.contains_key(name) {
            return Ok(None);
        }
        let mut weight = dense(source, name)?;
        let change = self.change(name, &weight);
        for (w, d) in weight.iter_mut().zip(change.into_iter().flatten()) {
            *w += d;
        }
        Ok(Some(weight))
    }

    /// Whether a head tied to the embedding gets weights of its own.
    pub(super) fn unties_head<S: WeightSource + ?Sized>(&self, source: &S) -> bool {
        self.saved.keys().any(|name| adds_head(source, name))
    }

    /// The matrices of a head that the base lacks, or has for other classes: their modules' paths.
    pub(super) fn brought_modules(&self) -> impl Iterator<Item = &str> {
        let matrices = self.brought.values().filter(|spec| spec.shape.len() == 2);
        matrices.filter_map(|spec| spec.name.strip_suffix(".weight"))
    }
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn adds_head<S: WeightSource + ?Sized>(source: &S, name: &str) -> bool {
    name == HEAD && source.spec(HEAD).is_none() && source.spec(EMBEDDING).is_some()
}

/// Modules of a classification head, which an adapter may bring along.
const CLASSES: [&str; 4] = [
    "classifier.",
    "pre_classifier.",
    "score.",
    "bert.pooler.dense.",
];

/// Whether `name` is of a classification head that the base lacks, or has for other classes.
fn brings_classes<S: WeightSource + ?Sized>(source: &S, name: &str, shape: &[usize]) -> bool {
    let found = source.spec(name);
    CLASSES.iter().any(|part| name.starts_with(part)) && found.is_none_or(|s| s.shape != shape)
}

/// A base with the places that an adapter brings of its own.
pub(super) struct Extended<'a, S: ?Sized> {
    pub(super) base: &'a S,
    pub(super) changes: &'a Changes,
}

impl<S: WeightSource + ?Sized> WeightSource for Extended<'_, S> {
    fn names(&self) -> Vec<String> {
        let mut names = self.base.names();
        let new = self.changes.brought.keys();
        names.extend(new.filter(|name| !self.base.contains(name)).cloned());
        names
    }

    fn spec(&self, name: &str) -> Option<TensorSpec> {
        let brought = self.changes.brought.get(name).cloned();
        brought.or_else(|| self.base.spec(name))
    }

    fn get(&self, name: &str) -> Result<HostTensor<'_>, WeightError> {
        let (Some(spec), Some(saved)) =
            (self.changes.brought.get(name), self.changes.saved.get(name))
        else {
            return self.base.get(name);
        };
        let values = saved.to_f32().map_err(|e| e.named(name))?;
        HostTensor::new(
            spec.dtype,
            spec.shape.clone(),
            encode(&values, spec.dtype, name)?,
        )
        .map_err(|e| e.named(name))
    }

    fn file_of(&self, name: &str) -> String {
        self.base.file_of(name)
    }
}

/// The weight `name` of a base as `f32`, dequantized where it is quantized.
pub(super) fn dense<S: WeightSource + ?Sized>(
    source: &S,
    name: &str,
) -> Result<Vec<f32>, MergeError> {
    Ok(match stored_format(source, name)? {
        Stored::Dense => source.get(name)?.to_f32().map_err(|e| e.named(name))?,
        Stored::Nf4 => read_bnb(source, name)?.dequantize()?,
    })
}

/// Shape and float type of the weight `name`, as they are once dequantized.
fn dense_spec<S: WeightSource + ?Sized>(source: &S, name: &str) -> Option<TensorSpec> {
    let spec = source.spec(name)?;
    match stored_format(source, name) {
        Ok(Stored::Nf4) => quantization::dense_spec(source, name).ok(),
        _ => Some(spec),
    }
}

fn expect_place<S: WeightSource + ?Sized>(
    source: &S,
    name: &str,
    expected: &[usize],
) -> Result<(), MergeError> {
    let found = match dense_spec(source, name) {
        Some(spec) if spec.shape == expected => return Ok(()),
        Some(spec) => format!("one of shape {:?}", spec.shape),
        None => "none of that name".to_owned(),
    };
    Err(MergeError::NoPlace {
        tensor: name.to_owned(),
        expected: expected.to_vec(),
        found,
    })
}

/// The merged base as a source of dense tensors; `base` has a place for every tensor of the adapter.
pub(super) struct MergedWeights<'a, S: ?Sized> {
    pub(super) base: &'a S,
    pub(super) changes: &'a Changes,
}

impl<S: WeightSource + ?Sized> MergedWeights<'_, S> {
    fn is_companion(&self, name: &str) -> bool {
        quantization::is_companion(self.base, name)
    }
}

impl<S: WeightSource + ?Sized> WeightSource for MergedWeights<'_, S> {
    fn names(&self) -> Vec<String> {
        let mut names = self.base.names();
        names.retain(|name| !self.is_companion(name));
        names
    }

    fn spec(&self, name: &str) -> Option<TensorSpec> {
        if self.is_companion(name) {
            return None;
        }
        dense_spec(self.base, name)
    }

    fn get(&self, name: &str) -> Result<HostTensor<'_>, WeightError> {
        let missing = || WeightError::Missing {
            name: name.to_owned(),
            files: self.base.file_of(name),
        };
        let quantized = matches!(stored_format(self.base, name), Ok(Stored::Nf4));
        if !quantized && !self.changes.touches(name) {
            return self.base.get(name);
        }
        let spec = self.spec(name).ok_or_else(missing)?;
        let values = match self.changes.values(self.base, name) {
            Ok(Some(values)) => Ok(values),
            Ok(None) => dense(self.base, name),
            Err(e) => Err(e),
        };
        let values = values.map_err(|e| match e {
            MergeError::Weights(e) => e,
            other => WeightError::Source {
                name: name.to_owned(),
                reason: other.to_string(),
            },
        })?;
        HostTensor::new(spec.dtype, spec.shape, encode(&values, spec.dtype, name)?)
            .map_err(|e| e.named(name))
    }

    fn file_of(&self, name: &str) -> String {
        self.base.file_of(name)
    }
}
