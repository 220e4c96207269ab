//! Where the numbers of one attention problem lie, and how it is cut into tasks.

use burn::backend::TensorMetadata;
use burn_flex::FlexTensor;

use super::HIDDEN;
use super::matmul::View;
use crate::kernels::swiglu::flex::{contiguous, to_f32};

/// Query tokens handled at once: their scores against all keys stay in cache.
const TILE: usize = 64;

/// An f32 tensor `[rows, tokens, heads, head_dim]` whose features are adjacent; other strides are free.
pub(super) fn with_adjacent_features(x: FlexTensor) -> FlexTensor {
    let x = to_f32(x);
    let strides = x.layout().strides();
    let dims = TensorMetadata::shape(&x);
    let adjacent = strides[3] == 1 || dims[3] == 1;
    if adjacent && strides.iter().all(|&s| s >= 0) {
        x
    } else {
        contiguous(x)
    }
}

/// Strided access to `[rows, tokens, heads, head_dim]`.
#[derive(Clone, Copy)]
pub(super) struct Heads<'a> {
    data: &'a [f32],
    /// Of rows, tokens and heads, in elements.
    strides: [usize; 3],
    dim: usize,
}

impl<'a> Heads<'a> {
    /// What [`with_adjacent_features`] returned.
    pub(super) fn new(x: &'a FlexTensor) -> Self {
        let (layout, dim) = (x.layout(), TensorMetadata::shape(x)[3]);
        let strides = [0, 1, 2].map(|axis| layout.strides()[axis].unsigned_abs());
        Self {
            data: &x.storage::<f32>()[layout.start_offset()..],
            strides,
            dim,
        }
    }

    /// `count` tokens of one head from `token` on, `[count, head_dim]`.
    pub(super) fn tokens(&self, row: usize, head: usize, token: usize, count: usize) -> View<'a> {
        self.view(row, head, token, count, self.strides[1])
    }

    /// The queries of a block, `[count, head_dim]`.
    pub(super) fn block(&self, row: usize, block: &Block) -> View<'a> {
        let stride = self.strides[if block.stacked { 2 } else { 1 }];
        self.view(row, block.head, block.token, block.count, stride)
    }

    fn view(&self, row: usize, head: usize, token: usize, count: usize, stride: usize) -> View<'a> {
        let start = row * self.strides[0] + token * self.strides[1] + head * self.strides[2];
        View::new(
            &self.data[start.min(self.data.len())..],
            count,
            self.dim,
            stride,
        )
    }
}

/// Sizes of one problem.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) keys: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) dim: usize,
}

/// Queries that are multiplied with the same keys at once.
pub(super) struct Block {
    /// The first (or only) query head.
    pub(super) head: usize,
    /// The first (or only) token.
    pub(super) token: usize,
    /// Number of queries.
    pub(super) count: usize,
    /// Whether the queries are the heads of a group at one token, rather than the tokens of one head. While
    /// generating there is one token, and stacking its heads makes a matrix of what would be single rows.
    pub(super) stacked: bool,
}

impl Sizes {
    pub(super) fn of(q: &FlexTensor, k: &FlexTensor) -> Self {
        let (q, k) = (TensorMetadata::shape(q), TensorMetadata::shape(k));
        Self {
            rows: q[0],
            width: q[1],
            keys: k[1],
            heads: q[2],
            kv_heads: k[2],
            dim: q[3],
        }
    }

    /// Query heads per key head.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Query tiles along the tokens.
    pub(super) fn tiles(&self) -> usize {
        self.width.div_ceil(TILE)
    }

    /// Scores of the largest block.
    pub(super) fn block_scores(&self) -> usize {
        self.block_queries() * self.keys
    }

    /// Queries of the largest block.
    pub(super) fn block_queries(&self) -> usize {
        if self.width == 1 {
            self.group()
        } else {
            TILE.min(self.width)
        }
    }

    /// How many independent sets of blocks share one key head: its query heads, or one where they are stacked.
    pub(super) fn strands(&self) -> usize {
        if self.width == 1 { 1 } else { self.group() }
    }

    /// The blocks of strand `strand` of key head `kv_head`.
    pub(super) fn blocks(self, kv_head: usize, strand: usize) -> impl Iterator<Item = Block> {
        let head = kv_head * self.group() + strand;
        let stacked = self.width == 1;
        (0..self.tiles()).map(move |tile| {
            let token = tile * TILE;
            let count = if stacked {
                self.group()
            } else {
                TILE.min(self.width - token)
            };
            Block {
                head,
                token,
                count,
                stacked,
            }
        })
    }

    /// Where a block's results lie in a contiguous `[rows, width, heads, dim]`: offset and stride of its queries.
    pub(super) fn place(&self, row: usize, block: &Block) -> (usize, usize) {
        let offset = ((row * self.width + block.token) * self.heads + block.head) * self.dim;
        (
            offset,
            if block.stacked {
                self.dim
            } else {
                self.heads * self.dim
            },
        )
    }
}

/// The bias and, per tile, the span of keys that any of its queries sees.
pub(super) struct Bias<'a> {
    data: &'a [f32],
    /// Whether all rows share one.
    shared: bool,
    sizes: Sizes,
    spans: Vec<(usize, usize)>,
}

impl<'a> Bias<'a> {
    /// `data` is `[rows or 1, 1, width, keys]`, contiguous.
    pub(super) fn new(data: &'a [f32], sizes: Sizes) -> Self {
        let per_row = sizes.width * sizes.keys;
        let shared = data.len() == per_row;
        let tiles = data
            .chunks(per_row.max(1))
            .flat_map(|row| row.chunks(TILE * sizes.keys));
        let spans = tiles.map(|tile| span(tile, sizes.keys)).collect();
        Self {
            data,
            shared,
            sizes,
            spans,
        }
    }

    /// The keys a block sees, from and to; none where both are equal.
    pub(super) fn span(&self, row: usize, block: &Block) -> (usize, usize) {
        let row = if self.shared { 0 } else { row };
        self.spans[row * self.sizes.tiles() + block.token / TILE]
    }

    /// What is added to the scores of query `i` of a block, over keys `from .. to`.
    pub(super) fn row(
        &self,
        row: usize,
        block: &Block,
        i: usize,
        (from, to): (usize, usize),
    ) -> &[f32] {
        let row = if self.shared { 0 } else { row };
        let token = if block.stacked {
            block.token
        } else {
            block.token + i
        };
        let at = (row * self.sizes.width + token) * self.sizes.keys;
        &self.data[at + from..at + to]
    }
}

/// From the first to past the last key that a row of the tile does not hide.
fn span(tile: &[f32], keys: usize) -> (usize, usize) {
    let (mut from, mut to) = (keys, 0);
    for row in tile.chunks_exact(keys) {
        // NaN counts as seen: it must reach the loss.
        let seen = |b: &f32| b.is_nan() || *b > HIDDEN;
        if let Some(first) = row[..from].iter().position(seen) {
            from = first;
        }
        if let Some(last) = row[to..].iter().rposition(seen) {
            to += last + 1;
        }
    }
    if from < to { (from, to) } else { (0, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_what_is_seen_and_no_more() {
        let (x, o) = (-1e30, 0.0);
        assert_eq!(span(&[o, x, x, x, o, o, x, x], 4), (0, 2));
        assert_eq!(span(&[x, x, o, x, x, o, x, x], 4), (1, 3));
        assert_eq!(span(&[x; 8], 4), (0, 0));
        assert_eq!(span(&[x, x, x, o, o, x, x, x], 4), (0, 4));
        assert_eq!(span(&[x, f32::NAN, x, x], 4), (1, 2));
        assert_eq!(span(&[-3.0, x, x, x], 4), (0, 1));
    }
}
