//! Keeping the largest entries. Source: the trimming step of TIES, Yadav et al., arXiv 2306.01708.

use std::cmp::Ordering;

/// Zeroes all but the `floor(density · len)` entries of largest magnitude; among equals the earlier ones stay.
pub(super) fn keep_largest(values: &mut [f32], density: f64) {
    let keep = (density * values.len() as f64) as usize;
    if density >= 1.0 || keep >= values.len() {
        return;
    }
    if keep == 0 {
        values.fill(0.0);
        return;
    }
    let descending = |a: &u32, b: &u32| -> Ordering {
        let (x, y) = (values[*a as usize].abs(), values[*b as usize].abs());
        y.total_cmp(&x).then(a.cmp(b))
    };
    let mut order: Vec<u32> = (0..values.len() as u32).collect();
    order.select_nth_unstable_by(keep - 1, descending);
    for at in order.split_off(keep) {
        values[at as usize] = 0.0;
    }
}
