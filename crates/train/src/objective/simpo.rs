//! SimPO: the length-normalised margin against a target, without a reference model.

use burn::tensor::Tensor;
use serde::Serialize;

use super::{MarginLoss, PairStats, margin_losses};

/// Meng, Xia, Chen 2024, arXiv 2405.14734.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Simpo {
    /// Scale of the margin.
    pub beta: f64,
    /// Target margin in units of the mean log-prob, γ/β. Never the absolute γ.
    pub gamma_beta_ratio: f64,
    pub loss: MarginLoss,
    /// ε of the sigmoid form, the chance that a preference is the wrong way round.
    pub label_smoothing: f64,
    /// Weight of the token-mean cross entropy of the chosen responses.
    pub sft_weight: f64,
}

impl Simpo {
    /// The form of `loss` at `x = β (Aw − Al − γ/β)`, logps averaged per token, nats.
    ///
    /// The target is subtracted before the scaling, as in the reference trainer. The cross entropy of `sft_weight` is
    /// weighted by tokens over the whole batch; the reference averages it over each micro-batch.
    pub fn losses(&self, stats: &PairStats) -> Tensor<1> {
        let Self { beta, gamma_beta_ratio, loss, label_smoothing, sft_weight: _ } = *self;
        let x_b = (stats.chosen_means() - stats.rejected_means() - gamma_beta_ratio) * beta;
        margin_losses(x_b, loss, label_smoothing)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::objective::PairFacts;

    fn loss_of_means(simpo: Simpo, chosen_mean: f32, rejected_mean: f32) -> String {
        let device = Device::flex();
        let facts = [PairFacts { chosen_len: 4, rejected_len: 8, reference: None }];
        let sums = |mean: f32, len: f32| Tensor::from_floats([mean * len], &device);
        let stats = PairStats::new(sums(chosen_mean, 4.0), sums(rejected_mean, 8.0), &facts, 0.0);
        format!("{:.4}", simpo.losses(&stats).into_scalar::<f32>())
    }

    const GEMMA: Simpo =
        Simpo { beta: 10.0, gamma_beta_ratio: 0.5, loss: MarginLoss::Sigmoid, label_smoothing: 0.0, sft_weight: 0.0 };

    #[test]
    fn worked_by_hand() {
        // 10 · (0.75 − 0.50) = 2.5, ln(1 + e^−2.5) = 0.0789
        assert_eq!(loss_of_means(GEMMA, -0.25, -1.0), "0.0789");
        // A margin of exactly zero: −ln σ(−5).
        assert_eq!(loss_of_means(GEMMA, -1.0, -1.0), "5.0067");
        // 1 − 2.5 is below zero.
        assert_eq!(loss_of_means(Simpo { loss: MarginLoss::Hinge, ..GEMMA }, -0.25, -1.0), "0.0000");
    }
}
