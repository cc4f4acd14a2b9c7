//! SLiC-HF: a hinge on log-prob sums, kept in place by the likelihood of the chosen responses.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use serde::Serialize;

use super::PairStats;

/// Zhao et al. 2023, arXiv 2305.10425, as the SimPO paper compares it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SlicHf {
    /// Margin of the hinge, nats.
    pub delta: f64,
    /// Weight of the chosen log-prob sum.
    pub lambda: f64,
}

impl SlicHf {
    /// `max(0, δ − Sw + Sl) − λ Sw`, log-prob sums, nats.
    pub fn losses(&self, stats: &PairStats) -> Tensor<1> {
        let Self { delta, lambda } = *self;
        let (chosen_b, rejected_b) = (stats.chosen_sums_b.clone(), stats.rejected_sums_b.clone());
        relu(rejected_b - chosen_b.clone() + delta) - chosen_b * lambda
    }
}
