//! Log-probabilities of responses under a model.
//!
//! Owns which token is predicted from which row, and the sums over a response. Knows nothing of objectives.
//!
//! s sequences, m predicted tokens

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use sluice_lm::causal::CausalLm;
use sluice_lm::packed::Packed;
use sluice_lm::stack::Stack;

use crate::batch::{Sequence, TokenPair};
use crate::order::{by_length, micro_batches};

/// Which hidden row predicts which token, for the responses of packed sequences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Predictions {
    /// Row of the hidden states `[m]`: the token before the predicted one.
    pub rows: Vec<usize>,
    /// The predicted token `[m]`.
    pub targets: Vec<u32>,
    /// The sequence each prediction belongs to `[m]`.
    pub owners: Vec<usize>,
}

impl Predictions {
    /// The predictions of every response token of sequences packed in this order.
    pub fn new(sequences: &[&Sequence]) -> Self {
        Self::of_packed(sequences.iter().copied().enumerate(), &Packed::new(sequences))
    }

    /// The predictions of every response token of sequences that are packed so, each with the number it is counted under.
    pub fn of_packed<'s>(sequences: impl IntoIterator<Item = (usize, &'s Sequence)>, packed: &Packed) -> Self {
        let mut predictions = Self::default();
        for ((owner, sequence), segment) in sequences.into_iter().zip(packed.segments().iter()) {
            let rows: Vec<usize> = segment.tokens().collect();
            for position in sequence.predicted() {
                predictions.rows.push(rows[position - 1]);
                predictions.targets.push(sequence.ids()[position]);
                predictions.owners.push(owner);
            }
        }
        predictions
    }

    /// Those that belong to some of the sequences.
    pub fn only(&self, is_wanted: impl Fn(usize) -> bool) -> Self {
        let mut wanted = Self::default();
        for ((row, target), owner) in self.rows.iter().zip(&self.targets).zip(&self.owners) {
            if is_wanted(*owner) {
                wanted.rows.push(*row);
                wanted.targets.push(*target);
                wanted.owners.push(*owner);
            }
        }
        wanted
    }

    /// Log-probabilities `[m]`, nats, from hidden states, off the tape.
    pub fn logps<M: Stack>(&self, model: &M, hidden_nd: Tensor<2>) -> Tensor<1> {
        model.vocabulary_head().token_logps(hidden_nd, &self.rows, &self.targets)
    }

    /// Sums `[s]` of log-probabilities over each of `n_sequences`, on the tape when they are.
    pub fn sums(&self, logps_m: Tensor<1>, n_sequences: usize) -> Tensor<1> {
        let owners: Vec<i64> = self.owners.iter().map(|&owner| owner as i64).collect();
        let (device, n_predictions) = (logps_m.device(), owners.len());
        let owners_m = Tensor::<1, Int>::from_data(TensorData::new(owners, [n_predictions]), &device);
        Tensor::zeros([n_sequences], &device).select_assign(0, owners_m, logps_m, IndexingUpdateOp::Add)
    }
}

/// Log-prob sums `[s]` over each response, nats, off the tape. Each response has a predicted token.
pub fn sequence_logps<M: Stack>(model: &M, sequences: &[&Sequence]) -> Tensor<1> {
    let predictions = Predictions::new(sequences);
    let logps_m = predictions.logps(model, model.hidden(&Packed::new(sequences)));
    predictions.sums(logps_m, sequences.len())
}

/// Told the rows of a batch, and of each the log-prob sums of its sequences.
pub type OnBatch<'a> = &'a mut dyn FnMut(&[usize], Vec<Vec<f64>>);

/// Log-prob sums of sequences, without a tape, in batches of at most `max_tokens` tokens. The sequences of one row are in
/// one batch; `on_batch` is told the rows of each batch and their sums when it is done.
///
/// `None` when `cancel` was set before the end.
pub fn logps_by_row<M: CausalLm>(
    model: &M,
    rows: &[Vec<&Sequence>],
    max_tokens: usize,
    cancel: &AtomicBool,
    on_batch: OnBatch<'_>,
) -> Option<()> {
    let n_tokens = |row: usize| rows[row].iter().map(|sequence| sequence.n_tokens()).sum();
    for batch in micro_batches(&by_length(rows.len(), &n_tokens), &n_tokens, max_tokens) {
        if cancel.load(Ordering::Relaxed) {
            return None;
        }
        let picked: Vec<&Sequence> = batch.iter().flat_map(|&row| rows[row].iter().copied()).collect();
        let mut sums = floats(sequence_logps(model, &picked)).into_iter();
        let of_rows = batch.iter().map(|&row| sums.by_ref().take(rows[row].len()).collect()).collect();
        on_batch(&batch, of_rows);
    }
    Some(())
}

/// Log-prob sums of each sequence, without a tape, in batches of at most `max_tokens` tokens.
///
/// `None` when `cancel` was set before the end.
pub fn all_sequence_logps<M: CausalLm>(
    model: &M,
    sequences: &[&Sequence],
    max_tokens: usize,
    cancel: &AtomicBool,
) -> Option<Vec<f64>> {
    let rows: Vec<Vec<&Sequence>> = sequences.iter().map(|sequence| vec![*sequence]).collect();
    let mut sums = vec![0.0; sequences.len()];
    logps_by_row(model, &rows, max_tokens, cancel, &mut |batch, of_rows| {
        for (row, of_row) in batch.iter().zip(of_rows) {
            sums[*row] = of_row[0];
        }
    })?;
    Some(sums)
}

/// Log-prob sums of chosen and rejected of each pair, nats, without a tape.
///
/// `None` when `cancel` was set before the end.
pub fn pair_logps<M: CausalLm>(
    model: &M,
    pairs: &[TokenPair],
    max_tokens: usize,
    cancel: &AtomicBool,
) -> Option<Vec<(f64, f64)>> {
    let sequences: Vec<&Sequence> = pairs.iter().flat_map(|pair| [&pair.chosen, &pair.rejected]).collect();
    let sums = all_sequence_logps(model, &sequences, max_tokens, cancel)?;
    Some(sums.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// The values of a vector, read to the host.
pub(crate) fn floats(tensor: Tensor<1>) -> Vec<f64> {
    tensor.inner().into_data().iter::<f64>().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_response_token_is_predicted_from_the_token_before() {
        let (first, second) = (Sequence::new(&[7, 8], &[9]), Sequence::new(&[], &[5, 6]));
        let predictions = Predictions::new(&[&first, &second]);
        // The second sequence has no prompt: its first token has nothing to be predicted from.
        assert_eq!(predictions, Predictions { rows: vec![1, 3], targets: vec![9, 6], owners: vec![0, 1] });
    }
}
