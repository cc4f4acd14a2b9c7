//! The fused operations on CubeCL devices, which are Burn's GPUs: products of the backend with kernels between them, and
//! plain compositions, which Burn fuses where it can, for the rest. Every kernel is tested against its composition.

use std::sync::Arc;

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Tensor;
use cubecl::ir::DeviceProperties;

use super::elements::Elements;
use super::rows::product;
use super::{
    Activation, AdamWSpec, AttentionSpec, CacheLayout, CachedSegment, Kernels, PlainKernels, RmsNormSpec, SlotCopy,
    blocks, flash, plain, vocabulary,
};
use crate::nn::index;
use crate::packed::Segment;
use crate::precision::Precision;

type GpuTensor = FloatTensor<Cube>;

/// The two attentions over packed sequences that a GPU has. What one keeps for the backward pass serves the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionKernel {
    /// Products of the backend with kernels between them, on every device and in every precision.
    Blocks,
    /// Kernels that keep scores on the chip, in bf16 on tensor cores.
    Flash,
}

impl AttentionKernel {
    /// The one that runs for these queries: flash where the device, the precision and the head dim allow it.
    pub fn suited(q: &Tensor<2>, spec: &AttentionSpec) -> Self {
        let serves = |device: &DeviceProperties| flash::serves(spec, Precision::of(q), device);
        if properties(q).as_ref().is_some_and(serves) { Self::Flash } else { Self::Blocks }
    }

    /// Whether it runs for these queries at all, be it by imitation.
    pub fn runs(self, q: &Tensor<2>, spec: &AttentionSpec) -> bool {
        let runs = |device: &DeviceProperties| flash::runs(spec, Precision::of(q), device);
        self == Self::Blocks || properties(q).as_ref().is_some_and(runs)
    }

    /// Output `[n, h · d]` in the precision of the queries, and the logarithms `[n, h]` of the softmax's sums, nats, f32; off
    /// the tape.
    pub fn forward(
        self,
        [q, k, v]: [Tensor<2>; 3],
        segments: &[Segment],
        spec: &AttentionSpec,
    ) -> (Tensor<2>, Tensor<2>) {
        match self {
            Self::Blocks => blocks::forward(q, k, v, segments, spec),
            Self::Flash => flash::forward(q, k, v, segments, spec),
        }
    }

    /// Gradients with respect to queries, keys and values, from the logarithms of a forward pass and the gradient of its
    /// output.
    pub fn backward(
        self,
        inputs: [Tensor<2>; 3],
        lse_nh: Tensor<2>,
        grad: Tensor<2>,
        segments: &[Segment],
        spec: &AttentionSpec,
    ) -> [Tensor<2>; 3] {
        match self {
            Self::Blocks => blocks::backward(inputs, lse_nh, grad, segments, spec),
            Self::Flash => flash::backward(inputs, lse_nh, grad, segments, spec),
        }
    }
}

/// Of the device of a tensor, if it is CubeCL's.
fn properties(tensor: &Tensor<2>) -> Option<DeviceProperties> {
    let tensor = tensor.clone().try_into_primitive::<Cube>().ok()?;
    Some(tensor.device().client().properties().clone())
}

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
        let inputs = [q, k, v].map(lift);
        let (out, lse) = AttentionKernel::suited(&inputs[0], &spec).forward(inputs, &segments, &spec);
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
        let inputs = [q, k, v].map(lift);
        let kernel = AttentionKernel::suited(&inputs[0], &spec);
        let [dq, dk, dv] = kernel.backward(inputs, lift(lse), lift(grad), &segments, &spec);
        (lower(dq), lower(dk), lower(dv))
    }

    fn glu(gate: GpuTensor, up: GpuTensor, activation: Activation) -> GpuTensor {
        Self::gated(gate, up, activation)
    }

    fn glu_backward(gate: GpuTensor, up: GpuTensor, grad: GpuTensor, activation: Activation) -> (GpuTensor, GpuTensor) {
        Self::gated_backward(gate, up, grad, activation)
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
        let (cos, sin) = spec.rope.on(&lift::<2>(q.clone()).device());
        let (cos, sin, places) = (lower(cos), lower(sin), places(&segments));
        let (tables, new) = ((cos.clone(), sin.clone()), (k.clone(), v.clone()));
        let (keys, values) = Self::stored(new.0, new.1, keys, values, tables.0, tables.1, places, layout, spec.clone());
        let caches = Caches { keys: keys.clone(), values: values.clone(), cos, sin, layout };
        (lower(caches.attended([q, k, v].map(lift), &segments, &spec)), keys, values)
    }

    fn copy_slot(keys: GpuTensor, values: GpuTensor, layout: CacheLayout, copy: SlotCopy) -> (GpuTensor, GpuTensor) {
        Self::slot_copied(keys, values, layout, copy)
    }

    /// In f32, in which the product is summed: nothing is gained by rounding before a draw.
    fn next_logits(hidden: GpuTensor, head: GpuTensor, softcap: Option<f32>) -> GpuTensor {
        lower(plain::softcap(product(lift::<2>(hidden), lift(head)), softcap, Precision::F32))
    }

    fn token_logps(hidden: GpuTensor, table: GpuTensor, targets: Arc<[u32]>, softcap: Option<f32>) -> GpuTensor {
        lower(vocabulary::forward(lift(hidden), lift(table), &targets, softcap))
    }

    fn token_logps_gradient(
        hidden: GpuTensor,
        table: GpuTensor,
        grad: GpuTensor,
        targets: Arc<[u32]>,
        softcap: Option<f32>,
        sum: GpuTensor,
    ) -> (GpuTensor, GpuTensor) {
        let (dhidden, sum) = vocabulary::backward(lift(hidden), lift(table), lift(grad), &targets, softcap, lift(sum));
        (lower(dhidden), lower(sum))
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

/// Slot and position of each row.
fn places(segments: &[CachedSegment]) -> Arc<[u32]> {
    let of = |segment: &CachedSegment| {
        let (slot, n_past) = (segment.slot as u32, segment.n_past as u32);
        (0..segment.rows.len() as u32).flat_map(move |i| [slot, n_past + i])
    };
    segments.iter().flat_map(of).collect()
}

/// The caches of a layer, which have the new keys and values already, and the tables of its positions.
struct Caches {
    keys: GpuTensor,
    values: GpuTensor,
    cos: GpuTensor,
    sin: GpuTensor,
    layout: CacheLayout,
}

impl Caches {
    /// Attention of whole prompts as packed sequences, which products serve, and of other tokens over their slots.
    fn attended(self, sides: [Tensor<2>; 3], segments: &[CachedSegment], spec: &Arc<AttentionSpec>) -> Tensor<2> {
        let is_whole = |segment: &CachedSegment| segment.n_past == 0 && segment.rows.len() > 1;
        let (whole, others): (Vec<CachedSegment>, Vec<CachedSegment>) = segments.iter().cloned().partition(is_whole);
        if whole.is_empty() {
            let [q, _, _] = sides;
            return self.over_slots(q, &others, spec);
        }
        let device = sides[0].device();
        let rows =
            |segments: &[CachedSegment]| segments.iter().flat_map(|segment| segment.rows.clone()).collect::<Vec<_>>();
        let (whole_rows, other_rows) = (rows(&whole), rows(&others));
        let at = |rows: &[usize]| index(rows.iter().copied(), &device);
        let mut start = 0;
        let packed: Vec<Segment> = whole
            .iter()
            .map(|segment| {
                start += segment.rows.len();
                (start - segment.rows.len()..start).into()
            })
            .collect();
        let inputs = sides.clone().map(|side| side.select(0, at(&whole_rows)));
        let (of_whole, _) = AttentionKernel::suited(&inputs[0], spec).forward(inputs, &packed, spec);
        if others.is_empty() {
            return of_whole;
        }
        let [q, _, _] = sides;
        let of_others = self.over_slots(q.select(0, at(&other_rows)), &others, spec);
        let mut place_of_row = vec![0; whole_rows.len() + other_rows.len()];
        whole_rows.iter().chain(&other_rows).enumerate().for_each(|(place, row)| place_of_row[*row] = place);
        Tensor::cat(vec![of_whole, of_others], 0).select(0, at(&place_of_row))
    }

    fn over_slots(self, q: Tensor<2>, segments: &[CachedSegment], spec: &Arc<AttentionSpec>) -> Tensor<2> {
        let Self { keys, values, cos, sin, layout } = self;
        lift(Cube::seen(lower(q), keys, values, cos, sin, places(segments), layout, spec.clone()))
    }
}
