//! What an objective sees of a batch of pairs.
//!
//! Owns the per-pair statistics and the few functions of them that several objectives share. Knows nothing of models,
//! tokens or batches.
//!
//! b pairs

use burn::tensor::{Tensor, TensorData};

/// What is known of one pair before the policy reads it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairFacts {
    /// Response tokens that are predicted, at least 1.
    pub chosen_len: usize,
    /// Response tokens that are predicted, at least 1.
    pub rejected_len: usize,
    /// Log-prob sums of both responses under the reference model; `None` where the objective reads none.
    pub reference: Option<ReferenceSums>,
}

/// Log-prob sums over the response tokens under the reference model, nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReferenceSums {
    pub chosen: f64,
    pub rejected: f64,
}

/// Statistics `[b]` of b pairs, all of one dtype and on one device.
#[derive(Clone)]
pub struct PairStats {
    /// Log-prob sums of the chosen responses under the policy, nats, on the tape.
    pub chosen_sums_b: Tensor<1>,
    /// Log-prob sums of the rejected responses under the policy, nats, on the tape.
    pub rejected_sums_b: Tensor<1>,
    /// Response tokens, as data.
    pub chosen_lens_b: Tensor<1>,
    /// Response tokens, as data.
    pub rejected_lens_b: Tensor<1>,
    /// Log-prob sums under the reference model, as data; zero where there is none.
    pub reference_chosen_b: Tensor<1>,
    /// Log-prob sums under the reference model, as data; zero where there is none.
    pub reference_rejected_b: Tensor<1>,
    /// Estimate of KL(policy ‖ reference) in nats over the whole batch, at least 0; read by KTO alone.
    pub kl: f64,
}

impl PairStats {
    /// Joins what the policy said with what was known before. The tensors have one entry for each of `facts`.
    pub fn new(chosen_sums_b: Tensor<1>, rejected_sums_b: Tensor<1>, facts: &[PairFacts], kl: f64) -> Self {
        let column = |value: &dyn Fn(&PairFacts) -> f64| {
            let values: Vec<f64> = facts.iter().map(value).collect();
            let n_pairs = values.len();
            let device = chosen_sums_b.device().inner();
            Tensor::from_data(TensorData::new(values, [n_pairs]), (&device, chosen_sums_b.dtype()))
        };
        Self {
            chosen_lens_b: column(&|f| f.chosen_len as f64),
            rejected_lens_b: column(&|f| f.rejected_len as f64),
            reference_chosen_b: column(&|f| f.reference.map_or(0.0, |r| r.chosen)),
            reference_rejected_b: column(&|f| f.reference.map_or(0.0, |r| r.rejected)),
            chosen_sums_b,
            rejected_sums_b,
            kl,
        }
    }

    /// Mean log-prob per token of the chosen responses.
    pub fn chosen_means(&self) -> Tensor<1> {
        self.chosen_sums_b.clone() / self.chosen_lens_b.clone()
    }

    /// Mean log-prob per token of the rejected responses.
    pub fn rejected_means(&self) -> Tensor<1> {
        self.rejected_sums_b.clone() / self.rejected_lens_b.clone()
    }

    /// `Sw − Rw`: log-ratio of policy to reference, chosen.
    pub fn chosen_ratios(&self) -> Tensor<1> {
        self.chosen_sums_b.clone() - self.reference_chosen_b.clone()
    }

    /// `Sl − Rl`: log-ratio of policy to reference, rejected.
    pub fn rejected_ratios(&self) -> Tensor<1> {
        self.rejected_sums_b.clone() - self.reference_rejected_b.clone()
    }

    /// `h = (Sw − Rw) − (Sl − Rl)`.
    pub fn ratio_margins(&self) -> Tensor<1> {
        self.chosen_ratios() - self.rejected_ratios()
    }
}
