//! Attention on the CPU: tiles of queries against the keys they may see, row and head in parallel.
//!
//! A tile's scores against all its keys fit in the cache, so softmax is plain, without running maxima, and the
//! backward pass has each row of probabilities whole. Under a causal mask a tile stops at its last visible key and
//! a packed document starts at its first: hidden blocks cost nothing. Every sum has a fixed order.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::layout::{Bias, Block, Heads, Sizes, with_adjacent_features};
use super::matmul::{View, multiply};
use super::output::Output;
use super::softmax::{gradient_row, softmax_row};
use super::{Dropout, Wanted};
use crate::kernels::cpu::for_each_task;
use crate::kernels::swiglu::flex::{self, contiguous};
use crate::kernels::swiglu::vector::Isa;

/// The operands both passes read.
struct Problem<'a> {
    sizes: Sizes,
    q: Heads<'a>,
    k: Heads<'a>,
    v: Heads<'a>,
    bias: Bias<'a>,
    scale: f32,
    dropout: Dropout,
    isa: Isa,
}

impl Problem<'_> {
    /// The probabilities of a block over the keys of `span`, `[count, keys seen]`, into `p`.
    fn probabilities(
        &self,
        row: usize,
        kv_head: usize,
        block: &Block,
        span: (usize, usize),
        p: &mut [f32],
    ) {
        let seen = span.1 - span.0;
        let keys = self.k.tokens(row, kv_head, span.0, seen);
        multiply(
            p,
            self.q.block(row, block),
            keys.transpose(),
            self.scale,
            false,
        );
        for (i, scores) in p.chunks_exact_mut(seen).enumerate() {
            softmax_row(self.isa, scores, self.bias.row(row, block, i, span));
        }
    }

    /// Drops among probabilities of a block, or among their gradients, over the keys of `span`.
    fn drop(&self, row: usize, block: &Block, span: (usize, usize), p: &mut [f32]) {
        if self.dropout.is_none() {
            return;
        }
        for (i, p) in p.chunks_exact_mut(span.1 - span.0).enumerate() {
            let (head, query) = match block.stacked {
                true => (block.head + i, block.token),
                false => (block.head, block.token + i),
            };
            self.dropout.apply(self.isa, row, head, query, span.0, p);
        }
    }
}

/// See [`super::AttentionOps::grouped_attention`].
pub(super) fn attention(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    bias: FlexTensor,
    scale: f64,
    dropout: Dropout,
) -> FlexTensor {
    let dtype = TensorMetadata::dtype(&q);
    let [q, k, v] = [q, k, v].map(with_adjacent_features);
    let bias = contiguous(bias);
    let n = Sizes::of(&q, &k);
    let problem = Problem {
        sizes: n,
        q: Heads::new(&q),
        k: Heads::new(&k),
        v: Heads::new(&v),
        bias: Bias::new(bias.storage::<f32>(), n),
        scale: scale as f32,
        dropout,
        isa: Isa::detect(),
    };
    let mut y = vec![0.0; n.rows * n.width * n.heads * n.dim];
    let out = Output::new(&mut y);
    for_each_task(n.rows * n.kv_heads * n.strands(), |task| {
        let (row, strand) = (task / (n.kv_heads * n.strands()), task % n.strands());
        let kv_head = task / n.strands() % n.kv_heads;
        forward_strand(&problem, row, kv_head, strand, &out);
    });
    flex::tensor(y, Shape::from([n.rows, n.width, n.heads * n.dim]), dtype)
}

fn forward_strand(
    problem: &Problem<'_>,
    row: usize,
    kv_head: usize,
    strand: usize,
    out: &Output<'_>,
) {
    let n = problem.sizes;
    let mut scores = vec![0.0; n.block_scores()];
    let mut mixed = vec![0.0; n.block_queries() * n.dim];
    for block in n.blocks(kv_head, strand) {
        let span = problem.bias.span(row, &block);
        let seen = span.1 - span.0;
        if seen == 0 {
            continue;
        }
        let p = &mut scores[..block.count * seen];
        problem.probabilities(row, kv_head, &block, span, p);
        problem.drop(row, &block, span, p);
        let mixed = &mut mixed[..block.count * n.dim];
        let p = View::new(p, block.count, seen, seen);
        multiply(
            mixed,
            p,
            problem.v.tokens(row, kv_head, span.0, seen),
            1.0,
            false,
        );
        write_block(out, n, row, &block, mixed);
    }
}

/// Copies a block's `[count, dim]` to its place in `[rows, width, heads, dim]`.
fn write_block(out: &Output<'_>, n: Sizes, row: usize, block: &Block, values: &[f32]) {
    let (offset, stride) = n.place(row, block);
    // SAFETY: a block is the only one with its row, heads and tokens, and each belongs to one task.
    #[allow(unsafe_code)]
    unsafe {
        out.write_rows(offset, stride, values, n.dim);
    }
}

/// See [`super::AttentionOps::grouped_attention_gradients`].
#[allow(clippy::too_many_arguments)]
pub(super) fn gradients(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    bias: FlexTensor,
    dy: FlexTensor,
    scale: f64,
    dropout: Dropout,
    wanted: Wanted,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let dtypes = [&q, &k, &v].map(TensorMetadata::dtype);
    let [q_shape, k_shape] = [&q, &k].map(TensorMetadata::shape);
    let [q, k, v] = [q, k, v].map(with_adjacent_features);
    let (bias, dy) = (contiguous(bias), contiguous(dy));
    let n = Sizes::of(&q, &k);
    let problem = Problem {
        sizes: n,
        q: Heads::new(&q),
        k: Heads::new(&k),
        v: Heads::new(&v),
        bias: Bias::new(bias.storage::<f32>(), n),
        scale: scale as f32,
        dropout,
        isa: Isa::detect(),
    };
    let mut dq = vec![0.0; q_shape.num_elements()];
    let mut dk = vec![0.0; k_shape.num_elements()];
    let mut dv = vec![0.0; k_shape.num_elements()];
    let out = Outputs {
        dq: Output::new(&mut dq),
        dk: Output::new(&mut dk),
        dv: Output::new(&mut dv),
    };
    // The query heads of one key head add to the same dk and dv, so they are one task, in order.
    for_each_task(n.rows * n.kv_heads, |task| {
        let (row, kv_head) = (task / n.kv_heads, task % n.kv_heads);
        backward_head(&problem, row, kv_head, dy.storage::<f32>(), wanted, &out);
    });
    (
        flex::tensor(dq, q_shape, dtypes[0]),
        flex::tensor(dk, k_shape.clone(), dtypes[1]),
        flex::tensor(dv, k_shape, dtypes[2]),
    )
}

struct Outputs<'a> {
    dq: Output<'a>,
    dk: Output<'a>,
    dv: Output<'a>,
}

/// One key head, `M` being the mask of dropout: `dv = (M P)ᵀ dy`, `dS = scale P (dP - sum(P dP))` with `dP = M (dy vᵀ)`, `dq = dS k`, `dk = dSᵀ q`.
fn backward_head(
    problem: &Problem<'_>,
    row: usize,
    kv_head: usize,
    dy: &[f32],
    wanted: Wanted,
    out: &Outputs<'_>,
) {
    let n = problem.sizes;
    let mut scores = vec![0.0; n.block_scores()];
    let mut slopes = vec![0.0; n.block_scores()];
    let mut dq = vec![0.0; n.block_queries() * n.dim];
    let mut dk = vec![0.0; n.keys * n.dim];
    let mut dv = vec![0.0; n.keys * n.dim];
    for block in (0..n.strands()).flat_map(|strand| n.blocks(kv_head, strand)) {
        let span = problem.bias.span(row, &block);
        let seen = span.1 - span.0;
        if seen == 0 {
            continue;
        }
        let at = span.0 * n.dim..span.1 * n.dim;
        let (offset, stride) = n.place(row, &block);
        let dy = View::new(&dy[offset..], block.count, n.dim, stride);
        let p = &mut scores[..block.count * seen];
        problem.probabilities(row, kv_head, &block, span, p);
        let ds = &mut slopes[..block.count * seen];
        if wanted.v {
            ds.copy_from_slice(p);
            problem.drop(row, &block, span, ds);
            let p = View::new(ds, block.count, seen, seen);
            multiply(&mut dv[at.clone()], p.transpose(), dy, 1.0, true);
        }
        if !wanted.q && !wanted.k {
            continue;
        }
        let values = problem.v.tokens(row, kv_head, span.0, seen);
        multiply(ds, dy, values.transpose(), 1.0, false);
        problem.drop(row, &block, span, ds);
        for (p, ds) in p.chunks_exact(seen).zip(ds.chunks_exact_mut(seen)) {
            gradient_row(problem.isa, p, ds, problem.scale);
        }
        let ds = View::new(ds, block.count, seen, seen);
        if wanted.k {
            multiply(
                &mut dk[at],
                ds.transpose(),
                problem.q.block(row, &block),
                1.0,
                true,
            );
        }
        if wanted.q {
            let dq = &mut dq[..block.count * n.dim];
            multiply(
                dq,
                ds,
                problem.k.tokens(row, kv_head, span.0, seen),
                1.0,
                false,
            );
            write_block(&out.dq, n, row, &block, dq);
        }
    }
    for (wanted, place, values) in [(wanted.k, &out.dk, &dk), (wanted.v, &out.dv, &dv)] {
        if wanted {
            let offset = (row * n.keys * n.kv_heads + kv_head) * n.dim;
            // SAFETY: each key head of each row belongs to one task.
            #[allow(unsafe_code)]
            unsafe {
                place.write_rows(offset, n.kv_heads * n.dim, values, n.dim);
            }
        }
    }
}
