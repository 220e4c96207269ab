//! Training: parameters, gradients, optimizer, schedule and the loop that joins them.

mod checkpoint;
mod clipping;
mod config;
mod early_stopping;
mod observer;
mod optimizer;
mod parameters;
mod schedule;
mod step;
mod trainer;

pub use checkpoint::{Checkpoint, CheckpointError, CheckpointState};
pub use clipping::{clip_coefficient, global_norm};
pub use config::{LossNormalization, Recompute, TrainConfig};
pub use early_stopping::*;
pub use observer::*;
pub use optimizer::AdamW;
pub use parameters::{Leaf, Parameter, Parameters, Role};
pub use schedule::*;
pub use step::{Accumulated, StepOptions, accumulate};
pub use trainer::{Host, Outcome, Stop, TrainError, TrainSet, Trainer, evaluate};
