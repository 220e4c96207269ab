//! LoftQ: quantization and a low-rank pair, each making up for what the other leaves.
//!
//! ```text
//! Q ← NF4(W - s·B·A)        s·B·A ← the best approximation of rank r of W - Q        from B·A = 0, loftq_iter times
//! ```
//!
//! After one round `Q` is the NF4 form of `W` itself, so the adapter lies on the ordinary quantized base. PEFT leaves
//! the scaling out and so is right only where `alpha = rank`; here `s·B·A` is what is fitted.
//!
//! Source: Li et al., "LoftQ: LoRA-Fine-Tuning-Aware Quantization for Large Language Models", arXiv 2310.08659.

use super::principal;
use crate::adapters::{AdapterError, LoraModule};
use crate::quantization::{BLOCKSIZE, Nf4Tensor};

/// Fills `module`'s `a` and `b` for `weight` (`[out, in]`), and returns the pair that was subtracted before the last
/// quantization, where there was more than one round.
///
/// # Errors
/// As [`principal`]; a weight that cannot be quantized.
pub fn loftq(
    module: &mut LoraModule,
    weight: &[f32],
    rounds: usize,
    double_quant: bool,
) -> Result<Option<LoraModule>, AdapterError> {
    let shape = [module.out_features, module.in_features];
    let mut taken = None;
    for round in 0..rounds.max(1) {
        let rest = match round {
            0 => weight.to_vec(),
            _ => {
                taken = Some(module.clone());
                without(weight, module)
            }
        };
        let quantized = Nf4Tensor::quantize(&rest, &shape, BLOCKSIZE, double_quant)
            .and_then(|packed| packed.dequantize())
            .map_err(|e| AdapterError::initialization(&module.path, e))?;
        let error: Vec<f32> = weight.iter().zip(&quantized).map(|(w, q)| w - q).collect();
        let (rank, scaling) = (module.rank, module.scaling);
        (module.a, module.b) = principal(&module.path, &error, shape, rank, scaling)?;
    }
    Ok(taken)
}

/// `weight - s·B·A`.
pub(super) fn without(weight: &[f32], module: &LoraModule) -> Vec<f32> {
    let (rank, input) = (module.rank, module.in_features);
    let mut rest = weight.to_vec();
    let mut update = vec![0.0f64; input];
    for (row, b) in rest
        .chunks_mut(input.max(1))
        .zip(module.b.chunks(rank.max(1)))
    {
        update.fill(0.0);
        for (k, b) in b.iter().enumerate() {
            let b = module.scaling * f64::from(*b);
            let a = &module.a[k * input..(k + 1) * input];
            update
                .iter_mut()
                .zip(a)
                .for_each(|(u, a)| *u += b * f64::from(*a));
        }
        row.iter_mut()
            .zip(&update)
            .for_each(|(w, u)| *w -= *u as f32);
    }
    rest
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::kernels::swiglu::testing::numbers;

    /// The distance of `NF4(W - taken) + s·B·A` from `W`.
    fn error(weight: &[f32], module: &LoraModule, taken: Option<&LoraModule>) -> f64 {
        let rest = taken.map_or_else(|| weight.to_vec(), |t| without(weight, t));
        let shape = [module.out_features, module.in_features];
        let packed = Nf4Tensor::quantize(&rest, &shape, BLOCKSIZE, true).unwrap();
        let left = without(weight, module);
        let squares = left.iter().zip(packed.dequantize().unwrap());
        squares
            .map(|(l, q)| f64::from(l - q).powi(2))
            .sum::<f64>()
            .sqrt()
    }

    #[test]
    fn the_error_falls_with_the_pair_and_with_every_round() {
        let weight = numbers(3, 60 * 70);
        let start = LoraModule {
            path: "m".into(),
            a: vec![0.0; 8 * 70],
            b: vec![0.0; 60 * 8],
            rank: 8,
            in_features: 70,
            out_features: 60,
            alpha: 24.0,
            scaling: 3.0,
            dropout: 0.0,
        };
        let plain = error(&weight, &start, None);
        let mut last = plain;
        for rounds in [1, 3] {
            let mut module = start.clone();
            let taken = loftq(&mut module, &weight, rounds, true).unwrap();
            assert_eq!(taken.is_some(), rounds > 1);
            let now = error(&weight, &module, taken.as_ref());
            assert!(
                now < 0.95 * last.min(plain) || (rounds > 1 && now < last),
                "{rounds}: {now} after {last}"
            );
            last = now;
        }
    }
}
