//! A token drawn from each row of logits.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::TensorData;
use burn_cubecl::CubeBackend;
use cubecl::prelude::*;

use super::head::largest_and_sum;
use super::{GpuTensor, RowLaunch, beside, joined_sum, narrow};
use crate::kernel::rows::{DrawSpec, LOWEST};
use crate::precision::Precision;

pub fn drawn(logits: GpuTensor, uniforms: &[f32], spec: Option<DrawSpec>) -> GpuTensor {
    let out = beside(&logits, [logits.shape()[0], 2], Precision::F32);
    let uniforms = CubeBackend::float_from_data(TensorData::new(uniforms.to_vec(), [uniforms.len()]), &logits.device);
    let RowLaunch { count, dim, n_units } = RowLaunch::of(&logits);
    let n_columns = narrow(logits.shape()[1]);
    let draw = DrawLaunch::of(n_columns, spec, n_units);
    draw_kernel::launch(
        &logits.client.clone(),
        count,
        dim,
        logits.into_tensor_arg(),
        uniforms.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        draw,
    );
    out
}

/// A [`DrawSpec`] and the rows it meets, as a kernel takes them.
#[derive(CubeType, CubeLaunch)]
struct Draw {
    n_columns: u32,
    temperature: f32,
    /// 0 where their number is no limit.
    top_k: u32,
    /// 1 where their weight is no limit.
    top_p: f32,
    min_score: f32,
    #[cube(comptime)]
    is_greedy: bool,
    #[cube(comptime)]
    n_units: usize,
}

impl DrawLaunch {
    fn of(n_columns: u32, spec: Option<DrawSpec>, n_units: usize) -> Self {
        let open = DrawSpec { temperature: 1.0, top_k: None, top_p: None, min_p: None };
        let DrawSpec { temperature, top_k, top_p, min_p } = spec.unwrap_or(open);
        Self {
            n_columns,
            temperature,
            top_k: top_k.map(narrow).filter(|k| *k < n_columns).unwrap_or(0),
            top_p: top_p.unwrap_or(1.0),
            min_score: min_p.filter(|p| *p > 0.0).map_or(-f32::INFINITY, f32::ln),
            is_greedy: spec.is_none(),
            n_units,
        }
    }
}

/// Floors that are tried in one reading of a row.
const N_TRIED: u32 = 15;

/// Readings that bring a range of [`LOWEST`] down to what neighbouring floats are apart.
const N_READINGS: u32 = 11;

/// The highest score below which nothing is missed: where the tokens at or above it are `wanted` in number, or in weight.
#[cube]
fn floor_of(
    logits: &Tensor<f32>,
    draw: &Draw,
    largest: f32,
    above: f32,
    wanted: f32,
    shared: &mut Shared<[f32]>,
    #[comptime] by_weight: bool,
) -> f32 {
    let row = CUBE_POS * draw.n_columns as usize;
    let mut low = -f32::new(LOWEST);
    let mut width = f32::new(LOWEST);
    for _ in 0..N_READINGS {
        let step = width / f32::new(16.0);
        let mut found = Array::<f32>::new(comptime!(N_TRIED as usize));
        #[unroll]
        for tried in 0..N_TRIED {
            found[tried as usize] = f32::new(0.0);
        }
        let mut at = UNIT_POS;
        while at < draw.n_columns {
            let score = (logits[row + at as usize] - largest) / draw.temperature;
            if score > low && score >= above {
                let mut weight = f32::new(1.0);
                if by_weight {
                    weight = score.exp();
                }
                #[unroll]
                for tried in 0..N_TRIED {
                    if score >= low + step * f32::cast_from(tried + 1) {
                        found[tried as usize] += weight;
                    }
                }
            }
            at += CUBE_DIM;
        }
        // Fewer are found the higher the floor: the last that has enough is the new lower end.
        let mut n_enough = f32::new(0.0);
        #[unroll]
        for tried in 0..N_TRIED {
            if joined_sum(shared, found[tried as usize]) >= wanted {
                n_enough += f32::new(1.0);
            }
        }
        low += step * n_enough;
        width = step;
    }
    low
}

/// Reads a row three times where nothing is filtered, and eleven times more for each of `top_k` and `top_p`.
#[cube(launch)]
fn draw_kernel(logits: &Tensor<f32>, uniforms: &Tensor<f32>, out: &mut Tensor<f32>, draw: Draw) {
    let (is_greedy, n_columns) = (comptime!(draw.is_greedy), draw.n_columns);
    let mut shared = Shared::new_slice(comptime!(draw.n_units));
    let numbers = logits.as_vectorized();
    let (largest, sum) = largest_and_sum(numbers, n_columns, f32::new(1.0), &mut shared, false);
    let row = CUBE_POS * n_columns as usize;
    let none = -f32::new(2.0 * LOWEST);
    let mut floor = none;
    if draw.top_k > 0 {
        let wanted = f32::cast_from(draw.top_k);
        floor = max(floor, floor_of(logits, &draw, largest, none, wanted, &mut shared, false));
    }
    if draw.top_p < f32::new(1.0) {
        let mut left = f32::new(0.0);
        let mut at = UNIT_POS;
        while at < n_columns {
            let score = (logits[row + at as usize] - largest) / draw.temperature;
            if score >= floor {
                left += score.exp();
            }
            at += CUBE_DIM;
        }
        let wanted = joined_sum(&mut shared, left) * draw.top_p;
        floor = max(floor, floor_of(logits, &draw, largest, floor, wanted, &mut shared, true));
    }
    floor = max(floor, draw.min_score);

    // Each unit has a stretch of neighbouring ids, so that sums run in the order of the ids.
    let stretch = (n_columns - 1) / CUBE_DIM + 1;
    let first = min(UNIT_POS * stretch, n_columns);
    let end = min(first + stretch, n_columns);
    let mut best = f32::new(-3.4e38);
    let mut chosen = n_columns - 1;
    let mut weight = f32::new(0.0);
    let mut at = first;
    while at < end {
        let score = (logits[row + at as usize] - largest) / draw.temperature;
        if score >= floor {
            weight += score.exp();
            if score > best {
                best = score;
                chosen = at;
            }
        }
        at += 1;
    }
    sync_cube();
    if is_greedy {
        shared[UNIT_POS as usize] = best;
    } else {
        shared[UNIT_POS as usize] = weight;
    }
    sync_cube();
    let mut owner = u32::new(0);
    if is_greedy {
        // Of equal logits the first.
        let mut of_all = f32::new(-3.4e38);
        for unit in 0..CUBE_DIM {
            if shared[unit as usize] > of_all {
                of_all = shared[unit as usize];
                owner = unit;
            }
        }
    } else {
        let mut total = f32::new(0.0);
        for unit in 0..CUBE_DIM {
            total += shared[unit as usize];
        }
        let target = uniforms[CUBE_POS] * total;
        let mut before = f32::new(0.0);
        let mut start = f32::new(0.0);
        // The last stretch that weighs anything, where rounding leaves a crumb after it.
        for unit in 0..CUBE_DIM {
            let own = shared[unit as usize];
            if own > f32::new(0.0) && before <= target {
                owner = unit;
                start = before;
            }
            before += own;
        }
        if UNIT_POS == owner {
            let mut left = target - start;
            let mut is_found = false;
            let mut at = first;
            while at < end {
                let score = (logits[row + at as usize] - largest) / draw.temperature;
                let own = score.exp();
                if score >= floor && own > f32::new(0.0) && !is_found {
                    chosen = at;
                    left -= own;
                    is_found = left < f32::new(0.0);
                }
                at += 1;
            }
        }
    }
    if UNIT_POS == owner {
        out[2 * CUBE_POS] = f32::cast_from(chosen);
        out[2 * CUBE_POS + 1] = logits[row + chosen as usize] - largest - sum.ln();
    }
}
