//! Every preference objective on the device, against the CPU.
//!
//! Owns one setting of each, and the rows: the sums of the fixture `objectives`, whose published losses the CPU is held to
//! in crate `train`. Losses are in f32 whatever a model is held in, so there is one tolerance.

use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::Deserialize;
use sluice_lm::weights::values;
use sluice_train::objective::{
    BatchTotals, Cpo, Dpo, DpoLoss, Ipo, Kto, LogProbs, MarginLoss, Objective, Orpo, PairFacts, PairStats, RDpo,
    ReferenceSums, Rrhf, Simpo, SlicHf,
};

use crate::CheckError;
use crate::device::Subject;
use crate::fixture::Fixtures;
use crate::verdict::{Finding, relative};

#[derive(Deserialize)]
struct File {
    inputs: Inputs,
}

#[derive(Deserialize)]
struct Inputs {
    chosen_sum: Vec<f32>,
    rejected_sum: Vec<f32>,
    chosen_len: Vec<usize>,
    rejected_len: Vec<usize>,
    ref_chosen_sum: Vec<f64>,
    ref_rejected_sum: Vec<f64>,
    kl_policy_sum: Vec<f64>,
    kl_ref_sum: Vec<f64>,
}

/// Losses and gradients of every objective.
pub fn findings(subject: &Subject, fixtures: &Fixtures) -> Result<Vec<Finding>, CheckError> {
    /// Element-wise f32 with exponentials and logarithms of another library: the fixture allows its f32 run the same.
    const TOLERANCE: f64 = 1e-5;
    let File { inputs } = fixtures.json("objectives/objectives.json")?;
    let compared = objectives().into_iter().map(|objective| {
        let of = |device: &Device| computed(&objective, &inputs, device);
        let error = relative(&of(&subject.placement.device), &of(&Device::flex()));
        Finding::new(format!("objective {}, losses and gradients, relative", objective.name()), error, TOLERANCE)
    });
    Ok(compared.collect())
}

/// With each of the functions that a loss can be made of.
fn objectives() -> Vec<Objective> {
    let (loss, label_smoothing) = (MarginLoss::Sigmoid, 0.1);
    vec![
        Objective::Simpo(Simpo { beta: 10.0, gamma_beta_ratio: 0.5, loss, label_smoothing, sft_weight: 0.5 }),
        Objective::Dpo(Dpo { beta: 0.1, loss: DpoLoss::Robust, label_smoothing }),
        Objective::Ipo(Ipo { beta: 0.1, log_probs: LogProbs::Mean }),
        Objective::Cpo(Cpo { beta: 0.1, cpo_alpha: 1.0, loss: MarginLoss::Hinge, label_smoothing: 0.0 }),
        Objective::Orpo(Orpo { lambda: 0.1 }),
        Objective::Kto(Kto { beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.5 }),
        Objective::SlicHf(SlicHf { delta: 10.0, lambda: 0.1 }),
        Objective::Rrhf(Rrhf { lambda: 1.0 }),
        Objective::RDpo(RDpo { beta: 0.1, alpha: 0.05 }),
    ]
}

/// Losses of the rows, then the gradients of their share with respect to both sums.
fn computed(objective: &Objective, inputs: &Inputs, device: &Device) -> Vec<f32> {
    let leaf = |sums: &[f32]| {
        let data = TensorData::new(sums.to_vec(), [sums.len()]);
        Tensor::<1>::from_data(data, (device, DType::F32)).autodiff().require_grad()
    };
    let leaves = [leaf(&inputs.chosen_sum), leaf(&inputs.rejected_sum)];
    let facts: Vec<PairFacts> = (0..inputs.chosen_sum.len())
        .map(|row| PairFacts {
            chosen_len: inputs.chosen_len[row],
            rejected_len: inputs.rejected_len[row],
            reference: objective
                .reads_reference()
                .then(|| ReferenceSums { chosen: inputs.ref_chosen_sum[row], rejected: inputs.ref_rejected_sum[row] }),
        })
        .collect();
    let kl = Kto::kl(&inputs.kl_policy_sum, &inputs.kl_ref_sum);
    let stats = PairStats::new(leaves[0].clone(), leaves[1].clone(), &facts, kl);
    let totals = BatchTotals { n_pairs: facts.len(), n_chosen_tokens: inputs.chosen_len.iter().sum() };
    let mut all = values(objective.losses(&stats).inner());
    let gradients = objective.share(&stats, &totals).backward();
    all.extend(leaves.iter().flat_map(|leaf| leaf.grad(&gradients).map(values).unwrap_or_default()));
    all
}
