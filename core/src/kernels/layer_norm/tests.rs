//! Layer normalization against its reference, forward and backward.
#![allow(clippy::unwrap_used)]

use burn::backend::Flex;
use burn::tensor::{DType, Device};

use super::{cpu, generic, layer_norm, reference};
use crate::kernels::swiglu::testing::{
    assert_close, assert_gradient, devices, numbers, primitive, primitive_values, tensor, values,
    wide,
};

const EPS: f64 = 1e-12;

/// Rows with a level, so that the mean matters.
fn inputs(rows: usize, hidden: usize) -> Vec<f32> {
    numbers(1, rows * hidden)
        .iter()
        .enumerate()
        .map(|(i, x)| x + 0.5 * (i / hidden) as f32 / rows as f32)
        .collect()
}

#[test]
fn equals_the_reference() {
    for device in devices() {
        for (rows, hidden) in [(1, 5), (3, 48), (7, 384), (7, 33), (200, 130)] {
            let shape = [rows, hidden];
            let (x, dy) = (inputs(rows, hidden), numbers(4, rows * hidden));
            let (w, b) = (numbers(2, hidden), numbers(3, hidden));
            let expected = reference::layer_norm(&wide(&x), &wide(&w), &wide(&b), EPS);
            let vector = |v: &[f32], d: &Device| tensor(v, [hidden], d);
            let plain = layer_norm(
                tensor(&x, shape, &device),
                vector(&w, &device),
                vector(&b, &device),
                EPS,
            );
            assert_eq!(plain.dims(), shape);
            assert_close(&values(plain), &expected, 2e-6, "forward");

            let tracked = device.clone().autodiff();
            let tx = tensor(&x, shape, &tracked).require_grad();
            let tw = vector(&w, &tracked).require_grad();
            let tb = vector(&b, &tracked).require_grad();
            let y = layer_norm(tx.clone(), tw.clone(), tb.clone(), EPS);
            let grads = (y.clone() * tensor(&dy, shape, &tracked)).sum().backward();
            assert_close(&values(y), &expected, 2e-6, "tracked forward");
            let dx = values(tx.grad(&grads).unwrap());
            let (dw, db) = (tw.grad(&grads).unwrap(), tb.grad(&grads).unwrap());
            assert_eq!((dw.dims(), db.dims()), ([hidden], [hidden]));
            let of_x = |x: &[f64]| reference::layer_norm(x, &wide(&w), &wide(&b), EPS);
            assert_gradient(of_x, &x, &dy, &dx, &format!("dx {shape:?}"));
            let of_w = |w: &[f64]| reference::layer_norm(&wide(&x), w, &wide(&b), EPS);
            assert_gradient(of_w, &w, &dy, &values(dw), &format!("dweight {shape:?}"));
            let of_b = |b: &[f64]| reference::layer_norm(&wide(&x), &wide(&w), b, EPS);
            assert_gradient(of_b, &b, &dy, &values(db), &format!("dbias {shape:?}"));
        }
    }
}

#[test]
fn only_what_is_trained_gets_a_gradient_and_inputs_survive() {
    for device in devices() {
        let device = device.autodiff();
        let (x, w, b) = (inputs(3, 5), numbers(2, 5), numbers(3, 5));
        let tx = tensor(&x, [3, 5], &device).require_grad();
        let (tw, tb) = (tensor(&w, [5], &device), tensor(&b, [5], &device));
        let y = || layer_norm(tx.clone(), tw.clone(), tb.clone(), EPS);
        // `y + x`: the gradient of the sum goes to both sides unchanged, and the CPU must not overwrite the shared one.
        let dy = tensor(&numbers(4, 15), [3, 5], &device);
        let both = ((y() + tx.clone()) * dy.clone()).sum().backward();
        let alone = (y() * dy.clone()).sum().backward();
        let expected: Vec<f64> = values(tx.grad(&alone).unwrap())
            .iter()
            .zip(values(dy))
            .map(|(&d, g)| f64::from(d) + f64::from(g))
            .collect();
        assert_close(
            &values(tx.grad(&both).unwrap()),
            &expected,
            1e-6,
            "residual",
        );
        assert!(tw.grad(&both).is_none() && tb.grad(&both).is_none());
        assert_eq!(values(tx), x);
    }
}

#[test]
fn views_other_types_and_determinism() {
    let device = Device::flex();
    let (x, w, b) = (inputs(300, 130), numbers(2, 130), numbers(3, 130));
    let tx = tensor(&x, [300, 130], &device);
    let (tw, tb) = (tensor(&w, [130], &device), tensor(&b, [130], &device));
    let straight = values(layer_norm(tx.clone(), tw.clone(), tb.clone(), EPS));
    let turned = tensor(&values(tx.clone().transpose()), [130, 300], &device).transpose();
    assert_eq!(
        values(layer_norm(turned, tw.clone(), tb.clone(), EPS)),
        straight
    );
    let half = layer_norm(
        tx.cast(DType::BF16),
        tw.cast(DType::BF16),
        tb.cast(DType::BF16),
        EPS,
    );
    assert_eq!(half.dtype(), DType::BF16);
    assert_close(
        &values(half.cast(DType::F32)),
        &wide(&straight),
        2e-2,
        "bf16",
    );

    let tracked = device.autodiff();
    let dweight = || {
        let tw = tensor(&w, [130], &tracked).require_grad();
        let y = layer_norm(
            tensor(&x, [300, 130], &tracked),
            tw.clone(),
            tensor(&b, [130], &tracked),
            EPS,
        );
        values(tw.grad(&y.sum().backward()).unwrap())
    };
    let first = dweight();
    assert!((0..5).all(|_| dweight() == first));
}

#[test]
fn the_generic_version_equals_the_cpu_one() {
    for (rows, hidden) in [(1, 5), (7, 384), (200, 130)] {
        let x = primitive(&inputs(rows, hidden), [rows, hidden]);
        let dy = primitive(&numbers(4, rows * hidden), [rows, hidden]);
        let [w, b] = [2, 3].map(|seed| primitive(&numbers(seed, hidden), [hidden]));
        let same = |cpu, generic, what| {
            assert_close(
                &primitive_values(cpu),
                &wide(&primitive_values(generic)),
                4e-6,
                what,
            );
        };
        let y = generic::layer_norm::<Flex>(x.clone(), w.clone(), b.clone(), EPS);
        same(cpu::layer_norm(x.clone(), w.clone(), b, EPS), y, "y");
        let dw = generic::grad_weight::<Flex>(x.clone(), dy.clone(), EPS);
        same(cpu::grad_weight(x.clone(), dy.clone(), EPS), dw, "dweight");
        let dx = generic::grad_x::<Flex>(x.clone(), w.clone(), dy.clone(), EPS);
        same(cpu::grad_x(x, w, dy, EPS), dx, "dx");
    }
}
