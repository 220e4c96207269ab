//! A packed matrix in host memory, read by ranges.

use super::simd::{GROUP, Isa, expand_absmax, unpack_blocks, unpack_panel, unpack_run};
use crate::kernels::nf4_matmul::layout::{NESTED, Nf4Layout};

/// Rows that [`Packed::panel`] lays side by side.
pub(super) const PANEL: usize = 16;

/// Borrowed buffers of one matrix; see [`Nf4Layout`] for what they hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed<'a> {
    pub(super) layout: Nf4Layout,
    pub(super) codes: &'a [u8],
    pub(super) scale_codes: &'a [u8],
    pub(super) scales: &'a [f32],
    pub(super) isa: Isa,
}

impl Packed<'_> {
    /// The absmax of blocks `first .. first + out.len()`.
    pub(super) fn absmax(&self, first: usize, out: &mut [f32]) {
        let nested = self.layout.nested_blocksize;
        if nested == 0 {
            out.copy_from_slice(&self.scales[first..first + out.len()]);
            return;
        }
        let (head, nested_absmax) = self.scales.split_at(NESTED);
        let (Some(&offset), Some(map)) = (head.first(), head.last_chunk::<256>()) else {
            return;
        };
        let mut at = first;
        let mut out = out;
        let mut group = first / nested;
        while !out.is_empty() {
            let count = ((group + 1) * nested - at).min(out.len());
            let (now, rest) = out.split_at_mut(count);
            let codes = &self.scale_codes[at..at + count];
            expand_absmax(self.isa, codes, map, nested_absmax[group], offset, now);
            (out, at, group) = (rest, at + count, group + 1);
        }
    }

    /// Whether every group of 32 elements of every row lies in one block and starts at a byte.
    pub(super) fn is_grouped(&self) -> bool {
        self.layout.in_features.is_multiple_of(GROUP) && self.layout.blocksize.is_multiple_of(GROUP)
    }

    /// Unpacks the flat range `start .. start + out.len()`.
    pub(super) fn dequantize(&self, start: usize, out: &mut [f32]) {
        const BATCH: usize = 64;
        let size = self.layout.blocksize;
        let end = start + out.len();
        let mut at = start;
        let mut scales = [0f32; BATCH];
        while at < end {
            let block = at / size;
            let whole = ((end - at) / size).min(BATCH);
            let out = &mut out[at - start..];
            if at.is_multiple_of(size) && whole > 0 && size.is_multiple_of(GROUP) {
                self.absmax(block, &mut scales[..whole]);
                let codes = &self.codes[at / 2..(at + whole * size) / 2];
                unpack_blocks(
                    self.isa,
                    codes,
                    &scales[..whole],
                    size,
                    &mut out[..whole * size],
                );
                at += whole * size;
            } else {
                let stop = end.min((block + 1) * size);
                self.absmax(block, &mut scales[..1]);
                unpack_run(self.codes, at, scales[0], &mut out[..stop - at]);
                at = stop;
            }
        }
    }

    /// Absmax of the blocks that row `row` crosses (into `absmax`), and how many of its elements lie in the first.
    pub(super) fn row_absmax(&self, row: usize, absmax: &mut Vec<f32>) -> usize {
        let (width, size) = (self.layout.in_features, self.layout.blocksize);
        let start = row * width;
        let first = start / size;
        absmax.resize((start + width).div_ceil(size) - first, 0.0);
        self.absmax(first, absmax);
        (first + 1) * size - start
    }

    /// The codes of `rows` whole rows; only where rows begin at a byte.
    pub(super) fn row_codes(&self, row: usize, rows: usize) -> &[u8] {
        let width = self.layout.in_features;
        &self.codes[row * width / 2..(row + rows) * width / 2]
    }

    /// Absmax of 16 rows from `row` on, per group of 32 columns, as [`Self::panel`] wants them.
    ///
    /// Only for matrices that are [`Self::is_grouped`].
    pub(super) fn panel_absmax(&self, row: usize, absmax: &mut Vec<f32>, scales: &mut Vec<f32>) {
        let (width, size) = (self.layout.in_features, self.layout.blocksize);
        scales.resize(width / GROUP * PANEL, 0.0);
        for r in 0..PANEL {
            let mut left = self.row_absmax(row + r, absmax);
            let mut block = 0;
            for group in scales.chunks_exact_mut(PANEL) {
                if left == 0 {
                    block += 1;
                    left = size;
                }
                group[r] = absmax[block];
                left -= GROUP;
            }
        }
    }

    /// Unpacks rows `row .. row + 16` transposed from column `column` on: element `(row + r, column + k)` goes to
    /// `out[k * stride + r]`. `scales` are the [`Self::panel_absmax`] of these columns, 16 per 32.
    pub(super) fn panel(
        &self,
        row: usize,
        column: usize,
        scales: &[f32],
        out: &mut [f32],
        stride: usize,
    ) {
        let codes = &self.row_codes(row, PANEL)[column / 2..];
        unpack_panel(
            self.isa,
            codes,
            self.layout.in_features / 2,
            scales,
            out,
            stride,
        );
    }
}
