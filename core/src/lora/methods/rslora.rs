//! Rank-stabilized scaling: dividing by `sqrt(rank)` keeps the size of the update, and of its
//! gradients, the same at every rank. Source: Kalajdzievski, arXiv 2312.03732.

/// `alpha / rank`, or `alpha / sqrt(rank)` with rsLoRA.
pub fn scaling(alpha: f64, rank: usize, rslora: bool) -> f64 {
    let rank = rank as f64;
    alpha / if rslora { rank.sqrt() } else { rank }
}

/// The alpha that gives `scaling` at `rank`.
pub(crate) fn alpha_for(scaling: f64, rank: usize, rslora: bool) -> f64 {
    let rank = rank as f64;
    scaling * if rslora { rank.sqrt() } else { rank }
}
