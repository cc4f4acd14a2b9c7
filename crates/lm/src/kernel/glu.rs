//! Gated linear units on slices: `act(gate) · up`, forward and backward.
//!
//! Owns the arithmetic and its spreading over threads. Knows nothing of tensors.

use rayon::prelude::*;

use super::math::{exp, tanh, vectorized};

/// The activation of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`: `gelu_pytorch_tanh` of the published configs.
    GeluTanh,
    /// `x · sigmoid(x)`.
    Silu,
}

const BLOCK: usize = 16_384;
pub const SQRT_2_OVER_PI: f32 = 0.797_884_6;
pub const CUBIC: f32 = 0.044_715;

/// The activation and its derivative.
#[inline(always)]
fn gelu(x: f32) -> (f32, f32) {
    let t = tanh(SQRT_2_OVER_PI * (CUBIC * x * x).mul_add(x, x));
    let slope = SQRT_2_OVER_PI * (3.0 * CUBIC * x).mul_add(x, 1.0);
    let half = 0.5 * (1.0 + t);
    (x * half, (0.5 * x * (1.0 - t * t)).mul_add(slope, half))
}

#[inline(always)]
fn silu(x: f32) -> (f32, f32) {
    let s = 1.0 / (1.0 + exp(-x));
    (x * s, s * x.mul_add(1.0 - s, 1.0))
}

#[inline(always)]
fn forward_block(out: &mut [f32], gate: &[f32], up: &[f32], act: impl Fn(f32) -> (f32, f32)) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = act(*gate).0 * up;
    }
}

/// `act(gate) · up`, element by element.
pub fn forward(gate: &[f32], up: &[f32], activation: Activation) -> Vec<f32> {
    let mut out = vec![0.0; gate.len()];
    out.par_chunks_mut(BLOCK).zip(gate.par_chunks(BLOCK)).zip(up.par_chunks(BLOCK)).for_each(|((out, gate), up)| {
        vectorized(
            #[inline(always)]
            || match activation {
                Activation::GeluTanh => forward_block(out, gate, up, gelu),
                Activation::Silu => forward_block(out, gate, up, silu),
            },
        );
    });
    out
}

#[inline(always)]
fn backward_block(
    (dgate, dup): (&mut [f32], &mut [f32]),
    gate: &[f32],
    up: &[f32],
    grad: &[f32],
    act: impl Fn(f32) -> (f32, f32),
) {
    for i in 0..gate.len() {
        let (value, slope) = act(gate[i]);
        dup[i] = grad[i] * value;
        dgate[i] = grad[i] * up[i] * slope;
    }
}

/// Gradients with respect to `gate` and `up`, from the gradient of the output.
pub fn backward(gate: &[f32], up: &[f32], grad: &[f32], activation: Activation) -> (Vec<f32>, Vec<f32>) {
    let (mut dgate, mut dup) = (vec![0.0; gate.len()], vec![0.0; up.len()]);
    dgate
        .par_chunks_mut(BLOCK)
        .zip(dup.par_chunks_mut(BLOCK))
        .zip(gate.par_chunks(BLOCK))
        .zip(up.par_chunks(BLOCK))
        .zip(grad.par_chunks(BLOCK))
        .for_each(|((((dgate, dup), gate), up), grad)| {
            vectorized(
                #[inline(always)]
                || match activation {
                    Activation::GeluTanh => backward_block((dgate, dup), gate, up, grad, gelu),
                    Activation::Silu => backward_block((dgate, dup), gate, up, grad, silu),
                },
            );
        });
    (dgate, dup)
}
