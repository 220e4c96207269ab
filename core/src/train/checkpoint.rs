//! Everything a run needs to continue to the same bytes: parameters, both moments, and where it was.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{AdamW, EarlyStoppingState, Parameters};
use crate::host::{ReadError, to_vec};
use crate::weights::{OwnedTensor, SafetensorsSource, WeightError, WeightSource, serialize};

/// Names of the tensors in a checkpoint file.
const VALUES: &str = "values";
const FIRST_MOMENT: &str = "first_moment";
const SECOND_MOMENT: &str = "second_moment";

/// A saved training state. Batches, masks and learning rates follow from `step` and the seeds, so
/// no generator state is kept.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What is not a tensor.
    pub state: CheckpointState,
    values: Vec<f32>,
    first_moment: Vec<f32>,
    second_moment: Vec<f32>,
}

/// The part of a checkpoint that is JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointState {
    /// Optimizer steps done.
    pub step: u64,
    /// Names of the trained tensors in the order of the flat vectors.
    pub parameters: Vec<String>,
    /// Target tokens trained on so far.
    pub tokens: u64,
    /// Progress towards an early stop, with the best loss and step.
    pub early_stopping: EarlyStoppingState,
    /// Hash of what must not change between save and resume (data order, seeds, batch shape).
    pub fingerprint: String,
    /// The factor on the loss of a run in f16; absent in other types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
}

/// Why a checkpoint does not fit.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file itself is unusable.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// The state file is not what was written.
    #[error(
        "checkpoint state is unreadable: {0}; delete this checkpoint to resume from an earlier one"
    )]
    State(#[from] serde_json::Error),
    /// A different set of tensors is being trained.
    #[error(
        "the checkpoint trains {found} tensors (first difference: {first}), this configuration {expected}; \
         resume with the configuration the run was started with"
    )]
    Parameters {
        /// Tensors this configuration trains.
        expected: usize,
        /// Tensors in the checkpoint.
        found: usize,
        /// First name that differs.
        first: String,
    },
    /// Vectors of another length than the trained tensors.
    #[error(
        "the checkpoint's {vector} has {found} values, its tensors {expected}: the file is damaged; delete this checkpoint \
         to resume from an earlier one"
    )]
    Length {
        /// Which vector.
        vector: &'static str,
        /// Values of the trained tensors.
        expected: usize,
        /// Values in the checkpoint.
        found: usize,
    },
    /// Data, seeds or batch shape changed.
    #[error(
        "the checkpoint was made with other data, seeds or batch sizes, so the run cannot continue to the same \
         result; restore the configuration, or start a new run in another output folder"
    )]
    Fingerprint,
}

impl Checkpoint {
    /// Captures a run's state.
    ///
    /// # Errors
    /// The device failed.
    pub async fn capture(
        parameters: &Parameters,
        optimizer: &AdamW,
        state: CheckpointState,
    ) -> Result<Self, ReadError> {
        Ok(Self {
            state,
            values: to_vec(parameters.values.clone()).await?,
            first_moment: to_vec(optimizer.first_moment.clone()).await?,
            second_moment: to_vec(optimizer.second_moment.clone()).await?,
        })
    }

    /// The tensor file and the JSON file.
    pub fn to_bytes(&self) -> Result<(Vec<u8>, Vec<u8>), CheckpointError> {
        let vector = |v: &[f32]| OwnedTensor::from_f32(vec![v.len()], v);
        let tensors = vec![
            (FIRST_MOMENT.to_owned(), vector(&self.first_moment)?),
            (SECOND_MOMENT.to_owned(), vector(&self.second_moment)?),
            (VALUES.to_owned(), vector(&self.values)?),
        ];
        let bytes = serialize(&tensors, &BTreeMap::new())?;
        Ok((bytes, serde_json::to_vec_pretty(&self.state)?))
    }

    /// Reads what [`Checkpoint::to_bytes`] wrote.
    pub fn from_bytes(tensors: &[u8], state: &[u8]) -> Result<Self, CheckpointError> {
        let source = SafetensorsSource::new(vec![("checkpoint.safetensors".to_owned(), tensors)])?;
        let vector = |name: &str| source.get(name).and_then(|t| t.to_f32());
        Ok(Self {
            state: serde_json::from_slice(state)?,
            values: vector(VALUES)?,
            first_moment: vector(FIRST_MOMENT)?,
            second_moment: vector(SECOND_MOMENT)?,
        })
    }

    /// Whether every trained value is a number.
    pub fn is_finite(&self) -> bool {
        self.values.iter().all(|v| v.is_finite())
    }

    /// Puts the state back into a run with the same trained tensors and the same `fingerprint`.
    pub fn restore(
        &self,
        parameters: &mut Parameters,
        optimizer: &mut AdamW,
        fingerprint: &str,
    ) -> Result<(), CheckpointError> {
        let names: Vec<&str> = parameters.specs().iter().map(|s| s.name.as_str()).collect();
        if names != self.state.parameters {
            let differs = names
                .iter()
                .zip(&self.state.parameters)
                .find(|(a, b)| *a != *b);
            return Err(CheckpointError::Parameters {
                expected: names.len(),
                found: self.state.parameters.len(),
                first: differs.map_or_else(|| "their number".to_owned(), |(_, b)| b.clone()),
            });
        }
        if self.state.fingerprint != fingerprint {
            return Err(CheckpointError::Fingerprint);
        }
        let expected = parameters.count();
        for (vector, found) in [
            (VALUES, self.values.len()),
            (FIRST_MOMENT, self.first_moment.len()),
            (SECOND_MOMENT, self.second_moment.len()),
        ] {
            if found != expected {
                return Err(CheckpointError::Length {
                    vector,
                    expected,
                    found,
                });
            }
        }
        let device = parameters.values.device();
        parameters.values = vector(&self.values, &device);
        optimizer.first_moment = vector(&self.first_moment, &device);
        optimizer.second_moment = vector(&self.second_moment, &device);
        optimizer.step = self.state.step;
        Ok(())
    }
}

fn vector(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}
