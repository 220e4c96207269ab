//! A static site's gallery of adapters: writing entries into it, and checking that it is whole.
//!
//! The formats are the core's ([`qloom_core::adapters::gallery`]); here they meet folders.
//!
//! - [`publish`]: an adapter and its run to `adapters/SLUG/` and a row of `adapters/index.json`;
//! - [`card`]: the model card of an entry;
//! - [`check`]: every name, size, hash and receipt of a site.

mod card;
pub(crate) mod check;
pub(crate) mod publish;
#[cfg(test)]
mod tests;

/// The folder of the gallery in a site.
const ADAPTERS: &str = "adapters";
