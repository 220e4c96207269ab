//! `y = x Wᵀ` and `dx = g W` on packed weights in host memory, without ever holding a dense `W`.
//!
//! Few rows (generation): each packed row is read once and multiplied on the fly, bounded by memory bandwidth.
//! Many rows (training, prefill): the product is cut into tasks, each of which unpacks its own tile of `W` into a
//! scratch buffer that fits the second-level cache and hands it to `gemm`. Tasks write disjoint parts of the
//! result and the cut depends on the shapes alone, so results do not depend on how threads are scheduled.

use std::cell::RefCell;

use super::packed::{PANEL, Packed};
use super::simd::{GROUP, Row, dot_row, split_even_odd};
use crate::kernels::cpu::{MatMut, MatRef, Shared, for_each_chunk, for_each_task, gemm};
use crate::kernels::nf4_matmul::layout::Nf4Layout;

/// Below this many rows of `x` the packed row product wins over unpacking.
const FEW_ROWS: usize = 8;
/// Rows of the product that one task computes; more only repeats the unpacking, by 1/256 of the work.
const TASK_ROWS: usize = 512;
/// Rows of `W` per forward task: whole micro-kernels of 48 and whole panels of 16.
const FORWARD_TILE: usize = 192;
/// Columns of `W` a forward task unpacks at a time, a multiple of 32.
const FORWARD_DEPTH: usize = 512;
/// Columns of `dx` per backward task: whole blocks of 64, whole micro-kernels of 48.
const BACKWARD_TILE: usize = 192;
/// Rows of `W` a backward task unpacks at a time.
const BACKWARD_DEPTH: usize = 256;
/// Packed elements of a task with few rows: long enough to hide what starting a task costs.
const FEW_ROWS_TASK: usize = 128 * 1024;

/// Reusable buffers of a thread.
#[derive(Default)]
struct Scratch {
    /// Unpacked weights.
    tile: Vec<f32>,
    /// Absmax of a row.
    absmax: Vec<f32>,
    /// Absmax of 16 rows, per panel.
    scales: Vec<Vec<f32>>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// `y[rows, out] = x[rows, in] Wᵀ`.
pub(super) fn forward(w: &Packed<'_>, x: &[f32], rows: usize) -> Vec<f32> {
    let (outputs, width) = (w.layout.out_features, w.layout.in_features);
    assert_eq!(x.len(), rows * width, "x must be [{rows}, {width}]");
    if rows * outputs * width == 0 {
        return vec![0.0; rows * outputs];
    }
    if w.is_grouped() {
        match rows {
            1 => return few_rows::<1>(w, x),
            2 => return few_rows::<2>(w, x),
            3 => return few_rows::<3>(w, x),
            4 => return few_rows::<4>(w, x),
            5 => return few_rows::<5>(w, x),
            6 => return few_rows::<6>(w, x),
            7 => return few_rows::<7>(w, x),
            FEW_ROWS.. => {}
            0 => {}
        }
    }
    let mut y = vec![0.0; rows * outputs];
    let tiles = outputs.div_ceil(FORWARD_TILE);
    let shared = Shared::new(&mut y);
    for_each_task(rows.div_ceil(TASK_ROWS) * tiles, |task| {
        let (first, count) = span(task / tiles, TASK_ROWS, rows);
        let (tile, height) = span(task % tiles, FORWARD_TILE, outputs);
        let x = MatRef::rows(&x[first * width..(first + count) * width], width);
        // SAFETY: tasks differ in their rows or their columns of `y`.
        #[allow(unsafe_code)]
        let mut y = unsafe { shared.matrix(first * outputs + tile, count, height, outputs) };
        SCRATCH.with_borrow_mut(|scratch| {
            if w.is_grouped() && height.is_multiple_of(PANEL) {
                forward_panels(w, x, tile, &mut y, scratch);
            } else {
                forward_rows(w, x, tile, &mut y, scratch);
            }
        });
    });
    y
}

/// Rows `tile ..` of `W`, unpacked transposed so that `gemm` reads them along its vectors.
fn forward_panels(
    w: &Packed<'_>,
    x: MatRef<'_>,
    tile: usize,
    y: &mut MatMut<'_>,
    scratch: &mut Scratch,
) {
    let (height, width) = (y.columns(), w.layout.in_features);
    scratch.scales.resize(FORWARD_TILE / PANEL, Vec::new());
    for (panel, scales) in scratch.scales[..height / PANEL].iter_mut().enumerate() {
        w.panel_absmax(tile + panel * PANEL, &mut scratch.absmax, scales);
    }
    for column in (0..width).step_by(FORWARD_DEPTH) {
        let deep = FORWARD_DEPTH.min(width - column);
        scratch.tile.resize(deep * height, 0.0);
        let groups = column / GROUP * PANEL..(column + deep) / GROUP * PANEL;
        for (panel, scales) in scratch.scales[..height / PANEL].iter().enumerate() {
            let out = &mut scratch.tile[panel * PANEL..];
            w.panel(
                tile + panel * PANEL,
                column,
                &scales[groups.clone()],
                out,
                height,
            );
        }
        gemm(
            y,
            x.columns(column, deep),
            MatRef::rows(&scratch.tile, height),
            column > 0,
        );
    }
}

/// Rows `tile ..` of `W`, unpacked as they lie: any shape.
fn forward_rows(
    w: &Packed<'_>,
    x: MatRef<'_>,
    tile: usize,
    y: &mut MatMut<'_>,
    scratch: &mut Scratch,
) {
    let (height, width) = (y.columns(), w.layout.in_features);
    for column in (0..width).step_by(FORWARD_DEPTH) {
        let deep = FORWARD_DEPTH.min(width - column);
        scratch.tile.resize(deep * height, 0.0);
        for (r, out) in scratch.tile.chunks_exact_mut(deep).enumerate() {
            w.dequantize((tile + r) * width + column, out);
        }
        let rows = MatRef::rows(&scratch.tile, deep);
        gemm(y, x.columns(column, deep), rows.transpose(), column > 0);
    }
}

/// `dx[rows, in] = g[rows, out] W`.
pub(super) fn backward(w: &Packed<'_>, g: &[f32], rows: usize) -> Vec<f32> {
    let (outputs, width) = (w.layout.out_features, w.layout.in_features);
    assert_eq!(g.len(), rows * outputs, "g must be [{rows}, {outputs}]");
    let mut dx = vec![0.0; rows * width];
    if rows * outputs * width == 0 {
        return dx;
    }
    let strips = width.div_ceil(BACKWARD_TILE);
    let shared = Shared::new(&mut dx);
    for_each_task(rows.div_ceil(TASK_ROWS) * strips, |task| {
        let (first, count) = span(task / strips, TASK_ROWS, rows);
        let (column, columns) = span(task % strips, BACKWARD_TILE, width);
        let g = MatRef::rows(&g[first * outputs..(first + count) * outputs], outputs);
        // SAFETY: tasks differ in their rows or their columns of `dx`.
        #[allow(unsafe_code)]
        let mut dx = unsafe { shared.matrix(first * width + column, count, columns, width) };
        SCRATCH.with_borrow_mut(|scratch| {
            for depth in (0..outputs).step_by(BACKWARD_DEPTH) {
                let deep = BACKWARD_DEPTH.min(outputs - depth);
                scratch.tile.resize(deep * columns, 0.0);
                for (r, out) in scratch.tile.chunks_exact_mut(columns).enumerate() {
                    w.dequantize((depth + r) * width + column, out);
                }
                gemm(
                    &mut dx,
                    g.columns(depth, deep),
                    MatRef::rows(&scratch.tile, columns),
                    depth > 0,
                );
            }
        });
    });
    dx
}

/// The whole matrix, dense.
pub(super) fn dequantize(w: &Packed<'_>) -> Vec<f32> {
    const CHUNK: usize = 64 * 1024;
    let mut out = vec![0.0; w.layout.elements()];
    for_each_chunk(&mut out, CHUNK, |i, out| w.dequantize(i * CHUNK, out));
    out
}

/// `(first, count)` of part `index` when `total` things are cut into parts of `size`.
fn span(index: usize, size: usize, total: usize) -> (usize, usize) {
    (index * size, size.min(total - index * size))
}

/// [`forward`] for `M` rows, reading each packed row once.
fn few_rows<const M: usize>(w: &Packed<'_>, x: &[f32]) -> Vec<f32> {
    let Nf4Layout {
        out_features: outputs,
        in_features: width,
        blocksize,
        ..
    } = w.layout;
    let mut split = vec![0.0; x.len()];
    split_even_odd(x, &mut split);
    let mut sums = vec![0.0; outputs * M];
    let rows_per_task = (FEW_ROWS_TASK / width).max(1);
    for_each_chunk(&mut sums, rows_per_task * M, |task, sums| {
        let mut absmax = Vec::new();
        for (r, sums) in sums.chunks_exact_mut(M).enumerate() {
            let row = task * rows_per_task + r;
            let head = w.row_absmax(row, &mut absmax);
            let codes = w.row_codes(row, 1);
            let row = Row {
                codes,
                head,
                blocksize,
                absmax: &absmax,
            };
            sums.copy_from_slice(&dot_row::<M>(w.isa, row, &split));
        }
    });
    if M == 1 {
        return sums;
    }
    (0..M)
        .flat_map(|m| (0..outputs).map(move |o| (m, o)))
        .map(|(m, o)| sums[o * M + m])
        .collect()
}
