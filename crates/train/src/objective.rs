//! Preference objectives: losses of pairs of responses as functions of their log-probabilities.
//!
//! Owns the equations and their parameters. Knows nothing of tokens, models or optimisers. Every objective is a pure
//! function from [`PairStats`] to one loss for each pair; what is differentiated is the mean over the pairs, plus a
//! token-weighted cross entropy of the chosen responses where the objective has one ([`Objective::nll_weight`]).
//!
//! S sum of response token log-probs under the policy, R under the reference model, L response tokens, A = S/L,
//! w chosen, l rejected, Δ = S − R, h = Δw − Δl, σ logistic function, all in nats. NLL = −ΣSw/ΣLw over the batch.
//!
//! | objective | loss of a pair | source | parameters | where others differ |
//! |---|---|---|---|---|
//! | [`Simpo`] | −(1−ε) ln σ(x) − ε ln σ(−x), x = β (Aw − Al − γ/β); hinge: max(0, 1 − x); + sft_weight · NLL | Meng et al. 2024, arXiv 2405.14734 | β, gamma_beta_ratio = γ/β, label_smoothing ε, sft_weight | TRL, LLaMA-Factory and Liger take the absolute γ; TRL's `simpo` adds 1.0 · NLL unless told otherwise |
//! | [`Dpo`] | −(1−ε) ln σ(βh) − ε ln σ(−βh); hinge: max(0, 1 − βh); robust: (−(1−ε) ln σ(βh) + ε ln σ(−βh)) / (1 − 2ε) | Rafailov et al. 2023, arXiv 2305.18290; Chowdhury et al. 2024, arXiv 2403.00409 (robust) | β, loss, label_smoothing ε | newer TRL ignores ε for the sigmoid |
//! | [`Ipo`] | (h − 1/(2β))², h on sums or on means | Azar et al. 2023, arXiv 2310.12036 | β (the paper's τ), log_probs | the paper and OpenRLHF use sums, TRL means |
//! | [`Cpo`] | SimPO's forms with x = β (Sw − Sl); + cpo_alpha · NLL | Xu et al. 2024, arXiv 2401.08417 | β, cpo_alpha, loss, label_smoothing ε | - |
//! | [`Orpo`] | −Aw − λ ln σ(log odds), log odds = (Aw − Al) − (ln(1 − e^Aw) − ln(1 − e^Al)) | Hong et al. 2024, arXiv 2403.07691 | λ | TRL's NLL covers the prompt too; others do not guard A = 0 |
//! | [`Kto`] | ½ [wd (1 − σ(β(Δw − z))) + wu (1 − σ(β(z − Δl)))], z = max(0, mean log-ratio of mismatched rows), no gradient through z | Ethayarajh et al. 2024, arXiv 2402.01306 | β, desirable_weight wd, undesirable_weight wu | the ½ makes it the mean over rows, each pair being two rows |
//! | [`SlicHf`] | max(0, δ − Sw + Sl) − λ Sw | Zhao et al. 2023, arXiv 2305.10425 | δ, λ | - |
//! | [`Rrhf`] | max(0, Al − Aw) − λ Sw | Yuan et al. 2023, arXiv 2304.05302 | λ | - |
//! | [`RDpo`] | −ln σ(βh + α (Lw − Ll)) | Park et al. 2024, arXiv 2403.19159 | β, α | - |

mod cpo;
mod dpo;
mod ipo;
mod kto;
mod orpo;
mod r_dpo;
mod rrhf;
mod simpo;
mod slic_hf;
mod stats;

use burn::tensor::activation::{log_sigmoid, relu};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::Serialize;

pub use cpo::Cpo;
pub use dpo::{Dpo, DpoLoss};
pub use ipo::{Ipo, LogProbs};
pub use kto::Kto;
pub use orpo::Orpo;
pub use r_dpo::RDpo;
pub use rrhf::Rrhf;
pub use simpo::Simpo;
pub use slic_hf::SlicHf;
pub use stats::{PairFacts, PairStats, ReferenceSums};

/// A preference objective with its parameters.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    Simpo(Simpo),
    Dpo(Dpo),
    Ipo(Ipo),
    Cpo(Cpo),
    Orpo(Orpo),
    Kto(Kto),
    SlicHf(SlicHf),
    Rrhf(Rrhf),
    RDpo(RDpo),
}

/// The form that turns a scaled margin into a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MarginLoss {
    /// `−(1−ε) ln σ(x) − ε ln σ(−x)`
    Sigmoid,
    /// `max(0, 1 − x)`
    Hinge,
}

/// What the whole batch must know before its micro-batches can be weighted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchTotals {
    /// Pairs of the batch.
    pub n_pairs: usize,
    /// Response tokens of all chosen responses of the batch.
    pub n_chosen_tokens: usize,
}

impl Objective {
    /// The name it has in a pipeline file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Simpo(_) => "simpo",
            Self::Dpo(_) => "dpo",
            Self::Ipo(_) => "ipo",
            Self::Cpo(_) => "cpo",
            Self::Orpo(_) => "orpo",
            Self::Kto(_) => "kto",
            Self::SlicHf(_) => "slic_hf",
            Self::Rrhf(_) => "rrhf",
            Self::RDpo(_) => "r_dpo",
        }
    }

    /// Whether it reads log-probs of a reference model.
    pub fn reads_reference(&self) -> bool {
        match self {
            Self::Dpo(_) | Self::Ipo(_) | Self::Kto(_) | Self::RDpo(_) => true,
            Self::Simpo(_) | Self::Cpo(_) | Self::Orpo(_) | Self::SlicHf(_) | Self::Rrhf(_) => false,
        }
    }

    /// Whether it reads the KL estimate over mismatched rows.
    pub fn reads_kl(&self) -> bool {
        matches!(self, Self::Kto(_))
    }

    /// One loss `[b]` for each pair.
    pub fn losses(&self, stats: &PairStats) -> Tensor<1> {
        match self {
            Self::Simpo(simpo) => simpo.losses(stats),
            Self::Dpo(dpo) => dpo.losses(stats),
            Self::Ipo(ipo) => ipo.losses(stats),
            Self::Cpo(cpo) => cpo.losses(stats),
            Self::Orpo(orpo) => orpo.losses(stats),
            Self::Kto(kto) => kto.losses(stats),
            Self::SlicHf(slic_hf) => slic_hf.losses(stats),
            Self::Rrhf(rrhf) => rrhf.losses(stats),
            Self::RDpo(r_dpo) => r_dpo.losses(stats),
        }
    }

    /// Losses of pairs whose log-prob sums are known, chosen and rejected, nats; computed in f64 on the CPU.
    pub fn losses_of_sums(&self, sums: &[(f64, f64)], facts: &[PairFacts]) -> Vec<f64> {
        let column =
            |values: Vec<f64>| Tensor::from_data(TensorData::new(values, [sums.len()]), (&Device::flex(), DType::F64));
        let (chosen, rejected) = sums.iter().copied().unzip();
        let stats = PairStats::new(column(chosen), column(rejected), facts, 0.0);
        self.losses(&stats).into_data().iter::<f64>().collect()
    }

    /// Weight of the token-mean cross entropy of the chosen responses beside the mean of the pair losses.
    ///
    /// The mean is over the tokens of the whole batch, not over micro-batches or rows, so that it does not depend on how
    /// the batch is cut.
    pub fn nll_weight(&self) -> f64 {
        match self {
            Self::Simpo(simpo) => simpo.sft_weight,
            Self::Cpo(cpo) => cpo.cpo_alpha,
            _ => 0.0,
        }
    }

    /// The part `[1]` of the batch's loss that these pairs carry: the parts of all micro-batches sum to the loss.
    pub fn share(&self, stats: &PairStats, totals: &BatchTotals) -> Tensor<1> {
        // A product, since the tape takes the reciprocal of a scalar divisor in f32.
        let pairs = self.losses(stats).sum() * (1.0 / totals.n_pairs as f64);
        match self.nll_weight() {
            0.0 => pairs,
            weight => pairs - stats.chosen_sums_b.clone().sum() * (weight / totals.n_chosen_tokens as f64),
        }
    }

    /// Implicit rewards `[b]` of chosen and rejected responses, which margins and accuracies are counted on.
    pub fn rewards(&self, stats: &PairStats) -> (Tensor<1>, Tensor<1>) {
        let means = |scale: f64| (stats.chosen_means() * scale, stats.rejected_means() * scale);
        let sums = |scale: f64| (stats.chosen_sums_b.clone() * scale, stats.rejected_sums_b.clone() * scale);
        let ratios = |scale: f64| (stats.chosen_ratios() * scale, stats.rejected_ratios() * scale);
        match self {
            Self::Simpo(simpo) => means(simpo.beta),
            Self::Dpo(dpo) => ratios(dpo.beta),
            Self::Ipo(ipo) => ipo.rewards(stats),
            Self::Cpo(cpo) => sums(cpo.beta),
            Self::Orpo(orpo) => means(orpo.lambda),
            Self::Kto(kto) => ratios(kto.beta),
            Self::SlicHf(_) => sums(1.0),
            Self::Rrhf(_) => means(1.0),
            Self::RDpo(r_dpo) => ratios(r_dpo.beta),
        }
    }

    /// Whether the objective looks at log-probs averaged per token; the metrics then report means, otherwise sums.
    pub fn averages_tokens(&self) -> bool {
        match self {
            Self::Simpo(_) | Self::Orpo(_) | Self::Rrhf(_) => true,
            Self::Ipo(ipo) => ipo.log_probs == LogProbs::Mean,
            Self::Dpo(_) | Self::Cpo(_) | Self::Kto(_) | Self::SlicHf(_) | Self::RDpo(_) => false,
        }
    }
}

/// Losses `[b]` of the scaled margins x, `label_smoothing` ε for the sigmoid.
fn margin_losses(x_b: Tensor<1>, form: MarginLoss, label_smoothing: f64) -> Tensor<1> {
    match form {
        MarginLoss::Sigmoid if label_smoothing == 0.0 => -log_sigmoid(x_b),
        MarginLoss::Sigmoid => log_sigmoid(x_b.clone()) * (label_smoothing - 1.0) - log_sigmoid(-x_b) * label_smoothing,
        MarginLoss::Hinge => relu(-x_b + 1.0),
    }
}
