//! RMS normalization against its reference, forward and backward.
#![allow(clippy::unwrap_used)]

use burn::backend::Flex;
use burn::tensor::{DType, Device};

use super::{cpu, generic, reference, rms_norm};
use crate::kernels::swiglu::testing::{
    assert_close, assert_gradient, devices, numbers, primitive, primitive_values, tensor, values,
    wide,
};

const EPS: f64 = 1e-5;

#[test]
fn equals_the_reference() {
    for device in devices() {
        for (rows, hidden) in [(1, 5), (3, 48), (7, 288), (1, 1), (7, 33), (200, 130)] {
            let shape = [rows, hidden];
            let (x, dy) = (numbers(1, rows * hidden), numbers(3, rows * hidden));
            let w = numbers(2, hidden);
            let expected = reference::rms_norm(&wide(&x), &wide(&w), EPS);
            let plain = rms_norm(
                tensor(&x, shape, &device),
                tensor(&w, [hidden], &device),
                EPS,
            );
            assert_eq!(plain.dims(), shape);
            assert_close(&values(plain), &expected, 1e-6, "forward");

            let tracked = device.clone().autodiff();
            let tx = tensor(&x, shape, &tracked).require_grad();
            let tw = tensor(&w, [hidden], &tracked).require_grad();
            let y = rms_norm(tx.clone(), tw.clone(), EPS);
            let grads = (y.clone() * tensor(&dy, shape, &tracked)).sum().backward();
            assert_close(&values(y), &expected, 1e-6, "tracked forward");
            let (dx, dw) = (tx.grad(&grads).unwrap(), tw.grad(&grads).unwrap());
            assert_eq!((dx.dims(), dw.dims()), (shape, [hidden]));
            let of_x = |x: &[f64]| reference::rms_norm(x, &wide(&w), EPS);
            assert_gradient(of_x, &x, &dy, &values(dx), &format!("dx {shape:?}"));
            let of_w = |w: &[f64]| reference::rms_norm(&wide(&x), w, EPS);
            assert_gradient(of_w, &w, &dy, &values(dw), &format!("dweight {shape:?}"));
        }
    }
}

#[test]
fn a_frozen_weight_and_a_frozen_input() {
    for device in devices() {
        let device = device.autodiff();
        let (x, w) = (numbers(1, 15), numbers(2, 5));
        let both = || (tensor(&x, [3, 5], &device), tensor(&w, [5], &device));
        let (tx, tw) = both();
        let (tx, tw) = (tx.require_grad(), tw.require_grad());
        let all = rms_norm(tx.clone(), tw.clone(), EPS).sum().backward();
        let (dx, dw) = (
            values(tx.grad(&all).unwrap()),
            values(tw.grad(&all).unwrap()),
        );

        let (tx, tw) = both();
        let tx = tx.require_grad();
        let grads = rms_norm(tx.clone(), tw.clone(), EPS).sum().backward();
        assert_close(
            &values(tx.grad(&grads).unwrap()),
            &wide(&dx),
            1e-6,
            "x alone",
        );
        assert!(tw.grad(&grads).is_none());
        let (tx, tw) = both();
        let tw = tw.require_grad();
        let grads = rms_norm(tx, tw.clone(), EPS).sum().backward();
        assert_close(
            &values(tw.grad(&grads).unwrap()),
            &wide(&dw),
            1e-6,
            "weight alone",
        );
    }
}

#[test]
fn inputs_and_shared_gradients_survive() {
    // The CPU writes dx into the gradient it is given; where another consumer holds it, it must copy.
    for device in devices() {
        let device = device.autodiff();
        let (x, w) = (numbers(1, 10), numbers(2, 5));
        let tx = tensor(&x, [2, 5], &device).require_grad();
        let tw = tensor(&w, [5], &device);
        let y = rms_norm(tx.clone(), tw.clone(), EPS);
        // `y + x`: the gradient of the sum goes to both sides unchanged.
        let grads = (y + tx.clone()).sum().backward();
        let alone = rms_norm(tx.clone(), tw, EPS).sum().backward();
        let expected: Vec<f64> = values(tx.grad(&alone).unwrap())
            .iter()
            .map(|&d| f64::from(d) + 1.0)
            .collect();
        assert_close(
            &values(tx.grad(&grads).unwrap()),
            &expected,
            1e-6,
            "residual",
        );
        assert_eq!(values(tx), x);
    }
}

#[test]
fn views_other_types_and_determinism() {
    let device = Device::flex();
    let (x, w) = (numbers(1, 300 * 130), numbers(2, 130));
    let (tx, tw) = (tensor(&x, [300, 130], &device), tensor(&w, [130], &device));
    let straight = values(rms_norm(tx.clone(), tw.clone(), EPS));
    let turned = tensor(&values(tx.clone().transpose()), [130, 300], &device).transpose();
    assert_eq!(values(rms_norm(turned, tw.clone(), EPS)), straight);
    let narrowed = rms_norm(tx.clone().narrow(0, 7, 3), tw.clone(), EPS);
    assert_eq!(values(narrowed), straight[7 * 130..10 * 130]);
    let half = rms_norm(tx.cast(DType::BF16), tw.cast(DType::BF16), EPS);
    assert_eq!(half.dtype(), DType::BF16);
    assert_close(
        &values(half.cast(DType::F32)),
        &wide(&straight),
        1e-2,
        "bf16",
    );

    let tracked = device.autodiff();
    let dweight = || {
        let tw = tensor(&w, [130], &tracked).require_grad();
        let y = rms_norm(tensor(&x, [300, 130], &tracked), tw.clone(), EPS);
        values(tw.grad(&y.sum().backward()).unwrap())
    };
    let first = dweight();
    assert!((0..5).all(|_| dweight() == first));
}

#[test]
fn the_generic_version_equals_the_cpu_one() {
    for (rows, hidden) in [(1, 1), (1, 5), (7, 288), (200, 130)] {
        let [x, dy] = [1, 3].map(|seed| primitive(&numbers(seed, rows * hidden), [rows, hidden]));
        let w = primitive(&numbers(2, hidden), [hidden]);
        let same = |cpu, generic, what| {
            assert_close(
                &primitive_values(cpu),
                &wide(&primitive_values(generic)),
                2e-6,
                what,
            );
        };
        let y = generic::rms_norm::<Flex>(x.clone(), w.clone(), EPS);
        same(cpu::rms_norm(x.clone(), w.clone(), EPS), y, "y");
        let dw = generic::grad_weight::<Flex>(x.clone(), dy.clone(), EPS);
        same(cpu::grad_weight(x.clone(), dy.clone(), EPS), dw, "dweight");
        let dx = generic::grad_x::<Flex>(x.clone(), w.clone(), dy.clone(), EPS);
        same(cpu::grad_x(x, w, dy, EPS), dx, "dx");
    }
}
