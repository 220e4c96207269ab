//! The gradients of the modulated product for `x`, `A` and `B`. `x`, the pair and the weight as it is stored are
//! kept; the dense weight and the modulated one are made again, one of each, and gone when the node is done.

use burn::backend::{
    Autodiff, TensorMetadata,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::{FloatTensor, IntTensor},
};

use super::{HadamardOps, generic};
use crate::kernels::nf4_matmul::Nf4Layout;

/// The frozen weight as it is stored.
#[derive(Clone, Debug)]
enum Stored<F, I> {
    Dense(F),
    Nf4(I, I, F, Nf4Layout),
}

type StoredIn<B> = Stored<FloatTensor<B>, IntTensor<B>>;

#[derive(Debug)]
struct Hadamard;

impl<B: HadamardOps> Backward<B, 3> for Hadamard {
    /// `x`, `a`, `b`, and the weight.
    type State = ([FloatTensor<B>; 3], StoredIn<B>);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let ([x, a, b], stored) = ops.state;
        let [x_node, a_node, b_node] = ops.parents;
        let w = match stored {
            Stored::Dense(w) => w,
            Stored::Nf4(codes, scale_codes, scales, layout) => {
                B::nf4_dequantize(codes, scale_codes, scales, layout, x.dtype().into())
            }
        };
        if a_node.is_some() || b_node.is_some() {
            let d = generic::grad_product::<B>(dy.clone(), x, w.clone());
            if let Some(node) = a_node {
                grads.register::<B>(node.id, generic::grad_a::<B>(d.clone(), b.clone()));
            }
            if let Some(node) = b_node {
                grads.register::<B>(node.id, generic::grad_b::<B>(d, a.clone()));
            }
        }
        if let Some(node) = x_node {
            grads.register::<B>(node.id, generic::grad_x::<B>(dy, w, a, b));
        }
    }
}

impl<B: HadamardOps, C: CheckpointStrategy> HadamardOps for Autodiff<B, C> {
    fn hadamard_dense(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        // The nodes must be read before the tensors are taken apart.
        let nodes = [x.node(), a.node(), b.node()];
        let [x, w, a, b] = [x, w, a, b].map(|t| t.into_primitive());
        match Hadamard.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let pair = [x.clone(), a.clone(), b.clone()];
                let state = (pair, Stored::Dense(w.clone()));
                prep.finish(state, B::hadamard_dense(x, w, a, b))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::hadamard_dense(x, w, a, b)),
        }
    }

    fn hadamard_nf4(
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), a.node(), b.node()];
        let [x, a, b, scales] = [x, a, b, scales].map(|t| t.into_primitive());
        match Hadamard.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let pair = [x.clone(), a.clone(), b.clone()];
                let packed =
                    Stored::Nf4(codes.clone(), scale_codes.clone(), scales.clone(), layout);
                let y = B::hadamard_nf4(x, a, b, codes, scale_codes, scales, layout);
                prep.finish((pair, packed), y)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::hadamard_nf4(x, a, b, codes, scale_codes, scales, layout))
            }
        }
    }
}
