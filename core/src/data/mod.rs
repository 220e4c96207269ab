//! From files' bytes to batches: records, formats, chat templates, masks, truncation, packing, splits, and a report.
//!
//! The order of things, each in its own file: [`parse_records`] (bytes to rows) → [`split_rows`] (held-out rows and
//! subsets) → [`Encoder`] (row → text with trained ranges → tokens and labels) → [`BatchPlan`] (which examples form
//! which batch of which epoch) → [`collate`] (padded or packed tensors, still on the host).
//!
//! Conventions that the model relies on: labels are not shifted, -100 means "not trained", the first token of every
//! document is never a target, padding is marked by segment 0 and never by a token id.

mod batching;
mod config;
mod encode;
mod error;
mod example;
mod formats;
mod labels;
mod packing;
mod preview;
mod records;
mod render;
mod report;
mod rng;
mod split;
mod targets;

pub use batching::{BatchOptions, BatchPlan, CollateOptions, collate};
pub use config::{DataConfig, FieldTemplates, Format, LabelNames, PromptStyle, Share, Truncation};
pub use encode::{Dataset, Encoder, Task};
pub use error::DataError;
pub use example::{Batch, Example, IGNORE, SourceLine};
pub use formats::{Body, Formatter, Prompt, Sample, detect_format};
pub use labels::{Labels, class_names};
pub use packing::pack;
pub use preview::{Piece, preview};
pub use records::{BadLine, FileKind, ReadOptions, Record, Records, Row, parse_records};
pub use render::Rendered;
pub use report::{DataReport, Lengths, Warning, WarningKind};
pub use split::{sample_rows, split_rows};

#[cfg(test)]
mod tests;
