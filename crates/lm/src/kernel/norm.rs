//! Root-mean-square norm on slices, forward and backward.
//!
//! Owns the arithmetic and its spreading over threads. Knows nothing of tensors.
//!
//! n tokens, d hidden size

use rayon::prelude::*;

use super::math::{dot, vectorized};

/// Which norm: `x / rms(x) · (offset + weight)`.
///
/// Zhang and Sennrich 2019. Gemma stores `weight − 1` (offset 1), Llama the weight itself (offset 0).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsNormSpec {
    pub epsilon: f32,
    pub offset: f32,
}

/// Rows handled together. Fixed, so that sums over rows do not depend on the number of threads.
const BLOCK: usize = 64;

#[inline(always)]
fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt()
}

/// Normed rows `[n, d]`.
pub fn forward(x: &[f32], weight: &[f32], spec: RmsNormSpec) -> Vec<f32> {
    let d = weight.len();
    let mut out = vec![0.0; x.len()];
    let block = |(out, x): (&mut [f32], &[f32])| {
        vectorized(
            #[inline(always)]
            || {
                for (out, x) in out.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
                    let r = inverse_rms(x, spec.epsilon);
                    for i in 0..d {
                        out[i] = x[i] * r * (spec.offset + weight[i]);
                    }
                }
            },
        );
    };
    if x.len() < 32_768 {
        block((&mut out, x));
    } else {
        out.par_chunks_mut(BLOCK * d).zip(x.par_chunks(BLOCK * d)).for_each(block);
    }
    out
}

/// Gradients with respect to `x` and `weight`, from the gradient of the output.
pub fn backward(x: &[f32], weight: &[f32], grad: &[f32], spec: RmsNormSpec) -> (Vec<f32>, Vec<f32>) {
    let d = weight.len();
    let mut dx = vec![0.0; x.len()];
    let partial: Vec<Vec<f32>> = dx
        .par_chunks_mut(BLOCK * d)
        .zip(x.par_chunks(BLOCK * d))
        .zip(grad.par_chunks(BLOCK * d))
        .map(|((dx, x), grad)| {
            vectorized(
                #[inline(always)]
                || backward_block(dx, x, weight, grad, spec),
            )
        })
        .collect();
    let mut dw = vec![0.0; d];
    for partial in &partial {
        for (dw, partial) in dw.iter_mut().zip(partial) {
            *dw += partial;
        }
    }
    (dx, dw)
}

#[inline(always)]
fn backward_block(dx: &mut [f32], x: &[f32], weight: &[f32], grad: &[f32], spec: RmsNormSpec) -> Vec<f32> {
    let d = weight.len();
    let mut dw = vec![0.0; d];
    let mut scaled = vec![0.0; d];
    for ((dx, x), grad) in dx.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(grad.chunks_exact(d)) {
        let r = inverse_rms(x, spec.epsilon);
        for i in 0..d {
            scaled[i] = grad[i] * (spec.offset + weight[i]);
            dw[i] += grad[i] * x[i] * r;
        }
        let slope = dot(&scaled, x) * r * r / d as f32;
        for i in 0..d {
            dx[i] = r * (scaled[i] - x[i] * slope);
        }
    }
    dw
}
