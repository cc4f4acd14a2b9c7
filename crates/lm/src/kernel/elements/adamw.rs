//! The optimiser step: a unit for each element, which reads and writes weight and moments once.

use burn::tensor::DType;
use cubecl::prelude::*;

use super::{GpuTensor, element, one_each};
use crate::kernel::AdamWSpec;
use crate::kernel::adamw::{Constants, FIRST, MULTIPLIER, SECOND, WEIGHT};

pub fn step(
    weight: GpuTensor,
    first: GpuTensor,
    second: GpuTensor,
    grad: GpuTensor,
    spec: AdamWSpec,
) -> (GpuTensor, GpuTensor, GpuTensor) {
    let (count, dim) = one_each(&weight);
    let (held, remembered) = (element(&weight), element(&first));
    let (weight_by_chance, moments_by_chance) = (weight.dtype == DType::BF16, first.dtype == DType::BF16);
    let Constants { step_size, root_correction, keep, beta1, beta2, epsilon, grad_scale, chance } = spec.into();
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
        chance.low,
        chance.high,
        weight_by_chance,
        moments_by_chance,
        held,
        remembered,
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
    let (count, dim) = one_each(&weight);
    let (held, remembered, by_chance) = (element(&weight), element(&first), first.dtype == DType::BF16);
    let Constants { step_size, root_correction, keep, beta1, beta2, epsilon, grad_scale, chance } = spec.into();
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
        chance.low,
        chance.high,
        by_chance,
        held,
        remembered,
    );
    (weight, rest, first, second)
}

/// What `adamw::Constants::updated` computes, in its order: moves the moments of an element and gives its new weight.
#[cube]
#[expect(clippy::too_many_arguments, reason = "a launch has one argument a number")]
fn updated<M: Float>(
    weight: f32,
    first: &mut Tensor<M>,
    second: &mut Tensor<M>,
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
) -> f32 {
    let g = grad[ABSOLUTE_POS] * grad_scale;
    let m = fma(beta1, f32::cast_from(first[ABSOLUTE_POS]), (f32::new(1.0) - beta1) * g);
    let v = fma(beta2, f32::cast_from(second[ABSOLUTE_POS]), (f32::new(1.0) - beta2) * g * g);
    first[ABSOLUTE_POS] = M::cast_from(written(m, low, high, FIRST, by_chance));
    second[ABSOLUTE_POS] = M::cast_from(written(v, low, high, SECOND, by_chance));
    let denominator = fma(v.sqrt(), root_correction, epsilon);
    fma(keep, weight, -step_size * m / denominator)
}

/// What bf16 holds of a number, away from zero with the chance that the number lies above what bf16 holds.
#[cube]
fn written(value: f32, low: u32, high: u32, #[comptime] of: u32, #[comptime] by_chance: bool) -> f32 {
    if by_chance {
        let noise = mixed(mixed(ABSOLUTE_POS as u32 ^ low) + (high ^ of)) >> 16;
        f32::reinterpret((u32::reinterpret(value) + noise) & 0xffff_0000u32)
    } else {
        value
    }
}

#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a launch has one argument a number")]
fn step_kernel<W: Float, M: Float>(
    weight: &mut Tensor<W>,
    first: &mut Tensor<M>,
    second: &mut Tensor<M>,
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
    #[comptime] weight_by_chance: bool,
    #[comptime] moments_by_chance: bool,
    #[define(W)] _held: ElemType,
    #[define(M)] _remembered: ElemType,
) {
    if ABSOLUTE_POS < weight.len() {
        let old = f32::cast_from(weight[ABSOLUTE_POS]);
        let new = updated::<M>(
            old,
            first,
            second,
            grad,
            step_size,
            root_correction,
            keep,
            beta1,
            beta2,
            epsilon,
            grad_scale,
            low,
            high,
            moments_by_chance,
        );
        weight[ABSOLUTE_POS] = W::cast_from(written(new, low, high, WEIGHT, weight_by_chance));
    }
}

#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a launch has one argument a number")]
fn split_kernel<W: Float, M: Float>(
    weight: &mut Tensor<W>,
    rest: &mut Tensor<i16>,
    first: &mut Tensor<M>,
    second: &mut Tensor<M>,
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
    #[define(M)] _remembered: ElemType,
) {
    if ABSOLUTE_POS < weight.len() {
        let above = u32::reinterpret(f32::cast_from(weight[ABSOLUTE_POS]));
        let old = f32::reinterpret(above + u32::reinterpret(i32::cast_from(rest[ABSOLUTE_POS])));
        let new = updated::<M>(
            old,
            first,
            second,
            grad,
            step_size,
            root_correction,
            keep,
            beta1,
            beta2,
            epsilon,
            grad_scale,
            low,
            high,
            by_chance,
        );
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
