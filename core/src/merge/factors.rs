//! Merging `A` and `B` each for itself: `linear`, `ties`, `dare_*`, `magnitude_prune`.
//!
//! Weight and scaling are shared out evenly, `A` takes the sign: `A' = Σ sign(ws)·√|ws|·A`, `B' = Σ √|ws|·B`. The product
//! `B'·A'` also holds the cross terms `BᵢAⱼ`, so it only approximates the weighted update; the fidelity report says how far.

use super::combine::combine;
use super::dare::{Masked, Masks};
use super::group::{Group, Pair};
use super::{MergeError, MergeOptions, Source};

pub(super) fn merge(
    group: &Group<'_>,
    sources: &[Source],
    options: &MergeOptions,
    masks: &Masks,
) -> Result<Pair, MergeError> {
    let rank = common_rank(group, sources, options)?;
    let share = |p: &super::group::Part<'_>| (p.weight * p.module.scaling).abs().sqrt();
    let for_b: Vec<f64> = group.parts.iter().map(share).collect();
    let for_a: Vec<f64> = group
        .parts
        .iter()
        .zip(&for_b)
        .map(|(p, s)| s * (p.weight * p.module.scaling).signum())
        .collect();
    let a = group.parts.iter().map(|p| p.module.a.clone()).collect();
    let b = group.parts.iter().map(|p| p.module.b.clone()).collect();
    Ok(Pair {
        rank,
        a: combine(a, &for_a, Masked::A, group, options, masks)?,
        b: combine(b, &for_b, Masked::B, group, options, masks)?,
    })
}

fn common_rank(
    group: &Group<'_>,
    sources: &[Source],
    options: &MergeOptions,
) -> Result<usize, MergeError> {
    let ranks = || group.parts.iter().map(|p| p.module.rank);
    let first = ranks().next().unwrap_or(0);
    if ranks().all(|r| r == first) {
        return Ok(first);
    }
    let shown: Vec<String> = group
        .parts
        .iter()
        .map(|p| format!("{} in {}", p.module.rank, sources[p.adapter].name))
        .collect();
    Err(MergeError::UnequalRanks {
        method: options.method,
        module: group.path.to_owned(),
        ranks: shown.join(", "),
        instead: options.method.on_updates(),
    })
}
