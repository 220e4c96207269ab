//! What the page and its worker say to each other: plain data, in JSON, with large bytes beside it.
//!
//! ```text
//! page   ── Message<Request> { id, body } + attachments ──>  worker
//! page  <── Message<Event>   { id, body } + attachments ──   worker
//! ```
//!
//! Every request has an id that the page chose; every event carries the id of the request it belongs to (0 for what
//! nobody asked for, such as a lost device). A request ends with exactly one final event: its answer, [`Event::Stopped`]
//! or [`Event::Failed`]; see [`Event::is_final`]. Bytes of files are never put into JSON: they travel as attachments
//! (transferred `ArrayBuffer`s), and the body names them by index.
//!
//! The same types drive the engine natively in tests; a round trip through JSON is tested for every variant.

mod event;
mod request;
#[cfg(test)]
mod tests;

pub use event::{
    AdapterInfo, AdapterOrigin, BaseInfo, ColumnScores, DeviceInfo, DeviceKind, EvalRow, Event,
    Failure, FailureKind, Finish, MergeInfo, Metric, Paired, Stage, TokenLoss,
};
pub use request::{
    AdapterSource, BaseOptions, BaseSource, Column, Compute, DataSource, EvalOptions, FileRef,
    MergeMember, MergeSettings, Prompt, Request, TrainExample, TrainSettings, Turn,
};

use serde::{Deserialize, Serialize};

/// One request or event with the id of the request it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message<T> {
    /// Chosen by the page, from 1; 0 for events nobody asked for.
    pub id: u64,
    /// What is said.
    pub body: T,
}
