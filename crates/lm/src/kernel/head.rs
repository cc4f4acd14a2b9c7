//! The softmax end of the vocabulary head on slices: log-probabilities of given tokens and their gradient.
//!
//! Owns the row arithmetic after the logits product, and how many rows are looked at together. Knows nothing of tensors or of that product, which the caller does
//! chunk by chunk so that `[tokens, vocabulary]` never exists whole.
//!
//! m rows, w vocabulary

use std::ops::Range;

use rayon::prelude::*;

use super::math::{self, vectorized};

/// Rows whose logits exist at one time, at most.
pub const CHUNK_ROWS: usize = 512;

/// Chunks of gradients that a GPU keeps for one product with the hidden states.
pub const CHUNKS_TOGETHER: usize = 8;

/// Bytes of logits that exist at one time in f32, at most; a single row may have more.
pub const CHUNK_BYTES: usize = 256 << 20;

/// Cuts rows into chunks whose logits over `n_vocabulary` tokens are bounded.
pub fn chunks(n_rows: usize, n_vocabulary: usize) -> impl Iterator<Item = Range<usize>> {
    let n_chunk = (CHUNK_BYTES / (size_of::<f32>() * n_vocabulary.max(1))).clamp(1, CHUNK_ROWS);
    (0..n_rows).step_by(n_chunk).map(move |start| start..(start + n_chunk).min(n_rows))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_bounded_in_rows_and_in_bytes() {
        let sizes = |n_rows, n_vocabulary| chunks(n_rows, n_vocabulary).map(|chunk| chunk.len()).collect::<Vec<_>>();
        assert_eq!(sizes(1025, 1024), [512, 512, 1]);
        // 256 MiB hold 262 rows of the published Gemma's vocabulary.
        assert_eq!(sizes(300, 256_000), [262, 38]);
        assert_eq!(sizes(2, usize::MAX / 8), [1, 1]);
        assert_eq!(chunks(0, 256).count(), 0);
    }
}
