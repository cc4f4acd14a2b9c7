//! Heads turned to their positions: a unit for each pair of elements that turn together.

use burn::backend::TensorMetadata;
use cubecl::prelude::*;

use super::{GpuTensor, beside, element, elements, narrow, words};
use crate::precision::Precision;

pub fn turned(
    x: GpuTensor,
    [cos, sin]: [GpuTensor; 2],
    positions: &[u32],
    direction: f32,
    held: Precision,
) -> GpuTensor {
    let out = beside(&x, x.shape(), held);
    let n_pairs = x.shape().num_elements() / 2;
    let dim = CubeDim::new(&x.client, n_pairs);
    let positions = words(positions, &x.device);
    let (width, half, types) = (narrow(x.shape()[1]), narrow(cos.shape()[1]), [element(&x), elements(held)]);
    turned_kernel::launch(
        &out.client.clone(),
        cubecl::calculate_cube_count_elemwise(&out.client, n_pairs, dim),
        dim,
        x.into_tensor_arg(),
        cos.into_tensor_arg(),
        sin.into_tensor_arg(),
        positions.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        width,
        half,
        direction,
        types,
    );
    out
}

#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a launch has one argument a number")]
fn turned_kernel<I: Float, O: Float>(
    x: &Tensor<I>,
    cos: &Tensor<f32>,
    sin: &Tensor<f32>,
    positions: &Tensor<u32>,
    out: &mut Tensor<O>,
    width: u32,
    half: u32,
    direction: f32,
    #[define(I, O)] _types: [ElemType; 2],
) {
    let (width, half) = (width as usize, half as usize);
    let row = ABSOLUTE_POS / (width / 2);
    if row < out.len() / width {
        let in_row = ABSOLUTE_POS % (width / 2);
        let element = in_row % half;
        let at = row * width + (in_row / half) * 2 * half + element;
        let angle = positions[row] as usize * half + element;
        let (cos, sin) = (cos[angle], sin[angle] * direction);
        let (x1, x2) = (f32::cast_from(x[at]), f32::cast_from(x[at + half]));
        out[at] = O::cast_from(x1 * cos - x2 * sin);
        out[at + half] = O::cast_from(x2 * cos + x1 * sin);
    }
}
