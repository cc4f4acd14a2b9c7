//! What a composition of tensor operations would read and write several times, as CubeCL kernels that do it once: the norm,
//! the gated unit, the optimiser step, and what a step of generation does to the cache of a layer.
//!
//! Owns how these run on a device, each in a file of its own. What they compute is defined elsewhere: `plain.rs` and, for the
//! optimiser, `adamw.rs` are what the tests here compare them with. Knows nothing of tapes.
//!
//! n tokens, d hidden size

mod adamw;
mod cached;
mod glu;
mod norm;
#[cfg(all(test, feature = "cube-cpu"))]
mod tests;

use std::sync::Arc;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, backend_extension};
use burn::tensor::Shape;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::rows::cube::{element, lanes};
use super::{Activation, AdamWSpec, AttentionSpec, CacheLayout, RmsNormSpec, SlotCopy};
use crate::precision::Precision;

/// Operations outside the tape. They compute in f32 and give what comes in its own precision.
#[backend_extension(Cube, Fusion: cfg(feature = "fused"))]
#[expect(clippy::too_many_arguments, reason = "six tensors, and what says how to read them")]
pub trait Elements: Backend {
    /// `x / rms(x) · (offset + weight)`, as `plain::rms_norm` has it.
    #[fusion(dtype = x, shape = x)]
    fn norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, spec: RmsNormSpec) -> FloatTensor<Self>;

    /// Gradients of `x[n, d]` and, in f32, of the weight: `[k, d]`, whose sum over k parts it is.
    #[fusion(meta = fused::norm_backward)]
    fn norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: RmsNormSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `act(gate) · up`, as `plain::glu` has it.
    #[fusion(dtype = gate, shape = gate)]
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;

    /// Gradients of gate and up.
    #[fusion(meta = |gate, up, _grad, _activation| (gate.clone(), up.clone()))]
    fn gated_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The caches `[slot, g, d, capacity]` and `[slot, g, capacity, d]`, flat, with keys and values `[n, g · d]` at their
    /// places, the keys turned; in the place of the old ones if nobody else holds them. `places` are the slot and the position
    /// of each row, one after the other.
    #[fusion(meta = fused::stored)]
    fn stored(
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        places: Arc<[u32]>,
        layout: CacheLayout,
        spec: Arc<AttentionSpec>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Attention `[n, h · d]` of queries, turned here, over the keys of their slots up to their positions.
    #[fusion(dtype = q, shape = q)]
    fn seen(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        places: Arc<[u32]>,
        layout: CacheLayout,
        spec: Arc<AttentionSpec>,
    ) -> FloatTensor<Self>;

    /// The caches with the first tokens of one slot copied to another, in their place if nobody else holds them.
    #[fusion(meta = |keys, values, _layout, _copy| (keys.clone(), values.clone()))]
    fn slot_copied(
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        layout: CacheLayout,
        copy: SlotCopy,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// An AdamW step: new weight and moments, in the place of the old ones if nobody else holds them. What is in bf16 is rounded
    /// by chance.
    #[fusion(meta = |weight, first, second, _grad, _spec| (weight.clone(), first.clone(), second.clone()))]
    fn stepped(
        weight: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: AdamWSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The same on a weight in two parts; see [`super::SplitWeight`].
    #[fusion(meta = fused::stepped_split)]
    fn stepped_split(
        weight: FloatTensor<Self>,
        rest: IntTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: AdamWSpec,
    ) -> (FloatTensor<Self>, IntTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// Shapes and types of what an operation gives, for a backend that runs it later.
#[cfg(feature = "fused")]
mod fused {
    use burn::backend::fusion::custom::TensorSpec;
    use burn::tensor::{DType, Shape};

    use super::{AdamWSpec, Arc, AttentionSpec, CacheLayout, RmsNormSpec, norm};

    #[expect(clippy::too_many_arguments, reason = "six tensors, and what says how to read them")]
    pub fn stored(
        _k: &TensorSpec,
        _v: &TensorSpec,
        keys: &TensorSpec,
        values: &TensorSpec,
        _cos: &TensorSpec,
        _sin: &TensorSpec,
        _places: &Arc<[u32]>,
        _layout: &CacheLayout,
        _spec: &Arc<AttentionSpec>,
    ) -> (TensorSpec, TensorSpec) {
        (keys.clone(), values.clone())
    }

    pub fn norm_backward(
        x: &TensorSpec,
        weight: &TensorSpec,
        _grad: &TensorSpec,
        _spec: &RmsNormSpec,
    ) -> (TensorSpec, TensorSpec) {
        let parts = Shape::from([norm::n_parts(x.shape[0]), weight.shape[0]]);
        (x.clone(), TensorSpec::new(parts, DType::F32))
    }

    pub fn stepped_split(
        weight: &TensorSpec,
        rest: &TensorSpec,
        first: &TensorSpec,
        second: &TensorSpec,
        _grad: &TensorSpec,
        _spec: &AdamWSpec,
    ) -> (TensorSpec, TensorSpec, TensorSpec, TensorSpec) {
        (weight.clone(), rest.clone(), first.clone(), second.clone())
    }
}

type GpuTensor = FloatTensor<CubeBackend>;

impl Elements for CubeBackend {
    fn norm(x: GpuTensor, weight: GpuTensor, spec: RmsNormSpec) -> GpuTensor {
        norm::forward(into_contiguous(x), into_contiguous(weight), spec)
    }

    fn norm_backward(x: GpuTensor, weight: GpuTensor, grad: GpuTensor, spec: RmsNormSpec) -> (GpuTensor, GpuTensor) {
        let [x, weight, grad] = [x, weight, grad].map(into_contiguous);
        norm::backward(x, weight, grad, spec)
    }

    fn gated(gate: GpuTensor, up: GpuTensor, activation: Activation) -> GpuTensor {
        glu::forward(into_contiguous(gate), into_contiguous(up), activation)
    }

    fn gated_backward(
        gate: GpuTensor,
        up: GpuTensor,
        grad: GpuTensor,
        activation: Activation,
    ) -> (GpuTensor, GpuTensor) {
        let [gate, up, grad] = [gate, up, grad].map(into_contiguous);
        glu::backward(gate, up, grad, activation)
    }

    fn stored(
        k: GpuTensor,
        v: GpuTensor,
        keys: GpuTensor,
        values: GpuTensor,
        cos: GpuTensor,
        sin: GpuTensor,
        places: Arc<[u32]>,
        layout: CacheLayout,
        spec: Arc<AttentionSpec>,
    ) -> (GpuTensor, GpuTensor) {
        let [new, tables] = [[k, v], [cos, sin]].map(|both| both.map(into_contiguous));
        cached::stored(new, [keys, values].map(owned), tables, &places, layout, &spec)
    }

    fn seen(
        q: GpuTensor,
        keys: GpuTensor,
        values: GpuTensor,
        cos: GpuTensor,
        sin: GpuTensor,
        places: Arc<[u32]>,
        layout: CacheLayout,
        spec: Arc<AttentionSpec>,
    ) -> GpuTensor {
        let [caches, tables] = [[keys, values], [cos, sin]].map(|both| both.map(into_contiguous));
        cached::seen(into_contiguous(q), caches, tables, &places, layout, &spec)
    }

    fn slot_copied(keys: GpuTensor, values: GpuTensor, layout: CacheLayout, copy: SlotCopy) -> (GpuTensor, GpuTensor) {
        cached::slot_copied([keys, values].map(owned), layout, copy)
    }

    fn stepped(
        weight: GpuTensor,
        first: GpuTensor,
        second: GpuTensor,
        grad: GpuTensor,
        spec: AdamWSpec,
    ) -> (GpuTensor, GpuTensor, GpuTensor) {
        let [weight, first, second] = [weight, first, second].map(owned);
        adamw::step(weight, first, second, into_contiguous(grad), spec)
    }

    fn stepped_split(
        weight: GpuTensor,
        rest: IntTensor<Self>,
        first: GpuTensor,
        second: GpuTensor,
        grad: GpuTensor,
        spec: AdamWSpec,
    ) -> (GpuTensor, IntTensor<Self>, GpuTensor, GpuTensor) {
        let [weight, rest, first, second] = [weight, rest, first, second].map(owned);
        adamw::step_split(weight, rest, first, second, into_contiguous(grad), spec)
    }
}

/// The tensor in row order, in a place that nobody else reads.
pub(super) fn owned(tensor: CubeTensor) -> CubeTensor {
    let tensor = into_contiguous(tensor);
    if tensor.can_mut() { tensor } else { tensor.copy() }
}

/// An empty tensor like another.
fn like(tensor: &CubeTensor) -> CubeTensor {
    empty_device_dtype(tensor.client.clone(), tensor.device.clone(), tensor.shape(), tensor.dtype)
}

/// An empty tensor in f32 on the device of another.
fn wide(tensor: &CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    empty_device_dtype(tensor.client.clone(), tensor.device.clone(), shape.into(), Precision::F32.dtype())
}

/// As many units as a tensor has vectors of `n_lanes`.
pub(super) fn one_each(tensor: &CubeTensor, n_lanes: usize) -> (CubeCount, CubeDim) {
    let n = tensor.shape().num_elements() / n_lanes;
    let dim = CubeDim::new(&tensor.client, n);
    (cubecl::calculate_cube_count_elemwise(&tensor.client, n, dim), dim)
}
