//! The two ends of a model, where it meets its vocabulary: the embedding before the blocks and the head after them.
//!
//! Owns what is looked up in their tables, and the gradients of these. A table has a row for each token, and its gradient is
//! as large: no tape holds one. It goes straight into a sum that the caller has, which is in f32 and flat, as the optimiser
//! takes it. Knows nothing of whether both ends have one table.
//!
//! n tokens, d hidden size, w vocabulary, m picked rows, u different tokens

use std::collections::BTreeMap;

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use crate::kernel::{logits, rows_added, token_logps, token_logps_gradient};
use crate::nn::{embed, index, pick};
use crate::precision::Precision;

/// The published name of the embedding's table.
pub const EMBEDDING: &str = "model.embed_tokens.weight";

/// The published name of the vocabulary head's table, where it is not the embedding's.
pub const HEAD: &str = "lm_head.weight";

/// A table with a row for each token.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// As it is published.
    pub name: &'static str,
    pub weight_wd: &'a Tensor<2>,
}

/// The rows of a table times a factor.
#[derive(Clone, Copy, Debug)]
pub struct Embedding<'a> {
    pub table: Table<'a>,
    pub factor: Option<f64>,
}

impl Embedding<'_> {
    /// What tokens are embedded as: `[n, d]`.
    pub fn of(&self, ids_n: Tensor<1, Int>) -> Tensor<2> {
        scaled(embed(self.table.weight_wd, ids_n), self.factor)
    }

    /// Adds the gradient of the table to `sum_n`, from that of what `ids` were embedded as.
    pub fn add_gradient(&self, ids: &[u32], grad_nd: Tensor<2>, sum_n: &mut Tensor<1>) {
        let ([_, d], device) = (grad_nd.dims(), grad_nd.device());
        let grad_nd = scaled(Precision::F32.hold(grad_nd), self.factor);
        // Summed by token first: then no row of the table is added to twice, in whatever order.
        let mut of_token = BTreeMap::new();
        ids.iter().for_each(|id| _ = of_token.insert(*id, 0));
        of_token.values_mut().enumerate().for_each(|(place, of_token)| *of_token = place);
        let places_n = index(ids.iter().map(|id| of_token[id]), &device);
        let zeros_ud = Tensor::zeros([of_token.len(), d], (&device, Precision::F32.dtype()));
        let grad_ud = zeros_ud.select_assign(0, places_n, grad_nd, IndexingUpdateOp::Add);
        *sum_n = rows_added(sum_n.extract(), grad_ud, of_token.into_keys().map(|id| id as usize));
    }
}

/// The vocabulary head: products with the rows of a table, and a soft cap on them where the architecture has one.
#[derive(Clone, Copy, Debug)]
pub struct VocabularyHead<'a> {
    pub table: Table<'a>,
    pub softcap: Option<f64>,
}

impl VocabularyHead<'_> {
    /// Log-probabilities `[m]` in nats of `targets[i]`, predicted from row `rows[i]` of the hidden states, off the tape. Only
    /// the picked rows meet the table.
    pub fn token_logps(&self, hidden_nd: Tensor<2>, rows: &[usize], targets: &[u32]) -> Tensor<1> {
        if rows.is_empty() {
            return Tensor::zeros([0], (&hidden_nd.device(), Precision::F32.dtype()));
        }
        token_logps(pick(hidden_nd, rows), self.table.weight_wd.clone(), targets, self.softcap)
    }

    /// The gradient `[n, d]` of the hidden states from that of [`VocabularyHead::token_logps`]; that of the table is added to
    /// `sum_n`.
    pub fn add_gradient(
        &self,
        hidden_nd: Tensor<2>,
        rows: &[usize],
        targets: &[u32],
        grad_m: Tensor<1>,
        sum_n: &mut Tensor<1>,
    ) -> Tensor<2> {
        let (table_wd, nothing_nd) = (self.table.weight_wd.clone(), hidden_nd.zeros_like());
        if rows.is_empty() {
            return nothing_nd;
        }
        let dpicked_md = token_logps_gradient(pick(hidden_nd, rows), table_wd, grad_m, targets, self.softcap, sum_n);
        let rows_m = index(rows.iter().copied(), &nothing_nd.device());
        nothing_nd.select_assign(0, rows_m, dpicked_md, IndexingUpdateOp::Add)
    }

    /// Logits `[m, w]` of the picked rows, after the soft cap.
    pub fn logits(&self, hidden_nd: Tensor<2>, rows: &[usize]) -> Tensor<2> {
        logits(pick(hidden_nd, rows), self.table.weight_wd.clone(), self.softcap)
    }
}

fn scaled(x_nd: Tensor<2>, factor: Option<f64>) -> Tensor<2> {
    match factor {
        Some(factor) => x_nd.mul_scalar(factor),
        None => x_nd,
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::weights::values;

    /// Token 2 twice and token 0 once, of a table of four, times 3; the sum has something already.
    #[test]
    fn a_token_that_stands_twice_is_summed() {
        let tensor = |values: &[f32], shape: [usize; 2]| {
            Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
        };
        let weight_wd = tensor(&[0.0; 8], [4, 2]);
        let embedding = Embedding { table: Table { name: "table", weight_wd: &weight_wd }, factor: Some(3.0) };
        let mut sum_n = tensor(&[1.0; 8], [8, 1]).squeeze_dim::<1>(1);
        let grad_nd = tensor(&[1.0, 2.0, 10.0, 20.0, 100.0, 200.0], [3, 2]);
        embedding.add_gradient(&[2, 0, 2], grad_nd.clone(), &mut sum_n);
        let want = [31.0, 61.0, 1.0, 1.0, 304.0, 607.0, 1.0, 1.0];
        assert_eq!(values(sum_n.clone()), want);
        // The gradient in bf16 is not rounded again.
        let unscaled = Embedding { factor: None, ..embedding };
        unscaled.add_gradient(&[1, 1, 1], Precision::Bf16.hold(grad_nd), &mut sum_n);
        assert_eq!(values(sum_n)[2..4], [112.0, 223.0]);
    }
}
