//! The fused operations on Burn's CPU backend.
//!
//! Owns the passage from Burn's tensors to plain slices and back. The arithmetic is in the files beside this one; the
//! large products stay with the backend's own matrix multiplication. The kernels here compute in f32; tensors in bf16 go
//! through the plain composition.
//!
//! m picked rows, d hidden size, w vocabulary

use std::ops::Range;
use std::sync::Arc;

use ::half::bf16;
use burn::backend::flex::FlexDevice;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, Shape, Slice, Tensor, TensorData};
use rayon::prelude::*;

use super::math::{self, vectorized};
use super::sums::product_added;
use super::{
    Activation, AdamWSpec, AttentionSpec, CacheLayout, CachedSegment, Kernels, PlainKernels, RmsNormSpec, SlotCopy,
    adamw, attention, glu, half, head, norm, plain,
};
use crate::packed::Segment;

type CpuTensor = FloatTensor<Flex>;

/// The tensor laid out row after row, so that its storage can be read as one slice.
fn contiguous(tensor: CpuTensor) -> CpuTensor {
    if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
}

/// The elements in row order. Call on the result of [`contiguous`].
fn elements(tensor: &CpuTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("model tensors on the CPU are contiguous f32 here")
}

fn wrap(values: Vec<f32>, shape: Shape) -> CpuTensor {
    Flex::float_from_data(TensorData::new(values, shape), &FlexDevice)
}

/// Rows `range` of a matrix, without copying.
fn rows(matrix: &CpuTensor, range: Range<usize>) -> CpuTensor {
    Flex::float_slice(matrix.clone(), &[Slice::from(range)])
}

fn transpose(matrix: &CpuTensor) -> CpuTensor {
    Flex::float_swap_dims(matrix.clone(), 0, 1)
}

fn is_half(tensor: &CpuTensor) -> bool {
    tensor.dtype() == DType::BF16
}

/// The tensor, in whatever precision, laid out row after row.
fn laid_out(tensor: CpuTensor) -> CpuTensor {
    if is_half(&tensor) { tensor.to_contiguous() } else { contiguous(tensor) }
}

fn lift<const D: usize>(tensor: CpuTensor) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(tensor)
}

fn lower<const D: usize>(tensor: Tensor<D>) -> CpuTensor {
    tensor.try_into_primitive::<Flex>().expect("a plain operation stays on its backend and off the tape")
}

/// A vector as a matrix of one row, which the plain operations take.
fn row(vector: CpuTensor) -> Tensor<2> {
    lift::<1>(vector).unsqueeze()
}

impl Kernels for Flex {
    fn rms_norm(x: CpuTensor, weight: CpuTensor, spec: RmsNormSpec) -> CpuTensor {
        if is_half(&x) {
            return lower(plain::rms_norm(lift(x), row(weight), spec));
        }
        let (x, weight) = (contiguous(x), contiguous(weight));
        wrap(norm::forward(elements(&x), elements(&weight), spec), x.shape())
    }

    fn rms_norm_backward(
        x: CpuTensor,
        weight: CpuTensor,
        grad: CpuTensor,
        spec: RmsNormSpec,
    ) -> (CpuTensor, CpuTensor) {
        if is_half(&x) {
            let norm = |[x, weight]: [Tensor<2>; 2]| plain::rms_norm(x, weight, spec);
            let [dx, dw] = plain::gradients([lift(x), row(weight)], lift(grad), norm);
            return (lower(dx), lower(dw.squeeze_dim::<1>(0)));
        }
        let (x, weight, grad) = (contiguous(x), contiguous(weight), contiguous(grad));
        let (dx, dw) = norm::backward(elements(&x), elements(&weight), elements(&grad), spec);
        (wrap(dx, x.shape()), wrap(dw, weight.shape()))
    }

    fn self_attention(
        q: CpuTensor,
        k: CpuTensor,
        v: CpuTensor,
        segments: Arc<[Segment]>,
        spec: Arc<AttentionSpec>,
    ) -> (CpuTensor, CpuTensor) {
        // The backward passes here make the sums again.
        let no_sums = || wrap(Vec::new(), Shape::from([0, 0]));
        if is_half(&q) {
            return (lower(plain::self_attention(lift(q), lift(k), lift(v), &segments, &spec)), no_sums());
        }
        let (q, k, v) = (contiguous(q), contiguous(k), contiguous(v));
        let out = attention::forward(elements(&q), elements(&k), elements(&v), &segments, &spec);
        (wrap(out, q.shape()), no_sums())
    }

    fn self_attention_backward(
        q: CpuTensor,
        k: CpuTensor,
        v: CpuTensor,
        _lse: CpuTensor,
        grad: CpuTensor,
        segments: Arc<[Segment]>,
        spec: Arc<AttentionSpec>,
    ) -> (CpuTensor, CpuTensor, CpuTensor) {
        if is_half(&q) {
            let attend = |[q, k, v]: [Tensor<2>; 3]| plain::self_attention(q, k, v, &segments, &spec);
            let [dq, dk, dv] = plain::gradients([lift(q), lift(k), lift(v)], lift(grad), attend);
            return (lower(dq), lower(dk), lower(dv));
        }
        let (q, k, v, grad) = (contiguous(q), contiguous(k), contiguous(v), contiguous(grad));
        let (dq, dk, dv) =
            attention::backward(elements(&q), elements(&k), elements(&v), elements(&grad), &segments, &spec);
        (wrap(dq, q.shape()), wrap(dk, k.shape()), wrap(dv, v.shape()))
    }

    fn glu(gate: CpuTensor, up: CpuTensor, activation: Activation) -> CpuTensor {
        if is_half(&gate) {
            return lower(plain::glu(lift(gate), lift(up), activation));
        }
        let (gate, up) = (contiguous(gate), contiguous(up));
        wrap(glu::forward(elements(&gate), elements(&up), activation), gate.shape())
    }

    fn glu_backward(gate: CpuTensor, up: CpuTensor, grad: CpuTensor, activation: Activation) -> (CpuTensor, CpuTensor) {
        if is_half(&gate) {
            let unit = |[gate, up]: [Tensor<2>; 2]| plain::glu(gate, up, activation);
            let [dgate, dup] = plain::gradients([lift(gate), lift(up)], lift(grad), unit);
            return (lower(dgate), lower(dup));
        }
        let (gate, up, grad) = (contiguous(gate), contiguous(up), contiguous(grad));
        let (dgate, dup) = glu::backward(elements(&gate), elements(&up), elements(&grad), activation);
        (wrap(dgate, gate.shape()), wrap(dup, up.shape()))
    }
}

impl PlainKernels for Flex {
    fn product(x: CpuTensor, weight: CpuTensor) -> CpuTensor {
        if is_half(&weight) { half::product(&x, &weight) } else { Flex::float_matmul(x, weight) }
    }

    fn cached_attention(
        q: CpuTensor,
        k: CpuTensor,
        v: CpuTensor,
        mut keys: CpuTensor,
        mut values: CpuTensor,
        layout: CacheLayout,
        segments: Arc<[CachedSegment]>,
        spec: Arc<AttentionSpec>,
    ) -> (CpuTensor, CpuTensor, CpuTensor) {
        if is_half(&q) {
            let [q, k, v] = [q, k, v].map(lift::<2>);
            let (out, keys, values) =
                plain::cached_attention(q, k, v, lift(keys), lift(values), layout, &segments, &spec);
            return (lower(out), lower(keys), lower(values));
        }
        let (q, k, v) = (contiguous(q), contiguous(k), contiguous(v));
        let out = attention::cached(
            elements(&q),
            elements(&k),
            elements(&v),
            keys.storage_mut::<f32>(),
            values.storage_mut::<f32>(),
            layout,
            &segments,
            &spec,
        );
        (wrap(out, q.shape()), keys, values)
    }

    fn copy_slot(
        mut keys: CpuTensor,
        mut values: CpuTensor,
        layout: CacheLayout,
        copy: SlotCopy,
    ) -> (CpuTensor, CpuTensor) {
        if is_half(&keys) {
            let (keys, values) = plain::copy_slot(lift(keys), lift(values), layout, copy);
            return (lower(keys), lower(values));
        }
        attention::copy_slot(keys.storage_mut::<f32>(), values.storage_mut::<f32>(), layout, copy);
        (keys, values)
    }

    fn next_logits(hidden: CpuTensor, head: CpuTensor, softcap: Option<f32>) -> CpuTensor {
        if is_half(&hidden) {
            return lower(plain::next_logits(lift(hidden), lift(head), softcap));
        }
        let mut logits = Flex::float_matmul(hidden, head);
        if let Some(cap) = softcap {
            let block = |block: &mut [f32]| {
                vectorized(
                    #[inline(always)]
                    || math::softcap(block, cap),
                )
            };
            logits.storage_mut::<f32>().par_chunks_mut(16_384).for_each(block);
        }
        logits
    }

    fn token_logps(hidden: CpuTensor, table: CpuTensor, targets: Arc<[u32]>, softcap: Option<f32>) -> CpuTensor {
        if is_half(&hidden) {
            return lower(plain::token_logps_by_chunks(lift(hidden), lift(table), &targets, softcap));
        }
        let mut out = Vec::with_capacity(targets.len());
        for range in head::chunks(targets.len(), table.shape()[0]) {
            let mut logits = Flex::float_matmul(rows(&hidden, range.clone()), transpose(&table));
            out.extend(head::logps(logits.storage_mut::<f32>(), &targets[range], softcap));
        }
        let n = out.len();
        wrap(out, Shape::from([n]))
    }

    fn token_logps_gradient(
        hidden: CpuTensor,
        table: CpuTensor,
        grad: CpuTensor,
        targets: Arc<[u32]>,
        softcap: Option<f32>,
        sum: CpuTensor,
    ) -> (CpuTensor, CpuTensor) {
        if is_half(&hidden) {
            let (hidden, table, grad) = (lift(hidden), lift(table), lift(grad));
            let (dhidden, sum) = plain::token_logps_gradient(hidden, table, grad, &targets, softcap, lift(sum));
            return (lower(dhidden), lower(sum));
        }
        let grad = contiguous(grad);
        let mut dhidden = Vec::with_capacity(hidden.shape().num_elements());
        let mut sum_n = lift::<1>(sum);
        for range in head::chunks(targets.len(), table.shape()[0]) {
            let hidden = rows(&hidden, range.clone());
            let mut logits = Flex::float_matmul(hidden.clone(), transpose(&table));
            let grad = &elements(&grad)[range.clone()];
            head::logits_gradient(logits.storage_mut::<f32>(), &targets[range], grad, softcap);
            let dchunk = Flex::float_matmul(logits.clone(), table.clone());
            dhidden.extend_from_slice(elements(&dchunk));
            sum_n = product_added(sum_n, &[lift(logits)], &lift(hidden), Tensor::matmul);
        }
        (wrap(dhidden, hidden.shape()), lower(sum_n))
    }

    fn adamw(
        weight: CpuTensor,
        first: CpuTensor,
        second: CpuTensor,
        grad: CpuTensor,
        spec: AdamWSpec,
    ) -> (CpuTensor, CpuTensor, CpuTensor) {
        let grad = contiguous(grad);
        let (mut weight, mut first, mut second) = (laid_out(weight), laid_out(first), laid_out(second));
        let grad = elements(&grad);
        match (is_half(&weight), is_half(&first)) {
            (false, false) => {
                adamw::step::<f32, f32>(weight.storage_mut(), first.storage_mut(), second.storage_mut(), grad, spec);
            }
            (false, true) => {
                adamw::step::<f32, bf16>(weight.storage_mut(), first.storage_mut(), second.storage_mut(), grad, spec);
            }
            (true, false) => {
                adamw::step::<bf16, f32>(weight.storage_mut(), first.storage_mut(), second.storage_mut(), grad, spec);
            }
            (true, true) => {
                adamw::step::<bf16, bf16>(weight.storage_mut(), first.storage_mut(), second.storage_mut(), grad, spec);
            }
        }
        (weight, first, second)
    }

    fn adamw_split(
        weight: CpuTensor,
        rest: IntTensor<Flex>,
        first: CpuTensor,
        second: CpuTensor,
        grad: CpuTensor,
        spec: AdamWSpec,
    ) -> (CpuTensor, IntTensor<Flex>, CpuTensor, CpuTensor) {
        let (grad, mut weight, mut rest) = (contiguous(grad), weight, rest);
        let (mut first, mut second) = (laid_out(first), laid_out(second));
        let (parts, grad) = ((weight.storage_mut::<bf16>(), rest.storage_mut::<i16>()), elements(&grad));
        match is_half(&first) {
            false => adamw::step_split(parts, first.storage_mut::<f32>(), second.storage_mut::<f32>(), grad, spec),
            true => adamw::step_split(parts, first.storage_mut::<bf16>(), second.storage_mut::<bf16>(), grad, spec),
        }
        (weight, rest, first, second)
    }
}
