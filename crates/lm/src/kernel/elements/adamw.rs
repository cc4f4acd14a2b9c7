//! The optimiser step: a unit for each few neighbouring elements, which reads and writes weight and moments once.

use burn::tensor::DType;
use cubecl::prelude::*;

use super::{GpuTensor, TensorMetadata, element, lanes, one_each};
use crate::kernel::AdamWSpec;
use crate::kernel::adamw::{Constants, FIRST, MULTIPLIER, SECOND, WEIGHT};

pub fn step(
    weight: GpuTensor,
    first: GpuTensor,
    second: GpuTensor,
    grad: GpuTensor,
    spec: AdamWSpec,
) -> (GpuTensor, GpuTensor, GpuTensor) {
    let n_lanes = lanes(&[&weight, &first, &grad], weight.shape().num_elements());
    let ((count, dim), types) = (one_each(&weight, n_lanes), [element(&weight), element(&first)]);
    step_kernel::launch(
        &weight.client.clone(),
        count,
        dim,
        n_lanes,
        weight.clone().into_tensor_arg(),
        first.clone().into_tensor_arg(),
        second.clone().into_tensor_arg(),
        grad.into_tensor_arg(),
        StepLaunch::of(spec, &weight, &first),
        types,
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
    let n_lanes = lanes(&[&weight, &first, &grad], weight.shape().num_elements());
    let ((count, dim), types) = (one_each(&weight, n_lanes), [element(&weight), element(&first)]);
    split_kernel::launch(
        &weight.client.clone(),
        count,
        dim,
        n_lanes,
        weight.clone().into_tensor_arg(),
        rest.clone().into_tensor_arg(),
        first.clone().into_tensor_arg(),
        second.clone().into_tensor_arg(),
        grad.into_tensor_arg(),
        StepLaunch::of(spec, &weight, &first),
        types,
    );
    (weight, rest, first, second)
}

/// [`Constants`] as a kernel takes them.
#[derive(CubeType, CubeLaunch)]
struct Step {
    step_size: f32,
    root_correction: f32,
    keep: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    grad_scale: f32,
    chance: Chance,
}

/// Where roundings by chance come from, and what is rounded so.
#[derive(CubeType, CubeLaunch)]
struct Chance {
    low: u32,
    high: u32,
    /// Of a weight in one part.
    #[cube(comptime)]
    of_weight: bool,
    #[cube(comptime)]
    of_moments: bool,
}

impl StepLaunch {
    fn of(spec: AdamWSpec, weight: &GpuTensor, moment: &GpuTensor) -> Self {
        let Constants { step_size, root_correction, keep, beta1, beta2, epsilon, grad_scale, chance } = spec.into();
        let [of_weight, of_moments] = [weight, moment].map(|tensor| tensor.dtype == DType::BF16);
        let chance = ChanceLaunch::new(chance.low, chance.high, of_weight, of_moments);
        Self::new(step_size, root_correction, keep, beta1, beta2, epsilon, grad_scale, chance)
    }
}

#[cube]
impl Step {
    /// What `adamw::Constants::updated` computes, in its order: moves the moments of this unit's elements and gives their new
    /// weights.
    fn updated<M: Float, N: Size>(
        &self,
        weight: Vector<f32, N>,
        first: &mut Tensor<Vector<M, N>>,
        second: &mut Tensor<Vector<M, N>>,
        grad: &Tensor<Vector<f32, N>>,
    ) -> Vector<f32, N> {
        let one = f32::new(1.0);
        let g = grad[ABSOLUTE_POS] * Vector::new(self.grad_scale);
        let m = Vector::<f32, N>::cast_from(first[ABSOLUTE_POS]);
        let m = fma(Vector::new(self.beta1), m, Vector::new(one - self.beta1) * g);
        let v = Vector::<f32, N>::cast_from(second[ABSOLUTE_POS]);
        let v = fma(Vector::new(self.beta2), v, Vector::new(one - self.beta2) * g * g);
        let by_chance = comptime!(self.chance.of_moments);
        first[ABSOLUTE_POS] = Vector::cast_from(self.chance.written::<N>(m, FIRST, by_chance));
        second[ABSOLUTE_POS] = Vector::cast_from(self.chance.written::<N>(v, SECOND, by_chance));
        let denominator = fma(v.sqrt(), Vector::new(self.root_correction), Vector::new(self.epsilon));
        fma(Vector::new(self.keep), weight, Vector::new(-self.step_size) * m / denominator)
    }
}

#[cube]
impl Chance {
    /// What bf16 holds of numbers, away from zero with the chance that a number lies above what bf16 holds.
    fn written<N: Size>(
        &self,
        value: Vector<f32, N>,
        #[comptime] of: u32,
        #[comptime] by_chance: bool,
    ) -> Vector<f32, N> {
        if by_chance {
            let mut place = Vector::<u32, N>::empty();
            #[unroll]
            for lane in 0..N::value() {
                place.insert(lane, (ABSOLUTE_POS * N::value() + lane) as u32);
            }
            let noise = mixed::<N>(place ^ Vector::new(self.low)) + Vector::new(self.high ^ of);
            let noise = mixed::<N>(noise) >> Vector::new(16u32);
            Vector::reinterpret((Vector::<u32, N>::reinterpret(value) + noise) & Vector::new(0xffff_0000u32))
        } else {
            value
        }
    }
}

#[cube(launch)]
fn step_kernel<W: Float, M: Float, N: Size>(
    weight: &mut Tensor<Vector<W, N>>,
    first: &mut Tensor<Vector<M, N>>,
    second: &mut Tensor<Vector<M, N>>,
    grad: &Tensor<Vector<f32, N>>,
    step: Step,
    #[define(W, M)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS < weight.len() {
        let old = Vector::<f32, N>::cast_from(weight[ABSOLUTE_POS]);
        let new = step.updated::<M, N>(old, first, second, grad);
        let by_chance = comptime!(step.chance.of_weight);
        weight[ABSOLUTE_POS] = Vector::cast_from(step.chance.written::<N>(new, WEIGHT, by_chance));
    }
}

#[cube(launch)]
fn split_kernel<W: Float, M: Float, N: Size>(
    weight: &mut Tensor<Vector<W, N>>,
    rest: &mut Tensor<Vector<i16, N>>,
    first: &mut Tensor<Vector<M, N>>,
    second: &mut Tensor<Vector<M, N>>,
    grad: &Tensor<Vector<f32, N>>,
    step: Step,
    #[define(W, M)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS < weight.len() {
        let above = Vector::<u32, N>::reinterpret(Vector::<f32, N>::cast_from(weight[ABSOLUTE_POS]));
        let below = Vector::<u32, N>::reinterpret(Vector::<i32, N>::cast_from(rest[ABSOLUTE_POS]));
        let new = step.updated::<M, N>(Vector::reinterpret(above + below), first, second, grad);
        let bits = Vector::<u32, N>::reinterpret(new);
        let rounded = (bits + Vector::new(0x8000u32)) & Vector::new(0xffff_0000u32);
        weight[ABSOLUTE_POS] = Vector::cast_from(Vector::<f32, N>::reinterpret(rounded));
        // From -2^15 to 2^15 - 1, whichever way it was rounded.
        rest[ABSOLUTE_POS] = Vector::cast_from(Vector::<i32, N>::reinterpret(bits - rounded));
    }
}

/// See `adamw::mixed`.
#[cube]
fn mixed<N: Size>(x: Vector<u32, N>) -> Vector<u32, N> {
    let (half, multiplier) = (Vector::new(16u32), Vector::new(MULTIPLIER));
    let x = (x ^ (x >> half)) * multiplier;
    let x = (x ^ (x >> half)) * multiplier;
    x ^ (x >> half)
}
