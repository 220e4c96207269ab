//! Every kernel against the reference, forward and backward, on shapes that fit nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use burn::tensor::{DType, Device, DeviceKind, FloatDType, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Nf4Weight, reference};
use crate::quantization::Nf4Tensor;

/// Odd counts, rows that start inside a byte or a block, tiles with tails, 32 | in but 64 ∤ in.
const SHAPES: [[usize; 2]; 11] = [
    [1, 1],
    [3, 5],
    [7, 96],
    [130, 33],
    [64, 64],
    [257, 320],
    [288, 288],
    [100, 128],
    [16, 2048],
    [1, 64],
    [200, 1],
];

fn random(rng: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn packed(shape: [usize; 2], blocksize: usize, double: bool) -> Nf4Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(shape[0] as u64 * 10_007 + shape[1] as u64);
    let values = random(&mut rng, shape[0] * shape[1]);
    Nf4Tensor::quantize(&values, &shape, blocksize, double).unwrap()
}

fn close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: number of elements");
    let largest = expected.iter().fold(1f32, |m, v| m.max(v.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let off = (f - e).abs();
        assert!(
            off <= tolerance * largest,
            "{what}: element {i} is {f}, expected {e}"
        );
    }
}

fn values(t: Tensor<2>) -> (Vec<usize>, Vec<f32>) {
    let claimed = t.dims();
    let data = t.into_data();
    // The lazy fusion layer computes shapes apart from the kernels.
    assert_eq!(
        data.shape().as_slice(),
        claimed,
        "the shape promised is not the shape computed"
    );
    (claimed.to_vec(), data.iter::<f32>().collect())
}

fn check(device: &Device, shape: [usize; 2], blocksize: usize, double: bool, rows: &[usize]) {
    let [outputs, width] = shape;
    let host = packed(shape, blocksize, double);
    let weight = Nf4Weight::from_host(&host, device);
    assert_eq!(crate::host::block_on(weight.to_host()).unwrap(), host);
    assert_eq!(
        (weight.out_features(), weight.in_features()),
        (outputs, width)
    );

    let what = format!("{shape:?} blocks of {blocksize} double {double}");
    let (dims, dense) = values(weight.dequantize(FloatDType::F32));
    assert_eq!(dims, shape);
    close(&dense, &reference::dequantize(&host), 1e-6, &what);

    for &m in rows {
        let what = format!("{what}, {m} rows");
        let mut rng = ChaCha8Rng::seed_from_u64(m as u64);
        let (x, g) = (random(&mut rng, m * width), random(&mut rng, m * outputs));
        let tensor = |v: &[f32], columns: usize, device: &Device| {
            Tensor::<2>::from_data(
                TensorData::new(v.to_vec(), [m, columns]),
                (device, DType::F32),
            )
        };
        let tracked = device.clone().autodiff();
        let input = tensor(&x, width, &tracked).require_grad();
        let y = weight.linear(input.clone());
        let loss = (y.clone() * tensor(&g, outputs, &tracked)).sum();
        let dx = input.grad(&loss.backward()).unwrap();
        let (dims, y) = values(y.inner());
        assert_eq!(dims, [m, outputs]);
        close(
            &y,
            &reference::forward(&host, &x, m),
            1e-5,
            &format!("{what}, forward"),
        );
        let (dims, dx) = values(dx);
        assert_eq!(dims, [m, width]);
        close(
            &dx,
            &reference::backward(&host, &g, m),
            1e-5,
            &format!("{what}, backward"),
        );

        let plain = weight.linear(tensor(&x, width, &device.clone().inner()));
        assert!(!plain.device().is_autodiff());
        assert_eq!(values(plain).1, y);
    }
}

#[test]
fn cpu_equals_the_reference() {
    let device = Device::flex();
    for shape in SHAPES {
        for (blocksize, double) in [(64, true), (64, false), (128, true), (32, false)] {
            check(&device, shape, blocksize, double, &[1, 2, 3, 7, 8, 33]);
        }
    }
    check(&device, [200, 160], 64, true, &[600]);
    check(&device, [40, 600], 4096, true, &[1, 9]);
}

#[test]
fn cpu_is_the_same_from_run_to_run() {
    let device = Device::flex();
    let weight = Nf4Weight::from_host(&packed([500, 704], 64, true), &device);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for rows in [1, 5, 40, 700] {
        let x = TensorData::new(random(&mut rng, rows * 704), [rows, 704]);
        let run = || values(weight.linear(Tensor::from_data(x.clone(), &device))).1;
        let first = run();
        for _ in 0..5 {
            assert!(
                run()
                    .iter()
                    .zip(&first)
                    .all(|(a, b)| a.to_bits() == b.to_bits())
            );
        }
    }
}

#[test]
fn half_types_keep_their_type() {
    let device = Device::flex();
    let host = packed([20, 64], 64, true);
    let weight = Nf4Weight::from_host(&host, &device);
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let x = random(&mut rng, 3 * 64);
    for dtype in [DType::F16, DType::BF16] {
        let input = Tensor::<2>::from_data(TensorData::new(x.clone(), [3, 64]), (&device, dtype));
        let y = weight.linear(input);
        assert_eq!(y.dtype(), dtype);
        close(
            &values(y).1,
            &reference::forward(&host, &x, 3),
            2e-2,
            "half forward",
        );
        let dense = weight.dequantize(dtype.into());
        assert_eq!(dense.dtype(), dtype);
        close(
            &values(dense).1,
            &reference::dequantize(&host),
            1e-2,
            "half weight",
        );
    }
}

#[test]
fn no_rows_give_no_rows() {
    let device = Device::flex();
    let weight = Nf4Weight::from_host(&packed([20, 64], 64, true), &device);
    let y = weight.linear(Tensor::zeros([0, 64], &device));
    assert_eq!(y.dims(), [0, 20]);
}

/// wgpu, where `QLOOM_TEST_WGPU=1` says that there is an adapter (SwiftShader will do).
#[test]
fn gpu_equals_the_reference() {
    if std::env::var("QLOOM_TEST_WGPU").as_deref() != Ok("1") {
        eprintln!("skipped: set QLOOM_TEST_WGPU=1 where wgpu has an adapter");
        return;
    }
    let device = Device::wgpu(DeviceKind::default());
    for shape in [[3, 5], [7, 96], [130, 33], [64, 64], [257, 320], [1, 1]] {
        for double in [true, false] {
            check(&device, shape, 64, double, &[1, 3, 9]);
        }
    }
    check(&device, [16, 2048], 128, true, &[1, 7]);
}
