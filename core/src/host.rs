//! Device tensors to host vectors.

use burn::tensor::Tensor;

/// The values of a tensor of any float type as f32, row-major. Waits for the device.
pub fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data_as::<f32>();
    match data.as_slice::<f32>() {
        Ok(values) => values.to_vec(),
        Err(_) => data.iter::<f32>().collect(),
    }
}

/// The value of a one-element tensor; NaN if it holds none.
pub fn to_scalar<const D: usize>(tensor: Tensor<D>) -> f64 {
    to_vec(tensor)
        .first()
        .map_or(f64::NAN, |&value| f64::from(value))
}
