//! Merging the updates `scaling · B·A` themselves and truncating once: `svd`, `*_svd`, and the exact merge.
//!
//! A weighted sum has at most the rank of its parts together, so it is decomposed through its thin factors. Pruning makes
//! an update dense; only then is it multiplied out.

use super::combine::combine;
use super::dare::{Masked, Masks};
use super::group::{Group, Pair};
use super::{MergeError, MergeOptions, Method};
use crate::adapters::LoraModule;
use crate::linalg::{self, Triplets};
use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};

/// Singular values below this share of the largest are rounding of the `f32` factors.
const NEGLIGIBLE: f64 = 1e-8;

/// The weighted sum, truncated to `rank`, or to the rank it has.
pub(super) fn exact(
    group: &Group<'_>,
    rank: Option<usize>,
    clamp: Option<f64>,
) -> Result<Pair, MergeError> {
    let truth = group.truth()?;
    let most = rank.unwrap_or(truth.left.ncols());
    let mut found =
        linalg::factored_svd(&truth.left, &truth.right, most).map_err(|e| group.error(e))?;
    if rank.is_none() {
        let largest = found.s.first().copied().unwrap_or(0.0);
        let needed = found
            .s
            .iter()
            .filter(|s| **s > NEGLIGIBLE * largest)
            .count();
        found.s.truncate(needed.max(1));
    }
    Ok(pair(&found, clamp))
}

/// As the method says, truncated to `rank`.
pub(super) fn merge(
    group: &Group<'_>,
    rank: usize,
    options: &MergeOptions,
    masks: &Masks,
) -> Result<Pair, MergeError> {
    if options.method == Method::Svd {
        return exact(group, Some(rank), options.clamp);
    }
    let weights: Vec<f64> = group.parts.iter().map(|p| p.weight).collect();
    let updates = group.parts.iter().map(|p| update(p.module)).collect();
    let merged = combine(updates, &weights, Masked::Delta, group, options, masks)?;
    let dense = linalg::matrix(&merged, group.shape()).map_err(|e| group.error(e))?;
    let found = linalg::svd(&dense, rank).map_err(|e| group.error(e))?;
    Ok(pair(&found, options.clamp))
}

/// `scaling · B·A`, `[out, in]`, row-major.
pub(super) fn update(m: &LoraModule) -> Vec<f32> {
    let mut dense = vec![0.0f32; m.out_features * m.in_features];
    matmul(
        MatMut::from_row_major_slice_mut(&mut dense, m.out_features, m.in_features),
        Accum::Replace,
        MatRef::from_row_major_slice(&m.b, m.out_features, m.rank),
        MatRef::from_row_major_slice(&m.a, m.rank, m.in_features),
        m.scaling as f32,
        Par::Seq,
    );
    dense
}

/// `A = Vᵀ`, `B = U·S`.
fn pair(found: &Triplets, clamp: Option<f64>) -> Pair {
    let rank = found.s.len();
    let (out, input) = (found.u.nrows(), found.v.nrows());
    let mut pair = Pair {
        rank,
        a: (0..rank)
            .flat_map(|k| (0..input).map(move |j| found.v[(j, k)] as f32))
            .collect(),
        b: (0..out)
            .flat_map(|i| (0..rank).map(move |k| (found.u[(i, k)] * found.s[k]) as f32))
            .collect(),
    };
    if let Some(quantile) = clamp {
        clamp_factors(&mut pair.b, &mut pair.a, quantile);
    }
    pair
}

/// Clamps both factors to plus and minus the `quantile` of all their values.
pub(super) fn clamp_factors(b: &mut [f32], a: &mut [f32], quantile: f64) {
    let mut values: Vec<f32> = b.iter().chain(a.iter()).copied().collect();
    if values.is_empty() {
        return;
    }
    values.sort_by(f32::total_cmp);
    let at = quantile * (values.len() - 1) as f64;
    let (low, high) = (values[at as usize], values[at.ceil() as usize]);
    let bound = low + (high - low) * at.fract() as f32;
    // The quantile of signed values may be negative where they lean to one side; a bound cannot be.
    let bound = bound.abs();
    b.iter_mut()
        .chain(a)
        .for_each(|v| *v = v.clamp(-bound, bound));
}
