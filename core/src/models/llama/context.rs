//! What every block of one forward pass shares: where each token sits and what it may see.

use burn::tensor::{Device, Tensor, TensorData};

use crate::models::rope::{RopeTable, Rotation};

/// Added to the score of a pair that must not attend. Large enough to vanish in the softmax, small
/// enough that f32 arithmetic on it stays finite.
const HIDDEN: f32 = -1e30;

/// Positions and visibility of a `[rows, width]` batch.
#[derive(Clone, Debug)]
pub struct Context {
    /// Sequences in the batch.
    pub rows: usize,
    /// Tokens per sequence.
    pub width: usize,
    /// Rotary angles of every token.
    pub rotation: Rotation,
    /// Added to attention scores, `[rows or 1, 1, width, keys]`, f32.
    pub bias: Tensor<4>,
    /// Seeds the dropout masks of this pass; `None` outside training.
    pub dropout_seed: Option<u64>,
}

impl Context {
    /// The context of a batch whose tokens see the earlier tokens of their own document.
    ///
    /// `position_ids` and `segment_ids` are row-major `[rows, width]`. Padding is a segment of its
    /// own (0), so that every position sees at least itself and no softmax is empty.
    pub fn new(
        rope: &RopeTable,
        position_ids: &[u32],
        segment_ids: &[u32],
        rows: usize,
        width: usize,
        device: &Device,
    ) -> Self {
        Self {
            rows,
            width,
            rotation: rope.at(position_ids),
            bias: document_bias(segment_ids, rows, width, device),
            dropout_seed: None,
        }
    }

    /// The context of `width` new tokens per row that follow `past` cached ones.
    ///
    /// `hidden_prefix[row]` counts the padding columns at the row's left, which nobody sees;
    /// positions are counted from the first token after them.
    pub fn cached(
        rope: &RopeTable,
        hidden_prefix: &[usize],
        past: usize,
        width: usize,
        device: &Device,
    ) -> Self {
        let rows = hidden_prefix.len();
        let positions: Vec<u32> = hidden_prefix
            .iter()
            .flat_map(|&pad| {
                (past..past + width).map(move |column| column.saturating_sub(pad) as u32)
            })
            .collect();
        let keys = past + width;
        let mut bias = Vec::with_capacity(rows * width * keys);
        for &pad in hidden_prefix {
            for query in past..keys {
                bias.extend((0..keys).map(|key| {
                    let seen = key <= query && (key >= pad || key == query);
                    if seen { 0.0 } else { HIDDEN }
                }));
            }
        }
        let bias = Tensor::from_data(TensorData::new(bias, [rows, 1, width, keys]), device);
        Self {
            rows,
            width,
            rotation: rope.at(&positions),
            bias,
            dropout_seed: None,
        }
    }
}

fn document_bias(segment_ids: &[u32], rows: usize, width: usize, device: &Device) -> Tensor<4> {
    let one_document = segment_ids.iter().all(|&s| s == segment_ids[0]);
    let kept_rows = if one_document { 1 } else { rows };
    let mut bias = Vec::with_capacity(kept_rows * width * width);
    for segments in segment_ids.chunks(width.max(1)).take(kept_rows) {
        for (query, segment) in segments.iter().enumerate() {
            bias.extend(segments.iter().enumerate().map(|(key, other)| {
                if key <= query && other == segment {
                    0.0
                } else {
                    HIDDEN
                }
            }));
        }
    }
    Tensor::from_data(TensorData::new(bias, [kept_rows, 1, width, width]), device)
}
