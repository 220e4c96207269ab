//! Singular value decompositions of weights: dense matrices and products of thin factors.
//!
//! A thin wrapper over the `faer` crate, shared by everything that truncates a matrix to a rank. Matrices are
//! row-major `f32` slices at the border and `f64` inside. Products `L·R` are never multiplied out: with the QR
//! decompositions of both factors the decomposition of a 2048 x 2048 update of rank 16 is one of a 16 x 16 matrix.
//! Large dense matrices of which a few triplets are wanted go through block Krylov iteration, to the same accuracy.
//!
//! Everything runs on the calling thread, so results do not depend on how many threads there are.

mod krylov;

use faer::Mat;
use thiserror::Error;

/// Up to this side a dense decomposition is as fast as an iterative one.
const DENSE_SIDE: usize = 384;

/// What keeps a matrix from being decomposed.
#[derive(Debug, Error)]
pub enum LinalgError {
    /// A slice that is not the matrix it should be.
    #[error("matrix of shape {shape:?}: expected {expected} values, found {found}")]
    Length {
        /// Rows and columns.
        shape: [usize; 2],
        /// Their product.
        expected: usize,
        /// Values there are.
        found: usize,
    },
    /// NaN or infinity.
    #[error(
        "matrix of shape {shape:?} holds a value that is not finite at row {row}, column {column}; the tensor is damaged"
    )]
    NotFinite {
        /// Rows and columns.
        shape: [usize; 2],
        /// Row of the first such value.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// The iteration did not end.
    #[error(
        "the singular value decomposition of a matrix of shape {shape:?} did not converge; its values span too many \
         orders of magnitude"
    )]
    NoConvergence {
        /// Rows and columns.
        shape: [usize; 2],
    },
}

/// The largest singular triplets, `A ≈ U · diag(s) · Vᵀ`.
#[derive(Clone, Debug, PartialEq)]
pub struct Svd {
    /// Triplets held: what was asked for, or the shorter side where that is less.
    pub rank: usize,
    /// Left vectors, `[rows, rank]`, row-major.
    pub u: Vec<f32>,
    /// Singular values, largest first.
    pub s: Vec<f32>,
    /// Right vectors, `[rank, cols]`, row-major.
    pub vt: Vec<f32>,
}

/// The `rank` largest triplets of a dense matrix (`[rows, cols]`, row-major).
///
/// # Errors
/// A slice of another length, a value that is not finite.
pub fn truncated_svd(values: &[f32], shape: [usize; 2], rank: usize) -> Result<Svd, LinalgError> {
    svd(&matrix(values, shape)?, rank).map(Triplets::into_svd)
}

/// The `rank` largest triplets of `left · right` (`[rows, inner]` and `[inner, cols]`, row-major).
///
/// # Errors
/// As for [`truncated_svd`].
pub fn product_svd(
    left: &[f32],
    right: &[f32],
    [rows, inner, cols]: [usize; 3],
    rank: usize,
) -> Result<Svd, LinalgError> {
    let (left, right) = (matrix(left, [rows, inner])?, matrix(right, [inner, cols])?);
    factored_svd(&left, &right, rank).map(Triplets::into_svd)
}

/// Triplets in `f64`: `u` is `[rows, rank]`, `v` is `[cols, rank]`.
pub(crate) struct Triplets {
    pub(crate) u: Mat<f64>,
    pub(crate) s: Vec<f64>,
    pub(crate) v: Mat<f64>,
}

/// A row-major slice as a matrix of finite numbers.
pub(crate) fn matrix(values: &[f32], shape: [usize; 2]) -> Result<Mat<f64>, LinalgError> {
    let [rows, cols] = shape;
    if values.len() != rows * cols {
        return Err(LinalgError::Length {
            shape,
            expected: rows * cols,
            found: values.len(),
        });
    }
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        return Err(LinalgError::NotFinite {
            shape,
            row: at / cols,
            column: at % cols,
        });
    }
    Ok(Mat::from_fn(rows, cols, |i, j| {
        f64::from(values[i * cols + j])
    }))
}

/// A matrix as a row-major slice.
pub(crate) fn row_major(m: &Mat<f64>) -> Vec<f32> {
    let (rows, cols) = m.shape();
    (0..rows)
        .flat_map(|i| (0..cols).map(move |j| m[(i, j)] as f32))
        .collect()
}

/// `[m₁ | m₂ | …]`, of `rows` rows each.
pub(crate) fn beside(parts: &[&Mat<f64>], rows: usize) -> Mat<f64> {
    let mut all = Mat::zeros(rows, parts.iter().map(|p| p.ncols()).sum());
    let mut at = 0;
    for part in parts {
        all.get_mut(.., at..at + part.ncols()).copy_from(part);
        at += part.ncols();
    }
    all
}

/// `[m₁; m₂; …]`, of `cols` columns each.
pub(crate) fn below(parts: &[&Mat<f64>], cols: usize) -> Mat<f64> {
    let mut all = Mat::zeros(parts.iter().map(|p| p.nrows()).sum(), cols);
    let mut at = 0;
    for part in parts {
        all.get_mut(at..at + part.nrows(), ..).copy_from(part);
        at += part.nrows();
    }
    all
}

/// The `rank` largest triplets of a dense matrix.
pub(crate) fn svd(a: &Mat<f64>, rank: usize) -> Result<Triplets, LinalgError> {
    let side = a.nrows().min(a.ncols());
    let rank = rank.min(side);
    let few = rank + krylov::OVERSAMPLING < side / 8;
    if side > DENSE_SIDE
        && few
        && let Some(found) = krylov::svd(a, rank)?
    {
        return Ok(found.signed());
    }
    dense_svd(a, rank).map(Triplets::signed)
}

/// The `rank` largest triplets of `left · right`, through the QR decompositions of the factors.
pub(crate) fn factored_svd(
    left: &Mat<f64>,
    right: &Mat<f64>,
    rank: usize,
) -> Result<Triplets, LinalgError> {
    let inner = left.ncols();
    if inner >= left.nrows().min(right.ncols()) {
        return svd(&(left * right), rank);
    }
    let (ql, qr) = (left.qr(), right.transpose().qr());
    let core = ql.thin_R() * qr.thin_R().transpose();
    let small = dense_svd(&core, rank)?;
    let found = Triplets {
        u: ql.compute_thin_Q() * &small.u,
        s: small.s,
        v: qr.compute_thin_Q() * &small.v,
    };
    Ok(found.signed())
}

fn dense_svd(a: &Mat<f64>, rank: usize) -> Result<Triplets, LinalgError> {
    let shape = [a.nrows(), a.ncols()];
    let all = a
        .thin_svd()
        .map_err(|_| LinalgError::NoConvergence { shape })?;
    let rank = rank.min(shape[0].min(shape[1]));
    let s = all.S().column_vector();
    Ok(Triplets {
        u: all.U().get(.., ..rank).to_owned(),
        s: (0..rank).map(|i| s[i]).collect(),
        v: all.V().get(.., ..rank).to_owned(),
    })
}

impl Triplets {
    /// Settles the sign each pair of vectors leaves free: the largest entry of the left one is positive.
    fn signed(mut self) -> Self {
        for k in 0..self.s.len() {
            let largest = (0..self.u.nrows()).fold(0.0f64, |best, i| {
                let x = self.u[(i, k)];
                if x.abs() > best.abs() { x } else { best }
            });
            if largest < 0.0 {
                (0..self.u.nrows()).for_each(|i| self.u[(i, k)] = -self.u[(i, k)]);
                (0..self.v.nrows()).for_each(|i| self.v[(i, k)] = -self.v[(i, k)]);
            }
        }
        self
    }

    fn into_svd(self) -> Svd {
        Svd {
            rank: self.s.len(),
            u: row_major(&self.u),
            s: self.s.iter().map(|s| *s as f32).collect(),
            vt: row_major(&self.v.transpose().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
