//! Which rows each optimiser step reads, and how a step is cut into micro-batches.
//!
//! Owns the order. It is a pure function of the seed and the step: nothing about it has to be saved, and any step can
//! be asked for. Knows nothing of what a row is beyond its number of tokens.

use std::cmp::Reverse;

/// The rows of every step of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A fresh permutation for each epoch.
    Shuffled(Shuffle),
    /// Rows written out as `[step][micro-batch][row]`.
    Given(Vec<Vec<Vec<usize>>>),
}

/// Epochs of shuffled rows, cut into steps of `batch_size` rows.
///
/// An epoch has `n_rows / batch_size` steps, rounded down, and at least one; the rows that do not fill a step are other
/// rows in each epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shuffle {
    pub n_rows: usize,
    pub batch_size: usize,
    pub seed: u64,
}

impl Order {
    /// Epochs finished after `n_done` steps, with fraction.
    pub fn epochs_after(&self, n_done: usize) -> f64 {
        let steps_per_epoch = match self {
            Self::Shuffled(shuffle) => shuffle.steps_per_epoch(),
            Self::Given(steps) => steps.len().max(1),
        };
        n_done as f64 / steps_per_epoch as f64
    }
}

impl Shuffle {
    /// Optimiser steps of an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        (self.n_rows / self.batch_size.max(1)).max(1)
    }

    /// Steps of a run of `epochs` epochs, rounded up, and of at most `max_steps`.
    pub fn n_steps(&self, epochs: f64, max_steps: Option<usize>) -> usize {
        let n_steps = (epochs * self.steps_per_epoch() as f64).ceil() as usize;
        n_steps.min(max_steps.unwrap_or(usize::MAX))
    }

    /// Rows of the step that follows `n_done` finished steps.
    pub fn rows(&self, n_done: usize) -> Vec<usize> {
        let epoch = n_done / self.steps_per_epoch();
        let start = (n_done % self.steps_per_epoch()) * self.batch_size;
        let permutation = epoch_permutation(self.seed, epoch as u64, self.n_rows);
        permutation.into_iter().skip(start).take(self.batch_size).collect()
    }
}

/// The permutation of an epoch: rows sorted by the first 8 bytes, little endian, of BLAKE3 over seed, epoch and row,
/// each as 8 bytes little endian; the row number breaks ties.
pub fn epoch_permutation(seed: u64, epoch: u64, n_rows: usize) -> Vec<usize> {
    let sort_key = |row: usize| {
        let mut message = [0; 24];
        message[..8].copy_from_slice(&seed.to_le_bytes());
        message[8..16].copy_from_slice(&epoch.to_le_bytes());
        message[16..].copy_from_slice(&(row as u64).to_le_bytes());
        let mut head = [0; 8];
        head.copy_from_slice(&blake3::hash(&message).as_bytes()[..8]);
        (u64::from_le_bytes(head), row)
    };
    let mut rows: Vec<usize> = (0..n_rows).collect();
    rows.sort_by_cached_key(|&row| sort_key(row));
    rows
}

/// Cuts rows, in the order given, into micro-batches of at most `max_tokens` tokens; a larger row stands alone.
pub fn micro_batches(rows: &[usize], n_tokens: &dyn Fn(usize) -> usize, max_tokens: usize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for &row in rows {
        let need = n_tokens(row);
        match batches.last_mut() {
            Some(batch) if need <= room => {
                batch.push(row);
                room -= need;
            }
            _ => {
                batches.push(vec![row]);
                room = max_tokens.saturating_sub(need);
            }
        }
    }
    batches
}

/// Rows longest first, so that the batches of a pass without gradients are full; equal lengths keep their order.
pub fn by_length(n_rows: usize, n_tokens: &dyn Fn(usize) -> usize) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..n_rows).collect();
    rows.sort_by_key(|&row| Reverse(n_tokens(row)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_reads_rows_once_and_epochs_differ() {
        let shuffle = Shuffle { n_rows: 10, batch_size: 4, seed: 42 };
        assert_eq!(shuffle.steps_per_epoch(), 2);
        assert_eq!((shuffle.n_steps(1.5, None), shuffle.n_steps(3.0, Some(4))), (3, 4));
        let epoch = |e: usize| [shuffle.rows(2 * e), shuffle.rows(2 * e + 1)].concat();
        let mut seen = epoch(0);
        assert_ne!(epoch(0), epoch(1));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 8);
    }

    #[test]
    fn a_set_smaller_than_a_batch_is_one_step() {
        let shuffle = Shuffle { n_rows: 3, batch_size: 16, seed: 1 };
        assert_eq!((shuffle.steps_per_epoch(), shuffle.rows(5).len()), (1, 3));
    }

    /// The order is part of what a run means: a change here changes every trained model.
    #[test]
    fn the_order_is_pinned() {
        expect_test::expect!["[2, 1, 4, 3, 7, 6, 5, 0]"].assert_eq(&format!("{:?}", epoch_permutation(42, 0, 8)));
    }

    #[test]
    fn micro_batches_keep_order_and_budget() {
        let lengths = [3, 3, 9, 2, 2];
        let cut = micro_batches(&[0, 1, 2, 3, 4], &|row| lengths[row], 6);
        assert_eq!(cut, vec![vec![0, 1], vec![2], vec![3, 4]]);
    }
}
