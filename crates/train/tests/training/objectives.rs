//! All 50 cases of `objectives`: losses, gradients and rewards, in f64 and in f32.

use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::Deserialize;
use serde_json::Value;
use sluice_train::objective::{
    BatchTotals, Cpo, Dpo, DpoLoss, Ipo, Kto, LogProbs, MarginLoss, Objective, Orpo, PairFacts, PairStats, RDpo,
    ReferenceSums, Rrhf, Simpo, SlicHf,
};

use crate::fixture;

#[derive(Deserialize)]
struct File {
    inputs: Inputs,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Inputs {
    chosen_sum: Vec<f64>,
    rejected_sum: Vec<f64>,
    chosen_len: Vec<usize>,
    rejected_len: Vec<usize>,
    ref_chosen_sum: Vec<f64>,
    ref_rejected_sum: Vec<f64>,
    kl_policy_sum: Vec<f64>,
    kl_ref_sum: Vec<f64>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    objective: String,
    params: Value,
    losses: Vec<f64>,
    loss: f64,
    grad_chosen_sum: Vec<f64>,
    grad_rejected_sum: Vec<f64>,
    chosen_rewards: Option<Vec<f64>>,
    rejected_rewards: Option<Vec<f64>>,
    kl: Option<f64>,
    kl_swapped: Option<bool>,
}

/// What is allowed beside an expected value.
#[derive(Clone, Copy)]
struct Tolerance {
    relative: f64,
    absolute: f64,
}

const F64: Tolerance = Tolerance { relative: 1e-9, absolute: 1e-12 };
const F32: Tolerance = Tolerance { relative: 1e-5, absolute: 1e-6 };

#[test]
fn every_case_in_f64() {
    check(DType::F64, F64);
}

#[test]
fn every_case_in_f32() {
    check(DType::F32, F32);
}

fn check(dtype: DType, tolerance: Tolerance) {
    let File { inputs, cases } = fixture::json("objectives/objectives.json");
    assert_eq!(cases.len(), 50);
    let mut faults = Vec::new();
    let mut worst = (0.0, String::new());
    for case in &cases {
        for (what, found, expected) in compared(&inputs, case, dtype) {
            assert_eq!(found.len(), expected.len(), "{} {what}", case.name);
            for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let share = (found - expected).abs() / (tolerance.relative * expected.abs() + tolerance.absolute);
                if share > worst.0 {
                    worst = (share, format!("{} {what} row {row}", case.name));
                }
                if share.is_nan() || share > 1.0 {
                    faults.push(format!("{} {what} row {row}: {found} instead of {expected}", case.name));
                }
            }
        }
    }
    let (in_what, relative) = (dtype.name(), tolerance.relative);
    let what = format!("50 cases in {in_what}: losses and gradients, relative, worst at {}", worst.1);
    fixture::row("objectives", &what, worst.0 * relative, relative);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Every compared figure of a case: name, found, expected.
fn compared(inputs: &Inputs, case: &Case, dtype: DType) -> Vec<(&'static str, Vec<f64>, Vec<f64>)> {
    let objective = objective(case);
    let chosen_b = leaf(&inputs.chosen_sum, dtype);
    let rejected_b = leaf(&inputs.rejected_sum, dtype);
    let facts: Vec<PairFacts> = (0..inputs.chosen_sum.len())
        .map(|row| PairFacts {
            chosen_len: inputs.chosen_len[row],
            rejected_len: inputs.rejected_len[row],
            reference: objective
                .reads_reference()
                .then(|| ReferenceSums { chosen: inputs.ref_chosen_sum[row], rejected: inputs.ref_rejected_sum[row] }),
        })
        .collect();
    let kl = match case.kl_swapped {
        Some(true) => Kto::kl(&inputs.kl_ref_sum, &inputs.kl_policy_sum),
        _ => Kto::kl(&inputs.kl_policy_sum, &inputs.kl_ref_sum),
    };
    let stats = PairStats::new(chosen_b.clone(), rejected_b.clone(), &facts, kl);
    let totals = BatchTotals { n_pairs: facts.len(), n_chosen_tokens: inputs.chosen_len.iter().sum() };

    let odds_only = case.params["part"] == "odds ratio term only";
    let (losses, loss) = match &objective {
        Objective::Orpo(orpo) if odds_only => {
            let losses_b = orpo.odds_ratio_losses(&stats);
            (values(losses_b.clone()), losses_b.sum() * (1.0 / totals.n_pairs as f64))
        }
        Objective::Kto(kto) => {
            let (chosen_b, rejected_b) = kto.row_losses(&stats);
            ([values(chosen_b), values(rejected_b)].concat(), objective.share(&stats, &totals))
        }
        _ => (values(objective.losses(&stats)), objective.share(&stats, &totals)),
    };
    let mut gradients = loss.backward();
    let mut gradient = |leaf: &Tensor<1>| values(leaf.grad_remove(&mut gradients).expect("the loss reads every sum"));
    let mut compared = vec![
        ("losses", losses, case.losses.clone()),
        ("loss", values(loss.clone()), vec![case.loss]),
        ("grad_chosen_sum", gradient(&chosen_b), case.grad_chosen_sum.clone()),
        ("grad_rejected_sum", gradient(&rejected_b), case.grad_rejected_sum.clone()),
    ];
    let (chosen_rewards_b, rejected_rewards_b) = objective.rewards(&stats);
    if let (Some(chosen), Some(rejected)) = (&case.chosen_rewards, &case.rejected_rewards) {
        compared.push(("chosen_rewards", values(chosen_rewards_b), chosen.clone()));
        compared.push(("rejected_rewards", values(rejected_rewards_b), rejected.clone()));
    }
    if let Some(expected) = case.kl {
        compared.push(("kl", vec![kl], vec![expected]));
    }
    compared
}

fn objective(case: &Case) -> Objective {
    let number = |name: &str| case.params[name].as_f64().unwrap_or(0.0);
    let margin_loss = || match case.params["loss_type"].as_str() {
        Some("hinge") => MarginLoss::Hinge,
        _ => MarginLoss::Sigmoid,
    };
    match case.objective.as_str() {
        "simpo" => Objective::Simpo(Simpo {
            beta: number("beta"),
            gamma_beta_ratio: number("gamma_beta_ratio"),
            loss: margin_loss(),
            label_smoothing: number("label_smoothing"),
            sft_weight: number("sft_weight"),
        }),
        "dpo" => Objective::Dpo(Dpo {
            beta: number("beta"),
            loss: match case.params["loss_type"].as_str() {
                Some("hinge") => DpoLoss::Hinge,
                Some("robust") => DpoLoss::Robust,
                _ => DpoLoss::Sigmoid,
            },
            label_smoothing: number("label_smoothing"),
        }),
        "ipo" => Objective::Ipo(Ipo {
            beta: number("beta"),
            log_probs: if case.params["log_probs"] == "mean" { LogProbs::Mean } else { LogProbs::Sum },
        }),
        "cpo" => Objective::Cpo(Cpo {
            beta: number("beta"),
            cpo_alpha: number("cpo_alpha"),
            loss: margin_loss(),
            label_smoothing: number("label_smoothing"),
        }),
        "orpo" => Objective::Orpo(Orpo { lambda: number("lambda") }),
        "kto" => Objective::Kto(Kto {
            beta: number("beta"),
            desirable_weight: number("desirable_weight"),
            undesirable_weight: number("undesirable_weight"),
        }),
        "slic_hf" => Objective::SlicHf(SlicHf { delta: number("delta"), lambda: number("lambda") }),
        "rrhf" => Objective::Rrhf(Rrhf { lambda: number("lambda") }),
        "r_dpo" => Objective::RDpo(RDpo { beta: number("beta"), alpha: number("alpha") }),
        other => panic!("the fixture has an objective {other} that is not mapped here"),
    }
}

fn leaf(values: &[f64], dtype: DType) -> Tensor<1> {
    let data = TensorData::new(values.to_vec(), [values.len()]);
    Tensor::from_data(data, (&Device::flex(), dtype)).autodiff().require_grad()
}

fn values(tensor: Tensor<1>) -> Vec<f64> {
    tensor.inner().into_data().iter::<f64>().collect()
}
