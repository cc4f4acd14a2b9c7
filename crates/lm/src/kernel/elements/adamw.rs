//! The optimiser step: a unit for each element, which reads and writes weight and moments once.

use burn::tensor::DType;
use cubecl::prelude::*;

use super::{GpuTensor, element, one_each};
use crate::kernel::AdamWSpec;
use crate::kernel::adamw::{Constants, MULTIPLIER};

pub fn step(
    weight: GpuTensor,
    first: GpuTensor,
    second: GpuTensor,
    grad: GpuTensor,
    spec: AdamWSpec,
    seed: u64,
) -> (GpuTensor, GpuTensor, GpuTensor) {
    let ((count, dim), held) = (one_each(&weight), element(&weight));
    let Constants { step_size, root_correction, keep, beta1, beta2, epsilon, grad_scale } = spec.into();
    step_kernel::launch(
        &weight.client.clone(),
        count,
        dim,
        weight.clone().into_tensor_arg(),
        first.clone().into_tensor_arg(),
        second.clone().into_tensor_arg(),
        grad.into_tensor_arg(),
        step_size,
        root_correction,
        keep,
        beta1,
        beta2,
        epsilon,
        grad_scale,
        seed as u32,
        (seed >> 32) as u32,
        weight.dtype == DType::BF16,
        held,
    );
    (weight, first, second)
}

pub fn step_split(
    weight: GpuTensor,
    rest: GpuTensor,
    first: GpuTensor,
    second: GpuTensor,
    grad: GpuTensor,
    spec: AdamWSpec,
) -> (GpuTensor, GpuTensor, GpuTensor, GpuTensor) {
    let ((count, dim), held) = (one_each(&weight), element(&weight));
    let Constants { step_size, root_correction, keep, beta1, beta2, epsilon, grad_scale } = spec.into();
    split_kernel::launch(
        &weight.client.clone(),
        count,
        dim,
        weight.clone().into_tensor_arg(),
        rest.clone().into_tensor_arg(),
        first.clone().into_tensor_arg(),
        second.clone().into_tensor_arg(),
        grad.into_tensor_arg(),
        step_size,
        root_correction,
        keep,
        beta1,
        beta2,
        epsilon,
        grad_scale,
        held,
    );
    (weight, rest, first, second)
}

/// What `adamw::Constants::updated` computes, in its order: moves the moments of an element and gives its new weight.
#[cube]
#[expect(clippy::too_many_arguments, reason = "a launch has one argument a number")]
fn updated(
    weight: f32,
    first: &mut Tensor<f32>,
    second: &mut Tensor<f32>,
    grad: &Tensor<f32>,
    step_size: f32,
    root_correction: f32,
    keep: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    grad_scale: f32,
) -> f32 {
    let g = grad[ABSOLUTE_POS] * grad_scale;
    let m = fma(beta1, first[ABSOLUTE_POS], (f32::new(1.0) - beta1) * g);
    let v = fma(beta2, second[ABSOLUTE_POS], (f32::new(1.0) - beta2) * g * g);
    first[ABSOLUTE_POS] = m;
    second[ABSOLUTE_POS] = v;
    let denominator = fma(v.sqrt(), root_correction, epsilon);
    fma(keep, weight, -step_size * m / denominator)
}

#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a launch has one argument a number")]
fn step_kernel<W: Float>(
    weight: &mut Tensor<W>,
    first: &mut Tensor<f32>,
    second: &mut Tensor<f32>,
    grad: &Tensor<f32>,
    step_size: f32,
    root_correction: f32,
    keep: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    grad_scale: f32,
    low: u32,
    high: u32,
    #[comptime] by_chance: bool,
    #[define(W)] _held: ElemType,
) {
    if ABSOLUTE_POS < weight.len() {
        let old = f32::cast_from(weight[ABSOLUTE_POS]);
        let mut new =
            updated(old, first, second, grad, step_size, root_correction, keep, beta1, beta2, epsilon, grad_scale);
        if by_chance {
            // Away from zero with the chance that the exact weight lies above what bf16 holds of it.
            let noise = mixed(mixed(ABSOLUTE_POS as u32 ^ low) + high) >> 16;
            let bits = u32::reinterpret(new) + noise;
            new = f32::reinterpret(bits & 0xffff_0000u32);
        }
        weight[ABSOLUTE_POS] = W::cast_from(new);
    }
}

#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a launch has one argument a number")]
fn split_kernel<W: Float>(
    weight: &mut Tensor<W>,
    rest: &mut Tensor<i16>,
    first: &mut Tensor<f32>,
    second: &mut Tensor<f32>,
    grad: &Tensor<f32>,
    step_size: f32,
    root_correction: f32,
    keep: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    grad_scale: f32,
    #[define(W)] _held: ElemType,
) {
    if ABSOLUTE_POS < weight.len() {
        let high = u32::reinterpret(f32::cast_from(weight[ABSOLUTE_POS]));
        let old = f32::reinterpret(high + u32::reinterpret(i32::cast_from(rest[ABSOLUTE_POS])));
        let new =
            updated(old, first, second, grad, step_size, root_correction, keep, beta1, beta2, epsilon, grad_scale);
        let bits = u32::reinterpret(new);
        let rounded = (bits + 0x8000u32) & 0xffff_0000u32;
        weight[ABSOLUTE_POS] = W::cast_from(f32::reinterpret(rounded));
        // From -2^15 to 2^15 - 1, whichever way it was rounded.
        rest[ABSOLUTE_POS] = i16::cast_from(i32::reinterpret(bits - rounded));
    }
}

/// See `adamw::mixed`.
#[cube]
fn mixed(x: u32) -> u32 {
    let x = (x ^ (x >> 16)) * comptime!(MULTIPLIER);
    let x = (x ^ (x >> 16)) * comptime!(MULTIPLIER);
    x ^ (x >> 16)
}
