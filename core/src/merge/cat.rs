//! Stacking: `A' = [w₁s₁A₁; w₂s₂A₂; …]`, `B' = [B₁ | B₂ | …]`. The weighted update exactly, at the sum of the ranks.

use super::group::{Group, Pair};

pub(super) fn merge(group: &Group<'_>) -> Pair {
    let [out, _] = group.shape();
    let rank = group.parts.iter().map(|p| p.module.rank).sum();
    let scaled = |p: &super::group::Part<'_>| -> Vec<f32> {
        let (weight, scaling) = (p.weight as f32, p.module.scaling as f32);
        p.module.a.iter().map(|a| a * weight * scaling).collect()
    };
    let row = |i: usize| {
        group.parts.iter().flat_map(move |p| {
            let r = p.module.rank;
            p.module.b[i * r..(i + 1) * r].iter().copied()
        })
    };
    Pair {
        rank,
        a: group.parts.iter().flat_map(scaled).collect(),
        b: (0..out).flat_map(row).collect(),
    }
}
