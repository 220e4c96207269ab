//! Every method on a projection against a plain f64 restatement, forward and backward, on dense and NF4 weights of
//! shapes that fit nothing.
#![allow(clippy::unwrap_used)]

use burn::tensor::{Device, Tensor};

use super::*;
use crate::kernels::nf4_matmul::Nf4Weight;
use crate::kernels::swiglu::testing::{
    assert_close, assert_gradient, devices, numbers, tensor, values, wide,
};
use crate::models::linear::Weight;
use crate::quantization::Nf4Tensor;

const SCALING: f64 = 1.75;

/// One projection and one adapter on it, on the host.
struct Problem {
    kind: Kind,
    rows: usize,
    out: usize,
    input: usize,
    rank: usize,
    x: Vec<f32>,
    w: Vec<f64>,
    bias: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    vector: Vec<f32>,
}

impl Problem {
    /// `B·A`, `[out, in]`.
    fn product(&self, a: &[f64], b: &[f64]) -> Vec<f64> {
        let cell = |o: usize, i: usize| -> f64 {
            (0..self.rank)
                .map(|r| b[o * self.rank + r] * a[r * self.input + i])
                .sum()
        };
        (0..self.out * self.input)
            .map(|at| cell(at / self.input, at % self.input))
            .collect()
    }

    /// The norms of the rows of `W + s·B·A`.
    fn norms(&self) -> Vec<f64> {
        let product = self.product(&wide(&self.a), &wide(&self.b));
        let turned: Vec<f64> = self
            .w
            .iter()
            .zip(product)
            .map(|(w, p)| w + SCALING * p)
            .collect();
        turned
            .chunks(self.input)
            .map(|row| row.iter().map(|v| v * v).sum::<f64>().sqrt())
            .collect()
    }

    /// The adapted weight for other values of the adapter, DoRA's norms held where they are.
    fn adapted(&self, a: &[f64], b: &[f64], vector: &[f64]) -> Vec<f64> {
        let gated: Vec<f64> = match self.kind {
            Kind::Sparse => a
                .iter()
                .enumerate()
                .map(|(i, v)| v * vector[i / self.input])
                .collect(),
            _ => a.to_vec(),
        };
        let product = self.product(&gated, b);
        let norms = self.norms();
        let cell = |at: usize| {
            let (w, p) = (self.w[at], product[at]);
            let row = at / self.input;
            match self.kind {
                Kind::Lora | Kind::Sparse => w + SCALING * p,
                Kind::Dora => (w + SCALING * p) * vector[row] / norms[row],
                Kind::Hira => w * (1.0 + p),
            }
        };
        (0..self.w.len()).map(cell).collect()
    }

    fn output(&self, x: &[f64], weight: &[f64]) -> Vec<f64> {
        let dot = |row: usize, o: usize| -> f64 {
            let x = &x[row * self.input..(row + 1) * self.input];
            let w = &weight[o * self.input..(o + 1) * self.input];
            x.iter().zip(w).map(|(x, w)| x * w).sum()
        };
        (0..self.rows * self.out)
            .map(|at| dot(at / self.out, at % self.out) + f64::from(self.bias[at % self.out]))
            .collect()
    }
}

/// The projection of a problem, with tracked leaves for `A`, `B` and the vector.
fn layers(
    p: &Problem,
    weight: Weight,
    device: &Device,
) -> (Linear, [Tensor<2>; 2], Option<Tensor<1>>) {
    let bias = tensor(&p.bias, [p.out], &device.clone().inner());
    let mut linear = Linear::new(weight, Some(bias));
    let a = tensor(&p.a, [p.rank, p.input], device).require_grad();
    let b = tensor(&p.b, [p.out, p.rank], device).require_grad();
    let vector = matches!(p.kind, Kind::Dora | Kind::Sparse)
        .then(|| tensor(&p.vector, [p.vector.len()], device).require_grad());
    let pair = LoraLayer {
        a: a.clone(),
        b: b.clone(),
        scaling: SCALING,
        dropout: 0.0,
    };
    linear
        .adapters
        .push(AdapterLayer::new(p.kind, pair, vector.clone()));
    (linear, [a, b], vector)
}

fn check(p: &Problem, weight: Weight, device: &Device, what: &str) {
    let tracked = device.clone().autodiff();
    let (linear, [a, b], vector) = layers(p, weight, &tracked);
    let x = tensor(&p.x, [p.rows, p.input], &tracked).require_grad();
    let dy = numbers(9, p.rows * p.out);
    let y = linear.forward(x.clone());
    let (wa, wb, wv) = (wide(&p.a), wide(&p.b), wide(&p.vector));
    let adapted = p.adapted(&wa, &wb, &wv);
    assert_close(
        &values(y.clone()),
        &p.output(&wide(&p.x), &adapted),
        2e-5,
        what,
    );
    let change: Vec<f64> = adapted.iter().zip(&p.w).map(|(a, w)| a - w).collect();
    let delta = values(linear.adapters[0].delta_weight(&linear));
    assert_close(&delta, &change, 2e-5, &format!("{what}: dense change"));
    if p.kind != Kind::Sparse {
        let scaling = if p.kind == Kind::Hira { 1.0 } else { SCALING };
        let product = p.product(&wa, &wb);
        let product: Vec<f32> = product.iter().map(|v| (v * scaling) as f32).collect();
        let weight: Vec<f32> = p.w.iter().map(|w| *w as f32).collect();
        let host = change_of_weight(p.kind, &weight, product, p.input, Some(&p.vector));
        assert_close(&host, &change, 2e-5, &format!("{what}: change on the host"));
    }

    let grads = (y * tensor(&dy, [p.rows, p.out], &tracked))
        .sum()
        .backward();
    let of_x = |x: &[f64]| p.output(x, &adapted);
    assert_gradient(
        of_x,
        &p.x,
        &dy,
        &values(x.grad(&grads).unwrap()),
        &format!("{what}: dx"),
    );
    let of_a = |a: &[f64]| p.output(&wide(&p.x), &p.adapted(a, &wb, &wv));
    assert_gradient(
        of_a,
        &p.a,
        &dy,
        &values(a.grad(&grads).unwrap()),
        &format!("{what}: dA"),
    );
    let of_b = |b: &[f64]| p.output(&wide(&p.x), &p.adapted(&wa, b, &wv));
    assert_gradient(
        of_b,
        &p.b,
        &dy,
        &values(b.grad(&grads).unwrap()),
        &format!("{what}: dB"),
    );
    if let Some(vector) = vector {
        let of_v = |v: &[f64]| p.output(&wide(&p.x), &p.adapted(&wa, &wb, v));
        let gradient = values(vector.grad(&grads).unwrap());
        assert_gradient(of_v, &p.vector, &dy, &gradient, &format!("{what}: dvector"));
    }
}

#[test]
fn every_method_equals_its_definition_on_dense_and_packed_weights() {
    for device in devices() {
        for kind in [Kind::Lora, Kind::Dora, Kind::Sparse, Kind::Hira] {
            for [rows, out, input, rank] in
                [[1, 1, 1, 1], [5, 7, 33, 3], [3, 40, 76, 4], [9, 65, 64, 8]]
            {
                let what = format!("{kind} {rows}x{input} to {out}, rank {rank}");
                let w = numbers(2, out * input);
                let packed = Nf4Tensor::quantize(&w, &[out, input], 64, true).unwrap();
                let length = if kind == Kind::Sparse { rank } else { out };
                let problem = |w: &[f32]| Problem {
                    kind,
                    rows,
                    out,
                    input,
                    rank,
                    x: numbers(1, rows * input),
                    w: wide(w),
                    bias: numbers(3, out),
                    a: numbers(4, rank * input),
                    b: numbers(5, out * rank),
                    vector: numbers(6, length),
                };
                let dense = Weight::Dense(tensor(&w, [out, input], &device));
                check(&problem(&w), dense, &device, &format!("dense {what}"));
                let nf4 = Weight::Nf4(Nf4Weight::from_host(&packed, &device));
                let rounded = problem(&packed.dequantize().unwrap());
                check(&rounded, nf4, &device, &format!("nf4 {what}"));
            }
        }
    }
}

/// A new DoRA adapter changes nothing, whatever the base is made of.
#[test]
fn fresh_magnitudes_are_the_norms_of_the_weight() {
    let device = Device::flex();
    let (out, input) = (30, 70);
    let w = numbers(2, out * input);
    let packed = Nf4Tensor::quantize(&w, &[out, input], 64, true).unwrap();
    let rounded = packed.dequantize().unwrap();
    let forms = [
        (Weight::Dense(tensor(&w, [out, input], &device)), w),
        (Weight::Nf4(Nf4Weight::from_host(&packed, &device)), rounded),
    ];
    for (weight, values_of) in forms {
        let base = Linear::new(weight, None);
        let magnitude = row_norms(&values_of, input);
        let pair = LoraLayer {
            a: tensor(&numbers(3, 4 * input), [4, input], &device),
            b: Tensor::zeros([out, 4], &device),
            scaling: 2.0,
            dropout: 0.0,
        };
        let vector = Some(tensor(&magnitude, [out], &device));
        let mut adapted = base.clone();
        adapted
            .adapters
            .push(AdapterLayer::new(Kind::Dora, pair, vector));
        let x = tensor(&numbers(1, 6 * input), [6, input], &device);
        let plain = wide(&values(base.forward(x.clone())));
        assert_close(&values(adapted.forward(x)), &plain, 1e-6, "fresh DoRA");
    }
}

/// Under dropout the base's part of DoRA sees the dropped input too.
#[test]
fn dora_drops_the_input_of_both_parts() {
    let device = Device::flex();
    let (out, input) = (8, 64);
    let w = numbers(2, out * input);
    let magnitude: Vec<f32> = row_norms(&w, input).iter().map(|n| 2.0 * n).collect();
    let pair = LoraLayer {
        a: tensor(&numbers(3, 2 * input), [2, input], &device),
        b: Tensor::zeros([out, 2], &device),
        scaling: 1.0,
        dropout: 0.5,
    };
    let mut linear = Linear::new(Weight::Dense(tensor(&w, [out, input], &device)), None);
    let x = tensor(&numbers(1, 3 * input), [3, input], &device);
    let plain = values(linear.forward(x.clone()));
    let vector = Some(tensor(&magnitude, [out], &device));
    linear
        .adapters
        .push(AdapterLayer::new(Kind::Dora, pair.clone(), vector));
    // With `B` zero and doubled magnitudes the adapter adds exactly the product of the dropped input.
    device.seed(7);
    let adapted = values(linear.forward(x.clone()));
    device.seed(7);
    let dropped = values(linear.product(pair.drop(x)));
    assert!(
        dropped
            .iter()
            .zip(&plain)
            .any(|(d, p)| (d - p).abs() > 1e-3)
    );
    let expected: Vec<f64> = plain
        .iter()
        .zip(dropped)
        .map(|(p, d)| f64::from(p + d))
        .collect();
    assert_close(&adapted, &expected, 1e-5, "dropped");
}
