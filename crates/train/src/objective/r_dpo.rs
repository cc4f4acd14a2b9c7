//! R-DPO: DPO with a length term in the reward.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use serde::Serialize;

use super::PairStats;

/// Park et al. 2024, arXiv 2403.19159.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RDpo {
    /// Scale of the log-ratios.
    pub beta: f64,
    /// Reward lost for each token of a response.
    pub alpha: f64,
}

impl RDpo {
    /// `−ln σ(βh + α (Lw − Ll))`: the reward penalises length by α per token, so the implicit reward adds it back.
    pub fn losses(&self, stats: &PairStats) -> Tensor<1> {
        let Self { beta, alpha } = *self;
        let length_b = stats.chosen_lens_b.clone() - stats.rejected_lens_b.clone();
        -log_sigmoid(stats.ratio_margins() * beta + length_b * alpha)
    }
}
