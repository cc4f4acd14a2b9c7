//! The fused operations on CubeCL devices, which are Burn's GPUs: products of the backend with kernels between them, and
//! plain compositions, which Burn fuses where it can, for the rest. Every kernel is tested against its composition.

use std::sync::Arc;

use burn::backend::Cube;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::Tensor;

use super::elements::Elements;
use super::{
    Activation, AdamWSpec, AttentionSpec, CacheLayout, CachedSegment, Kernels, PlainKernels, RmsNormSpec, SlotCopy,
    blocks, plain, vocabulary,
};
use crate::packed::Segment;
use crate::precision::Precision;

type GpuTensor = FloatTensor<Cube>;

fn lift<const D: usize>(tensor: GpuTensor) -> Tensor<D> {
    Tensor::from_primitive::<Cube>(tensor)
}

fn lower<const D: usize>(tensor: Tensor<D>) -> GpuTensor {
    tensor.try_into_primitive::<Cube>().expect("a plain operation stays on its backend and off the tape")
}

impl Kernels for Cube {
    fn rms_norm(x: GpuTensor, weight: GpuTensor, spec: RmsNormSpec) -> GpuTensor {
        Self::norm(x, weight, spec)
    }

    fn rms_norm_backward(
        x: GpuTensor,
        weight: GpuTensor,
        grad: GpuTensor,
        spec: RmsNormSpec,
    ) -> (GpuTensor, GpuTensor) {
        let held = Precision::of(&lift::<1>(weight.clone()));
        let (dx, parts) = Self::norm_backward(x, weight, grad, spec);
        (dx, lower(held.hold(lift::<2>(parts).sum_dim(0).squeeze_dim::<1>(0))))
    }

    fn self_attention(
        q: GpuTensor,
        k: GpuTensor,
        v: GpuTensor,
        segments: Arc<[Segment]>,
        spec: Arc<AttentionSpec>,
    ) -> (GpuTensor, GpuTensor) {
        let (out, lse) = blocks::forward(lift(q), lift(k), lift(v), &segments, &spec);
        (lower(out), lower(lse))
    }

    fn self_attention_backward(
        q: GpuTensor,
        k: GpuTensor,
        v: GpuTensor,
        lse: GpuTensor,
        grad: GpuTensor,
        segments: Arc<[Segment]>,
        spec: Arc<AttentionSpec>,
    ) -> (GpuTensor, GpuTensor, GpuTensor) {
        let [dq, dk, dv] = blocks::backward([q, k, v].map(lift), lift(lse), lift(grad), &segments, &spec);
        (lower(dq), lower(dk), lower(dv))
    }

    fn glu(gate: GpuTensor, up: GpuTensor, activation: Activation) -> GpuTensor {
        Self::gated(gate, up, activation)
    }

    fn glu_backward(gate: GpuTensor, up: GpuTensor, grad: GpuTensor, activation: Activation) -> (GpuTensor, GpuTensor) {
        Self::gated_backward(gate, up, grad, activation)
    }

    fn token_logps(hidden: GpuTensor, table: GpuTensor, targets: Arc<[u32]>, softcap: Option<f32>) -> GpuTensor {
        lower(vocabulary::forward(lift(hidden), lift(table), &targets, softcap))
    }

    fn token_logps_backward(
        hidden: GpuTensor,
        table: GpuTensor,
        grad: GpuTensor,
        targets: Arc<[u32]>,
        softcap: Option<f32>,
    ) -> (GpuTensor, GpuTensor) {
        let (dhidden, dtable) = vocabulary::backward(lift(hidden), lift(table), lift(grad), &targets, softcap);
        (lower(dhidden), lower(dtable))
    }
}

impl PlainKernels for Cube {
    fn product(x: GpuTensor, weight: GpuTensor) -> GpuTensor {
        Cube::float_matmul(x, weight)
    }

    fn cached_attention(
        q: GpuTensor,
        k: GpuTensor,
        v: GpuTensor,
        keys: GpuTensor,
        values: GpuTensor,
        layout: CacheLayout,
        segments: Arc<[CachedSegment]>,
        spec: Arc<AttentionSpec>,
    ) -> (GpuTensor, GpuTensor, GpuTensor) {
        let [q, k, v] = [q, k, v].map(lift::<2>);
        let (out, keys, values) = plain::cached_attention(q, k, v, lift(keys), lift(values), layout, &segments, &spec);
        (lower(out), lower(keys), lower(values))
    }

    fn copy_slot(keys: GpuTensor, values: GpuTensor, layout: CacheLayout, copy: SlotCopy) -> (GpuTensor, GpuTensor) {
        let (keys, values) = plain::copy_slot(lift(keys), lift(values), layout, copy);
        (lower(keys), lower(values))
    }

    fn next_logits(hidden: GpuTensor, head: GpuTensor, softcap: Option<f32>) -> GpuTensor {
        lower(plain::next_logits(lift(hidden), lift(head), softcap))
    }

    fn adamw(
        weight: GpuTensor,
        first: GpuTensor,
        second: GpuTensor,
        grad: GpuTensor,
        spec: AdamWSpec,
    ) -> (GpuTensor, GpuTensor, GpuTensor) {
        Self::stepped(weight, first, second, grad, spec)
    }

    fn adamw_split(
        weight: GpuTensor,
        rest: IntTensor<Cube>,
        first: GpuTensor,
        second: GpuTensor,
        grad: GpuTensor,
        spec: AdamWSpec,
    ) -> (GpuTensor, IntTensor<Cube>, GpuTensor, GpuTensor) {
        Self::stepped_split(weight, rest, first, second, grad, spec)
    }
}
