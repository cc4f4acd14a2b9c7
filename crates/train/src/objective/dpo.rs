//! DPO and its hinge and robust forms.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use serde::Serialize;

use super::{MarginLoss, PairStats, margin_losses};

/// Rafailov et al. 2023, arXiv 2305.18290.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Dpo {
    /// Scale of the log-ratios.
    pub beta: f64,
    pub loss: DpoLoss,
    /// ε, the chance that a preference is the wrong way round; below ½ for the robust form. The hinge ignores it.
    pub label_smoothing: f64,
}

/// The forms of DPO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DpoLoss {
    /// `−(1−ε) ln σ(βh) − ε ln σ(−βh)`
    Sigmoid,
    /// `max(0, 1 − βh)`
    Hinge,
    /// `(−(1−ε) ln σ(βh) + ε ln σ(−βh)) / (1 − 2ε)`: unbiased under flipped labels, Chowdhury et al. 2024,
    /// arXiv 2403.00409.
    Robust,
}

impl Dpo {
    /// The form of `loss` at βh, log-prob sums, nats.
    pub fn losses(&self, stats: &PairStats) -> Tensor<1> {
        let Self { beta, loss, label_smoothing } = *self;
        let x_b = stats.ratio_margins() * beta;
        match loss {
            DpoLoss::Sigmoid => margin_losses(x_b, MarginLoss::Sigmoid, label_smoothing),
            DpoLoss::Hinge => margin_losses(x_b, MarginLoss::Hinge, label_smoothing),
            DpoLoss::Robust => {
                let scale = 1.0 / (1.0 - 2.0 * label_smoothing);
                log_sigmoid(x_b.clone()) * ((label_smoothing - 1.0) * scale)
                    + log_sigmoid(-x_b) * (label_smoothing * scale)
            }
        }
    }
}
