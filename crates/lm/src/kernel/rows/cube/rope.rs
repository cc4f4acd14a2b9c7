//! Heads turned to their positions: a unit for a few neighbouring pairs of elements that turn together.

use burn::backend::TensorMetadata;
use cubecl::prelude::*;

use super::{GpuTensor, beside, element, elements, lanes, narrow, words};
use crate::precision::Precision;

pub fn turned(
    x: GpuTensor,
    [cos, sin]: [GpuTensor; 2],
    positions: &[u32],
    direction: f32,
    held: Precision,
) -> GpuTensor {
    let (out, half) = (beside(&x, x.shape(), held), cos.shape()[1]);
    let n_lanes = lanes(&[&x, &cos, &out], half);
    let n_pairs = x.shape().num_elements() / 2 / n_lanes;
    let dim = CubeDim::new(&x.client, n_pairs);
    let positions = words(positions, &x.device);
    let turn = TurnLaunch::new(narrow(x.shape()[1] / n_lanes), narrow(half / n_lanes), direction);
    let types = [element(&x), elements(held)];
    turned_kernel::launch(
        &out.client.clone(),
        cubecl::calculate_cube_count_elemwise(&out.client, n_pairs, dim),
        dim,
        n_lanes,
        x.into_tensor_arg(),
        cos.into_tensor_arg(),
        sin.into_tensor_arg(),
        positions.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        turn,
        types,
    );
    out
}

#[derive(CubeType, CubeLaunch)]
struct Turn {
    /// Vectors of a row.
    width: u32,
    /// Vectors of half a head.
    half: u32,
    direction: f32,
}

#[cube(launch)]
fn turned_kernel<I: Float, O: Float, N: Size>(
    x: &Tensor<Vector<I, N>>,
    cos: &Tensor<Vector<f32, N>>,
    sin: &Tensor<Vector<f32, N>>,
    positions: &Tensor<u32>,
    out: &mut Tensor<Vector<O, N>>,
    turn: Turn,
    #[define(I, O)] _types: [ElemType; 2],
) {
    let (width, half) = (turn.width as usize, turn.half as usize);
    let row = ABSOLUTE_POS / (width / 2);
    if row < out.len() / width {
        let in_row = ABSOLUTE_POS % (width / 2);
        let element = in_row % half;
        let at = row * width + (in_row / half) * 2 * half + element;
        let angle = positions[row] as usize * half + element;
        let (cos, sin) = (cos[angle], sin[angle] * Vector::new(turn.direction));
        let (x1, x2) = (Vector::<f32, N>::cast_from(x[at]), Vector::<f32, N>::cast_from(x[at + half]));
        out[at] = Vector::cast_from(x1 * cos - x2 * sin);
        out[at + half] = Vector::cast_from(x2 * cos + x1 * sin);
    }
}
