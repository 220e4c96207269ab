//! Rotary embedding against its reference, forward and backward.
#![allow(clippy::unwrap_used)]

use burn::backend::Flex;
use burn::tensor::{DType, Device};

use super::{cpu, generic, reference, rope};
use crate::kernels::swiglu::testing::{
    assert_close, assert_gradient, devices, numbers, primitive, primitive_values, tensor, values,
    wide,
};

#[test]
fn equals_the_reference() {
    for device in devices() {
        for shape in [
            [1, 1, 1, 2],
            [1, 5, 2, 4],
            [3, 33, 6, 48],
            [7, 5, 8, 10],
            [2, 120, 3, 64],
        ] {
            let [rows, width, heads, dim] = shape;
            let count = rows * width * heads * dim;
            let (x, dy) = (numbers(1, count), numbers(2, count));
            let angle = numbers(3, rows * width * dim / 2);
            let cos: Vec<f32> = angle.iter().map(|a| (3.0 * a).cos()).collect();
            let sin: Vec<f32> = angle.iter().map(|a| (3.0 * a).sin()).collect();
            let of_x = |x: &[f64]| reference::rope(x, heads, dim, &wide(&cos), &wide(&sin));
            let angles = |device: &Device| {
                let shape = [rows * width, dim / 2];
                (tensor(&cos, shape, device), tensor(&sin, shape, device))
            };
            let (c, s) = angles(&device);
            let plain = rope(tensor(&x, shape, &device), c.clone(), s.clone());
            assert_eq!(plain.dims(), shape);
            assert_close(&values(plain), &of_x(&wide(&x)), 1e-6, "forward");

            // The angles may live outside autodiff, as the tables of a model do.
            let tracked = device.clone().autodiff();
            for (c, s) in [(c, s), angles(&tracked)] {
                let tx = tensor(&x, shape, &tracked).require_grad();
                let y = rope(tx.clone(), c, s);
                let grads = (y.clone() * tensor(&dy, shape, &tracked)).sum().backward();
                assert_close(&values(y), &of_x(&wide(&x)), 1e-6, "tracked forward");
                let dx = tx.grad(&grads).unwrap();
                assert_eq!(dx.dims(), shape);
                assert_gradient(of_x, &x, &dy, &values(dx), "dx");
                assert_eq!(values(tx), x, "the input was rotated in place");
            }
        }
    }
}

#[test]
fn other_types_and_views() {
    let device = Device::flex();
    let x = tensor(&numbers(1, 2 * 3 * 4 * 6), [2, 3, 4, 6], &device);
    let (cos, sin) = (numbers(2, 18), numbers(3, 18));
    let angles = || (tensor(&cos, [6, 3], &device), tensor(&sin, [6, 3], &device));
    let (c, s) = angles();
    let straight = values(rope(x.clone(), c, s));
    let (c, s) = angles();
    let heads_first = x.clone().swap_dims(1, 2).mul_scalar(1.0);
    assert_eq!(values(rope(heads_first.swap_dims(1, 2), c, s)), straight);
    let (c, s) = angles();
    let half = rope(x.cast(DType::BF16), c, s);
    assert_eq!(half.dtype(), DType::BF16);
    assert_close(
        &values(half.cast(DType::F32)),
        &wide(&straight),
        1e-2,
        "bf16",
    );
}

#[test]
fn the_generic_version_equals_the_cpu_one() {
    for inverse in [false, true] {
        let x = primitive(&numbers(1, 2 * 5 * 3 * 10), [2, 5, 3, 10]);
        let (cos, sin) = (
            primitive(&numbers(2, 50), [10, 5]),
            primitive(&numbers(3, 50), [10, 5]),
        );
        let generic = generic::rope::<Flex>(x.clone(), cos.clone(), sin.clone(), inverse);
        let cpu = cpu::rope(x, cos, sin, inverse);
        assert_close(
            &primitive_values(cpu),
            &wide(&primitive_values(generic)),
            1e-6,
            "rope",
        );
    }
}
