//! The row operations as CubeCL kernels.
//!
//! Owns one cube of units for each row: its units stride over the columns, and what they find is joined in shared memory in
//! an order that depends on nothing but the number of units. Launches are the checked ones, which keep every access in
//! bounds. A row is read from memory as often as its kernel's comment says.

mod attention;
mod draw;
mod head;
mod rope;

use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::ops::IntTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Shape, TensorData};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::ops::numeric::empty_device_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

use super::{DrawSpec, Rows, ScoreSpec};
use crate::precision::Precision;

type GpuTensor = FloatTensor<CubeBackend>;

/// Units of a cube, at most; a power of two.
const MAX_UNITS: u32 = 256;

/// Units of a cube, at least, where the device allows as many: those that a GPU runs together.
const FEWEST_UNITS: usize = 32;

impl Rows for CubeBackend {
    fn product(lhs: GpuTensor, rhs: GpuTensor) -> GpuTensor {
        matmul(lhs, rhs, None, MatmulStrategy::default(), DType::F32)
            .expect("the backend has a product for any two matrices that fit each other")
    }

    fn weights(scores: GpuTensor, starts: Arc<[u32]>, spec: ScoreSpec, held: Precision) -> (GpuTensor, GpuTensor) {
        attention::weights(into_contiguous(scores), &starts, spec, held)
    }

    fn weights_backward(
        scores: GpuTensor,
        lse: GpuTensor,
        grad: GpuTensor,
        starts: Arc<[u32]>,
        spec: ScoreSpec,
        held: Precision,
    ) -> (GpuTensor, GpuTensor) {
        let [scores, lse, grad] = [scores, lse, grad].map(into_contiguous);
        attention::weights_backward(scores, lse, grad, &starts, spec, held)
    }

    fn turned(
        x: GpuTensor,
        cos: GpuTensor,
        sin: GpuTensor,
        positions: Arc<[u32]>,
        direction: f32,
        held: Precision,
    ) -> GpuTensor {
        let [x, cos, sin] = [x, cos, sin].map(into_contiguous);
        rope::turned(x, [cos, sin], &positions, direction, held)
    }

    fn logps(logits: GpuTensor, targets: Arc<[u32]>, softcap: Option<f32>) -> GpuTensor {
        head::logps(into_contiguous(logits), &targets, softcap)
    }

    fn logps_backward(
        logits: GpuTensor,
        grad: GpuTensor,
        targets: Arc<[u32]>,
        softcap: Option<f32>,
        held: Precision,
    ) -> GpuTensor {
        head::logps_backward(into_contiguous(logits), into_contiguous(grad), &targets, softcap, held)
    }

    fn drawn(logits: GpuTensor, uniforms: Arc<[f32]>, spec: Option<DrawSpec>) -> GpuTensor {
        draw::drawn(into_contiguous(logits), &uniforms, spec)
    }
}

/// How many cubes of how many units a matrix takes.
pub struct RowLaunch {
    pub count: CubeCount,
    pub dim: CubeDim,
    pub n_units: usize,
}

impl RowLaunch {
    pub fn of(matrix: &CubeTensor) -> Self {
        let most = matrix.client.properties().hardware.max_units_per_cube.clamp(1, MAX_UNITS);
        // Of what the device allows, the power of two.
        let n_units = if most.is_power_of_two() { most } else { most.next_power_of_two() / 2 };
        let n_rows = narrow(matrix.shape()[0]);
        Self { count: CubeCount::Static(n_rows, 1, 1), dim: CubeDim::new_1d(n_units), n_units: n_units as usize }
    }

    /// For rows that are read in vectors of `n_lanes`: a unit has two to four of them, but in the narrowest rows.
    pub fn of_vectors(matrix: &CubeTensor, n_lanes: usize) -> Self {
        let Self { count, dim: _, n_units } = Self::of(matrix);
        let n_vectors = (matrix.shape()[1] / n_lanes).max(1);
        let n_units = (n_vectors.next_power_of_two() / 4).max(FEWEST_UNITS).min(n_units);
        Self { count, dim: CubeDim::new_1d(narrow(n_units)), n_units }
    }
}

pub fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

pub fn elements(held: Precision) -> ElemType {
    ElemType::Float(match held {
        Precision::F32 => FloatKind::F32,
        Precision::Bf16 => FloatKind::BF16,
    })
}

pub fn element(tensor: &CubeTensor) -> ElemType {
    elements(if tensor.dtype == DType::BF16 { Precision::Bf16 } else { Precision::F32 })
}

/// How many neighbouring numbers a unit reads and writes together: 16 bytes of the widest of the tensors, or the part of that
/// which divides the `width` of what lies end to end. Memory is as fast as many readings are under way, and the fewer
/// instructions each takes, the more of them are.
pub fn lanes(tensors: &[&CubeTensor], width: usize) -> usize {
    let widest = tensors.iter().map(|tensor| tensor.dtype.size()).max().unwrap_or(1);
    let mut n_lanes = (16 / widest).max(1);
    while !width.is_multiple_of(n_lanes) {
        n_lanes /= 2;
    }
    n_lanes
}

/// An empty tensor on the device of another.
pub fn beside(tensor: &CubeTensor, shape: impl Into<Shape>, held: Precision) -> CubeTensor {
    empty_device_dtype(tensor.client.clone(), tensor.device.clone(), shape.into(), held.dtype())
}

pub fn words(words: &[u32], device: &CubeDevice) -> CubeTensor {
    CubeBackend::int_from_data(TensorData::new(words.to_vec(), [words.len()]), device)
}

/// The sum over the cube's units, in the same order each time.
#[cube]
pub fn joined_sum(shared: &mut Shared<[f32]>, value: f32) -> f32 {
    sync_cube();
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut n_active = CUBE_DIM / 2;
    while n_active > 0 {
        if UNIT_POS < n_active {
            let other = shared[(UNIT_POS + n_active) as usize];
            shared[UNIT_POS as usize] += other;
        }
        sync_cube();
        n_active /= 2;
    }
    shared[0]
}

/// The largest over the cube's units.
#[cube]
pub fn joined_max(shared: &mut Shared<[f32]>, value: f32) -> f32 {
    sync_cube();
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut n_active = CUBE_DIM / 2;
    while n_active > 0 {
        if UNIT_POS < n_active {
            let other = shared[(UNIT_POS + n_active) as usize];
            let own = shared[UNIT_POS as usize];
            shared[UNIT_POS as usize] = max(own, other);
        }
        sync_cube();
        n_active /= 2;
    }
    shared[0]
}

#[cube]
pub fn capped(x: f32, cap: f32, #[comptime] is_capped: bool) -> f32 {
    if is_capped { (x / cap).tanh() * cap } else { x }
}
