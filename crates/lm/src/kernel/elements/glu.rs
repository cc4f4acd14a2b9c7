//! The gated unit: a unit for each few neighbouring elements.

use cubecl::prelude::*;

use super::{GpuTensor, TensorMetadata, element, lanes, like, one_each};
use crate::kernel::Activation;
use crate::kernel::glu::{CUBIC, SQRT_2_OVER_PI};

pub fn forward(gate: GpuTensor, up: GpuTensor, activation: Activation) -> GpuTensor {
    let (out, n_lanes) = (like(&gate), lanes(&[&gate], gate.shape().num_elements()));
    let ((count, dim), held) = (one_each(&out, n_lanes), element(&out));
    forward_kernel::launch(
        &out.client.clone(),
        count,
        dim,
        n_lanes,
        gate.into_tensor_arg(),
        up.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        activation == Activation::Silu,
        held,
    );
    out
}

pub fn backward(gate: GpuTensor, up: GpuTensor, grad: GpuTensor, activation: Activation) -> (GpuTensor, GpuTensor) {
    let (dgate, dup, n_lanes) = (like(&gate), like(&up), lanes(&[&gate], gate.shape().num_elements()));
    let ((count, dim), held) = (one_each(&gate, n_lanes), element(&gate));
    backward_kernel::launch(
        &dup.client.clone(),
        count,
        dim,
        n_lanes,
        gate.into_tensor_arg(),
        up.into_tensor_arg(),
        grad.into_tensor_arg(),
        dgate.clone().into_tensor_arg(),
        dup.clone().into_tensor_arg(),
        activation == Activation::Silu,
        held,
    );
    (dgate, dup)
}

/// The activation and its slope; see `glu.rs` of the CPU.
#[cube]
fn activated<N: Size>(x: Vector<f32, N>, #[comptime] is_silu: bool) -> (Vector<f32, N>, Vector<f32, N>) {
    let one = Vector::<f32, N>::new(1.0f32);
    if is_silu {
        let s = one / (one + (-x).exp());
        (x * s, s * (one + x * (one - s)))
    } else {
        let (root, cubic) = (Vector::<f32, N>::new(SQRT_2_OVER_PI), Vector::<f32, N>::new(CUBIC));
        let (half, thrice) = (Vector::<f32, N>::new(0.5f32), Vector::<f32, N>::new(3.0 * CUBIC));
        let tanh = (root * (x + cubic * x * x * x)).tanh();
        let share = half * (one + tanh);
        (x * share, share + half * x * (one - tanh * tanh) * (root * (one + thrice * x * x)))
    }
}

#[cube(launch)]
fn forward_kernel<E: Float, N: Size>(
    gate: &Tensor<Vector<E, N>>,
    up: &Tensor<Vector<E, N>>,
    out: &mut Tensor<Vector<E, N>>,
    #[comptime] is_silu: bool,
    #[define(E)] _held: ElemType,
) {
    if ABSOLUTE_POS < out.len() {
        let (value, _) = activated::<N>(Vector::cast_from(gate[ABSOLUTE_POS]), is_silu);
        // Rounded twice, where the Python library rounds.
        let value = Vector::<f32, N>::cast_from(Vector::<E, N>::cast_from(value));
        out[ABSOLUTE_POS] = Vector::cast_from(value * Vector::<f32, N>::cast_from(up[ABSOLUTE_POS]));
    }
}

#[cube(launch)]
fn backward_kernel<E: Float, N: Size>(
    gate: &Tensor<Vector<E, N>>,
    up: &Tensor<Vector<E, N>>,
    grad: &Tensor<Vector<E, N>>,
    dgate: &mut Tensor<Vector<E, N>>,
    dup: &mut Tensor<Vector<E, N>>,
    #[comptime] is_silu: bool,
    #[define(E)] _held: ElemType,
) {
    if ABSOLUTE_POS < dgate.len() {
        let (value, slope) = activated::<N>(Vector::cast_from(gate[ABSOLUTE_POS]), is_silu);
        let grad = Vector::<f32, N>::cast_from(grad[ABSOLUTE_POS]);
        dup[ABSOLUTE_POS] = Vector::cast_from(grad * value);
        dgate[ABSOLUTE_POS] = Vector::cast_from(grad * Vector::<f32, N>::cast_from(up[ABSOLUTE_POS]) * slope);
    }
}
