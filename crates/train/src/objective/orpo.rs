//! ORPO: cross entropy of the chosen response plus a log odds ratio, without a reference model.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use serde::Serialize;

use super::PairStats;

/// Hong, Lee, Thorne 2024, arXiv 2403.07691.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Orpo {
    /// Weight of the odds ratio term.
    pub lambda: f64,
}

/// Mean log-probs above this count as this: at 0 the odds are infinite.
const LARGEST_MEAN_LOGP: f64 = -1e-7;

impl Orpo {
    /// `−Aw − λ ln σ(log odds)`, logps averaged per token, nats.
    ///
    /// The first term is the cross entropy of the response alone, averaged per row as in the paper's equation; TRL
    /// takes it over prompt and response.
    pub fn losses(&self, stats: &PairStats) -> Tensor<1> {
        self.odds_ratio_losses(stats) - stats.chosen_means()
    }

    /// The odds ratio term alone, `−λ ln σ((Aw − Al) − (ln(1 − e^Aw) − ln(1 − e^Al)))`.
    pub fn odds_ratio_losses(&self, stats: &PairStats) -> Tensor<1> {
        let (chosen_b, rejected_b) = (stats.chosen_means(), stats.rejected_means());
        let log_odds_b = log_odds(chosen_b) - log_odds(rejected_b);
        log_sigmoid(log_odds_b) * -self.lambda
    }
}

/// `ln(p / (1 − p))` for `p = e^A`, A < 0.
///
/// `1 − e^A = tanh(−A/2) (1 + e^A)` keeps all digits where p is near 1.
fn log_odds(means_b: Tensor<1>) -> Tensor<1> {
    let means_b = means_b.clamp_max(LARGEST_MEAN_LOGP);
    let log_complement_b = (means_b.clone() * -0.5).tanh().log() + means_b.clone().exp().log1p();
    means_b - log_complement_b
}
