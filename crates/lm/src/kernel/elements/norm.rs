//! The root-mean-square norm: a cube for each row, whose sums are joined in an order that depends on nothing but the number
//! of units. A row is read twice, the second time from the cache: it is some kilobytes, and its cube has just read it. Held in
//! registers between the two it would be read once, by loops that are unrolled for each width.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{GpuTensor, TensorMetadata, element, lanes, like, wide};
use crate::kernel::RmsNormSpec;
use crate::kernel::rows::cube::{RowLaunch, joined_sum, narrow};

/// Rows whose share of the weight's gradient is summed by one cube.
const PART: usize = 64;

/// Units of such a cube, at most: few, since a row has few vectors.
const COLUMN_UNITS: u32 = 64;

/// Parts that the weight's gradient comes in.
pub fn n_parts(n_rows: usize) -> usize {
    n_rows.div_ceil(PART).max(1)
}

pub fn forward(x: GpuTensor, weight: GpuTensor, spec: RmsNormSpec) -> GpuTensor {
    let (out, n_lanes) = (like(&x), lanes(&[&x, &weight], x.shape()[1]));
    let RowLaunch { count, dim, n_units } = RowLaunch::of_vectors(&x, n_lanes);
    let (norm, types) = (NormLaunch::of(&x, spec, n_units), [element(&x), element(&weight)]);
    forward_kernel::launch(
        &out.client.clone(),
        count,
        dim,
        n_lanes,
        x.into_tensor_arg(),
        weight.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        norm,
        spec.offset == 0.0,
        types,
    );
    out
}

pub fn backward(x: GpuTensor, weight: GpuTensor, grad: GpuTensor, spec: RmsNormSpec) -> (GpuTensor, GpuTensor) {
    let [n, d] = [x.shape()[0], x.shape()[1]];
    let (dx, inverse_rms, parts) = (like(&x), wide(&x, [n]), wide(&x, [n_parts(n), d]));
    let n_lanes = lanes(&[&x, &weight], d);
    let RowLaunch { count, dim, n_units } = RowLaunch::of_vectors(&x, n_lanes);
    let (norm, types) = (NormLaunch::of(&x, spec, n_units), [element(&x), element(&weight)]);
    let client = x.client.clone();
    backward_kernel::launch(
        &client,
        count,
        dim,
        n_lanes,
        x.clone().into_tensor_arg(),
        weight.into_tensor_arg(),
        grad.clone().into_tensor_arg(),
        dx.clone().into_tensor_arg(),
        inverse_rms.clone().into_tensor_arg(),
        norm,
        types,
    );
    let (n_vectors, n_units) = (narrow(d / n_lanes), narrow(n_units).min(COLUMN_UNITS));
    weight_kernel::launch(
        &client,
        CubeCount::Static(n_vectors.div_ceil(n_units), narrow(n_parts(n)), 1),
        CubeDim::new_1d(n_units),
        n_lanes,
        x.into_tensor_arg(),
        grad.into_tensor_arg(),
        inverse_rms.into_tensor_arg(),
        parts.clone().into_tensor_arg(),
        narrow(n),
        n_vectors,
        types[0],
    );
    (dx, parts)
}

/// A [`RmsNormSpec`] and the rows it meets, as a kernel takes them.
#[derive(CubeType, CubeLaunch)]
struct Norm {
    n_columns: u32,
    epsilon: f32,
    offset: f32,
    #[cube(comptime)]
    n_units: usize,
}

impl NormLaunch {
    fn of(x: &CubeTensor, spec: RmsNormSpec, n_units: usize) -> Self {
        let RmsNormSpec { epsilon, offset } = spec;
        Self::new(narrow(x.shape()[1]), epsilon, offset, n_units)
    }
}

/// The published Llama, which has no offset, also rounds before the weight.
#[cube(launch)]
fn forward_kernel<E: Float, W: Float, N: Size>(
    x: &Tensor<Vector<E, N>>,
    weight: &Tensor<Vector<W, N>>,
    out: &mut Tensor<Vector<E, N>>,
    norm: Norm,
    #[comptime] rounds_before: bool,
    #[define(E, W)] _types: [ElemType; 2],
) {
    let mut shared = Shared::new_slice(comptime!(norm.n_units));
    let n_vectors = norm.n_columns as usize / N::value();
    let row = CUBE_POS * n_vectors;
    let mut sum = Vector::<f32, N>::new(0.0f32);
    let mut at = UNIT_POS as usize;
    while at < n_vectors {
        let value = Vector::<f32, N>::cast_from(x[row + at]);
        sum += value * value;
        at += CUBE_DIM as usize;
    }
    let mean = joined_sum(&mut shared, sum.vector_sum()) / f32::cast_from(norm.n_columns);
    let rms = Vector::<f32, N>::new((mean + norm.epsilon).sqrt());
    let mut at = UNIT_POS as usize;
    while at < n_vectors {
        let mut normed = Vector::<f32, N>::cast_from(x[row + at]) / rms;
        if rounds_before {
            normed = Vector::cast_from(Vector::<E, N>::cast_from(normed));
        }
        let factor = Vector::<f32, N>::cast_from(weight[at]) + Vector::new(norm.offset);
        out[row + at] = Vector::cast_from(normed * factor);
        at += CUBE_DIM as usize;
    }
}

/// With `s = grad · (offset + weight)` and `r = 1 / rms(x)`: `dx = r · (s − x · r² · mean(s · x))`.
#[cube(launch)]
fn backward_kernel<E: Float, W: Float, N: Size>(
    x: &Tensor<Vector<E, N>>,
    weight: &Tensor<Vector<W, N>>,
    grad: &Tensor<Vector<E, N>>,
    dx: &mut Tensor<Vector<E, N>>,
    inverse_rms: &mut Tensor<f32>,
    norm: Norm,
    #[define(E, W)] _types: [ElemType; 2],
) {
    let mut shared = Shared::new_slice(comptime!(norm.n_units));
    let n_vectors = norm.n_columns as usize / N::value();
    let row = CUBE_POS * n_vectors;
    let mut squares = Vector::<f32, N>::new(0.0f32);
    let mut products = Vector::<f32, N>::new(0.0f32);
    let mut at = UNIT_POS as usize;
    while at < n_vectors {
        let value = Vector::<f32, N>::cast_from(x[row + at]);
        let factor = Vector::<f32, N>::cast_from(weight[at]) + Vector::new(norm.offset);
        squares += value * value;
        products += Vector::<f32, N>::cast_from(grad[row + at]) * factor * value;
        at += CUBE_DIM as usize;
    }
    let width = f32::cast_from(norm.n_columns);
    let mean = joined_sum(&mut shared, squares.vector_sum()) / width;
    let r = f32::new(1.0) / (mean + norm.epsilon).sqrt();
    let slope = joined_sum(&mut shared, products.vector_sum()) / width * r * r;
    if UNIT_POS == 0 {
        inverse_rms[CUBE_POS] = r;
    }
    let mut at = UNIT_POS as usize;
    while at < n_vectors {
        let value = Vector::<f32, N>::cast_from(x[row + at]);
        let factor = Vector::<f32, N>::cast_from(weight[at]) + Vector::new(norm.offset);
        let scaled = Vector::<f32, N>::cast_from(grad[row + at]) * factor;
        dx[row + at] = Vector::cast_from(Vector::new(r) * (scaled - value * Vector::new(slope)));
        at += CUBE_DIM as usize;
    }
}

/// `Σ grad · x · r` over [`PART`] rows, a unit for each few columns.
#[cube(launch)]
fn weight_kernel<E: Float, N: Size>(
    x: &Tensor<Vector<E, N>>,
    grad: &Tensor<Vector<E, N>>,
    inverse_rms: &Tensor<f32>,
    parts: &mut Tensor<Vector<f32, N>>,
    n_rows: u32,
    n_vectors: u32,
    #[define(E)] _type: ElemType,
) {
    let column = CUBE_POS_X * CUBE_DIM + UNIT_POS;
    let part = CUBE_POS_Y;
    if column < n_vectors {
        let mut sum = Vector::<f32, N>::new(0.0f32);
        let mut row = part * comptime!(PART as u32);
        let end = min(row + comptime!(PART as u32), n_rows);
        while row < end {
            let at = row as usize * n_vectors as usize + column as usize;
            let product = Vector::<f32, N>::cast_from(grad[at]) * Vector::cast_from(x[at]);
            sum += product * Vector::new(inverse_rms[row as usize]);
            row += 1;
        }
        parts[part as usize * n_vectors as usize + column as usize] = sum;
    }
}
