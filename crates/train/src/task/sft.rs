//! Supervised fine-tuning: cross entropy of responses.

use burn::tensor::Tensor;
use sluice_lm::causal::CausalLm;

use super::{Share, Task, TaskError};
use crate::batch::Sequence;
use crate::logps::token_logps;
use crate::metrics::PairTally;

/// Rows of prompt and response. The loss is the mean of `−ln p(token)` over all response tokens of the batch, nats.
pub struct SftTask<'a> {
    rows: &'a [Sequence],
}

impl<'a> SftTask<'a> {
    /// Rows with at least one predicted token each.
    pub fn new(rows: &'a [Sequence]) -> Result<Self, TaskError> {
        if rows.is_empty() {
            return Err(TaskError::Empty);
        }
        match rows.iter().position(|row| row.n_predicted() == 0) {
            Some(row) => Err(TaskError::NoResponse { row, which: "given" }),
            None => Ok(Self { rows }),
        }
    }
}

impl<M: CausalLm> Task<M> for SftTask<'_> {
    /// Response tokens of the batch.
    type Totals = usize;

    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    fn n_tokens(&self, row: usize) -> usize {
        self.rows[row].n_tokens()
    }

    fn totals(&self, _model: &M, rows: &[usize]) -> usize {
        rows.iter().map(|&row| self.rows[row].n_predicted()).sum()
    }

    fn share(&self, model: &M, rows: &[usize], n_predicted: &usize) -> Share {
        let sequences: Vec<&Sequence> = rows.iter().map(|&row| &self.rows[row]).collect();
        let loss: Tensor<1> = token_logps(model, &sequences).sum() * (-1.0 / *n_predicted as f64);
        Share { loss, tally: PairTally::default() }
    }
}
