//! Small parts that several sections use.

mod drop_zone;
mod facts;
mod fail;
mod grid;
mod number;
mod progress;

pub(super) use drop_zone::DropZone;
pub(super) use facts::Facts;
pub(super) use fail::Fail;
pub(super) use grid::GridTable;
pub(super) use number::{NumberField, OptionalNumber};
pub(super) use progress::ProgressBar;
