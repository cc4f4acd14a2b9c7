//! What a step of training reports.
//!
//! Owns the figures of a step and how those of its micro-batches add up. Knows nothing of how they are shown or stored.

use std::ops::AddAssign;

/// One optimiser step. Everything but the rate is measured before the weights change.
#[derive(Clone, Debug, PartialEq)]
pub struct StepMetrics {
    /// From 1.
    pub step: usize,
    /// Epochs finished after this step, with fraction.
    pub epoch: f64,
    /// The batch's loss.
    pub loss: f64,
    /// Figures over the batch's pairs; `None` for tasks without pairs.
    pub pairs: Option<PairMetrics>,
    /// Norm of the whole gradient before clipping.
    pub grad_norm: f64,
    /// The rate this step was taken at.
    pub learning_rate: f64,
    /// Tokens read, prompts included.
    pub n_tokens: usize,
    /// Time since the step began.
    pub seconds: f64,
}

/// Means over the pairs of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairMetrics {
    /// Reward of chosen minus reward of rejected.
    pub margin: f64,
    /// Share of pairs whose chosen reward is strictly higher.
    pub accuracy: f64,
    /// Log-prob of the chosen response, nats: mean per token where the objective averages, otherwise the sum. `None`
    /// for reward models.
    pub chosen_logp: Option<f64>,
    /// The same of the rejected response.
    pub rejected_logp: Option<f64>,
}

/// Sums over pairs, from which the means are made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairTally {
    pub n_pairs: usize,
    pub n_correct: usize,
    pub margin: f64,
    /// Log-probs of chosen and rejected, where there are any.
    pub logps: Option<(f64, f64)>,
}

impl PairTally {
    /// Counts pairs of rewards.
    pub fn of_rewards(chosen: &[f64], rejected: &[f64]) -> Self {
        let mut tally = Self::default();
        for (chosen, rejected) in chosen.iter().zip(rejected) {
            tally.n_pairs += 1;
            tally.n_correct += usize::from(chosen > rejected);
            tally.margin += chosen - rejected;
        }
        tally
    }

    /// The means, or `None` over no pairs.
    pub fn means(&self) -> Option<PairMetrics> {
        let n_pairs = self.n_pairs as f64;
        (self.n_pairs > 0).then(|| PairMetrics {
            margin: self.margin / n_pairs,
            accuracy: self.n_correct as f64 / n_pairs,
            chosen_logp: self.logps.map(|(chosen, _)| chosen / n_pairs),
            rejected_logp: self.logps.map(|(_, rejected)| rejected / n_pairs),
        })
    }
}

impl AddAssign for PairTally {
    fn add_assign(&mut self, other: Self) {
        self.n_pairs += other.n_pairs;
        self.n_correct += other.n_correct;
        self.margin += other.margin;
        self.logps = match (self.logps, other.logps) {
            (Some((a, b)), Some((c, d))) => Some((a + c, b + d)),
            (logps, None) | (None, logps) => logps,
        };
    }
}
