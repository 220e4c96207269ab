//! One tensor out of several: prune each, then sum or elect.

use super::dare::{Masked, Masks};
use super::group::Group;
use super::method::Pruning;
use super::{MergeError, MergeOptions, arithmetic, prune, ties};

/// Combines `tensors`, one per part of `group`, as the method says.
pub(super) fn combine(
    mut tensors: Vec<Vec<f32>>,
    weights: &[f64],
    tensor: Masked,
    group: &Group<'_>,
    options: &MergeOptions,
    masks: &Masks,
) -> Result<Vec<f32>, MergeError> {
    let density = options.density.unwrap_or(1.0);
    for (values, part) in tensors.iter_mut().zip(&group.parts) {
        match options.method.pruning() {
            Pruning::Keep => {}
            Pruning::Magnitude => prune::keep_largest(values, density),
            Pruning::Random => {
                masks.drop_and_rescale(values, density, group.path, part.adapter, tensor)?
            }
        }
    }
    let weights: Vec<f32> = weights.iter().map(|w| *w as f32).collect();
    Ok(match options.method.elects() {
        true => ties::elect_and_average(&tensors, &weights, options.sign),
        false => arithmetic::weighted_sum(&tensors, &weights),
    })
}
