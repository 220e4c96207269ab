//! Device tensors to host vectors.
//!
//! Every read is a future, and so is every function that needs one: a browser's thread must not wait for its GPU. A
//! program that may wait wraps the outermost call in `block_on`. The futures are local to their thread.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;

use burn::tensor::Tensor;
use thiserror::Error;

#[cfg(not(target_arch = "wasm32"))]
pub use pollster::block_on;

/// A future that stays on its thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A device that failed to run, or to hand over what it computed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the device failed while its result was read: {reason}; try smaller batches or shorter texts, or another device"
)]
pub struct ReadError {
    reason: String,
}

impl ReadError {
    pub(crate) fn new(reason: impl Display) -> Self {
        Self {
            reason: reason.to_string(),
        }
    }
}

/// The values of a tensor of any float type as f32, row-major.
///
/// # Errors
/// The device failed.
pub async fn to_vec<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ReadError> {
    let data = tensor.into_data_async().await.map_err(ReadError::new)?;
    let data = data.try_cast_as::<f32>().map_err(ReadError::new)?;
    data.try_into_vec().map_err(ReadError::new)
}

/// The value of a one-element tensor; NaN if it holds none.
///
/// # Errors
/// The device failed.
pub async fn to_scalar<const D: usize>(tensor: Tensor<D>) -> Result<f64, ReadError> {
    let values = to_vec(tensor).await?;
    Ok(values.first().map_or(f64::NAN, |&value| f64::from(value)))
}
