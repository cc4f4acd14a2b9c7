//! The root-mean-square norm: a cube for each row, whose sums are joined in an order that depends on nothing but the number
//! of units.

use cubecl::prelude::*;

use super::{GpuTensor, TensorMetadata, element, like, wide};
use crate::kernel::RmsNormSpec;
use crate::kernel::rows::cube::{RowLaunch, joined_sum, narrow};

/// Rows whose share of the weight's gradient is summed by one cube.
const PART: usize = 64;

/// Parts that the weight's gradient comes in.
pub fn n_parts(n_rows: usize) -> usize {
    n_rows.div_ceil(PART).max(1)
}

pub fn forward(x: GpuTensor, weight: GpuTensor, spec: RmsNormSpec) -> GpuTensor {
    let RmsNormSpec { epsilon, offset } = spec;
    let out = like(&x);
    let RowLaunch { count, dim, n_units } = RowLaunch::of(&x);
    let types = [element(&x), element(&weight)];
    forward_kernel::launch(
        &out.client.clone(),
        count,
        dim,
        x.into_tensor_arg(),
        weight.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        narrow(out.shape()[1]),
        epsilon,
        offset,
        offset == 0.0,
        n_units,
        types,
    );
    out
}

pub fn backward(x: GpuTensor, weight: GpuTensor, grad: GpuTensor, spec: RmsNormSpec) -> (GpuTensor, GpuTensor) {
    let RmsNormSpec { epsilon, offset } = spec;
    let [n, d] = [x.shape()[0], x.shape()[1]];
    let (dx, inverse_rms, parts) = (like(&x), wide(&x, [n]), wide(&x, [n_parts(n), d]));
    let RowLaunch { count, dim, n_units } = RowLaunch::of(&x);
    let types = [element(&x), element(&weight)];
    let client = x.client.clone();
    backward_kernel::launch(
        &client,
        count,
        dim,
        x.clone().into_tensor_arg(),
        weight.into_tensor_arg(),
        grad.clone().into_tensor_arg(),
        dx.clone().into_tensor_arg(),
        inverse_rms.clone().into_tensor_arg(),
        narrow(d),
        epsilon,
        offset,
        n_units,
        types,
    );
    let n_units = narrow(n_units);
    weight_kernel::launch(
        &client,
        CubeCount::Static(narrow(d).div_ceil(n_units), narrow(n_parts(n)), 1),
        CubeDim::new_1d(n_units),
        x.into_tensor_arg(),
        grad.into_tensor_arg(),
        inverse_rms.into_tensor_arg(),
        parts.clone().into_tensor_arg(),
        narrow(n),
        narrow(d),
        types[0],
    );
    (dx, parts)
}

/// Reads a row twice. The published Llama, which has no offset, also rounds before the weight.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a launch has one argument a number")]
fn forward_kernel<E: Float, W: Float>(
    x: &Tensor<E>,
    weight: &Tensor<W>,
    out: &mut Tensor<E>,
    n_columns: u32,
    epsilon: f32,
    offset: f32,
    #[comptime] rounds_before: bool,
    #[comptime] n_units: usize,
    #[define(E, W)] _types: [ElemType; 2],
) {
    let mut shared = Shared::new_slice(n_units);
    let row = CUBE_POS * n_columns as usize;
    let mut sum = f32::new(0.0);
    let mut at = UNIT_POS;
    while at < n_columns {
        let value = f32::cast_from(x[row + at as usize]);
        sum += value * value;
        at += CUBE_DIM;
    }
    let mean = joined_sum(&mut shared, sum) / f32::cast_from(n_columns);
    let rms = (mean + epsilon).sqrt();
    let mut at = UNIT_POS;
    while at < n_columns {
        let mut normed = f32::cast_from(x[row + at as usize]) / rms;
        if rounds_before {
            normed = f32::cast_from(E::cast_from(normed));
        }
        let factor = f32::cast_from(weight[at as usize]) + offset;
        out[row + at as usize] = E::cast_from(normed * factor);
        at += CUBE_DIM;
    }
}

/// With `s = grad · (offset + weight)` and `r = 1 / rms(x)`: `dx = r · (s − x · r² · mean(s · x))`. Reads each row twice.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a launch has one argument a number")]
fn backward_kernel<E: Float, W: Float>(
    x: &Tensor<E>,
    weight: &Tensor<W>,
    grad: &Tensor<E>,
    dx: &mut Tensor<E>,
    inverse_rms: &mut Tensor<f32>,
    n_columns: u32,
    epsilon: f32,
    offset: f32,
    #[comptime] n_units: usize,
    #[define(E, W)] _types: [ElemType; 2],
) {
    let mut shared = Shared::new_slice(n_units);
    let row = CUBE_POS * n_columns as usize;
    let mut squares = f32::new(0.0);
    let mut products = f32::new(0.0);
    let mut at = UNIT_POS;
    while at < n_columns {
        let value = f32::cast_from(x[row + at as usize]);
        let scaled = f32::cast_from(grad[row + at as usize]) * (f32::cast_from(weight[at as usize]) + offset);
        squares += value * value;
        products += scaled * value;
        at += CUBE_DIM;
    }
    let width = f32::cast_from(n_columns);
    let mean = joined_sum(&mut shared, squares) / width;
    let r = f32::new(1.0) / (mean + epsilon).sqrt();
    let slope = joined_sum(&mut shared, products) / width * r * r;
    if UNIT_POS == 0 {
        inverse_rms[CUBE_POS] = r;
    }
    let mut at = UNIT_POS;
    while at < n_columns {
        let value = f32::cast_from(x[row + at as usize]);
        let scaled = f32::cast_from(grad[row + at as usize]) * (f32::cast_from(weight[at as usize]) + offset);
        dx[row + at as usize] = E::cast_from(r * (scaled - value * slope));
        at += CUBE_DIM;
    }
}

/// `Σ grad · x · r` over [`PART`] rows, a unit for each column.
#[cube(launch)]
fn weight_kernel<E: Float>(
    x: &Tensor<E>,
    grad: &Tensor<E>,
    inverse_rms: &Tensor<f32>,
    parts: &mut Tensor<f32>,
    n_rows: u32,
    n_columns: u32,
    #[define(E)] _type: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM + UNIT_POS;
    let part = CUBE_POS_Y;
    if column < n_columns {
        let mut sum = f32::new(0.0);
        let mut row = part * comptime!(PART as u32);
        let end = min(row + comptime!(PART as u32), n_rows);
        while row < end {
            let at = row as usize * n_columns as usize + column as usize;
            sum += f32::cast_from(grad[at]) * f32::cast_from(x[at]) * inverse_rms[row as usize];
            row += 1;
        }
        parts[part as usize * n_columns as usize + column as usize] = sum;
    }
}
