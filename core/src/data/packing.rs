//! Best-fit decreasing bin packing: several whole examples per row, so that little of a batch is padding.
//!
//! Each packed example keeps its own positions and attends to itself only (`segment_ids`), so the loss equals that of
//! the same examples in rows of their own.
//!
//! Best-fit decreasing uses at most 11/9 of the optimal number of rows plus a constant (Johnson et al., 1974).

use std::collections::BTreeMap;

use super::error::DataError;

/// Packs examples of the given lengths into rows of `width` tokens; returns the example indices of each row.
/// Equal lengths are taken in the order of `lengths`, and no random number is used.
///
/// Four examples of 5, 4, 3 and 2 tokens in rows of 8:
///
/// ```text
/// tokens     a a a a a c c c   b b b b d d . .
/// segment    1 1 1 1 1 2 2 2   1 1 1 1 2 2 0 0      0 is padding
/// position   0 1 2 3 4 0 1 2   0 1 2 3 0 1 0 0      starts again with every document
/// ```
///
/// ```
/// use qloom_core::data::pack;
/// let rows = pack(&[5, 4, 3, 2], 8).unwrap();
/// assert_eq!(rows, [vec![0, 2], vec![1, 3]]);
/// assert!(pack(&[9], 8).is_err()); // an example is never split
/// ```
///
/// # Errors
/// [`DataError::PackTooLong`] for an example longer than a row.
pub fn pack(lengths: &[usize], width: usize) -> Result<Vec<Vec<usize>>, DataError> {
    let order: Vec<usize> = (0..lengths.len()).collect();
    pack_in_order(lengths, width, &order)
}

/// As [`pack`] with ties broken by the position in `order`, which must be a permutation of the indices. The number of
/// rows does not depend on `order`.
pub(super) fn pack_in_order(
    lengths: &[usize],
    width: usize,
    order: &[usize],
) -> Result<Vec<Vec<usize>>, DataError> {
    let mut sorted = order.to_vec();
    sorted.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let mut rows: Vec<Vec<usize>> = Vec::new();
    // Free tokens -> rows with exactly that much room.
    let mut room: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in sorted {
        let length = lengths[index];
        if length > width {
            return Err(DataError::PackTooLong {
                index,
                length,
                width,
            });
        }
        let fit = room.range(length..).next().map(|(&free, _)| free);
        let (row, free) = match fit.and_then(|free| Some((room.get_mut(&free)?.pop()?, free))) {
            Some(found) => found,
            None => {
                rows.push(Vec::new());
                (rows.len() - 1, width)
            }
        };
        if room.get(&free).is_some_and(Vec::is_empty) {
            room.remove(&free);
        }
        rows[row].push(index);
        room.entry(free - length).or_default().push(row);
    }
    Ok(rows)
}
