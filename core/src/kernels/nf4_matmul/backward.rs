//! The gradient of `y = x Wᵀ` with respect to `x`: `dx = dy W`.
//!
//! `W` is frozen, so neither `x` nor `y` is needed again; the tape holds handles to the packed buffers and
//! nothing dense. The product is marked compute-bound: recomputing it would cost as much as it saves.

use burn::backend::{
    Autodiff, AutodiffBackend,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind, unary},
    },
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::FloatDType;

use super::{Nf4Layout, Nf4Ops};

#[derive(Debug)]
struct Nf4Linear;

impl<B: Nf4Ops> Backward<B, 1> for Nf4Linear {
    type State = (IntTensor<B>, IntTensor<B>, FloatTensor<B>, Nf4Layout);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (codes, scale_codes, scales, layout) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |g| {
            B::nf4_backward(g, codes, scale_codes, scales, layout)
        });
    }
}

impl<B: Nf4Ops, C: CheckpointStrategy> Nf4Ops for Autodiff<B, C> {
    fn nf4_dequantize(
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: Nf4Layout,
        dtype: FloatDType,
    ) -> FloatTensor<Self> {
        let scales = scales.into_primitive();
        Self::from_inner(B::nf4_dequantize(codes, scale_codes, scales, layout, dtype))
    }

    fn nf4_forward(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self> {
        // The node must be read before the tensor is taken apart.
        let node = x.node();
        let scales = scales.into_primitive();
        match Nf4Linear.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = (codes.clone(), scale_codes.clone(), scales.clone(), layout);
                let y = B::nf4_forward(x.into_primitive(), codes, scale_codes, scales, layout);
                prep.finish(state, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::nf4_forward(
                x.into_primitive(),
                codes,
                scale_codes,
                scales,
                layout,
            )),
        }
    }

    fn nf4_backward(
        g: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self> {
        // Only reached on plain gradients: there is no second derivative.
        let scales = scales.into_primitive();
        Self::from_inner(B::nf4_backward(
            g.into_primitive(),
            codes,
            scale_codes,
            scales,
            layout,
        ))
    }
}
