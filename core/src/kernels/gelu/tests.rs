//! GELU against its reference, forward and backward.
#![allow(clippy::unwrap_used)]

use burn::backend::Flex;
use burn::tensor::{DType, Device};

use super::{cpu, gelu, generic, reference};
use crate::kernels::swiglu::testing::{
    assert_close, assert_gradient, devices, numbers, primitive, primitive_values, tensor, values,
    wide,
};

fn inputs(rows: usize, columns: usize) -> Vec<f32> {
    numbers(1, rows * columns).iter().map(|x| x * 5.0).collect()
}

#[test]
fn equals_the_reference() {
    for device in devices() {
        for (rows, columns) in [(1, 1), (3, 5), (7, 33), (70, 300)] {
            let shape = [rows, columns];
            let (x, dy) = (inputs(rows, columns), numbers(2, rows * columns));
            let expected = reference::gelu(&wide(&x));
            assert_close(
                &values(gelu(tensor(&x, shape, &device))),
                &expected,
                2e-7,
                "forward",
            );
            let tracked = device.clone().autodiff();
            let tx = tensor(&x, shape, &tracked).require_grad();
            let y = gelu(tx.clone());
            let grads = (y.clone() * tensor(&dy, shape, &tracked)).sum().backward();
            assert_close(&values(y), &expected, 2e-7, "tracked forward");
            let dx = values(tx.grad(&grads).unwrap());
            assert_gradient(reference::gelu, &x, &dy, &dx, &format!("dx {shape:?}"));
            assert_eq!(values(tx), x, "the input is left alone");
        }
    }
}

#[test]
fn views_other_types_and_the_generic_version() {
    let device = Device::flex();
    let x = inputs(40, 33);
    let tx = tensor(&x, [40, 33], &device);
    let straight = values(gelu(tx.clone()));
    let turned = tensor(&values(tx.clone().transpose()), [33, 40], &device).transpose();
    assert_eq!(values(gelu(turned)), straight);
    let half = gelu(tx.cast(DType::BF16));
    assert_eq!(half.dtype(), DType::BF16);
    assert_close(
        &values(half.cast(DType::F32)),
        &wide(&straight),
        2e-2,
        "bf16",
    );

    let dy = numbers(2, 40 * 33);
    let [px, pdy] = [&x, &dy].map(|v| primitive(v, [40, 33]));
    let y = primitive_values(generic::gelu::<Flex>(px.clone()));
    assert_close(
        &primitive_values(cpu::gelu(px.clone())),
        &wide(&y),
        3e-7,
        "y",
    );
    let dx = primitive_values(generic::gradient::<Flex>(px.clone(), pdy.clone()));
    assert_close(
        &primitive_values(cpu::gradient(px, pdy)),
        &wide(&dx),
        1e-6,
        "dx",
    );
}
