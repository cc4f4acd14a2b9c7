//! Puts the fused operations on Burn's autodiff tape.
//!
//! Owns which inputs each operation keeps for its backward pass. Knows nothing of arithmetic: forward and backward run
//! on the backend below.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

use super::{Activation, AttentionSpec, Kernels, RmsNormSpec};
use crate::packed::Segment;

const NO_SECOND_ORDER: &str = "second-order gradients of the fused operations do not exist";

#[derive(Debug)]
struct RmsNormStep;

impl<B: Backend + Kernels> Backward<B, 2> for RmsNormStep {
    type State = (FloatTensor<B>, FloatTensor<B>, RmsNormSpec);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, weight, spec) = ops.state;
        let (dx, dw) = B::rms_norm_backward(x, weight, grad, spec);
        for (parent, grad) in ops.parents.into_iter().zip([dx, dw]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct AttentionStep;

impl<B: Backend + Kernels> Backward<B, 3> for AttentionStep {
    type State = ([FloatTensor<B>; 4], Arc<[Segment]>, Arc<AttentionSpec>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let ([q, k, v, lse], segments, spec) = ops.state;
        let (dq, dk, dv) = B::self_attention_backward(q, k, v, lse, grad, segments, spec);
        for (parent, grad) in ops.parents.into_iter().zip([dq, dk, dv]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct GluStep;

impl<B: Backend + Kernels> Backward<B, 2> for GluStep {
    type State = (FloatTensor<B>, FloatTensor<B>, Activation);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (gate, up, activation) = ops.state;
        let (dgate, dup) = B::glu_backward(gate, up, grad, activation);
        for (parent, grad) in ops.parents.into_iter().zip([dgate, dup]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

impl<B: Backend + Kernels, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, spec: RmsNormSpec) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let out = B::rms_norm(x.clone(), weight.clone(), spec);
        match RmsNormStep.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, weight, spec), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn self_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        segments: Arc<[Segment]>,
        spec: Arc<AttentionSpec>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let ((q, q_node), (k, k_node), (v, v_node)) = (q.into_parts(), k.into_parts(), v.into_parts());
        let (out, lse) = B::self_attention(q.clone(), k.clone(), v.clone(), segments.clone(), spec.clone());
        let off_the_tape = FloatTensor::<Self>::new(lse.clone());
        let out = match AttentionStep.prepare::<C>([q_node, k_node, v_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(([q, k, v, lse], segments, spec), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        };
        (out, off_the_tape)
    }

    fn glu(gate: FloatTensor<Self>, up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        let ((gate, gate_node), (up, up_node)) = (gate.into_parts(), up.into_parts());
        let out = B::glu(gate.clone(), up.clone(), activation);
        match GluStep.prepare::<C>([gate_node, up_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((gate, up, activation), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn rms_norm_backward(
        _x: FloatTensor<Self>,
        _weight: FloatTensor<Self>,
        _grad: FloatTensor<Self>,
        _spec: RmsNormSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("{NO_SECOND_ORDER}")
    }

    fn self_attention_backward(
        _q: FloatTensor<Self>,
        _k: FloatTensor<Self>,
        _v: FloatTensor<Self>,
        _lse: FloatTensor<Self>,
        _grad: FloatTensor<Self>,
        _segments: Arc<[Segment]>,
        _spec: Arc<AttentionSpec>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("{NO_SECOND_ORDER}")
    }

    fn glu_backward(
        _gate: FloatTensor<Self>,
        _up: FloatTensor<Self>,
        _grad: FloatTensor<Self>,
        _activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("{NO_SECOND_ORDER}")
    }
}
