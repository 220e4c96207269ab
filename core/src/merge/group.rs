//! A module and its pairs in the adapters that have it.

use super::{MergeError, Source};
use crate::adapters::LoraModule;
use crate::linalg::{self, LinalgError};
use faer::Mat;
use std::collections::BTreeMap;

/// One adapter's pair for a module.
pub(super) struct Part<'a> {
    /// The adapter's position among the sources.
    pub(super) adapter: usize,
    /// The adapter's weight.
    pub(super) weight: f64,
    pub(super) module: &'a LoraModule,
}

/// All pairs for one module.
pub(super) struct Group<'a> {
    pub(super) path: &'a str,
    pub(super) parts: Vec<Part<'a>>,
}

/// The merged pair; its scaling is 1.
pub(super) struct Pair {
    pub(super) rank: usize,
    /// `[rank, in]`.
    pub(super) a: Vec<f32>,
    /// `[out, rank]`.
    pub(super) b: Vec<f32>,
}

/// A matrix as a product of thin ones.
pub(super) struct Factors {
    pub(super) left: Mat<f64>,
    pub(super) right: Mat<f64>,
}

impl Group<'_> {
    pub(super) fn shape(&self) -> [usize; 2] {
        self.parts
            .first()
            .map_or([0, 0], |p| [p.module.out_features, p.module.in_features])
    }

    /// The true weighted update `Σ wᵢ sᵢ Bᵢ Aᵢ`, not multiplied out.
    pub(super) fn truth(&self) -> Result<Factors, MergeError> {
        let [out, input] = self.shape();
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for part in &self.parts {
            let m = part.module;
            let (b, a) = (
                linalg::matrix(&m.b, [out, m.rank]),
                linalg::matrix(&m.a, [m.rank, input]),
            );
            left.push(b.map_err(|e| self.error(e))? * faer::Scale(part.weight * m.scaling));
            right.push(a.map_err(|e| self.error(e))?);
        }
        Ok(Factors {
            left: linalg::beside(&left.iter().collect::<Vec<_>>(), out),
            right: linalg::below(&right.iter().collect::<Vec<_>>(), input),
        })
    }

    pub(super) fn error(&self, source: LinalgError) -> MergeError {
        MergeError::Linalg {
            module: self.path.to_owned(),
            source,
        }
    }
}

impl Pair {
    pub(super) fn factors(&self, group: &Group<'_>) -> Result<Factors, MergeError> {
        let [out, input] = group.shape();
        let matrix = |v: &[f32], shape| linalg::matrix(v, shape).map_err(|e| group.error(e));
        Ok(Factors {
            left: matrix(&self.b, [out, self.rank])?,
            right: matrix(&self.a, [self.rank, input])?,
        })
    }

    /// The same update at a higher rank: rows and columns of zeros are added.
    pub(super) fn padded(mut self, rank: usize) -> Self {
        if rank <= self.rank || self.rank == 0 {
            return self;
        }
        let input = self.a.len() / self.rank;
        self.a.resize(rank * input, 0.0);
        self.b = self
            .b
            .chunks(self.rank)
            .flat_map(|row| {
                row.iter()
                    .copied()
                    .chain(std::iter::repeat_n(0.0, rank - self.rank))
            })
            .collect();
        self.rank = rank;
        self
    }
}

/// Every module that any source adapts, sorted, with shapes held to each other.
///
/// # Errors
/// [`MergeError::Shape`] where two adapters were made for modules of different sizes.
pub(super) fn groups<'a>(
    sources: &[Source],
    modules: &'a [Vec<LoraModule>],
    weights: &[f64],
) -> Result<Vec<Group<'a>>, MergeError> {
    let mut by_path: BTreeMap<&str, Vec<Part<'a>>> = BTreeMap::new();
    for (adapter, list) in modules.iter().enumerate() {
        for module in list {
            by_path.entry(&module.path).or_default().push(Part {
                adapter,
                weight: weights[adapter],
                module,
            });
        }
    }
    let groups: Vec<Group<'_>> = by_path
        .into_iter()
        .map(|(path, parts)| Group { path, parts })
        .collect();
    for group in &groups {
        let shape = group.shape();
        for part in &group.parts {
            let found = [part.module.out_features, part.module.in_features];
            if found != shape {
                return Err(MergeError::Shape {
                    module: group.path.to_owned(),
                    first: sources[group.parts[0].adapter].name.clone(),
                    first_shape: shape,
                    second: sources[part.adapter].name.clone(),
                    second_shape: found,
                });
            }
        }
    }
    Ok(groups)
}
