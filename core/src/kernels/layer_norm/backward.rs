//! The gradients of layer normalization; `x` and `weight` are kept, each row's mean and deviation computed again, and
//! the gradients for `weight` and `bias` only where they are trained.

use burn::backend::{
    Autodiff, AutodiffBackend,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};

use super::LayerNormOps;

#[derive(Debug)]
struct LayerNorm;

impl<B: LayerNormOps> Backward<B, 3> for LayerNorm {
    type State = (FloatTensor<B>, FloatTensor<B>, f64);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, weight, eps) = ops.state;
        let [x_node, weight_node, bias_node] = ops.parents;
        if let Some(node) = weight_node {
            let dweight = B::layer_norm_grad_weight(x.clone(), dy.clone(), eps);
            grads.register::<B>(node.id, dweight);
        }
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, B::layer_norm_grad_bias(dy.clone()));
        }
        if let Some(node) = x_node {
            grads.register::<B>(node.id, B::layer_norm_grad_x(x, weight, dy, eps));
        }
    }
}

impl<B: LayerNormOps, C: CheckpointStrategy> LayerNormOps for Autodiff<B, C> {
    fn affine_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        // The nodes must be read before the tensors are taken apart.
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|t| t.into_primitive());
        match LayerNorm.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = (x.clone(), weight.clone(), eps);
                prep.finish(state, B::affine_layer_norm(x, weight, bias, eps))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::affine_layer_norm(x, weight, bias, eps)),
        }
    }

    // The gradients are only reached on plain tensors: there is no second derivative.

    fn layer_norm_grad_x(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let [x, weight, dy] = [x, weight, dy].map(|t| t.into_primitive());
        Self::from_inner(B::layer_norm_grad_x(x, weight, dy, eps))
    }

    fn layer_norm_grad_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let [x, dy] = [x, dy].map(|t| t.into_primitive());
        Self::from_inner(B::layer_norm_grad_weight(x, dy, eps))
    }

    fn layer_norm_grad_bias(dy: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::from_inner(B::layer_norm_grad_bias(dy.into_primitive()))
    }
}
