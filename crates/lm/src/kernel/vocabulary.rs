//! Log-probabilities of tokens, a bounded number of logits at a time, on devices whose products are the backend's own.
//!
//! Owns the cutting. A chunk of logits is made in f32 by one product and read by one kernel; for the gradient it is made
//! again. What is added to the gradient of the table costs the reading and writing of a whole table, so several chunks of
//! gradients are kept for it, and laid together a slice of the vocabulary at a time. Knows nothing of tapes: forward and
//! backward are two functions.
//!
//! m picked rows, d hidden size, w vocabulary

use std::ops::Range;

use burn::tensor::Tensor;

use super::head::{CHUNKS_TOGETHER, chunks};
use super::rows::{logps, logps_backward, product};
use super::sums::product_added;
use crate::precision::Precision;

/// Log-probabilities `[m]` in nats, f32, of `targets` under `softcap(hidden · tableᵀ)`.
pub fn forward(hidden_md: Tensor<2>, table_wd: Tensor<2>, targets: &[u32], cap: Option<f32>) -> Tensor<1> {
    let n_vocabulary = table_wd.dims()[0];
    let chunks = chunks(targets.len(), n_vocabulary);
    let parts: Vec<Tensor<1>> =
        chunks.map(|rows| logps(logits(&hidden_md, &table_wd, &rows), &targets[rows], cap)).collect();
    match parts.is_empty() {
        true => Tensor::zeros([0], (&hidden_md.device(), Precision::F32.dtype())),
        false => Tensor::cat(parts, 0),
    }
}

/// The gradient of the hidden states under [`forward`], from that of the log-probabilities, and the flat sum with that of the
/// table added.
pub fn backward(
    hidden_md: Tensor<2>,
    table_wd: Tensor<2>,
    grad_m: Tensor<1>,
    targets: &[u32],
    cap: Option<f32>,
    mut sum_n: Tensor<1>,
) -> (Tensor<2>, Tensor<1>) {
    let held = Precision::of(&table_wd);
    let chunks: Vec<Range<usize>> = chunks(targets.len(), table_wd.dims()[0]).collect();
    let mut dhidden = Vec::with_capacity(chunks.len());
    for together in chunks.chunks(CHUNKS_TOGETHER) {
        let mut of_logits = Vec::with_capacity(together.len());
        for rows in together {
            let grad = grad_m.clone().narrow(0, rows.start, rows.len());
            let logits_mw = logits(&hidden_md, &table_wd, rows);
            let dlogits_mw = logps_backward(logits_mw, grad, &targets[rows.clone()], cap, held);
            dhidden.push(held.hold(product(dlogits_mw.clone(), table_wd.clone())));
            of_logits.push(dlogits_mw);
        }
        let n_rows = together.iter().map(Range::len).sum();
        let hidden_md = hidden_md.clone().narrow(0, together[0].start, n_rows);
        sum_n = product_added(sum_n, &of_logits, &hidden_md, product);
    }
    match dhidden.is_empty() {
        true => (hidden_md.zeros_like(), sum_n),
        false => (Tensor::cat(dhidden, 0), sum_n),
    }
}

/// Raw logits of some rows, in f32.
fn logits(hidden_md: &Tensor<2>, table_wd: &Tensor<2>, rows: &Range<usize>) -> Tensor<2> {
    product(hidden_md.clone().narrow(0, rows.start, rows.len()), table_wd.clone().transpose())
}
