//! Attention weights of a block of scores, and their gradient.
//!
//! Scores are in f32 already, so that neighbouring units read whole lines of memory with a number each; what a row sees begins
//! and ends anywhere, so vectors would have their first and last lanes masked at each reading.

use burn::backend::TensorMetadata;
use cubecl::prelude::*;

use super::{GpuTensor, RowLaunch, beside, capped, elements, joined_max, joined_sum, narrow, words};
use crate::kernel::rows::ScoreSpec;
use crate::precision::Precision;

pub fn weights(scores: GpuTensor, starts: &[u32], spec: ScoreSpec, held: Precision) -> (GpuTensor, GpuTensor) {
    let out = beside(&scores, scores.shape(), held);
    let lse = beside(&scores, [scores.shape()[0]], Precision::F32);
    let RowLaunch { count, dim, n_units } = RowLaunch::of(&scores);
    let rows = RowsLaunch::of(&scores, starts, spec, n_units);
    weights_kernel::launch(
        &scores.client.clone(),
        count,
        dim,
        scores.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        lse.clone().into_tensor_arg(),
        rows,
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
    let RowLaunch { count, dim, n_units } = RowLaunch::of(&scores);
    let rows = RowsLaunch::of(&scores, starts, spec, n_units);
    weights_backward_kernel::launch(
        &scores.client.clone(),
        count,
        dim,
        scores.into_tensor_arg(),
        lse.into_tensor_arg(),
        grad.into_tensor_arg(),
        weights.clone().into_tensor_arg(),
        out.clone().into_tensor_arg(),
        rows,
        elements(held),
    );
    (weights, out)
}

/// A [`ScoreSpec`] and the rows it is about, as a kernel takes them.
#[derive(CubeType, CubeLaunch)]
struct Rows {
    /// Positions of the sequences' first queries.
    starts: Box<[u32]>,
    n_columns: u32,
    /// Of one sequence.
    n_rows: u32,
    n_queries: u32,
    first_key: u32,
    /// Larger than any row where there is none.
    window: u32,
    scale: f32,
    cap: f32,
    #[cube(comptime)]
    is_capped: bool,
    #[cube(comptime)]
    n_units: usize,
}

impl RowsLaunch {
    fn of(scores: &GpuTensor, starts: &[u32], spec: ScoreSpec, n_units: usize) -> Self {
        let ScoreSpec { n_heads, n_queries, first_key, window, scale, softcap } = spec;
        Self {
            starts: words(starts, &scores.device).into_buffer_arg(),
            n_columns: narrow(scores.shape()[1]),
            n_rows: narrow(n_heads * n_queries),
            n_queries: narrow(n_queries),
            first_key: narrow(first_key),
            window: window.map_or(u32::MAX, narrow),
            scale,
            cap: softcap.unwrap_or(1.0),
            is_capped: softcap.is_some(),
            n_units,
        }
    }
}

#[cube]
impl Rows {
    /// First and last visible column of this cube's row.
    fn visible(&self) -> (u32, u32) {
        let row = CUBE_POS as u32;
        let position = self.starts[(row / self.n_rows) as usize] + row % self.n_queries;
        let last = min(position - self.first_key, self.n_columns - 1);
        let mut first = u32::new(0);
        if last >= self.window {
            first = last - self.window + 1;
        }
        (first, last)
    }

    /// A score as the softmax takes it.
    fn score(&self, raw: f32) -> f32 {
        capped(raw * self.scale, self.cap, comptime!(self.is_capped))
    }
}

/// Reads a row twice: largest and sum come from one reading, as in `head.rs`.
#[cube(launch)]
fn weights_kernel<E: Float>(
    scores: &Tensor<f32>,
    out: &mut Tensor<E>,
    lse: &mut Tensor<f32>,
    rows: Rows,
    #[define(E)] _held: ElemType,
) {
    let mut shared = Shared::new_slice(comptime!(rows.n_units));
    let row = CUBE_POS * rows.n_columns as usize;
    let (first, last) = rows.visible();
    let mut largest = f32::new(-3.4e38);
    let mut sum = f32::new(0.0);
    let mut at = first + UNIT_POS;
    while at <= last {
        let score = rows.score(scores[row + at as usize]);
        let before = largest;
        largest = max(largest, score);
        sum = sum * (before - largest).exp() + (score - largest).exp();
        at += CUBE_DIM;
    }
    let of_all = joined_max(&mut shared, largest);
    let sum = joined_sum(&mut shared, sum * (largest - of_all).exp());
    if UNIT_POS == 0 {
        lse[CUBE_POS] = of_all + sum.ln();
    }
    let mut at = UNIT_POS;
    while at < rows.n_columns {
        let mut weight = f32::new(0.0);
        if at >= first && at <= last {
            weight = (rows.score(scores[row + at as usize]) - of_all).exp() / sum;
        }
        out[row + at as usize] = E::cast_from(weight);
        at += CUBE_DIM;
    }
}

/// Reads a row of scores and one of gradients twice.
#[cube(launch)]
fn weights_backward_kernel<E: Float>(
    scores: &Tensor<f32>,
    lse: &Tensor<f32>,
    grad: &Tensor<f32>,
    weights: &mut Tensor<E>,
    out: &mut Tensor<E>,
    rows: Rows,
    #[define(E)] _held: ElemType,
) {
    let mut shared = Shared::new_slice(comptime!(rows.n_units));
    let row = CUBE_POS * rows.n_columns as usize;
    let (first, last) = rows.visible();
    let lse = lse[CUBE_POS];
    let mut mean = f32::new(0.0);
    let mut at = first + UNIT_POS;
    while at <= last {
        let weight = (rows.score(scores[row + at as usize]) - lse).exp();
        mean += weight * grad[row + at as usize];
        at += CUBE_DIM;
    }
    let mean = joined_sum(&mut shared, mean);
    let mut at = UNIT_POS;
    while at < rows.n_columns {
        let mut weight = f32::new(0.0);
        let mut slope = f32::new(0.0);
        if at >= first && at <= last {
            let score = rows.score(scores[row + at as usize]);
            weight = (score - lse).exp();
            slope = weight * (grad[row + at as usize] - mean) * rows.scale;
            if comptime!(rows.is_capped) {
                let tanh = score / rows.cap;
                slope *= f32::new(1.0) - tanh * tanh;
            }
        }
        weights[row + at as usize] = E::cast_from(weight);
        out[row + at as usize] = E::cast_from(slope);
        at += CUBE_DIM;
    }
}
