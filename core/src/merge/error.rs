//! What can be wrong with a merge.

use super::Method;
use crate::adapters::AdapterError;
use crate::linalg::LinalgError;
use crate::quantization::QuantizationError;
use crate::weights::WeightError;
use thiserror::Error;

/// Why adapters cannot be merged.
#[derive(Debug, Error)]
pub enum MergeError {
    /// Nothing to merge.
    #[error("no adapter to merge; name at least two")]
    NoAdapters,
    /// Another number of weights than of adapters.
    #[error(
        "{found} weights for {adapters} adapters; give one weight per adapter, in the same order"
    )]
    WeightCount {
        /// Adapters there are.
        adapters: usize,
        /// Weights there are.
        found: usize,
    },
    /// A weight that is no number.
    #[error("weight {position} is {found}; expected a finite number")]
    Weight {
        /// Which, from 1.
        position: usize,
        /// Its value.
        found: f64,
    },
    /// A density outside its range.
    #[error("density is {found}; expected the share of entries to keep, above 0 and at most 1")]
    Density {
        /// Its value.
        found: f64,
    },
    /// A method that prunes without a density.
    #[error("{method} needs a density: the share of entries to keep, for example 0.5")]
    DensityMissing {
        /// The method.
        method: Method,
    },
    /// A rank of zero.
    #[error("rank is 0; expected at least 1")]
    RankZero,
    /// A setting of truncating methods with another.
    #[error(
        "{setting} can be chosen only where the result is truncated; {method} is not: use {instead}, or exact"
    )]
    NotTruncating {
        /// The setting.
        setting: &'static str,
        /// The method.
        method: Method,
        /// One that truncates.
        instead: Method,
    },
    /// A quantile that would clamp to nothing or is none.
    #[error("the clamping quantile is {found}; expected between 0.5 and 1, for example 0.99")]
    Clamp {
        /// Its value.
        found: f64,
    },
    /// A name that is none.
    #[error("unknown {what} {name:?}; expected one of {known}{hint}")]
    Unknown {
        /// `method` or `sign`.
        what: &'static str,
        /// The name.
        name: String,
        /// The names there are.
        known: String,
        /// `; did you mean ties?`, or empty.
        hint: String,
    },
    /// Factors that cannot be added.
    #[error(
        "{method} adds factors, so all adapters need the same rank; module {module} has rank {ranks}. Use {instead}, \
         which takes any ranks, or cat or svd"
    )]
    UnequalRanks {
        /// The method.
        method: Method,
        /// The module.
        module: String,
        /// `8 in a, 4 in b`.
        ranks: String,
        /// The method on updates.
        instead: Method,
    },
    /// Modules of another size.
    #[error(
        "adapters of different bases: module {module} is [{}, {}] in {first} but [{}, {}] in {second}; merge adapters of \
         one base",
        first_shape[0], first_shape[1], second_shape[0], second_shape[1]
    )]
    Shape {
        /// The module.
        module: String,
        /// An adapter.
        first: String,
        /// The shape it adapts, `[out, in]`.
        first_shape: [usize; 2],
        /// Another.
        second: String,
        /// The shape that adapts.
        second_shape: [usize; 2],
    },
    /// Receipts or configurations that name different bases.
    #[error(
        "adapters of different bases: {first} was trained on {first_base}, {second} on {second_base}; {remedy}"
    )]
    OtherBase {
        /// An adapter.
        first: String,
        /// Its base.
        first_base: String,
        /// Another.
        second: String,
        /// The base of that.
        second_base: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Different tasks.
    #[error(
        "adapters of different tasks: {first} is {first_task}, {second} is {second_task}; merge adapters of one task"
    )]
    Task {
        /// An adapter.
        first: String,
        /// Its task.
        first_task: String,
        /// Another.
        second: String,
        /// The task of that.
        second_task: String,
    },
    /// Something whose weighted sum is not defined by its factors.
    #[error(
        "adapter {adapter}: {found} cannot be merged with others, because its update is no product of its factors; \
         supported: LoRA, rsLoRA and sparse LoRA on linears"
    )]
    Unsupported {
        /// The adapter.
        adapter: String,
        /// The method or tensor.
        found: String,
    },
    /// Different tensors trained in full.
    #[error(
        "{first} and {second} each carry their own {tensor}, trained in full, which no weighted sum of updates covers; \
         choose their average or the first adapter's"
    )]
    Saved {
        /// The tensor.
        tensor: String,
        /// An adapter.
        first: String,
        /// Another.
        second: String,
    },
    /// An average of tensors whose weights give none.
    #[error(
        "{tensor} cannot be averaged: the weights of the adapters that carry it sum to {sum}; take the first adapter's"
    )]
    SavedWeights {
        /// The tensor.
        tensor: String,
        /// The sum.
        sum: f64,
    },
    /// A value that is no number.
    #[error(
        "adapter {adapter}: tensor {tensor} holds a value that is not finite; the training that made it diverged"
    )]
    NotFinite {
        /// The adapter.
        adapter: String,
        /// The tensor.
        tensor: String,
    },
    /// Given masks that do not cover the merge.
    #[error(
        "no mask of {expected} entries was given for {tensor} of adapter {adapter} in module {module}"
    )]
    Mask {
        /// The module.
        module: String,
        /// Position of the adapter.
        adapter: usize,
        /// `A`, `B` or `delta`.
        tensor: &'static str,
        /// Entries needed.
        expected: usize,
    },
    /// A tensor of the adapter that the base has no place for.
    #[error(
        "adapter for another base: the base has no tensor {tensor} of shape {expected:?}; it has {found}"
    )]
    NoPlace {
        /// The tensor.
        tensor: String,
        /// The adapter's shape.
        expected: Vec<usize>,
        /// What the base has.
        found: String,
    },
    /// An adapter's files.
    #[error("adapter {name}: {source}")]
    Source {
        /// The adapter.
        name: String,
        /// What is wrong with it.
        source: Box<AdapterError>,
    },
    /// The merged adapter's files.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A decomposition.
    #[error("module {module}: {source}")]
    Linalg {
        /// The module.
        module: String,
        /// What is wrong.
        source: LinalgError,
    },
    /// A base's tensors.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// A quantized base.
    #[error(transparent)]
    Quantization(#[from] QuantizationError),
}
