//! Decompositions against what they are made from, on each of the three paths.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use super::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len)
        .map(|_| (f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0) as f32)
        .collect()
}

fn rebuilt(svd: &Svd, [rows, cols]: [usize; 2]) -> Vec<f64> {
    let mut out = vec![0.0; rows * cols];
    for i in 0..rows {
        for k in 0..svd.rank {
            let us = f64::from(svd.u[i * svd.rank + k]) * f64::from(svd.s[k]);
            for j in 0..cols {
                out[i * cols + j] += us * f64::from(svd.vt[k * cols + j]);
            }
        }
    }
    out
}

fn distance(a: &[f64], b: impl Iterator<Item = f64>) -> f64 {
    a.iter()
        .zip(b)
        .map(|(x, y)| (x - y).powi(2))
        .sum::<f64>()
        .sqrt()
}

#[test]
fn at_full_rank_the_matrix_comes_back() {
    for shape in [[7, 5], [5, 7], [1, 4], [33, 33]] {
        let values = random(shape[0] * shape[1], 1);
        let svd = truncated_svd(&values, shape, 99).unwrap();
        assert_eq!(svd.rank, shape[0].min(shape[1]));
        assert!(svd.s.is_sorted_by(|a, b| a >= b));
        let back = rebuilt(&svd, shape);
        assert!(
            distance(&back, values.iter().map(|v| f64::from(*v))) < 1e-5,
            "{shape:?}"
        );
    }
}

#[test]
fn truncation_leaves_exactly_the_small_singular_values() {
    let shape = [40, 24];
    let values = random(960, 2);
    let all = truncated_svd(&values, shape, 24).unwrap();
    let few = truncated_svd(&values, shape, 5).unwrap();
    let left_out: f64 = all.s[5..].iter().map(|s| f64::from(*s).powi(2)).sum();
    let far = distance(&rebuilt(&few, shape), values.iter().map(|v| f64::from(*v)));
    assert!((far - left_out.sqrt()).abs() < 1e-5);
}

#[test]
fn a_product_is_decomposed_as_the_dense_matrix_is() {
    for [rows, inner, cols] in [[50, 6, 30], [4, 9, 8], [20, 3, 20]] {
        let (left, right) = (random(rows * inner, 3), random(inner * cols, 4));
        let dense: Vec<f32> = (0..rows * cols)
            .map(|at| {
                let (i, j) = (at / cols, at % cols);
                (0..inner)
                    .map(|k| f64::from(left[i * inner + k]) * f64::from(right[k * cols + j]))
                    .sum::<f64>() as f32
            })
            .collect();
        for rank in [1, 2, 99] {
            let a = product_svd(&left, &right, [rows, inner, cols], rank).unwrap();
            let b = truncated_svd(&dense, [rows, cols], rank.min(inner).min(a.rank)).unwrap();
            let far = distance(
                &rebuilt(&a, [rows, cols]),
                rebuilt(&b, [rows, cols]).into_iter(),
            );
            assert!(far < 1e-4, "{rows} {inner} {cols} {rank}: {far}");
        }
    }
}

#[test]
fn few_triplets_of_a_large_matrix_are_the_dense_ones() {
    // A clear signal over a flat bulk, as a pruned update has, one with repeated values, and one of low rank.
    let shape = [500, 420];
    let noise = random(shape[0] * shape[1], 5);
    let (l, r) = (random(shape[0] * 4, 6), random(4 * shape[1], 7));
    let low: Vec<f32> = (0..noise.len())
        .map(|at| {
            let (i, j) = (at / shape[1], at % shape[1]);
            (0..4).map(|k| l[i * 4 + k] * r[k * shape[1] + j]).sum()
        })
        .collect();
    let signal: Vec<f32> = low.iter().zip(&noise).map(|(a, b)| a + 0.05 * b).collect();
    let repeated: Vec<f32> = (0..noise.len())
        .map(|at| match (at / shape[1], at % shape[1]) {
            (i, j) if i == j && i < 6 => 3.0,
            (i, j) if i == j => 1.0 / (i + 1) as f32,
            _ => 0.0,
        })
        .collect();
    for (name, values) in [
        ("signal", signal),
        ("low", low),
        ("repeated", repeated),
        ("zero", vec![0.0; noise.len()]),
    ] {
        let a = matrix(&values, shape).unwrap();
        for rank in [1, 4, 7] {
            let dense = dense_svd(&a, rank).unwrap();
            // The seventh triplet of `signal` lies in the bulk, where a dense decomposition is cheaper.
            let fast = match krylov::svd(&a, rank).unwrap() {
                Some(fast) => fast,
                None if (name, rank) == ("signal", 7) => svd(&a, rank).unwrap(),
                None => panic!("{name} {rank}: no convergence"),
            };
            for k in 0..rank {
                let scale = dense.s[0].max(1e-30);
                assert!(
                    (dense.s[k] - fast.s[k]).abs() <= 1e-8 * scale,
                    "{name} {rank} {k}"
                );
            }
            let eye = fast.u.transpose() * &fast.u;
            assert!(
                (0..rank)
                    .all(|i| (0..rank).all(|j| { (eye[(i, j)] - f64::from(i == j)).abs() < 1e-9 })),
                "{name} {rank}: left vectors are not orthonormal"
            );
        }
    }
}

#[test]
fn what_is_no_matrix_is_refused() {
    assert!(matches!(
        truncated_svd(&[1.0; 5], [2, 3], 1),
        Err(LinalgError::Length {
            expected: 6,
            found: 5,
            ..
        })
    ));
    let e = truncated_svd(&[1.0, 2.0, f32::NAN, 4.0], [2, 2], 1).unwrap_err();
    assert!(e.to_string().contains("row 1, column 0"), "{e}");
}
