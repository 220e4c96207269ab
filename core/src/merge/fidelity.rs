//! How far a merged adapter is from the true weighted update, without multiplying either out.
//!
//! Both are products of thin factors. The QR decompositions of the stacked factors give two small cores in common
//! orthonormal bases, and norms, inner product and difference of the cores are those of the full matrices. Nothing of the
//! size of a weight is formed, and a difference of 1e-7 is not lost in the rounding of two large norms.

use super::MergeError;
use super::group::{Factors, Group, Pair};
use crate::linalg;
use faer::Mat;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Sums over entries from which distances are made; they add over modules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sums {
    /// `‖true‖²`.
    truth: f64,
    /// `‖merged‖²`.
    merged: f64,
    /// `‖merged − true‖²`.
    difference: f64,
    /// `⟨merged, true⟩`.
    inner: f64,
}

/// The distance of a merged update from the true weighted one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// `‖merged − true‖ / ‖true‖`, Frobenius; absent where the true update is zero and the merged one is not.
    pub relative_error: Option<f64>,
    /// Cosine between the two as vectors; absent where one is zero.
    pub cosine: Option<f64>,
    /// `‖true‖`.
    pub true_norm: f64,
    /// `‖merged‖`.
    pub merged_norm: f64,
}

/// The fidelity of one module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleFidelity {
    /// The module's path.
    pub module: String,
    /// Its kind: the last part of the path.
    pub kind: String,
    /// Adapters that have it.
    pub adapters: usize,
    /// Its distance.
    #[serde(flatten)]
    pub fidelity: Fidelity,
    #[serde(skip)]
    sums: Sums,
}

/// The fidelity of a whole merge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FidelityReport {
    /// Over all modules together.
    pub overall: Fidelity,
    /// Over the modules of each kind, by name.
    pub kinds: BTreeMap<String, Fidelity>,
    /// Every module.
    pub modules: Vec<ModuleFidelity>,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.truth += other.truth;
        self.merged += other.merged;
        self.difference += other.difference;
        self.inner += other.inner;
    }

    fn fidelity(&self) -> Fidelity {
        let norms = self.truth.sqrt() * self.merged.sqrt();
        Fidelity {
            relative_error: match (self.truth > 0.0, self.difference > 0.0) {
                (true, _) => Some((self.difference / self.truth).sqrt()),
                (false, true) => None,
                (false, false) => Some(0.0),
            },
            cosine: (norms > 0.0).then(|| (self.inner / norms).clamp(-1.0, 1.0)),
            true_norm: self.truth.sqrt(),
            merged_norm: self.merged.sqrt(),
        }
    }
}

/// Compares the pair that a merge made for `group` with the true weighted update.
pub(super) fn compare(group: &Group<'_>, pair: &Pair) -> Result<ModuleFidelity, MergeError> {
    let sums = sums(&pair.factors(group)?, &group.truth()?);
    let kind = group.path.rsplit('.').next().unwrap_or(group.path);
    Ok(ModuleFidelity {
        module: group.path.to_owned(),
        kind: kind.to_owned(),
        adapters: group.parts.len(),
        fidelity: sums.fidelity(),
        sums,
    })
}

fn sums(merged: &Factors, truth: &Factors) -> Sums {
    let split = merged.left.ncols();
    let left = linalg::beside(&[&merged.left, &truth.left], truth.left.nrows());
    let right = linalg::below(&[&merged.right, &truth.right], truth.right.ncols());
    let left = left.qr().thin_R().to_owned();
    let right = right.transpose().qr().thin_R().to_owned();
    let core_merged = left.get(.., ..split) * right.get(.., ..split).transpose();
    let core_truth = left.get(.., split..) * right.get(.., split..).transpose();
    Sums {
        truth: dot(&core_truth, &core_truth),
        merged: dot(&core_merged, &core_merged),
        difference: {
            let difference = &core_merged - &core_truth;
            dot(&difference, &difference)
        },
        inner: dot(&core_merged, &core_truth),
    }
}

fn dot(x: &Mat<f64>, y: &Mat<f64>) -> f64 {
    (0..x.ncols())
        .flat_map(|j| (0..x.nrows()).map(move |i| x[(i, j)] * y[(i, j)]))
        .sum()
}

impl FidelityReport {
    pub(super) fn new(modules: Vec<ModuleFidelity>) -> Self {
        let mut overall = Sums::default();
        let mut kinds: BTreeMap<String, Sums> = BTreeMap::new();
        for m in &modules {
            overall.add(&m.sums);
            kinds.entry(m.kind.clone()).or_default().add(&m.sums);
        }
        Self {
            overall: overall.fidelity(),
            kinds: kinds.into_iter().map(|(k, s)| (k, s.fidelity())).collect(),
            modules,
        }
    }
}
