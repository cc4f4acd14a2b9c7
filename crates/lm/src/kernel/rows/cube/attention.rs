//! Attention weights of a block of scores, and their gradient.

use burn::backend::TensorMetadata;
use cubecl::prelude::*;

use super::{GpuTensor, RowLaunch, beside, capped, elements, joined_max, joined_sum, narrow, words};
use crate::kernel::rows::ScoreSpec;
use crate::precision::Precision;

pub fn weights(scores: GpuTensor, starts: &[u32], spec: ScoreSpec, held: Precision) -> (GpuTensor, GpuTensor) {
    let out = beside(&scores, scores.shape(), held);
    let lse = beside(&scores, [scores.shape()[0]], Precision::F32);
    let starts = words(starts, &scores.device);
    let RowLaunch { count, dim, n_units } = RowLaunch::of(&scores);
    let ScoreArgs { n_columns, n_rows, n_queries, first_key, window, scale, cap, is_capped } =
        ScoreArgs::new(&scores, spec);
    weights_kernel::launch(
        &scores.client.clone(),
        count,
        dim,
        scores.into_tensor_arg(),
        starts.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        lse.clone().into_tensor_arg(),
        n_columns,
        n_rows,
        n_queries,
        first_key,
        window,
        scale,
        cap,
        is_capped,
        n_units,
        elements(held),
    );
    (out, lse)
}

pub fn weights_backward(
    scores: GpuTensor,
    lse: GpuTensor,
    grad: GpuTensor,
    starts: &[u32],
    spec: ScoreSpec,
    held: Precision,
) -> (GpuTensor, GpuTensor) {
    let [weights, out] = [(); 2].map(|()| beside(&scores, scores.shape(), held));
    let starts = words(starts, &scores.device);
    let RowLaunch { count, dim, n_units } = RowLaunch::of(&scores);
    let ScoreArgs { n_columns, n_rows, n_queries, first_key, window, scale, cap, is_capped } =
        ScoreArgs::new(&scores, spec);
    weights_backward_kernel::launch(
        &scores.client.clone(),
        count,
        dim,
        scores.into_tensor_arg(),
        lse.into_tensor_arg(),
        grad.into_tensor_arg(),
        starts.into_tensor_arg(),
        weights.clone().into_tensor_arg(),
        out.clone().into_tensor_arg(),
        n_columns,
        n_rows,
        n_queries,
        first_key,
        window,
        scale,
        cap,
        is_capped,
        n_units,
        elements(held),
    );
    (weights, out)
}

/// A [`ScoreSpec`] as a kernel takes it.
struct ScoreArgs {
    n_columns: u32,
    /// Of one sequence.
    n_rows: u32,
    n_queries: u32,
    first_key: u32,
    /// Larger than any row where there is none.
    window: u32,
    scale: f32,
    cap: f32,
    is_capped: bool,
}

impl ScoreArgs {
    fn new(scores: &GpuTensor, spec: ScoreSpec) -> Self {
        let ScoreSpec { n_heads, n_queries, first_key, window, scale, softcap } = spec;
        Self {
            n_columns: narrow(scores.shape()[1]),
            n_rows: narrow(n_heads * n_queries),
            n_queries: narrow(n_queries),
            first_key: narrow(first_key),
            window: window.map_or(u32::MAX, narrow),
            scale,
            cap: softcap.unwrap_or(1.0),
            is_capped: softcap.is_some(),
        }
    }
}

/// First and last visible column of this cube's row.
#[cube]
fn visible(
    starts: &Tensor<u32>,
    n_columns: u32,
    n_rows: u32,
    n_queries: u32,
    first_key: u32,
    window: u32,
) -> (u32, u32) {
    let row = CUBE_POS as u32;
    let position = starts[(row / n_rows) as usize] + row % n_queries;
    let last = min(position - first_key, n_columns - 1);
    let mut first = u32::new(0);
    if last >= window {
        first = last - window + 1;
    }
    (first, last)
}

/// Reads a row three times.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a launch has one argument a number")]
fn weights_kernel<E: Float>(
    scores: &Tensor<f32>,
    starts: &Tensor<u32>,
    out: &mut Tensor<E>,
    lse: &mut Tensor<f32>,
    n_columns: u32,
    n_rows: u32,
    n_queries: u32,
    first_key: u32,
    window: u32,
    scale: f32,
    cap: f32,
    #[comptime] is_capped: bool,
    #[comptime] n_units: usize,
    #[define(E)] _held: ElemType,
) {
    let mut shared = Shared::new_slice(n_units);
    let row = CUBE_POS * n_columns as usize;
    let (first, last) = visible(starts, n_columns, n_rows, n_queries, first_key, window);
    let mut largest = f32::new(-3.4e38);
    let mut at = first + UNIT_POS;
    while at <= last {
        largest = max(largest, capped(scores[row + at as usize] * scale, cap, is_capped));
        at += CUBE_DIM;
    }
    let largest = joined_max(&mut shared, largest);
    let mut sum = f32::new(0.0);
    let mut at = first + UNIT_POS;
    while at <= last {
        sum += (capped(scores[row + at as usize] * scale, cap, is_capped) - largest).exp();
        at += CUBE_DIM;
    }
    let sum = joined_sum(&mut shared, sum);
    if UNIT_POS == 0 {
        lse[CUBE_POS] = largest + sum.ln();
    }
    let mut at = UNIT_POS;
    while at < n_columns {
        let mut weight = f32::new(0.0);
        if at >= first && at <= last {
            weight = (capped(scores[row + at as usize] * scale, cap, is_capped) - largest).exp() / sum;
        }
        out[row + at as usize] = E::cast_from(weight);
        at += CUBE_DIM;
    }
}

/// Reads a row of scores and one of gradients twice.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a launch has one argument a number")]
fn weights_backward_kernel<E: Float>(
    scores: &Tensor<f32>,
    lse: &Tensor<f32>,
    grad: &Tensor<f32>,
    starts: &Tensor<u32>,
    weights: &mut Tensor<E>,
    out: &mut Tensor<E>,
    n_columns: u32,
    n_rows: u32,
    n_queries: u32,
    first_key: u32,
    window: u32,
    scale: f32,
    cap: f32,
    #[comptime] is_capped: bool,
    #[comptime] n_units: usize,
    #[define(E)] _held: ElemType,
) {
    let mut shared = Shared::new_slice(n_units);
    let row = CUBE_POS * n_columns as usize;
    let (first, last) = visible(starts, n_columns, n_rows, n_queries, first_key, window);
    let lse = lse[CUBE_POS];
    let mut mean = f32::new(0.0);
    let mut at = first + UNIT_POS;
    while at <= last {
        let weight = (capped(scores[row + at as usize] * scale, cap, is_capped) - lse).exp();
        mean += weight * grad[row + at as usize];
        at += CUBE_DIM;
    }
    let mean = joined_sum(&mut shared, mean);
    let mut at = UNIT_POS;
    while at < n_columns {
        let mut weight = f32::new(0.0);
        let mut slope = f32::new(0.0);
        if at >= first && at <= last {
            let score = capped(scores[row + at as usize] * scale, cap, is_capped);
            weight = (score - lse).exp();
            slope = weight * (grad[row + at as usize] - mean) * scale;
            if is_capped {
                let tanh = score / cap;
                slope *= f32::new(1.0) - tanh * tanh;
            }
        }
        weights[row + at as usize] = E::cast_from(weight);
        out[row + at as usize] = E::cast_from(slope);
        at += CUBE_DIM;
    }
}
