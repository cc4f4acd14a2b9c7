//! Log-probabilities of given tokens under rows of logits, and their gradient.

use burn::backend::TensorMetadata;
use cubecl::prelude::*;

use super::{GpuTensor, RowLaunch, beside, capped, elements, joined_max, joined_sum, narrow, words};
use crate::precision::Precision;

pub fn logps(logits: GpuTensor, targets: &[u32], softcap: Option<f32>) -> GpuTensor {
    let out = beside(&logits, [logits.shape()[0]], Precision::F32);
    let targets = words(targets, &logits.device);
    let RowLaunch { count, dim, n_units } = RowLaunch::of(&logits);
    let n_columns = narrow(logits.shape()[1]);
    logps_kernel::launch(
        &logits.client.clone(),
        count,
        dim,
        logits.into_tensor_arg(),
        targets.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        n_columns,
        softcap.unwrap_or(1.0),
        softcap.is_some(),
        n_units,
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
    let targets = words(targets, &logits.device);
    let RowLaunch { count, dim, n_units } = RowLaunch::of(&logits);
    let n_columns = narrow(logits.shape()[1]);
    logps_backward_kernel::launch(
        &logits.client.clone(),
        count,
        dim,
        logits.into_tensor_arg(),
        grad.into_tensor_arg(),
        targets.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        n_columns,
        softcap.unwrap_or(1.0),
        softcap.is_some(),
        n_units,
        elements(held),
    );
    out
}

/// The largest of a row and the sum of `exp(x - largest)`, in one reading (Milakov and Gimelshein 2018, "Online normalizer
/// calculation for softmax").
#[cube]
pub fn largest_and_sum(
    logits: &Tensor<f32>,
    n_columns: u32,
    cap: f32,
    shared: &mut Shared<[f32]>,
    #[comptime] is_capped: bool,
) -> (f32, f32) {
    let row = CUBE_POS * n_columns as usize;
    let mut largest = f32::new(-3.4e38);
    let mut sum = f32::new(0.0);
    let mut at = UNIT_POS;
    while at < n_columns {
        let x = capped(logits[row + at as usize], cap, is_capped);
        if x > largest {
            sum = sum * (largest - x).exp() + f32::new(1.0);
            largest = x;
        } else {
            // What is not a number comes here and stays in the sum.
            sum += (x - largest).exp();
        }
        at += CUBE_DIM;
    }
    let of_all = joined_max(shared, largest);
    let sum = joined_sum(shared, sum * (largest - of_all).exp());
    (of_all, sum)
}

/// Reads a row once.
#[cube(launch)]
fn logps_kernel(
    logits: &Tensor<f32>,
    targets: &Tensor<u32>,
    out: &mut Tensor<f32>,
    n_columns: u32,
    cap: f32,
    #[comptime] is_capped: bool,
    #[comptime] n_units: usize,
) {
    let mut shared = Shared::new_slice(n_units);
    let (largest, sum) = largest_and_sum(logits, n_columns, cap, &mut shared, is_capped);
    if UNIT_POS == 0 {
        let at = CUBE_POS * n_columns as usize + targets[CUBE_POS] as usize;
        out[CUBE_POS] = capped(logits[at], cap, is_capped) - largest - sum.ln();
    }
}

/// Reads a row twice.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a launch has one argument a number")]
fn logps_backward_kernel<E: Float>(
    logits: &Tensor<f32>,
    grad: &Tensor<f32>,
    targets: &Tensor<u32>,
    out: &mut Tensor<E>,
    n_columns: u32,
    cap: f32,
    #[comptime] is_capped: bool,
    #[comptime] n_units: usize,
    #[define(E)] _held: ElemType,
) {
    let mut shared = Shared::new_slice(n_units);
    let (largest, sum) = largest_and_sum(logits, n_columns, cap, &mut shared, is_capped);
    let row = CUBE_POS * n_columns as usize;
    let (target, grad) = (targets[CUBE_POS], grad[CUBE_POS]);
    let mut at = UNIT_POS;
    while at < n_columns {
        let x = capped(logits[row + at as usize], cap, is_capped);
        let mut slope = -grad * (x - largest).exp() / sum;
        if at == target {
            slope += grad;
        }
        if is_capped {
            let tanh = x / cap;
            slope *= f32::new(1.0) - tanh * tanh;
        }
        out[row + at as usize] = E::cast_from(slope);
        at += CUBE_DIM;
    }
}
