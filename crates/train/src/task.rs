//! What a model can be trained on: rows, and the part of a batch's loss that some of them carry.
//!
//! Owns the trait between the trainer's loop and the losses. A batch may be cut into micro-batches anywhere: the parts
//! sum to the loss of the whole batch. What a task computes begins at the hidden states and at the log-probabilities that it
//! asks for: how these come about, and where their gradients go, is the trainer's choice.
//!
//! n tokens, d hidden size, m predicted tokens

mod pairs;
mod reference;
mod reward;
mod sft;

use burn::tensor::Tensor;
use sluice_lm::packed::Packed;
use thiserror::Error;

pub use pairs::{PairTask, PairTotals};
pub use reference::{Mismatched, ReferenceLogps, ReferenceQuestions, reference_logps};
pub use reward::{RewardRow, RewardTask, RewardTotals, RewardWeights};
pub use sft::SftTask;

use crate::logps::Predictions;
use crate::metrics::PairTally;

/// Rows with a loss over models M.
pub trait Task<M> {
    /// What the whole batch must know before the parts of its loss can be weighted.
    type Totals;

    /// Number of rows.
    fn n_rows(&self) -> usize;

    /// Tokens that a row puts into a micro-batch.
    fn n_tokens(&self, row: usize) -> usize;

    /// Whether a parameter, by its published name, is trained. Those of the vocabulary always are.
    fn trains(&self, _parameter: &str) -> bool {
        true
    }

    /// Looks over the rows of a batch; `model` is off the tape.
    fn totals(&self, model: &M, rows: &[usize]) -> Self::Totals;

    /// What the model reads for these rows.
    fn batch(&self, rows: &[usize]) -> Packed;

    /// What of that is predicted, and from where.
    fn predictions(&self, rows: &[usize]) -> Predictions;

    /// The part of the batch's loss that `rows` carry, from what was read of [`Task::batch`]; `model` is on the tape, and so
    /// is that.
    fn share(&self, model: &M, read: Read<'_>, rows: &[usize], totals: &Self::Totals) -> Share;
}

/// What a model made of the tokens of a micro-batch.
#[derive(Clone, Debug)]
pub struct Read<'a> {
    pub hidden_nd: Tensor<2>,
    pub predictions: &'a Predictions,
    /// Log-probabilities of these predictions, nats, in f32.
    pub logps_m: Tensor<1>,
}

/// A part of a batch's loss.
pub struct Share {
    /// `[1]`, on the tape.
    pub loss: Tensor<1>,
    pub tally: PairTally,
}

/// Rows that cannot be trained on.
#[derive(Debug, Error, PartialEq)]
pub enum TaskError {
    #[error("there are no rows to train on")]
    Empty,
    #[error("row {row}: the {which} response has no token to predict; it must have at least one after a prompt token")]
    NoResponse { row: usize, which: &'static str },
    #[error("objective {objective} compares with a reference model, and no reference log-probs were given")]
    NoReference { objective: &'static str },
    #[error("{n_reference} reference log-probs were given for {n_pairs} pairs; each pair must have one")]
    ReferenceCount { n_pairs: usize, n_reference: usize },
    #[error("objective {objective} estimates a KL, and pair {row} has no reference log-prob of a mismatched response")]
    NoMismatched { objective: &'static str, row: usize },
    #[error("reference log-probs of pair {row} are not finite")]
    ReferenceNotFinite { row: usize },
    #[error("row {row} has {given} targets; the reward model has {expected} objectives beside the first")]
    TargetCount { row: usize, given: usize, expected: usize },
    #[error("read row {row} with the reward model")]
    Unreadable { row: usize, source: sluice_lm::reward::ScoreError },
}
