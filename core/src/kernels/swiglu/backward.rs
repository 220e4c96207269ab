//! The gradients of SwiGLU; `gate` and `up` are kept and `silu` is computed again, which is cheaper than
//! reading it back.

use burn::backend::{
    Autodiff, AutodiffBackend,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};

use super::SwigluOps;

#[derive(Debug)]
struct Swiglu;

impl<B: SwigluOps> Backward<B, 2> for Swiglu {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let (gate, up) = ops.state;
        match ops.parents {
            // d(silu(gate) up)/dup = silu(gate): the same product with the gradient in the place of `up`.
            [None, Some(up)] => grads.register::<B>(up.id, B::swiglu(gate, dy)),
            [gate_node, up_node] => {
                let (dgate, dup) = B::swiglu_gradients(gate, up, dy);
                if let Some(node) = gate_node {
                    grads.register::<B>(node.id, dgate);
                }
                if let Some(node) = up_node {
                    grads.register::<B>(node.id, dup);
                }
            }
        }
    }
}

impl<B: SwigluOps, C: CheckpointStrategy> SwigluOps for Autodiff<B, C> {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        // The nodes must be read before the tensors are taken apart.
        let nodes = [gate.node(), up.node()];
        let (gate, up) = (gate.into_primitive(), up.into_primitive());
        match Swiglu.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((gate.clone(), up.clone()), B::swiglu(gate, up)),
            OpsKind::UnTracked(prep) => prep.finish(B::swiglu(gate, up)),
        }
    }

    fn swiglu_gradients(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        // Only reached on plain gradients: there is no second derivative.
        let (gate, up) = (gate.into_primitive(), up.into_primitive());
        let (dgate, dup) = B::swiglu_gradients(gate, up, dy.into_primitive());
        (Self::from_inner(dgate), Self::from_inner(dup))
    }
}
