//! The largest singular triplets of a large matrix by block Krylov iteration, to the accuracy of a dense decomposition.
//!
//! A random block is multiplied by `AᵀA` again and again, every new block is orthogonalized against all before it, and the
//! triplets are read off the space spanned so far (Rayleigh-Ritz). The iteration goes on until each wanted triplet satisfies
//! `‖Aᵀu − σv‖ ≤ TOLERANCE · σ₁`, so the result does not depend on luck; the start block comes from a fixed seed. Source:
//! Musco and Musco, "Randomized Block Krylov Methods for Stronger and Faster Approximate Singular Value Decomposition",
//! arXiv 1504.05477; Golub, Luk and Overton, "A Block Lanczos Method", 1981.

use super::{LinalgError, Triplets, beside, dense_svd};
use faer::{Mat, MatRef};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Columns of a block beyond the triplets wanted: they speed convergence and catch repeated singular values.
pub(super) const OVERSAMPLING: usize = 8;

/// Residual of a triplet relative to the largest singular value: below what `f32` results can show.
const TOLERANCE: f64 = 1e-9;

/// A new direction shorter than this, relative to what it was before orthogonalization, is rounding.
const VANISHED: f64 = 1e-10;

/// The `rank` largest triplets, or `None` where so many steps are needed that a dense decomposition is cheaper.
pub(super) fn svd(a: &Mat<f64>, rank: usize) -> Result<Option<Triplets>, LinalgError> {
    let side = a.nrows().min(a.ncols());
    let mut space = Space::new(a, rank + OVERSAMPLING);
    let mut check_at = 3 * (rank + OVERSAMPLING);
    loop {
        let exhausted = !space.extend();
        if exhausted || space.right.ncols() >= check_at {
            let found = space.ritz(rank)?;
            if exhausted || space.converged(&found) {
                return Ok(Some(found));
            }
            check_at = space.right.ncols() * 3 / 2;
        }
        if space.right.ncols() > side / 2 {
            return Ok(None);
        }
    }
}

/// The space spanned so far: an orthonormal basis `V` of right vectors, and `A·V`.
struct Space<'a> {
    a: &'a Mat<f64>,
    right: Mat<f64>,
    image: Mat<f64>,
    /// Columns of the newest block.
    newest: usize,
}

impl<'a> Space<'a> {
    fn new(a: &'a Mat<f64>, block: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let start = Mat::from_fn(a.ncols(), block, |_, _| {
            (rng.next_u64() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        });
        let right = orthonormal(Mat::zeros(a.ncols(), 0).as_ref(), start);
        Self {
            a,
            image: a * &right,
            newest: right.ncols(),
            right,
        }
    }

    /// Adds the block that `AᵀA` makes of the newest one; false where it adds no direction.
    fn extend(&mut self) -> bool {
        let from = self.image.ncols() - self.newest;
        let next = self.a.transpose() * self.image.get(.., from..);
        let next = orthonormal(self.right.as_ref(), next);
        self.newest = next.ncols();
        if self.newest == 0 {
            return false;
        }
        let image = self.a * &next;
        self.image = beside(&[&self.image, &image], self.a.nrows());
        self.right = beside(&[&self.right, &next], self.a.ncols());
        true
    }

    /// The best `rank` triplets within the space.
    fn ritz(&self, rank: usize) -> Result<Triplets, LinalgError> {
        let qr = self.image.qr();
        let small = dense_svd(&qr.thin_R().to_owned(), rank)?;
        Ok(Triplets {
            u: qr.compute_thin_Q() * &small.u,
            v: &self.right * &small.v,
            s: small.s,
        })
    }

    /// Whether every triplet satisfies `Aᵀu = σv`; `Av = σu` holds by construction.
    fn converged(&self, found: &Triplets) -> bool {
        let back = self.a.transpose() * &found.u;
        let largest = found.s.first().copied().unwrap_or(0.0);
        found.s.iter().enumerate().all(|(k, s)| {
            let residual: f64 = (0..back.nrows())
                .map(|i| (back[(i, k)] - s * found.v[(i, k)]).powi(2))
                .sum();
            residual.sqrt() <= TOLERANCE * largest
        })
    }
}

/// `block` made orthonormal and orthogonal to `basis`, without the directions it does not add.
fn orthonormal(basis: MatRef<'_, f64>, mut block: Mat<f64>) -> Mat<f64> {
    let norm = |m: &Mat<f64>, j: usize| m.col(j).norm_l2();
    let before: Vec<f64> = (0..block.ncols()).map(|j| norm(&block, j)).collect();
    // Twice is enough (Parlett, "The Symmetric Eigenvalue Problem").
    for _ in 0..2 {
        block -= basis * (basis.transpose() * &block);
    }
    let mut kept: Mat<f64> = Mat::zeros(block.nrows(), 0);
    for (j, before) in before.into_iter().enumerate() {
        let mut column = block.get(.., j..j + 1).to_owned();
        for _ in 0..2 {
            column -= &kept * (kept.transpose() * &column);
            column -= basis * (basis.transpose() * &column);
        }
        let length = norm(&column, 0);
        if length > VANISHED * before && length > 0.0 {
            column *= faer::Scale(length.recip());
            kept = beside(&[&kept, &column], block.nrows());
        }
    }
    kept
}
