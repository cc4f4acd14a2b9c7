//! Log-probabilities of tokens, a bounded number of logits at a time, on devices whose products are the backend's own.
//!
//! Owns the cutting. A chunk of logits is made in f32 by one product and read by one kernel; for the gradient it is made
//! again. The gradient of the table costs the reading and writing of a whole table for each product that is added to it, so
//! several chunks of gradients are laid together for one. Knows nothing of tapes: forward and backward are two functions.
//!
//! m picked rows, d hidden size, w vocabulary

use std::ops::Range;

use burn::tensor::Tensor;

use super::head::{CHUNKS_TOGETHER, chunks};
use super::rows::{logps, logps_backward, product};
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

/// The gradients of [`forward`] with respect to hidden states and table, from that of the log-probabilities.
pub fn backward(
    hidden_md: Tensor<2>,
    table_wd: Tensor<2>,
    grad_m: Tensor<1>,
    targets: &[u32],
    cap: Option<f32>,
) -> (Tensor<2>, Tensor<2>) {
    let held = Precision::of(&table_wd);
    let chunks: Vec<Range<usize>> = chunks(targets.len(), table_wd.dims()[0]).collect();
    let mut dhidden = Vec::with_capacity(chunks.len());
    let mut dtable: Option<Tensor<2>> = None;
    for together in chunks.chunks(CHUNKS_TOGETHER) {
        let mut of_logits = Vec::with_capacity(together.len());
        for rows in together {
            let grad = grad_m.clone().narrow(0, rows.start, rows.len());
            let logits_mw = logits(&hidden_md, &table_wd, rows);
            let dlogits_mw = logps_backward(logits_mw, grad, &targets[rows.clone()], cap, held);
            dhidden.push(held.hold(product(dlogits_mw.clone(), table_wd.clone())));
            of_logits.push(dlogits_mw);
        }
        let start = together[0].start;
        let n_rows = together.iter().map(Range::len).sum();
        let hidden_md = hidden_md.clone().narrow(0, start, n_rows);
        let part = product(Tensor::cat(of_logits, 0).transpose(), hidden_md);
        // Summed in f32 whatever the table is held in.
        dtable = Some(match dtable {
            Some(sum) => sum + part,
            None => part,
        });
    }
    match dtable {
        Some(sum) => (Tensor::cat(dhidden, 0), held.hold(sum)),
        None => (hidden_md.zeros_like(), table_wd.zeros_like()),
    }
}

/// Raw logits of some rows, in f32.
fn logits(hidden_md: &Tensor<2>, table_wd: &Tensor<2>, rows: &Range<usize>) -> Tensor<2> {
    product(hidden_md.clone().narrow(0, rows.start, rows.len()), table_wd.clone().transpose())
}
