//! KTO: each response judged alone, against the drift of the policy from the reference.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use serde::Serialize;

use super::PairStats;

/// Ethayarajh et al. 2024, arXiv 2402.01306.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Kto {
    /// Scale of the log-ratios.
    pub beta: f64,
    /// Weight of chosen responses.
    pub desirable_weight: f64,
    /// Weight of rejected responses.
    pub undesirable_weight: f64,
}

impl Kto {
    /// Half the sum of a pair's two row losses: the mean over pairs is then the mean over rows.
    pub fn losses(&self, stats: &PairStats) -> Tensor<1> {
        let (chosen_b, rejected_b) = self.row_losses(stats);
        (chosen_b + rejected_b) * 0.5
    }

    /// Losses of the chosen rows, `wd (1 − σ(β(Δw − z)))`, and of the rejected rows, `wu (1 − σ(β(z − Δl)))`.
    ///
    /// `1 − σ(x)` is taken as `σ(−x)`, which keeps its digits where σ is near 1. z is data: no gradient passes.
    pub fn row_losses(&self, stats: &PairStats) -> (Tensor<1>, Tensor<1>) {
        let Self { beta, desirable_weight, undesirable_weight } = *self;
        let chosen_b = sigmoid((stats.chosen_ratios() - stats.kl) * -beta) * desirable_weight;
        let rejected_b = sigmoid((stats.rejected_ratios() - stats.kl) * beta) * undesirable_weight;
        (chosen_b, rejected_b)
    }

    /// `z = max(0, mean(policy − reference))` over responses put to prompts they were not written for, nats.
    pub fn kl(policy_sums: &[f64], reference_sums: &[f64]) -> f64 {
        let total: f64 = policy_sums.iter().zip(reference_sums).map(|(policy, reference)| policy - reference).sum();
        (total / policy_sums.len().max(1) as f64).max(0.0)
    }
}
