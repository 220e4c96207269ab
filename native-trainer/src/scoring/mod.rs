//! Scores of one model or two on the same examples, whether the answers come from a model here or from a file.
//!
//! - [`labels`]: labels read from answers;
//! - [`pairs`]: predictions and references from files;
//! - [`encoder`]: the encoder behind BERTScore.

pub(crate) mod encoder;
pub(crate) mod labels;
pub(crate) mod pairs;

pub(crate) use qloom_core::evaluation::metric_names;
