//! Merging adapters: PEFT's `add_weighted_adapter` types and the exact weighted sum, each with its distance from the truth.
//!
//! The truth is `Σ wᵢ sᵢ Bᵢ Aᵢ` per module, the weighted sum of the updates. PEFT's types approach it in different ways:
//!
//! | method | works on | entries dropped | then | ranks |
//! |---|---|---|---|---|
//! | `linear` | `A` and `B` | | weighted sum | equal |
//! | `cat` | `A` and `B`, stacked | | | any, they add |
//! | `svd` | the update | | weighted sum, truncated | any |
//! | `ties` | `A` and `B` | the smallest | sign election | equal |
//! | `ties_svd` | the update | the smallest | sign election, truncated | any |
//! | `dare_linear`, `dare_ties` | `A` and `B` | random ones | weighted sum, sign election | equal |
//! | `dare_linear_svd`, `dare_ties_svd` | the update | random ones | the same, truncated | any |
//! | `magnitude_prune` | `A` and `B` | the smallest | weighted sum | equal |
//! | `magnitude_prune_svd` | the update | the smallest | weighted sum, truncated | any |
//! | exact | the update | | weighted sum, truncated once to the rank asked for or the rank it has | any |
//!
//! The result is a PEFT adapter of one rank with alpha equal to it, so its scaling is 1. A module that only some adapters
//! have is merged from those. Where PEFT is wrong this is right unless [`MergeOptions::peft`] is set: PEFT lets a merge
//! inherit rsLoRA from its first adapter and so multiplies it by `sqrt(rank)`. In both modes adapters that PEFT merges into
//! files it cannot load again (rank patterns, a rank above a module's size, layers narrowed differently) come out loadable.
//!
//! An adapter can also go into its base for good: see [`merge_into_base`].
//!
//! Source: PEFT 0.21, `LoraModel.add_weighted_adapter`; the papers are named in the files.

mod arithmetic;
mod base_weights;
mod cat;
mod combine;
mod dare;
mod error;
mod factors;
mod fidelity;
mod group;
mod into_base;
mod method;
mod options;
mod prune;
mod record;
mod run;
mod source;
#[cfg(test)]
mod tests;
mod ties;
mod union;
mod updates;

pub use dare::{Masked, Masks};
pub use error::MergeError;
pub use fidelity::{Fidelity, FidelityReport, ModuleFidelity};
pub use into_base::{UpdateError, merge_into_base, update_errors};
pub use method::{Method, Sign};
pub use options::{MergeOptions, SavedModules};
pub use record::{MERGE_KEY, MergeRecord, MergeSource};
pub use run::{Merged, merge, merge_with_masks};
pub use source::Source;
