//! What the tests of the kernels share: devices, numbers, and gradients by finite differences.

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The CPU, and a wgpu device where `QLOOM_TEST_WGPU=1` asks for it.
pub(crate) fn devices() -> Vec<Device> {
    let mut devices = vec![Device::flex()];
    if std::env::var("QLOOM_TEST_WGPU").is_ok_and(|v| v == "1") {
        devices.push(Device::wgpu(Default::default()));
    }
    devices
}

/// `count` numbers in -1 .. 1.
pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

/// Numbers on a device.
pub(crate) fn tensor<const D: usize>(
    data: &[f32],
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(data.to_vec(), shape), (device, DType::F32))
}

/// Numbers of a device.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// In f64.
pub(crate) fn wide(data: &[f32]) -> Vec<f64> {
    data.iter().map(|&x| f64::from(x)).collect()
}

/// Whether all elements agree within `tolerance` of the larger of 1 and the largest expected.
pub(crate) fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let size = expected.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(*f) - e).abs();
        assert!(
            off <= tolerance * size,
            "{what}: element {i} is {f}, expected {e}"
        );
    }
}

/// Holds `gradient`, of `sum(dy * f(x))`, to central differences of `f` at up to 48 places spread over `x`.
pub(crate) fn assert_gradient(
    f: impl Fn(&[f64]) -> Vec<f64>,
    x: &[f32],
    dy: &[f32],
    gradient: &[f32],
    what: &str,
) {
    const STEP: f64 = 1e-5;
    assert_eq!(x.len(), gradient.len(), "{what}: length");
    let mut x = wide(x);
    let loss = |x: &[f64]| -> f64 { f(x).iter().zip(dy).map(|(y, &g)| y * f64::from(g)).sum() };
    let size = gradient
        .iter()
        .fold(1.0f64, |m, g| m.max(f64::from(g.abs())));
    let (length, places) = (x.len(), x.len().min(48));
    for i in (0..places).map(|p| p * length / places) {
        let value = x[i];
        x[i] = value + STEP;
        let above = loss(&x);
        x[i] = value - STEP;
        let below = loss(&x);
        x[i] = value;
        let expected = (above - below) / (2.0 * STEP);
        let off = (f64::from(gradient[i]) - expected).abs();
        assert!(
            off <= 2e-5 * size,
            "{what}: gradient {i} is {}, expected {expected}",
            gradient[i]
        );
    }
}

/// Numbers as the CPU's own tensor, to call a backend without a device.
pub(crate) fn primitive<const D: usize>(data: &[f32], shape: [usize; D]) -> burn_flex::FlexTensor {
    burn_flex::FlexTensor::from_data(TensorData::new(data.to_vec(), shape))
}

/// The numbers of such a tensor.
pub(crate) fn primitive_values(tensor: burn_flex::FlexTensor) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}
