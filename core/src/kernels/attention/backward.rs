//! The gradients of attention. `q`, `k`, `v` and the bias are kept; the probabilities, which are larger by far,
//! are computed again.

use burn::backend::{
    Autodiff, AutodiffBackend,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};

use super::{AttentionOps, Dropout, Wanted};

#[derive(Debug)]
struct Attention;

impl<B: AttentionOps> Backward<B, 3> for Attention {
    /// `q`, `k`, `v`, bias; scale; dropout.
    type State = ([FloatTensor<B>; 4], f64, Dropout);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let ([q, k, v, bias], scale, dropout) = ops.state;
        let [q_node, k_node, v_node] = ops.parents;
        let wanted = Wanted {
            q: q_node.is_some(),
            k: k_node.is_some(),
            v: v_node.is_some(),
        };
        let (dq, dk, dv) =
            B::grouped_attention_gradients(q, k, v, bias, dy, scale, dropout, wanted);
        for (node, gradient) in [(q_node, dq), (k_node, dk), (v_node, dv)] {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: AttentionOps, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn grouped_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        scale: f64,
        dropout: Dropout,
    ) -> FloatTensor<Self> {
        // The nodes must be read before the tensors are taken apart.
        let nodes = [q.node(), k.node(), v.node()];
        let [q, k, v, bias] = [q, k, v, bias].map(|t| t.into_primitive());
        match Attention.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = (
                    [q.clone(), k.clone(), v.clone(), bias.clone()],
                    scale,
                    dropout,
                );
                prep.finish(state, B::grouped_attention(q, k, v, bias, scale, dropout))
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::grouped_attention(q, k, v, bias, scale, dropout))
            }
        }
    }

    fn grouped_attention_gradients(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        scale: f64,
        dropout: Dropout,
        wanted: Wanted,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        // Only reached on plain gradients: there is no second derivative.
        let [q, k, v, bias, dy] = [q, k, v, bias, dy].map(|t| t.into_primitive());
        let (dq, dk, dv) =
            B::grouped_attention_gradients(q, k, v, bias, dy, scale, dropout, wanted);
        (
            Self::from_inner(dq),
            Self::from_inner(dk),
            Self::from_inner(dv),
        )
    }
}
