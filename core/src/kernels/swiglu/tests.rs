//! SwiGLU against its reference, forward and backward.
#![allow(clippy::unwrap_used)]

use burn::backend::Flex;
use burn::tensor::DType;

use super::testing::{assert_close, assert_gradient, devices, numbers, tensor, values, wide};
use super::testing::{primitive, primitive_values};
use super::{cpu, generic, reference, swiglu};

const SHAPES: [[usize; 2]; 7] = [
    [1, 1],
    [1, 5],
    [3, 48],
    [7, 33],
    [7, 288],
    [2, 1000],
    [40, 777],
];

#[test]
fn equals_the_reference() {
    for device in devices() {
        for shape in SHAPES {
            let n = shape[0] * shape[1];
            let gate: Vec<f32> = numbers(1, n).iter().map(|x| x * 6.0).collect();
            let (up, dy) = (numbers(2, n), numbers(3, n));
            let expected = reference::swiglu(&wide(&gate), &wide(&up));
            let plain = swiglu(tensor(&gate, shape, &device), tensor(&up, shape, &device));
            assert_eq!(plain.dims(), shape);
            assert_close(&values(plain), &expected, 1e-6, "forward");

            let tracked = device.clone().autodiff();
            let g = tensor(&gate, shape, &tracked).require_grad();
            let u = tensor(&up, shape, &tracked).require_grad();
            let y = swiglu(g.clone(), u.clone());
            let grads = (y.clone() * tensor(&dy, shape, &tracked)).sum().backward();
            assert_close(&values(y), &expected, 1e-6, "tracked forward");
            let (dgate, dup) = (g.grad(&grads).unwrap(), u.grad(&grads).unwrap());
            assert_eq!((dgate.dims(), dup.dims()), (shape, shape));
            assert_gradient(
                |x| reference::swiglu(x, &wide(&up)),
                &gate,
                &dy,
                &values(dgate),
                "dgate",
            );
            assert_gradient(
                |x| reference::swiglu(&wide(&gate), x),
                &up,
                &dy,
                &values(dup),
                "dup",
            );
        }
    }
}

#[test]
fn one_tracked_input_is_enough() {
    for device in devices() {
        let (shape, tracked) = ([3, 5], device.clone().autodiff());
        let (gate, up) = (numbers(1, 15), numbers(2, 15));
        let both = || (tensor(&gate, shape, &tracked), tensor(&up, shape, &tracked));
        let (g, u) = both();
        let (g, u) = (g.require_grad(), u.require_grad());
        let all = swiglu(g.clone(), u.clone()).sum().backward();
        let (dgate, dup) = (values(g.grad(&all).unwrap()), values(u.grad(&all).unwrap()));

        let (g, u) = both();
        let g = g.require_grad();
        let grads = swiglu(g.clone(), u).sum().backward();
        assert_close(
            &values(g.grad(&grads).unwrap()),
            &wide(&dgate),
            1e-6,
            "gate alone",
        );
        let (g, u) = both();
        let u = u.require_grad();
        let grads = swiglu(g, u.clone()).sum().backward();
        assert_close(
            &values(u.grad(&grads).unwrap()),
            &wide(&dup),
            1e-6,
            "up alone",
        );
    }
}

#[test]
fn inputs_survive_the_backward_pass() {
    // The CPU writes gradients into the buffers it was given; a tensor still held elsewhere must not change.
    for device in devices() {
        let device = device.autodiff();
        let (gate, up) = (numbers(1, 10), numbers(2, 10));
        let g = tensor(&gate, [2, 5], &device).require_grad();
        let u = tensor(&up, [2, 5], &device).require_grad();
        let _grads = swiglu(g.clone(), u.clone()).sum().backward();
        assert_eq!((values(g), values(u)), (gate, up));
    }
}

#[test]
fn views_and_other_types() {
    for device in devices() {
        let (gate, up) = (numbers(1, 15), numbers(2, 15));
        let (g, u) = (tensor(&gate, [3, 5], &device), tensor(&up, [3, 5], &device));
        let straight = values(swiglu(g.clone(), u.clone()));
        let turned = swiglu(g.clone().transpose(), u.clone().transpose()).transpose();
        assert_close(&values(turned), &wide(&straight), 1e-6, "transposed");
        if device == burn::tensor::Device::flex() {
            let half = swiglu(g.cast(DType::BF16), u.cast(DType::BF16));
            assert_eq!(half.dtype(), DType::BF16);
            assert_close(
                &values(half.cast(DType::F32)),
                &wide(&straight),
                1e-2,
                "bf16",
            );
        }
    }
}

#[test]
fn non_finite_numbers_are_not_hidden() {
    let device = burn::tensor::Device::flex();
    let y = swiglu(
        tensor(&[f32::NAN, -200.0, 200.0], [1, 3], &device),
        tensor(&[1.0; 3], [1, 3], &device),
    );
    let y = values(y);
    assert!(y[0].is_nan() && y[1] == 0.0 && y[2] == 200.0, "{y:?}");
}

#[test]
fn the_generic_version_equals_the_cpu_one() {
    for shape in SHAPES {
        let n = shape[0] * shape[1];
        let [gate, up, dy] = [1, 2, 3].map(|seed| primitive(&numbers(seed, n), shape));
        let generic = generic::swiglu::<Flex>(gate.clone(), up.clone());
        let cpu = cpu::swiglu(gate.clone(), up.clone());
        assert_close(
            &primitive_values(cpu),
            &wide(&primitive_values(generic)),
            1e-6,
            "y",
        );
        let (dgate, dup) = generic::gradients::<Flex>(gate.clone(), up.clone(), dy.clone());
        let cpu = cpu::gradients(gate, up, dy);
        assert_close(
            &primitive_values(cpu.0),
            &wide(&primitive_values(dgate)),
            1e-6,
            "dgate",
        );
        assert_close(
            &primitive_values(cpu.1),
            &wide(&primitive_values(dup)),
            1e-6,
            "dup",
        );
    }
}
