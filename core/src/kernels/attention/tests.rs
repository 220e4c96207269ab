//! Attention against its reference, forward and backward.
#![allow(clippy::unwrap_used)]

use burn::backend::Flex;
use burn::tensor::{DType, Device, Tensor};

use super::{
    Dropout, Wanted, attention, attention_with_dropout, cpu, generic, reference, reference::Shape,
};
use crate::kernels::swiglu::testing::{
    assert_close, assert_gradient, devices, numbers, primitive, primitive_values, tensor, values,
    wide,
};

/// Whether burn's own matmul can be trusted with the shape under SwiftShader, the Vulkan driver of the tests: it
/// returns zeros, or worse, where an inner size is not a multiple of 4.
fn is_even(s: Shape) -> bool {
    [s.width, s.keys, s.dim].iter().all(|n| n.is_multiple_of(4))
}

fn shape(
    rows: usize,
    width: usize,
    keys: usize,
    heads: usize,
    kv_heads: usize,
    dim: usize,
) -> Shape {
    Shape {
        rows,
        width,
        keys,
        heads,
        kv_heads,
        dim,
    }
}

/// Causal, the last query at the last key; with documents, each row's are of another length.
fn mask(s: Shape, bias_rows: usize, documents: bool) -> Vec<f32> {
    let mut bias = Vec::new();
    for row in 0..bias_rows {
        let document = |token: usize| if documents { token / (row + 3) } else { 0 };
        for query in s.keys - s.width..s.keys {
            bias.extend((0..s.keys).map(|key| {
                if key <= query && document(key) == document(query) {
                    0.0
                } else {
                    -1e30
                }
            }));
        }
    }
    bias
}

struct Case {
    s: Shape,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    bias: Vec<f32>,
    dy: Vec<f32>,
    scale: f64,
}

impl Case {
    fn new(s: Shape, bias: Vec<f32>) -> Self {
        let queries = s.rows * s.width * s.heads * s.dim;
        let keys = s.rows * s.keys * s.kv_heads * s.dim;
        let double = |x: Vec<f32>| x.iter().map(|x| 2.0 * x).collect();
        Self {
            q: double(numbers(1, queries)),
            k: double(numbers(2, keys)),
            v: numbers(3, keys),
            dy: numbers(4, queries),
            bias,
            scale: (s.dim as f64).powf(-0.5),
            s,
        }
    }

    fn tensors(&self, device: &Device) -> [Tensor<4>; 4] {
        let s = self.s;
        let (queries, keys) = (
            [s.rows, s.width, s.heads, s.dim],
            [s.rows, s.keys, s.kv_heads, s.dim],
        );
        let bias_rows = self.bias.len() / (s.width * s.keys);
        [
            tensor(&self.q, queries, device),
            tensor(&self.k, keys, device),
            tensor(&self.v, keys, device),
            tensor(&self.bias, [bias_rows, 1, s.width, s.keys], device),
        ]
    }

    fn reference(&self, q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
        reference::attention(self.s, q, k, v, &wide(&self.bias), self.scale)
    }

    /// The result and the gradients for `q`, `k`, `v` where tracked.
    fn run(&self, device: &Device, tracked: [bool; 3]) -> (Vec<f32>, [Option<Vec<f32>>; 3]) {
        let s = self.s;
        let device = device.clone().autodiff();
        let [q, k, v, bias] = self.tensors(&device);
        let track = |t: Tensor<4>, yes: bool| if yes { t.require_grad() } else { t };
        let inputs = [
            track(q, tracked[0]),
            track(k, tracked[1]),
            track(v, tracked[2]),
        ];
        let [q, k, v] = inputs.clone();
        let y = attention(q, k, v, bias, self.scale);
        assert_eq!(y.dims(), [s.rows, s.width, s.heads * s.dim]);
        let dy = tensor(&self.dy, y.dims(), &device);
        let grads = (y.clone() * dy).sum().backward();
        let gradients = inputs.map(|t| {
            t.grad(&grads).map(|g| {
                assert_eq!(g.dims(), t.dims());
                values(g)
            })
        });
        (values(y), gradients)
    }

    fn check(&self, device: &Device) {
        let what = format!("{:?}", self.s);
        let (q, k, v) = (wide(&self.q), wide(&self.k), wide(&self.v));
        let expected = self.reference(&q, &k, &v);
        let [tq, tk, tv, bias] = self.tensors(device);
        let plain = attention(tq, tk, tv, bias, self.scale);
        assert_eq!(
            plain.dims(),
            [self.s.rows, self.s.width, self.s.heads * self.s.dim]
        );
        assert_close(&values(plain), &expected, 2e-6, &what);
        let (y, [dq, dk, dv]) = self.run(device, [true; 3]);
        assert_close(&y, &expected, 2e-6, &what);
        let dy = &self.dy;
        assert_gradient(
            |x| self.reference(x, &k, &v),
            &self.q,
            dy,
            &dq.unwrap(),
            &format!("{what} dq"),
        );
        assert_gradient(
            |x| self.reference(&q, x, &v),
            &self.k,
            dy,
            &dk.unwrap(),
            &format!("{what} dk"),
        );
        assert_gradient(
            |x| self.reference(&q, &k, x),
            &self.v,
            dy,
            &dv.unwrap(),
            &format!("{what} dv"),
        );
    }
}

#[test]
fn equals_the_reference() {
    for device in devices() {
        for s in [
            shape(1, 1, 1, 1, 1, 4),
            shape(1, 5, 5, 8, 2, 4),
            shape(3, 5, 5, 6, 6, 48),
            shape(2, 33, 33, 4, 2, 5),
            shape(1, 1, 9, 8, 2, 16),
            shape(3, 1, 33, 6, 3, 4),
            shape(2, 5, 12, 4, 1, 8),
            shape(2, 8, 8, 4, 2, 8),
            shape(1, 4, 16, 8, 8, 4),
        ] {
            if !(device == Device::flex() || is_even(s)) {
                continue;
            }
            Case::new(s, mask(s, 1, false)).check(&device);
            Case::new(s, mask(s, s.rows, true)).check(&device);
        }
    }
}

#[test]
fn tiles_meet() {
    // Widths around and beyond the query tile, with documents that make hidden blocks.
    for (width, keys) in [(64, 64), (65, 65), (130, 130), (70, 150)] {
        let s = shape(2, width, keys, 2, 1, 3);
        Case::new(s, mask(s, 1, false)).check(&Device::flex());
        Case::new(s, mask(s, 2, true)).check(&Device::flex());
    }
}

#[test]
fn a_bias_need_not_hide() {
    let s = shape(2, 8, 8, 4, 2, 8);
    for device in devices() {
        Case::new(s, numbers(9, s.rows * s.width * s.keys)).check(&device);
    }
}

#[test]
fn only_tracked_inputs_get_gradients() {
    let s = shape(2, 8, 8, 4, 2, 4);
    let case = Case::new(s, mask(s, 1, false));
    for device in devices() {
        let (_, all) = case.run(&device, [true; 3]);
        for tracked in [
            [true, false, false],
            [false, true, false],
            [false, false, true],
            [true, false, true],
        ] {
            let (_, some) = case.run(&device, tracked);
            for ((all, some), tracked) in all.iter().zip(some).zip(tracked) {
                assert_eq!(some.is_some(), tracked);
                if let Some(some) = some {
                    assert_close(&some, &wide(all.as_ref().unwrap()), 1e-6, "alone");
                }
            }
        }
    }
}

#[test]
fn strided_inputs_are_read_in_place() {
    let s = shape(2, 5, 9, 4, 2, 6);
    let case = Case::new(s, mask(s, 2, true));
    let device = Device::flex();
    let [q, k, v, bias] = case.tensors(&device);
    let straight = values(attention(
        q.clone(),
        k.clone(),
        v.clone(),
        bias.clone(),
        case.scale,
    ));
    // A heads-first cache with room for more, seen through narrow and swap.
    let cached = |t: Tensor<4>| {
        let room = Tensor::zeros([2, 2, 7, 6], &device);
        Tensor::cat(vec![t.swap_dims(1, 2), room], 2)
            .narrow(2, 0, 9)
            .swap_dims(1, 2)
    };
    let through = attention(
        q.clone(),
        cached(k.clone()),
        cached(v.clone()),
        bias.clone(),
        case.scale,
    );
    assert_eq!(values(through), straight);
    // Features apart: copied first.
    let apart = |t: Tensor<4>| t.swap_dims(2, 3).mul_scalar(1.0).swap_dims(2, 3);
    let through = attention(apart(q), apart(k), apart(v), bias, case.scale);
    assert_eq!(values(through), straight);
}

#[test]
fn a_hidden_query_gives_finite_numbers_and_no_gradient() {
    let s = shape(1, 3, 3, 2, 1, 4);
    let mut bias = mask(s, 1, false);
    bias[3..6].fill(-1e30);
    let mut case = Case::new(s, bias);
    case.dy[8..16].fill(0.0);
    for device in devices() {
        let (y, gradients) = case.run(&device, [true; 3]);
        assert!(y.iter().all(|y| y.is_finite()));
        for gradient in gradients {
            assert!(gradient.unwrap().iter().all(|g| g.is_finite()));
        }
    }
}

#[test]
fn other_types_and_determinism() {
    let s = shape(3, 70, 70, 6, 3, 16);
    let case = Case::new(s, mask(s, 3, true));
    let device = Device::flex();
    let first = case.run(&device, [true; 3]);
    for _ in 0..5 {
        assert!(case.run(&device, [true; 3]) == first, "two runs differ");
    }
    let [q, k, v, bias] = case.tensors(&device);
    let [q, k, v] = [q, k, v].map(|t| t.cast(DType::BF16));
    let half = attention(q, k, v, bias, case.scale);
    assert_eq!(half.dtype(), DType::BF16);
    assert_close(
        &values(half.cast(DType::F32)),
        &wide(&first.0),
        3e-2,
        "bf16",
    );
}

#[test]
#[should_panic(expected = "shape of bias")]
fn a_bias_of_another_width_is_refused() {
    let s = shape(1, 3, 3, 1, 1, 2);
    let [q, k, v, bias] = Case::new(s, mask(s, 1, false)).tensors(&Device::flex());
    let _ = attention(q, k, v, bias.narrow(3, 0, 2), 1.0);
}

#[test]
fn the_generic_version_equals_the_cpu_one() {
    for s in [
        shape(2, 5, 9, 8, 2, 6),
        shape(1, 1, 7, 4, 4, 3),
        shape(1, 70, 70, 2, 1, 5),
    ] {
        let case = Case::new(s, mask(s, s.rows, true));
        let kv = [s.rows, s.keys, s.kv_heads, s.dim];
        let q = primitive(&case.q, [s.rows, s.width, s.heads, s.dim]);
        let (k, v) = (primitive(&case.k, kv), primitive(&case.v, kv));
        let bias = primitive(&case.bias, [s.rows, 1, s.width, s.keys]);
        let dy = primitive(&case.dy, [s.rows, s.width, s.heads * s.dim]);
        let same = |cpu, generic, what| {
            assert_close(
                &primitive_values(cpu),
                &wide(&primitive_values(generic)),
                2e-6,
                what,
            );
        };
        let operands = || (q.clone(), k.clone(), v.clone(), bias.clone());
        let (a, b, c, d) = operands();
        let generic = generic::attention::<Flex>(a, b, c, d, case.scale, Dropout::NONE);
        let (a, b, c, d) = operands();
        same(
            cpu::attention(a, b, c, d, case.scale, Dropout::NONE),
            generic,
            "y",
        );
        let all = Wanted {
            q: true,
            k: true,
            v: true,
        };
        let (a, b, c, d) = operands();
        let generic =
            generic::gradients::<Flex>(a, b, c, d, dy.clone(), case.scale, Dropout::NONE, all);
        let (a, b, c, d) = operands();
        let cpu = cpu::gradients(a, b, c, d, dy, case.scale, Dropout::NONE, all);
        same(cpu.0, generic.0, "dq");
        same(cpu.1, generic.1, "dk");
        same(cpu.2, generic.2, "dv");
    }
}

#[test]
fn dropped_probabilities_equal_the_masked_reference_forward_and_backward() {
    let dropout = Dropout {
        probability: 0.3,
        seed: 11,
    };
    for s in [
        shape(2, 8, 8, 4, 2, 4),
        shape(1, 70, 72, 2, 2, 4),
        shape(2, 1, 8, 4, 2, 8),
    ] {
        let case = Case::new(s, mask(s, s.rows, true));
        let kept = wide(&dropout.mask(s.rows, s.heads, s.width, s.keys));
        let (q, k, v, bias) = (
            wide(&case.q),
            wide(&case.k),
            wide(&case.v),
            wide(&case.bias),
        );
        let expected = reference::dropped(s, &q, &k, &v, &bias, case.scale, &kept);
        for device in devices() {
            let device = device.autodiff();
            let tq = tensor(&case.q, [s.rows, s.width, s.heads, s.dim], &device).require_grad();
            let keys = [s.rows, s.keys, s.kv_heads, s.dim];
            let tk = tensor(&case.k, keys, &device).require_grad();
            let tv = tensor(&case.v, keys, &device).require_grad();
            let tb = tensor(&case.bias, [s.rows, 1, s.width, s.keys], &device);
            let y =
                attention_with_dropout(tq.clone(), tk.clone(), tv.clone(), tb, case.scale, dropout);
            assert_close(&values(y.clone()), &expected, 1e-5, "forward");
            let dy = tensor(&case.dy, [s.rows, s.width, s.heads * s.dim], &device);
            let grads = (y * dy).sum().backward();
            let of = |which: usize| {
                let (q, k, v, bias, kept) = (&q, &k, &v, &bias, &kept);
                move |x: &[f64]| {
                    let mut all = [q.as_slice(), k, v];
                    all[which] = x;
                    reference::dropped(s, all[0], all[1], all[2], bias, case.scale, kept)
                }
            };
            let found = [
                tq.grad(&grads).unwrap(),
                tk.grad(&grads).unwrap(),
                tv.grad(&grads).unwrap(),
            ];
            for (which, (given, found)) in [&case.q, &case.k, &case.v]
                .into_iter()
                .zip(found)
                .enumerate()
            {
                let what = format!("gradient {which} of {s:?}");
                assert_gradient(of(which), given, &case.dy, &values(found), &what);
            }
        }
    }
}
