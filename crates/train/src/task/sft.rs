//! Supervised fine-tuning: cross entropy of responses.

use sluice_lm::causal::CausalLm;
use sluice_lm::packed::Packed;

use super::{Read, Share, Task, TaskError};
use crate::batch::Sequence;
use crate::logps::Predictions;
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

    fn sequences(&self, rows: &[usize]) -> Vec<&Sequence> {
        rows.iter().map(|&row| &self.rows[row]).collect()
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

    fn batch(&self, rows: &[usize]) -> Packed {
        Packed::new(&self.sequences(rows))
    }

    fn predictions(&self, rows: &[usize]) -> Predictions {
        Predictions::new(&self.sequences(rows))
    }

    fn share(&self, _model: &M, read: Read<'_>, _rows: &[usize], n_predicted: &usize) -> Share {
        let loss = read.logps_m.sum() * (-1.0 / *n_predicted as f64);
        Share { loss, tally: PairTally::default() }
    }
}
