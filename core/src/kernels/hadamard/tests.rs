//! The modulated product against its reference, forward and backward, dense and packed, on shapes that fit nothing.
#![allow(clippy::unwrap_used)]

use burn::tensor::Tensor;

use super::reference::{Sizes, forward};
use super::{hadamard_dense, hadamard_nf4};
use crate::kernels::nf4_matmul::Nf4Weight;
use crate::kernels::swiglu::testing::{
    assert_close, assert_gradient, devices, numbers, tensor, values, wide,
};
use crate::quantization::Nf4Tensor;

const SHAPES: [Sizes; 5] = [
    sizes(1, 1, 1, 1),
    sizes(3, 5, 7, 2),
    sizes(9, 33, 96, 4),
    sizes(2, 130, 65, 3),
    sizes(17, 20, 64, 24),
];

const fn sizes(rows: usize, out: usize, input: usize, rank: usize) -> Sizes {
    Sizes {
        rows,
        out,
        input,
        rank,
    }
}

type Product = Box<dyn Fn(Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>>;

#[test]
fn equals_the_reference_forward_and_backward() {
    for device in devices() {
        for sizes in SHAPES {
            let Sizes {
                rows,
                out,
                input,
                rank,
            } = sizes;
            let w = numbers(4, out * input);
            let packed = Nf4Tensor::quantize(&w, &[out, input], 64, true).unwrap();
            let rounded = packed.dequantize().unwrap();
            let nf4 = Nf4Weight::from_host(&packed, &device);
            let dense = tensor(&w, [out, input], &device);
            let forms: [(&str, Vec<f32>, Product); 2] = [
                (
                    "dense",
                    w,
                    Box::new(move |x, a, b| hadamard_dense(x, dense.clone(), a, b)),
                ),
                (
                    "nf4",
                    rounded,
                    Box::new(move |x, a, b| hadamard_nf4(x, &nf4, a, b)),
                ),
            ];
            for (form, w, product) in forms {
                let what = format!("{form} {sizes:?}");
                let (x, dy) = (numbers(1, rows * input), numbers(5, rows * out));
                let (a, b) = (numbers(2, rank * input), numbers(3, out * rank));
                let w = wide(&w);
                let expected = forward(sizes, &wide(&x), &w, &wide(&a), &wide(&b));
                let plain = product(
                    tensor(&x, [rows, input], &device),
                    tensor(&a, [rank, input], &device),
                    tensor(&b, [out, rank], &device),
                );
                assert_eq!(plain.dims(), [rows, out]);
                assert_close(&values(plain), &expected, 1e-5, &what);

                let tracked = device.clone().autodiff();
                let tx = tensor(&x, [rows, input], &tracked).require_grad();
                let ta = tensor(&a, [rank, input], &tracked).require_grad();
                let tb = tensor(&b, [out, rank], &tracked).require_grad();
                let y = product(tx.clone(), ta.clone(), tb.clone());
                let grads = (y * tensor(&dy, [rows, out], &tracked)).sum().backward();
                let of_x = |x: &[f64]| forward(sizes, x, &w, &wide(&a), &wide(&b));
                let dx = values(tx.grad(&grads).unwrap());
                assert_gradient(of_x, &x, &dy, &dx, &format!("{what} dx"));
                let of_a = |a: &[f64]| forward(sizes, &wide(&x), &w, a, &wide(&b));
                let da = values(ta.grad(&grads).unwrap());
                assert_gradient(of_a, &a, &dy, &da, &format!("{what} dA"));
                let of_b = |b: &[f64]| forward(sizes, &wide(&x), &w, &wide(&a), b);
                let db = values(tb.grad(&grads).unwrap());
                assert_gradient(of_b, &b, &dy, &db, &format!("{what} dB"));
            }
        }
    }
}
