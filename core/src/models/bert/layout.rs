//! A batch as the encoder computes it: which tokens, in which rows, seeing what.
//!
//! Padding costs an encoder most of what tokens cost, and a batch of sentences is easily a third padding. So documents
//! are laid side by side in full rows, each seeing itself only, and the head reads each at its own first token:
//!
//! ```text
//! batch      a a a . .   b b b b b   c c . . .        . is padding
//! laid out   a a a b b b b b c c                      one row; starts 0, 3, 8
//! ```
//!
//! A row may also be kept as it is ([`Layout::plain`]), where the states of every position are wanted back.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::data::{Batch, pack};

/// Added to the score of a pair that must not attend.
const HIDDEN: f32 = -1e30;
/// Width up to which documents share a row: wide enough to fill rows, narrow enough that scores stay small.
const ROW: usize = 512;

/// Tokens in rows, with what the blocks need of them.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Rows.
    pub rows: usize,
    /// Tokens per row.
    pub width: usize,
    /// Token ids, `[rows * width]`.
    pub(crate) ids: Vec<u32>,
    /// Positions in their documents.
    pub(crate) positions: Vec<u32>,
    /// Segment ids (first or second text of a pair).
    pub(crate) types: Vec<u32>,
    /// Added to attention scores, `[rows, 1, width, width]`, f32.
    pub(crate) bias: Tensor<4>,
    /// The first tokens of the documents.
    pub(crate) first: FirstTokens,
}

/// The first token of every document: all that the head reads.
#[derive(Clone, Debug)]
pub(crate) struct FirstTokens {
    /// Flat positions of the same number of places per row: its documents' first tokens, then its very first token
    /// again, `[rows * per_row]`.
    pub(crate) places: Tensor<1, Int>,
    /// What those places see, `[rows, 1, per_row, width]`.
    pub(crate) bias: Tensor<4>,
    /// Which of the places is which document's, in the batch's order.
    pub(crate) pick: Tensor<1, Int>,
}

/// A document in a batch: where it begins and how long it is.
#[derive(Clone, Copy, Debug)]
struct Document {
    start: usize,
    len: usize,
}

impl Layout {
    /// The documents of `batch` side by side, without padding.
    pub fn compact(batch: &Batch, device: &Device) -> Self {
        let documents = documents(batch);
        let lengths: Vec<usize> = documents.iter().map(|d| d.len).collect();
        let width = lengths.iter().sum::<usize>().min(ROW);
        let width = width.max(lengths.iter().copied().max().unwrap_or(0));
        // Cannot fail: no document is longer than `width`.
        let rows = pack(&lengths, width).unwrap_or_default();
        let width = rows
            .iter()
            .map(|row| row.iter().map(|&d| lengths[d]).sum())
            .max()
            .unwrap_or(width);
        let size = rows.len() * width;
        let mut laid = Arrays::new(size);
        let mut starts = vec![0; documents.len()];
        for (r, row) in rows.iter().enumerate() {
            let mut at = r * width;
            for (segment, &d) in row.iter().enumerate() {
                starts[d] = at;
                laid.copy(batch, documents[d], at, segment as u32 + 1);
                at += lengths[d];
            }
        }
        Self::new(rows.len(), width, laid, &starts, device)
    }

    /// `batch` as it is, padding included.
    pub fn plain(batch: &Batch, device: &Device) -> Self {
        let mut laid = Arrays::new(batch.rows * batch.width);
        laid.ids.copy_from_slice(&batch.input_ids);
        laid.positions.copy_from_slice(&batch.position_ids);
        laid.segments.copy_from_slice(&batch.segment_ids);
        if !batch.token_type_ids.is_empty() {
            laid.types.copy_from_slice(&batch.token_type_ids);
        }
        let starts: Vec<usize> = documents(batch).iter().map(|d| d.start).collect();
        Self::new(batch.rows, batch.width, laid, &starts, device)
    }

    fn new(rows: usize, width: usize, laid: Arrays, starts: &[usize], device: &Device) -> Self {
        let first = FirstTokens::new(rows, width, &laid.segments, starts, device);
        let every = |row: usize| (row * width..(row + 1) * width).collect::<Vec<usize>>();
        let queries: Vec<Vec<usize>> = (0..rows).map(every).collect();
        Self {
            rows,
            width,
            bias: visibility(&laid.segments, width, &queries, device),
            ids: laid.ids,
            positions: laid.positions,
            types: laid.types,
            first,
        }
    }
}

impl FirstTokens {
    fn new(rows: usize, width: usize, segments: &[u32], starts: &[usize], device: &Device) -> Self {
        let mut queries: Vec<Vec<usize>> = vec![Vec::new(); rows];
        let mut places = Vec::with_capacity(starts.len());
        for &start in starts {
            let row = start / width.max(1);
            places.push((row, queries[row].len()));
            queries[row].push(start);
        }
        let per_row = queries.iter().map(Vec::len).max().unwrap_or(0).max(1);
        for (row, queries) in queries.iter_mut().enumerate() {
            queries.resize(per_row, row * width);
        }
        let pick = places.into_iter().map(|(row, slot)| row * per_row + slot);
        Self {
            bias: visibility(segments, width, &queries, device),
            pick: indices(pick.map(|i| i as i32).collect(), device),
            places: indices(
                queries.concat().into_iter().map(|i| i as i32).collect(),
                device,
            ),
        }
    }
}

/// Token arrays of a layout.
struct Arrays {
    ids: Vec<u32>,
    positions: Vec<u32>,
    types: Vec<u32>,
    segments: Vec<u32>,
}

impl Arrays {
    fn new(size: usize) -> Self {
        let zeros = vec![0; size];
        Self {
            ids: zeros.clone(),
            positions: zeros.clone(),
            types: zeros.clone(),
            segments: zeros,
        }
    }

    fn copy(&mut self, batch: &Batch, document: Document, at: usize, segment: u32) {
        let from = document.start..document.start + document.len;
        let to = at..at + document.len;
        self.ids[to.clone()].copy_from_slice(&batch.input_ids[from.clone()]);
        self.positions[to.clone()].copy_from_slice(&batch.position_ids[from.clone()]);
        if !batch.token_type_ids.is_empty() {
            self.types[to.clone()].copy_from_slice(&batch.token_type_ids[from]);
        }
        self.segments[to].fill(segment);
    }
}

/// The documents of `batch`, in order. Padding, segment 0, is none.
fn documents(batch: &Batch) -> Vec<Document> {
    let mut found: Vec<Document> = Vec::new();
    for row in 0..batch.rows {
        let mut previous = 0;
        for at in row * batch.width..(row + 1) * batch.width {
            let segment = batch.segment_ids[at];
            match found.last_mut() {
                Some(last) if segment != 0 && segment == previous => last.len += 1,
                _ if segment != 0 => found.push(Document { start: at, len: 1 }),
                _ => {}
            }
            previous = segment;
        }
    }
    found
}

/// What each query sees: the tokens of its own segment and row, `[rows, 1, queries, width]`. Padding is a segment of
/// its own, so that no softmax is empty.
fn visibility(
    segments: &[u32],
    width: usize,
    queries: &[Vec<usize>],
    device: &Device,
) -> Tensor<4> {
    let per_row = queries.first().map_or(0, Vec::len);
    let mut bias = Vec::with_capacity(queries.len() * per_row * width);
    for (row, queries) in segments.chunks(width.max(1)).zip(queries) {
        for &query in queries {
            let own = segments[query];
            bias.extend(row.iter().map(|&s| if s == own { 0.0 } else { HIDDEN }));
        }
    }
    Tensor::from_data(
        TensorData::new(bias, [queries.len(), 1, per_row, width]),
        (device, DType::F32),
    )
}

fn indices(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), (device, DType::I32))
}
