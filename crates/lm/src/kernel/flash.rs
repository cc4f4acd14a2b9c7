//! Causal attention over packed rows in kernels that keep scores on the chip (Dao 2023, "FlashAttention-2").
//!
//! Owns three launches and what they are told: the forward pass, the gradient of the queries, those of keys and values. Each
//! cube owns a tile of one head's rows and walks over the rows of the other side that its window and causality leave, so no
//! sum has two owners: there are no atomic operations, and the same inputs give the same bits. Inputs are in bf16 and
//! multiplied on tensor cores, sums, scores and softmax are in f32; weights and gradients of scores are rounded to bf16 as
//! operands of the next product, what is written is rounded once. What else differs from `blocks.rs`: nothing; the meaning of
//! arguments and results is the same.
//! Knows nothing of tapes, and of rotary positions only that rows are turned before and gradients turned back after.
//!
//! n tokens, h query heads, g key heads, d head dim

mod forward;
mod fragments;
mod keys;
mod plan;
mod queries;
#[cfg(all(test, feature = "cube-cpu"))]
mod tests;
mod tile;

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use cubecl::ir::features::MmaConfig;
use cubecl::ir::{DeviceProperties, ElemType, FloatKind};
use cubecl::prelude::*;

use self::forward::forward_kernel;
use self::fragments::{BLOCK, Cut, PLANE};
use self::keys::{Wanted, keys_kernel};
use self::plan::{KeyTiles, key_tiles, query_tiles};
use self::queries::queries_kernel;
use super::attention::AttentionSpec;
use super::blocks::positions;
use super::rows::cube::{beside, element, narrow, words};
use super::rows::turned;
use crate::packed::Segment;
use crate::precision::Precision;

/// The largest head dim whose sums fit into the registers.
const MAX_HEAD_DIM: usize = 256;

/// What the kernels have to know besides their tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlashSpec {
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub scale: f32,
    pub softcap: Option<f32>,
    pub window: Option<usize>,
    pub tiling: Tiling,
}

/// How large tiles are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Planes of a cube, each of which owns 16 rows.
    pub n_planes: usize,
    /// Keys that queries meet at a time in the forward pass, a multiple of 16.
    pub n_met: usize,
    /// Keys, or queries, that meet at a time in the backward pass, which holds twice as many scores.
    pub n_met_backward: usize,
}

impl Tiling {
    /// With 256 numbers a head, two cubes fit on a multiprocessor of an H100, so that one computes while the other loads.
    const LARGE: Tiling = Tiling { n_planes: 4, n_met: 64, n_met_backward: 32 };
}

impl FlashSpec {
    fn new(spec: &AttentionSpec, tiling: Tiling) -> Self {
        let AttentionSpec { n_heads, n_kv_heads, head_dim, scale, softcap, window, rope: _ } = spec;
        let (n_heads, n_kv_heads, head_dim) = (*n_heads, *n_kv_heads, *head_dim);
        Self { n_heads, n_kv_heads, head_dim, scale: *scale, softcap: *softcap, window: *window, tiling }
    }

    fn n_owned(&self) -> usize {
        self.tiling.n_planes * BLOCK
    }

    fn cut(&self, n_met: usize, device: &DeviceProperties) -> Cut {
        let Self { n_heads, n_kv_heads, head_dim, scale: _, softcap, window: _, tiling } = *self;
        let n_lanes = if has_tensor_cores(device) { 1 } else { PLANE };
        let n_planes = tiling.n_planes;
        Cut { d: head_dim, n_heads, n_kv_heads, n_planes, n_met, n_lanes, is_capped: softcap.is_some() }
    }

    /// Longer than any sequence where there is none, and no longer than a kernel can count.
    fn window(&self) -> u32 {
        self.window.map_or(u32::MAX, narrow).min(i32::MAX as u32)
    }

    fn cap(&self) -> f32 {
        self.softcap.unwrap_or(1.0)
    }
}

/// Whether a device runs these kernels as they are meant, for queries and keys in a precision.
pub fn serves(spec: &AttentionSpec, held: Precision, device: &DeviceProperties) -> bool {
    let Tiling { n_planes, n_met, n_met_backward } = Tiling::LARGE;
    let d = spec.head_dim;
    // Of both passes the most: the backward pass has two tiles of its own, and two that it meets.
    let n_rows = (n_planes * BLOCK + 2 * n_met).max(2 * (n_planes * BLOCK + n_met_backward));
    let n_bytes = n_rows * (d + 8) * held.bytes() + 2 * n_met_backward * size_of::<f32>();
    held == Precision::Bf16 && fits(d) && has_tensor_cores(device) && n_bytes <= device.hardware.max_shared_memory_size
}

/// Whether a device runs these kernels at all: as they are meant, or by imitation, where a unit can be a plane.
pub fn runs(spec: &AttentionSpec, held: Precision, device: &DeviceProperties) -> bool {
    serves(spec, held, device) || device.hardware.plane_size_max == 1 && fits(spec.head_dim)
}

fn fits(head_dim: usize) -> bool {
    head_dim.is_multiple_of(BLOCK) && head_dim <= MAX_HEAD_DIM
}

/// Whether there is the instruction that the kernels are made of.
fn has_tensor_cores(device: &DeviceProperties) -> bool {
    let (half, wide) = (ElemType::Float(FloatKind::BF16), ElemType::Float(FloatKind::F32));
    let product = MmaConfig { a_type: half, b_type: half, cd_type: wide, m: 16, n: 8, k: 16 };
    let (hardware, matmul) = (&device.hardware, &device.features.matmul);
    let is_plane = hardware.plane_size_min as usize == PLANE && hardware.plane_size_max as usize == PLANE;
    is_plane && matmul.mma.contains(&product) && matmul.ldmatrix.contains(&half)
}

/// Output `[n, h · d]` in the precision of the queries, and the logarithms `[n, h]` of the softmax's sums, nats, f32.
pub fn forward(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    segments: &[Segment],
    spec: &AttentionSpec,
) -> (Tensor<2>, Tensor<2>) {
    forward_in([q, k, v], segments, spec, Tiling::LARGE)
}

/// Gradients with respect to queries, keys and values, from the logarithms that [`forward`] gave and the gradient of its
/// output.
pub fn backward(
    inputs: [Tensor<2>; 3],
    lse_nh: Tensor<2>,
    grad: Tensor<2>,
    segments: &[Segment],
    spec: &AttentionSpec,
) -> [Tensor<2>; 3] {
    backward_in(inputs, lse_nh, grad, segments, spec, Tiling::LARGE)
}

fn forward_in(
    [q, k, v]: [Tensor<2>; 3],
    segments: &[Segment],
    spec: &AttentionSpec,
    tiling: Tiling,
) -> (Tensor<2>, Tensor<2>) {
    let flash = FlashSpec::new(spec, tiling);
    let tiles = query_tiles(segments, flash.n_owned(), spec.window);
    if tiles.is_empty() {
        let device = q.device();
        return (q, Tensor::zeros([0, spec.n_heads], (&device, Precision::F32.dtype())));
    }
    let (held, positions) = (Precision::of(&q), positions(segments));
    let [q, k] = [q, k].map(|side| turned(side, &spec.rope, &positions, 1.0, held));
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    let (out, lse) = <Dispatch as Flash>::mixed(q, k, v, tiles.into(), flash);
    (Tensor::from_dispatch(out), Tensor::from_dispatch(lse))
}

fn backward_in(
    [q, k, v]: [Tensor<2>; 3],
    lse_nh: Tensor<2>,
    grad: Tensor<2>,
    segments: &[Segment],
    spec: &AttentionSpec,
    tiling: Tiling,
) -> [Tensor<2>; 3] {
    let flash = FlashSpec::new(spec, tiling);
    let tiles: Arc<[u32]> = query_tiles(segments, flash.n_owned(), spec.window).into();
    if tiles.is_empty() {
        return [q, k, v];
    }
    let KeyTiles { tiles: of_keys, visits } = key_tiles(segments, flash.n_owned(), spec.window);
    let (held, positions) = (Precision::of(&q), positions(segments));
    let [q, k] = [q, k].map(|side| turned(side, &spec.rope, &positions, 1.0, held));
    let inputs = || [&q, &k, &v, &grad, &lse_nh].map(|input| input.clone().into_dispatch());
    let [qs, ks, vs, grads, lses] = inputs();
    let (dq, means) = <Dispatch as Flash>::query_gradients(qs, ks, vs, grads, lses, tiles, flash);
    let [qs, ks, vs, grads, lses] = inputs();
    let (dk, dv) =
        <Dispatch as Flash>::key_gradients(qs, ks, vs, grads, lses, means, of_keys.into(), visits.into(), flash);
    let [dq, dk] = [dq, dk].map(|side| turned(Tensor::from_dispatch(side), &spec.rope, &positions, -1.0, held));
    [dq, dk, Tensor::from_dispatch(dv)]
}

/// The launches, outside the tape. Rows of queries and keys are turned.
#[backend_extension(Cube, Fusion: cfg(feature = "fused"))]
#[expect(clippy::too_many_arguments, reason = "six tensors, and what says how to read them")]
pub trait Flash: Backend {
    /// Output `[n, h · d]` and logarithms `[n, h]`; see [`plan::query_tiles`].
    #[fusion(meta = fused::mixed)]
    fn mixed(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        tiles: Arc<[u32]>,
        spec: FlashSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient of the queries, and of each query and head the mean `[n, h]` of the gradients of its weights, f32.
    #[fusion(meta = fused::query_gradients)]
    fn query_gradients(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        tiles: Arc<[u32]>,
        spec: FlashSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradients of keys and values; see [`plan::KeyTiles`].
    #[fusion(meta = fused::key_gradients)]
    fn key_gradients(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        means: FloatTensor<Self>,
        tiles: Arc<[u32]>,
        visits: Arc<[u32]>,
        spec: FlashSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// Shapes and types of what an operation gives, for a backend that runs it later.
#[cfg(feature = "fused")]
mod fused {
    use burn::backend::fusion::custom::TensorSpec;
    use burn::tensor::{DType, Shape};

    use super::{Arc, FlashSpec};

    fn one_each(q: &TensorSpec, spec: &FlashSpec) -> TensorSpec {
        TensorSpec::new(Shape::from([q.shape[0], spec.n_heads]), DType::F32)
    }

    pub fn mixed(
        q: &TensorSpec,
        _k: &TensorSpec,
        _v: &TensorSpec,
        _tiles: &Arc<[u32]>,
        spec: &FlashSpec,
    ) -> (TensorSpec, TensorSpec) {
        (q.clone(), one_each(q, spec))
    }

    pub fn query_gradients(
        q: &TensorSpec,
        _k: &TensorSpec,
        _v: &TensorSpec,
        _grad: &TensorSpec,
        _lse: &TensorSpec,
        _tiles: &Arc<[u32]>,
        spec: &FlashSpec,
    ) -> (TensorSpec, TensorSpec) {
        (q.clone(), one_each(q, spec))
    }

    #[expect(clippy::too_many_arguments, reason = "six tensors, and what says how to read them")]
    pub fn key_gradients(
        _q: &TensorSpec,
        k: &TensorSpec,
        v: &TensorSpec,
        _grad: &TensorSpec,
        _lse: &TensorSpec,
        _means: &TensorSpec,
        _tiles: &Arc<[u32]>,
        _visits: &Arc<[u32]>,
        _spec: &FlashSpec,
    ) -> (TensorSpec, TensorSpec) {
        (k.clone(), v.clone())
    }
}

type GpuTensor = FloatTensor<CubeBackend>;

impl Flash for CubeBackend {
    fn mixed(q: GpuTensor, k: GpuTensor, v: GpuTensor, tiles: Arc<[u32]>, spec: FlashSpec) -> (GpuTensor, GpuTensor) {
        let [q, k, v] = [q, k, v].map(into_contiguous);
        let cut = spec.cut(spec.tiling.n_met, q.client.properties());
        let (out, lse) = (like(&q), beside(&q, [q.shape()[0], spec.n_heads], Precision::F32));
        let held = element(&q);
        forward_kernel::launch(
            &out.client.clone(),
            cubes(tiles.len() / 5 * spec.n_heads),
            units(cut),
            q.into_tensor_arg(),
            k.into_tensor_arg(),
            v.into_tensor_arg(),
            words(&tiles, &out.device).into_tensor_arg(),
            out.clone().into_tensor_arg(),
            lse.clone().into_tensor_arg(),
            spec.window(),
            spec.scale,
            spec.cap(),
            cut,
            held,
        );
        (out, lse)
    }

    fn query_gradients(
        q: GpuTensor,
        k: GpuTensor,
        v: GpuTensor,
        grad: GpuTensor,
        lse: GpuTensor,
        tiles: Arc<[u32]>,
        spec: FlashSpec,
    ) -> (GpuTensor, GpuTensor) {
        let [q, k, v, grad, lse] = [q, k, v, grad, lse].map(into_contiguous);
        let cut = spec.cut(spec.tiling.n_met_backward, q.client.properties());
        let (dq, means) = (like(&q), like(&lse));
        let held = element(&q);
        queries_kernel::launch(
            &dq.client.clone(),
            cubes(tiles.len() / 5 * spec.n_heads),
            units(cut),
            q.into_tensor_arg(),
            k.into_tensor_arg(),
            v.into_tensor_arg(),
            grad.into_tensor_arg(),
            lse.into_tensor_arg(),
            words(&tiles, &dq.device).into_tensor_arg(),
            dq.clone().into_tensor_arg(),
            means.clone().into_tensor_arg(),
            spec.window(),
            spec.scale,
            spec.cap(),
            cut,
            held,
        );
        (dq, means)
    }

    fn key_gradients(
        q: GpuTensor,
        k: GpuTensor,
        v: GpuTensor,
        grad: GpuTensor,
        lse: GpuTensor,
        means: GpuTensor,
        tiles: Arc<[u32]>,
        visits: Arc<[u32]>,
        spec: FlashSpec,
    ) -> (GpuTensor, GpuTensor) {
        let inputs = [q, k, v, grad, lse, means].map(into_contiguous);
        let [q, k, v, _, _, _] = &inputs;
        let cut = spec.cut(spec.tiling.n_met_backward, q.client.properties());
        let (dk, dv, held) = (like(k), like(v), element(q));
        let tables = [tiles.clone(), visits].map(|table| words(&table, &dk.device));
        // Sums of both would fill more registers than a lane has.
        let launches: &[Wanted] =
            if cut.d > MAX_HEAD_DIM / 2 { &[Wanted::Values, Wanted::Keys] } else { &[Wanted::Both] };
        for wanted in launches {
            let [q, k, v, grad, lse, means] = inputs.clone().map(|input| input.into_tensor_arg());
            let [tiles_arg, visits] = tables.clone().map(|table| table.into_tensor_arg());
            keys_kernel::launch(
                &dk.client.clone(),
                cubes(tiles.len() / 4 * spec.n_kv_heads),
                units(cut),
                q,
                k,
                v,
                grad,
                lse,
                means,
                tiles_arg,
                visits,
                dk.clone().into_tensor_arg(),
                dv.clone().into_tensor_arg(),
                spec.window(),
                spec.scale,
                spec.cap(),
                *wanted,
                cut,
                held,
            );
        }
        (dk, dv)
    }
}

/// An empty tensor like another.
fn like(tensor: &GpuTensor) -> GpuTensor {
    let held = if element(tensor) == ElemType::Float(FloatKind::BF16) { Precision::Bf16 } else { Precision::F32 };
    beside(tensor, tensor.shape(), held)
}

fn cubes(n: usize) -> CubeCount {
    CubeCount::Static(narrow(n), 1, 1)
}

/// Lanes along x and planes along y, whether a lane is a unit or a plane is one.
fn units(cut: Cut) -> CubeDim {
    CubeDim::new_2d(narrow(PLANE / cut.n_lanes), narrow(cut.n_planes))
}
