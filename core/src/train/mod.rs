//! Training: parameters, gradients, optimizer, schedule and the loop that joins them.

mod causal;
mod checkpoint;
mod classification;
mod clipping;
mod config;
mod early_stopping;
#[cfg(test)]
pub(crate) mod guard_tests;
mod objective;
mod observer;
mod optimizer;
mod parameters;
#[cfg(test)]
mod pause_tests;
mod schedule;
mod step;
mod trainer;

pub use causal::evaluate;
pub use checkpoint::{Checkpoint, CheckpointError, CheckpointState};
pub use classification::{ClassLosses, classify};
pub use clipping::{clip_coefficient, global_norm};
pub use config::{LossNormalization, Recompute, TrainConfig};
pub use early_stopping::*;
pub use objective::{Evaluation, Objective, accumulate};
pub use observer::*;
pub use optimizer::AdamW;
pub use parameters::{Leaf, Parameter, Parameters, Role};
pub use schedule::*;
pub use step::{Accumulated, StepOptions};
pub use trainer::{Host, Outcome, Stop, TrainError, TrainSet, Trainer};
