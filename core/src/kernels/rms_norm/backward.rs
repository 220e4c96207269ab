//! The gradients of RMS normalization; `x` and `weight` are kept, each row's root mean square is computed
//! again on the way through `x`, and the gradient for `weight` only where it is trained.

use burn::backend::{
    Autodiff, AutodiffBackend,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};

use super::RmsNormOps;

#[derive(Debug)]
struct RmsNorm;

impl<B: RmsNormOps> Backward<B, 2> for RmsNorm {
    type State = (FloatTensor<B>, FloatTensor<B>, f64);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, weight, eps) = ops.state;
        let [x_node, weight_node] = ops.parents;
        if let Some(node) = weight_node {
            let dweight = B::rms_norm_grad_weight(x.clone(), dy.clone(), eps);
            grads.register::<B>(node.id, dweight);
        }
        if let Some(node) = x_node {
            grads.register::<B>(node.id, B::rms_norm_grad_x(x, weight, dy, eps));
        }
    }
}

impl<B: RmsNormOps, C: CheckpointStrategy> RmsNormOps for Autodiff<B, C> {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        // The nodes must be read before the tensors are taken apart.
        let nodes = [x.node(), weight.node()];
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        match RmsNorm.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = (x.clone(), weight.clone(), eps);
                prep.finish(state, B::rms_norm(x, weight, eps))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::rms_norm(x, weight, eps)),
        }
    }

    // The gradients are only reached on plain tensors: there is no second derivative.

    fn rms_norm_grad_x(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let (x, weight, dy) = (
            x.into_primitive(),
            weight.into_primitive(),
            dy.into_primitive(),
        );
        Self::from_inner(B::rms_norm_grad_x(x, weight, dy, eps))
    }

    fn rms_norm_grad_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        Self::from_inner(B::rms_norm_grad_weight(
            x.into_primitive(),
            dy.into_primitive(),
            eps,
        ))
    }
}
