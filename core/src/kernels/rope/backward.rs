//! The gradient of the rotary embedding: a rotation is orthogonal, so its transpose turns back.

use burn::backend::{
    Autodiff,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind, unary},
    },
    tensor::FloatTensor,
};

use super::RopeOps;

#[derive(Debug)]
struct Rope;

impl<B: RopeOps> Backward<B, 1> for Rope {
    type State = (FloatTensor<B>, FloatTensor<B>, bool);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (cos, sin, inverse) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |dy| {
            B::rope(dy, cos, sin, !inverse)
        });
    }
}

impl<B: RopeOps, C: CheckpointStrategy> RopeOps for Autodiff<B, C> {
    fn rope(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        inverse: bool,
    ) -> FloatTensor<Self> {
        // The node must be read before the tensor is taken apart.
        let node = x.node();
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        match Rope.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = (cos.clone(), sin.clone(), inverse);
                prep.finish(state, B::rope(x.into_primitive(), cos, sin, inverse))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::rope(x.into_primitive(), cos, sin, inverse)),
        }
    }
}
