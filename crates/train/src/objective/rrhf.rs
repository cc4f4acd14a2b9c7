//! RRHF: a ranking hinge on mean log-probs, kept in place by the likelihood of the chosen responses.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use serde::Serialize;

use super::PairStats;

/// Yuan et al. 2023, arXiv 2304.05302, as the SimPO paper compares it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rrhf {
    /// Weight of the chosen log-prob sum.
    pub lambda: f64,
}

impl Rrhf {
    /// `max(0, Al − Aw) − λ Sw`, nats. The hinge has slope 0 where the means are equal.
    pub fn losses(&self, stats: &PairStats) -> Tensor<1> {
        relu(stats.rejected_means() - stats.chosen_means()) - stats.chosen_sums_b.clone() * self.lambda
    }
}
