//! The softmax end of the vocabulary head on slices: log-probabilities of given tokens and their gradient.
//!
//! Owns the row arithmetic after the logits product. Knows nothing of tensors or of that product, which the caller does
//! chunk by chunk so that `[tokens, vocabulary]` never exists whole.
//!
//! m rows, w vocabulary

use rayon::prelude::*;

use super::math::{self, vectorized};

/// Rows whose logits exist at one time.
pub const CHUNK_ROWS: usize = 512;

/// Log-probability of `targets[i]` under row `i` of raw `logits[m, w]`, which are overwritten.
pub fn logps(logits: &mut [f32], targets: &[u32], softcap: Option<f32>) -> Vec<f32> {
    let w = logits.len() / targets.len().max(1);
    logits
        .par_chunks_exact_mut(w)
        .zip(targets)
        .map(|(row, target)| {
            vectorized(
                #[inline(always)]
                || {
                    if let Some(cap) = softcap {
                        math::softcap(row, cap);
                    }
                    let shift = math::max(row);
                    let picked = row[*target as usize];
                    picked - shift - math::exp_sum(row, shift).ln()
                },
            )
        })
        .collect()
}

/// Turns raw `logits[m, w]` into the gradient with respect to them of `Σ grad[i] · logp(targets[i])`.
pub fn logits_gradient(logits: &mut [f32], targets: &[u32], grad: &[f32], softcap: Option<f32>) {
    let w = logits.len() / targets.len().max(1);
    logits.par_chunks_exact_mut(w).zip(targets).zip(grad).for_each(|((row, target), grad)| {
        vectorized(
            #[inline(always)]
            || row_gradient(row, *target as usize, *grad, softcap),
        );
    });
}

#[inline(always)]
fn row_gradient(row: &mut [f32], target: usize, grad: f32, softcap: Option<f32>) {
    let Some(cap) = softcap else {
        let shift = math::max(row);
        let sum = math::exp_sum(row, shift);
        math::scale(row, -grad / sum);
        row[target] += grad;
        return;
    };
    math::softcap(row, cap);
    let shift = math::max(row);
    let inverse_cap = 1.0 / cap;
    let mut scratch = row.to_vec();
    let sum = math::exp_sum(&mut scratch, shift);
    math::scale(&mut scratch, -grad / sum);
    scratch[target] += grad;
    for (row, d) in row.iter_mut().zip(&scratch) {
        let tanh = *row * inverse_cap;
        *row = d * (1.0 - tanh * tanh);
    }
}
