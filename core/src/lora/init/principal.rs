//! The principal part of a matrix as a low-rank pair: PiSSA's start, and what LoftQ takes from an error.
//!
//! ```text
//! W = U S Vᵀ        B = U_r √(S_r / s)        A = √(S_r / s) V_rᵀ        s·B·A = the best approximation of rank r
//! ```
//!
//! Source: Meng, Wang and Zhang, "PiSSA: Principal Singular Values and Singular Vectors Adaptation", arXiv 2404.02948.

use crate::adapters::{Adapter, AdapterError, LoraModule, PeftConfig};
use crate::linalg::truncated_svd;

/// `A` (`[rank, in]`) and `B` (`[out, rank]`) with `scaling · B·A` the best approximation of `weight` (`[out, in]`).
///
/// # Errors
/// A rank above the shorter side, a weight that is not finite; `path` is for the message.
pub fn principal(
    path: &str,
    weight: &[f32],
    [out, input]: [usize; 2],
    rank: usize,
    scaling: f64,
) -> Result<(Vec<f32>, Vec<f32>), AdapterError> {
    if rank > out.min(input) {
        let reason = format!(
            "a [{out}, {input}] weight has at most {} singular vectors, fewer than rank {rank}; lower lora.rank, or set \
             lora.rank_pattern for this module",
            out.min(input)
        );
        return Err(AdapterError::initialization(path, reason));
    }
    let svd = truncated_svd(weight, [out, input], rank)
        .map_err(|e| AdapterError::initialization(path, e))?;
    let roots: Vec<f32> = svd
        .s
        .iter()
        .map(|s| (f64::from(*s) / scaling).sqrt() as f32)
        .collect();
    let a = svd.vt.chunks(input.max(1)).zip(&roots);
    let a = a.flat_map(|(row, root)| row.iter().map(move |v| v * root));
    let b = svd.u.chunks(rank.max(1));
    let b = b.flat_map(|row| row.iter().zip(&roots).map(|(u, root)| u * root));
    Ok((a.collect(), b.collect()))
}

/// The adapter for the original base of one that was trained beside a subtracted pair: `B·A - B₀·A₀` as one pair of
/// twice the rank, `[B, -B₀]·[A; A₀]`, under twice the alpha (`√2` times with rsLoRA), so that the scaling stays.
/// PEFT's `path_initial_model_for_weight_conversion` stores the same.
///
/// # Errors
/// A module without its initial pair, or with one of another shape.
pub fn fold(adapter: &Adapter, initial: &[LoraModule]) -> Result<Adapter, AdapterError> {
    let growth = if adapter.config.use_rslora {
        std::f64::consts::SQRT_2
    } else {
        2.0
    };
    let mut modules = adapter.pairs()?;
    for module in &mut modules {
        let start = initial.iter().find(|m| m.path == module.path);
        let start = start.filter(|m| m.a.len() == module.a.len() && m.b.len() == module.b.len());
        let Some(start) = start else {
            let reason = "its initial pair is missing or of another rank";
            return Err(AdapterError::initialization(&module.path, reason));
        };
        module.a.extend(&start.a);
        let rows = module
            .b
            .chunks(module.rank)
            .zip(start.b.chunks(module.rank));
        module.b = rows
            .flat_map(|(row, start)| row.iter().copied().chain(start.iter().map(|v| -v)))
            .collect();
        module.rank *= 2;
        module.alpha *= growth;
    }
    let saved = adapter.saved().into_iter();
    let saved = saved.map(|(name, tensor)| (name.to_owned(), tensor.clone()));
    let patterns = |list: &[(String, f64)], factor: f64| {
        list.iter().map(|(k, v)| (k.clone(), v * factor)).collect()
    };
    let config = PeftConfig {
        r: adapter.config.r * 2,
        lora_alpha: adapter.config.lora_alpha * growth,
        rank_pattern: patterns(&adapter.config.rank_pattern, 2.0),
        alpha_pattern: patterns(&adapter.config.alpha_pattern, growth),
        ..adapter.config.clone()
    };
    Adapter::new(config, &modules, saved.collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::kernels::swiglu::testing::numbers;

    fn product(a: &[f32], b: &[f32], [out, input]: [usize; 2], rank: usize) -> Vec<f64> {
        let term =
            |o: usize, i: usize, r: usize| f64::from(b[o * rank + r]) * f64::from(a[r * input + i]);
        let cell = |at: usize| (0..rank).map(|r| term(at / input, at % input, r)).sum();
        (0..out * input).map(cell).collect()
    }

    #[test]
    fn a_matrix_of_that_rank_comes_back_whole() {
        let (shape, rank, scaling) = ([33, 21], 3, 4.0);
        let (a, b) = (numbers(1, 3 * 21), numbers(2, 33 * 3));
        let weight: Vec<f32> = product(&a, &b, shape, rank)
            .iter()
            .map(|v| *v as f32)
            .collect();
        let (a, b) = principal("m", &weight, shape, rank, scaling).unwrap();
        for (found, expected) in product(&a, &b, shape, rank).iter().zip(&weight) {
            assert!((found * scaling - f64::from(*expected)).abs() < 1e-5);
        }
        let error = principal("layers.0.q_proj", &weight, shape, 22, 1.0).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("layers.0.q_proj") && error.contains("22"),
            "{error}"
        );
    }

    #[test]
    fn folding_keeps_the_difference_and_the_scaling() {
        for rslora in [false, true] {
            let pair = |seed: u64| LoraModule {
                path: "a.q_proj".into(),
                a: numbers(seed, 2 * 5),
                b: numbers(seed + 1, 4 * 2),
                rank: 2,
                in_features: 5,
                out_features: 4,
                alpha: 6.0,
                scaling: crate::lora::scaling(6.0, 2, rslora),
                dropout: 0.0,
            };
            let (now, start) = (pair(1), pair(9));
            let config = PeftConfig {
                r: 2,
                lora_alpha: 6.0,
                use_rslora: rslora,
                ..PeftConfig::default()
            };
            let adapter = Adapter::new(config, std::slice::from_ref(&now), vec![]).unwrap();
            let folded = fold(&adapter, std::slice::from_ref(&start)).unwrap();
            let (json, bytes) = folded.to_bytes().unwrap();
            let module = Adapter::from_bytes(&json, &bytes)
                .unwrap()
                .modules()
                .unwrap()
                .remove(0);
            assert_eq!(module.rank, 4);
            assert!((module.scaling - now.scaling).abs() < 1e-12);
            let found = product(&module.a, &module.b, [4, 5], 4);
            let before = product(&start.a, &start.b, [4, 5], 2);
            let after = product(&now.a, &now.b, [4, 5], 2);
            for ((f, b), a) in found.iter().zip(before).zip(after) {
                assert!((f - (a - b)).abs() < 1e-12);
            }
            assert!(fold(&adapter, &[]).is_err());
        }
    }
}
