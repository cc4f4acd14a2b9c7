//! IPO: a squared distance of the log-ratio margin from its target.

use burn::tensor::Tensor;
use serde::Serialize;

use super::PairStats;

/// Azar et al. 2023, arXiv 2310.12036.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ipo {
    /// The paper's τ: the target margin is 1/(2β).
    pub beta: f64,
    pub log_probs: LogProbs,
}

/// Whether the log-probs of a response are summed or averaged over its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogProbs {
    /// As the paper has it.
    Sum,
    /// As TRL feeds it: policy and reference both averaged.
    Mean,
}

impl Ipo {
    /// `(h − 1/(2β))²`, nats squared.
    pub fn losses(&self, stats: &PairStats) -> Tensor<1> {
        let (chosen_b, rejected_b) = self.ratios(stats);
        (chosen_b - rejected_b - 1.0 / (2.0 * self.beta)).square()
    }

    /// β times the log-ratios, on sums or means as the loss.
    pub fn rewards(&self, stats: &PairStats) -> (Tensor<1>, Tensor<1>) {
        let (chosen_b, rejected_b) = self.ratios(stats);
        (chosen_b * self.beta, rejected_b * self.beta)
    }

    fn ratios(&self, stats: &PairStats) -> (Tensor<1>, Tensor<1>) {
        let (chosen_b, rejected_b) = (stats.chosen_ratios(), stats.rejected_ratios());
        match self.log_probs {
            LogProbs::Sum => (chosen_b, rejected_b),
            LogProbs::Mean => (chosen_b / stats.chosen_lens_b.clone(), rejected_b / stats.rejected_lens_b.clone()),
        }
    }
}
