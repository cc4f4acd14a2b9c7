//! The gated unit: a unit for each element.

use cubecl::prelude::*;

use super::{GpuTensor, element, like, one_each};
use crate::kernel::Activation;
use crate::kernel::glu::{CUBIC, SQRT_2_OVER_PI};

pub fn forward(gate: GpuTensor, up: GpuTensor, activation: Activation) -> GpuTensor {
    let out = like(&gate);
    let ((count, dim), held) = (one_each(&out), element(&out));
    forward_kernel::launch(
        &out.client.clone(),
        count,
        dim,
        gate.into_tensor_arg(),
        up.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        activation == Activation::Silu,
        held,
    );
    out
}

pub fn backward(gate: GpuTensor, up: GpuTensor, grad: GpuTensor, activation: Activation) -> (GpuTensor, GpuTensor) {
    let (dgate, dup) = (like(&gate), like(&up));
    let ((count, dim), held) = (one_each(&gate), element(&gate));
    backward_kernel::launch(
        &dup.client.clone(),
        count,
        dim,
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
fn activated(x: f32, #[comptime] is_silu: bool) -> (f32, f32) {
    if is_silu {
        let s = f32::new(1.0) / (f32::new(1.0) + (-x).exp());
        (x * s, s * (f32::new(1.0) + x * (f32::new(1.0) - s)))
    } else {
        let tanh = (f32::new(SQRT_2_OVER_PI) * (x + f32::new(CUBIC) * x * x * x)).tanh();
        let slope = f32::new(SQRT_2_OVER_PI) * (f32::new(1.0) + f32::new(3.0 * CUBIC) * x * x);
        let half = f32::new(0.5) * (f32::new(1.0) + tanh);
        (x * half, half + f32::new(0.5) * x * (f32::new(1.0) - tanh * tanh) * slope)
    }
}

#[cube(launch)]
fn forward_kernel<E: Float>(
    gate: &Tensor<E>,
    up: &Tensor<E>,
    out: &mut Tensor<E>,
    #[comptime] is_silu: bool,
    #[define(E)] _held: ElemType,
) {
    if ABSOLUTE_POS < out.len() {
        let (value, _) = activated(f32::cast_from(gate[ABSOLUTE_POS]), is_silu);
        // Rounded twice, where the Python library rounds.
        let value = f32::cast_from(E::cast_from(value));
        out[ABSOLUTE_POS] = E::cast_from(value * f32::cast_from(up[ABSOLUTE_POS]));
    }
}

#[cube(launch)]
fn backward_kernel<E: Float>(
    gate: &Tensor<E>,
    up: &Tensor<E>,
    grad: &Tensor<E>,
    dgate: &mut Tensor<E>,
    dup: &mut Tensor<E>,
    #[comptime] is_silu: bool,
    #[define(E)] _held: ElemType,
) {
    if ABSOLUTE_POS < dgate.len() {
        let (value, slope) = activated(f32::cast_from(gate[ABSOLUTE_POS]), is_silu);
        let grad = f32::cast_from(grad[ABSOLUTE_POS]);
        dup[ABSOLUTE_POS] = E::cast_from(grad * value);
        dgate[ABSOLUTE_POS] = E::cast_from(grad * f32::cast_from(up[ABSOLUTE_POS]) * slope);
    }
}
