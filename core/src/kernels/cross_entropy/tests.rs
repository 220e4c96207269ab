//! Both versions against the reference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use burn::tensor::{DType, Device, DeviceKind, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{CrossEntropy, by_chunks, linear_cross_entropy, reference};

struct Case {
    hidden: Vec<f32>,
    weight: Vec<f32>,
    targets: Vec<u32>,
    dims: [usize; 3],
}

impl Case {
    /// Logits are about `size`.
    fn new(n: usize, d: usize, vocab: usize, size: f32) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64((n * 31 + d * 7 + vocab) as u64);
        let mut random = |count: usize, to: f32| -> Vec<f32> {
            (0..count).map(|_| rng.random_range(-to..to)).collect()
        };
        let hidden = random(n * d, size / (d as f32).sqrt());
        let weight = random(vocab * d, 3.0);
        let targets = (0..n).map(|_| rng.random_range(0..vocab as u32)).collect();
        Self {
            hidden,
            weight,
            targets,
            dims: [n, d, vocab],
        }
    }

    fn tensors(&self, device: &Device) -> (Tensor<2>, Tensor<2>) {
        let [n, d, vocab] = self.dims;
        let on = |v: &[f32], rows| {
            Tensor::from_data(TensorData::new(v.to_vec(), [rows, d]), (device, DType::F32))
        };
        (on(&self.hidden, n), on(&self.weight, vocab))
    }

    fn check(&self, found: CrossEntropy, scale: f32, tolerance: f64, what: &str) {
        let [n, d, vocab] = self.dims;
        let (losses, hidden, weight) =
            reference::linear_cross_entropy(&self.hidden, &self.weight, &self.targets, scale, d);
        assert_eq!(found.losses.dims(), [n]);
        assert_eq!(found.grad_hidden.dims(), [n, d]);
        close(
            found.losses.into_data(),
            &losses,
            tolerance,
            &format!("{what}: losses"),
        );
        close(
            found.grad_hidden.into_data(),
            &hidden,
            tolerance,
            &format!("{what}: hidden"),
        );
        let found = found.grad_weight.expect("asked for");
        assert_eq!(found.dims(), [vocab, d]);
        close(
            found.into_data(),
            &weight,
            tolerance,
            &format!("{what}: weight"),
        );
    }
}

fn close(found: TensorData, expected: &[f64], tolerance: f64, what: &str) {
    let found: Vec<f64> = found.iter::<f64>().collect();
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f - e).abs() <= tolerance * largest,
            "{what}: element {i} is {f}, expected {e}"
        );
    }
}

#[test]
fn both_versions_equal_the_reference() {
    let device = Device::flex();
    // One position, one entry, fewer positions than a block, blocks with tails, several tiles and segments.
    for (n, d, vocab) in [
        (1, 1, 1),
        (1, 3, 7),
        (5, 16, 50),
        (33, 24, 1100),
        (300, 17, 700),
        (260, 40, 1500),
    ] {
        let case = Case::new(n, d, vocab, 4.0);
        let what = format!("{n} positions, {d} wide, {vocab} entries");
        let (hidden, weight) = case.tensors(&device);
        let found = linear_cross_entropy(hidden.clone(), &weight, &case.targets, 0.25, 7, true);
        case.check(found, 0.25, 2e-5, &what);
        let found = by_chunks(hidden, weight, &case.targets, 0.25, 7, true);
        case.check(found, 0.25, 2e-5, &format!("{what}, by chunks"));
    }
}

#[test]
fn extreme_logits_stay_finite() {
    let device = Device::flex();
    // Logits of ±1e4: the softmax is a single one, losses are in the thousands.
    let case = Case::new(20, 8, 300, 1e4);
    let (hidden, weight) = case.tensors(&device);
    for found in [
        linear_cross_entropy(hidden.clone(), &weight, &case.targets, 1.0, 6, true),
        by_chunks(hidden, weight, &case.targets, 1.0, 6, true),
    ] {
        assert!(
            found
                .losses
                .clone()
                .into_data()
                .iter::<f32>()
                .all(f32::is_finite)
        );
        // An f32 logit of 1e4 is good to 1e-3, and a difference of two logits decides the softmax.
        let [_, d, _] = case.dims;
        let (losses, ..) =
            reference::linear_cross_entropy(&case.hidden, &case.weight, &case.targets, 1.0, d);
        close(found.losses.into_data(), &losses, 1e-5, "losses");
        assert!(
            found
                .grad_hidden
                .into_data()
                .iter::<f32>()
                .all(f32::is_finite)
        );
    }
}

#[test]
fn what_is_not_finite_shows() {
    let device = Device::flex();
    for bad in [f32::NAN, f32::INFINITY] {
        let mut case = Case::new(4, 8, 30, 1.0);
        case.hidden[9] = bad;
        let (hidden, weight) = case.tensors(&device);
        let found = linear_cross_entropy(hidden, &weight, &case.targets, 1.0, 6, false);
        let losses: Vec<f32> = found.losses.into_data().iter::<f32>().collect();
        assert!(
            !losses[1].is_finite() && losses[0].is_finite(),
            "{losses:?}"
        );
        assert!(found.grad_weight.is_none());
    }
}

#[test]
fn the_same_bits_from_run_to_run() {
    let device = Device::flex();
    let case = Case::new(600, 32, 3000, 4.0);
    let (hidden, weight) = case.tensors(&device);
    let run = || {
        let found = linear_cross_entropy(hidden.clone(), &weight, &case.targets, 1.0, 64, true);
        let bits = |d: TensorData| d.iter::<f32>().map(f32::to_bits).collect::<Vec<_>>();
        let weight = found.grad_weight.unwrap();
        [
            found.losses.into_data(),
            found.grad_hidden.into_data(),
            weight.into_data(),
        ]
        .map(bits)
    };
    let first = run();
    for _ in 0..4 {
        assert!(run() == first);
    }
}

#[test]
fn no_positions_have_no_losses() {
    let device = Device::flex();
    let weight = Tensor::<2>::ones([5, 4], &device);
    let found = linear_cross_entropy(Tensor::zeros([0, 4], &device), &weight, &[], 1.0, 8, true);
    assert_eq!(found.losses.dims(), [0]);
    assert_eq!(found.grad_weight.unwrap().dims(), [5, 4]);
}

/// wgpu, where `QLOOM_TEST_WGPU=1` says that there is an adapter (SwiftShader will do).
#[test]
fn gpu_equals_the_reference() {
    if std::env::var("QLOOM_TEST_WGPU").as_deref() != Ok("1") {
        eprintln!("skipped: set QLOOM_TEST_WGPU=1 where wgpu has an adapter");
        return;
    }
    let device = Device::wgpu(DeviceKind::default());
    let case = Case::new(9, 16, 70, 4.0);
    let (hidden, weight) = case.tensors(&device);
    let found = linear_cross_entropy(hidden, &weight, &case.targets, 0.5, 4, true);
    case.check(found, 0.5, 1e-4, "gpu");
}
