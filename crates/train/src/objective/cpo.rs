//! CPO: DPO with a uniform reference, kept in place by a cross entropy of the chosen responses.

use burn::tensor::Tensor;
use serde::Serialize;

use super::{MarginLoss, PairStats, margin_losses};

/// Xu et al. 2024, arXiv 2401.08417.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cpo {
    /// Scale of the difference of log-prob sums.
    pub beta: f64,
    /// Weight of the token-mean cross entropy of the chosen responses.
    pub cpo_alpha: f64,
    pub loss: MarginLoss,
    /// ε of the sigmoid form.
    pub label_smoothing: f64,
}

impl Cpo {
    /// The form of `loss` at `β (Sw − Sl)`, log-prob sums, nats.
    pub fn losses(&self, stats: &PairStats) -> Tensor<1> {
        let Self { beta, cpo_alpha: _, loss, label_smoothing } = *self;
        let x_b = (stats.chosen_sums_b.clone() - stats.rejected_sums_b.clone()) * beta;
        margin_losses(x_b, loss, label_smoothing)
    }
}
