//! Log-probabilities of given tokens under rows of logits, and their gradient.

use burn::backend::TensorMetadata;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{GpuTensor, RowLaunch, beside, elements, joined_max, joined_sum, lanes, narrow, words};
use crate::precision::Precision;

pub fn logps(logits: GpuTensor, targets: &[u32], softcap: Option<f32>) -> GpuTensor {
    let out = beside(&logits, [logits.shape()[0]], Precision::F32);
    let (targets, n_lanes) = (words(targets, &logits.device), lanes(&[&logits], logits.shape()[1]));
    let RowLaunch { count, dim, n_units } = RowLaunch::of(&logits);
    let rows = LogitsLaunch::of(&logits, softcap, n_units);
    logps_kernel::launch(
        &logits.client.clone(),
        count,
        dim,
        n_lanes,
        logits.into_tensor_arg(),
        targets.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        rows,
    );
    out
}

pub fn logps_backward(
    logits: GpuTensor,
    grad: GpuTensor,
    targets: &[u32],
    softcap: Option<f32>,
    held: Precision,
) -> GpuTensor {
    let out = beside(&logits, logits.shape(), held);
    let (targets, n_lanes) = (words(targets, &logits.device), lanes(&[&logits], logits.shape()[1]));
    let RowLaunch { count, dim, n_units } = RowLaunch::of(&logits);
    let rows = LogitsLaunch::of(&logits, softcap, n_units);
    logps_backward_kernel::launch(
        &logits.client.clone(),
        count,
        dim,
        n_lanes,
        logits.into_tensor_arg(),
        grad.into_tensor_arg(),
        targets.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        rows,
        elements(held),
    );
    out
}

/// Rows of logits, and how a cube reads one.
#[derive(CubeType, CubeLaunch)]
struct Logits {
    n_columns: u32,
    cap: f32,
    #[cube(comptime)]
    is_capped: bool,
    #[cube(comptime)]
    n_units: usize,
}

impl LogitsLaunch {
    fn of(logits: &CubeTensor, softcap: Option<f32>, n_units: usize) -> Self {
        Self::new(narrow(logits.shape()[1]), softcap.unwrap_or(1.0), softcap.is_some(), n_units)
    }
}

/// The largest of a row and the sum of `exp(x - largest)`, in one reading (Milakov and Gimelshein 2018, "Online normalizer
/// calculation for softmax"). What is not a number stays in the sum.
#[cube]
pub fn largest_and_sum<N: Size>(
    logits: &[Vector<f32, N>],
    n_columns: u32,
    cap: f32,
    shared: &mut Shared<[f32]>,
    #[comptime] is_capped: bool,
) -> (f32, f32) {
    let n_vectors = n_columns as usize / N::value();
    let row = CUBE_POS * n_vectors;
    let mut largest = f32::new(-3.4e38);
    let mut sum = f32::new(0.0);
    let mut at = UNIT_POS as usize;
    while at < n_vectors {
        let x = capped::<N>(logits[row + at], cap, is_capped);
        let before = largest;
        #[unroll]
        for lane in 0..N::value() {
            largest = max(largest, x.extract(lane));
        }
        sum = sum * (before - largest).exp() + (x - Vector::new(largest)).exp().vector_sum();
        at += CUBE_DIM as usize;
    }
    let of_all = joined_max(shared, largest);
    let sum = joined_sum(shared, sum * (largest - of_all).exp());
    (of_all, sum)
}

#[cube]
fn capped<N: Size>(x: Vector<f32, N>, cap: f32, #[comptime] is_capped: bool) -> Vector<f32, N> {
    if is_capped { (x / Vector::new(cap)).tanh() * Vector::new(cap) } else { x }
}

/// Reads a row once.
#[cube(launch)]
fn logps_kernel<N: Size>(logits: &Tensor<Vector<f32, N>>, targets: &Tensor<u32>, out: &mut Tensor<f32>, rows: Logits) {
    let (is_capped, n_units) = comptime!((rows.is_capped, rows.n_units));
    let mut shared = Shared::new_slice(n_units);
    let (largest, sum) = largest_and_sum::<N>(logits, rows.n_columns, rows.cap, &mut shared, is_capped);
    let at = CUBE_POS * rows.n_columns as usize + targets[CUBE_POS] as usize;
    let x = capped::<N>(logits[at / N::value()], rows.cap, is_capped);
    #[unroll]
    for lane in 0..N::value() {
        if UNIT_POS == 0 && at % N::value() == lane {
            out[CUBE_POS] = x.extract(lane) - largest - sum.ln();
        }
    }
}

/// Reads a row twice.
#[cube(launch)]
fn logps_backward_kernel<E: Float, N: Size>(
    logits: &Tensor<Vector<f32, N>>,
    grad: &Tensor<f32>,
    targets: &Tensor<u32>,
    out: &mut Tensor<Vector<E, N>>,
    rows: Logits,
    #[define(E)] _held: ElemType,
) {
    let (is_capped, n_units) = comptime!((rows.is_capped, rows.n_units));
    let mut shared = Shared::new_slice(n_units);
    let (largest, sum) = largest_and_sum::<N>(logits, rows.n_columns, rows.cap, &mut shared, is_capped);
    let n_vectors = rows.n_columns as usize / N::value();
    let row = CUBE_POS * n_vectors;
    let (target, grad) = (targets[CUBE_POS] as usize, grad[CUBE_POS]);
    let mut at = UNIT_POS as usize;
    while at < n_vectors {
        let x = capped::<N>(logits[row + at], rows.cap, is_capped);
        let mut slope = Vector::new(-grad) * (x - Vector::new(largest)).exp() / Vector::new(sum);
        #[unroll]
        for lane in 0..N::value() {
            if at * N::value() + lane == target {
                slope.insert(lane, slope.extract(lane) + grad);
            }
        }
        if is_capped {
            let tanh = x / Vector::new(rows.cap);
            slope *= Vector::new(f32::new(1.0)) - tanh * tanh;
        }
        out[row + at] = Vector::cast_from(slope);
        at += CUBE_DIM as usize;
    }
}
