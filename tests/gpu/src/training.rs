//! Training against the reference: one SimPO batch with its gradients, and whole runs.
//!
//! Owns the tolerances of training. In f32 they are those of the READMEs: ten times what f32 differs from f64. In bf16 they
//! are twice what this program's bf16 run differs on the CPU, where it rounds as the Python library does, and with tf32 a
//! quarter of that. The fixture's model is made to show small errors, and SimPO multiplies those of a mean
//! log-probability by its beta of 10, so that a loss of several nats is off by half of one in bf16.
//! In the norm of a whole gradient such errors cancel; there it is three roundings to bf16.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use serde::Deserialize;
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::model::{CausalModel, load_causal};
use sluice_lm::params::{ParamMut, Parameters};
use sluice_lm::precision::{Placement, Precision};
use sluice_lm::stack::Stack;
use sluice_lm::weights::values;
use sluice_train::backward::{Kept, add_gradients};
use sluice_train::batch::{Sequence, TokenPair};
use sluice_train::logps::pair_logps;
use sluice_train::metrics::StepMetrics;
use sluice_train::objective::{Dpo, DpoLoss, MarginLoss, Objective, Simpo};
use sluice_train::optimizer::{AdamW, GradientSum, Keeping, Master};
use sluice_train::order::Order;
use sluice_train::schedule::{Decay, Schedule};
use sluice_train::task::{PairTask, Read, Task, reference_logps};
use sluice_train::trainer::{Hooks, Recipe, TrainError, Trainer};

use crate::CheckError;
use crate::device::{Arithmetic, Subject};
use crate::fixture::{Fixtures, Tensors};
use crate::verdict::{Finding, attempt, compared, relative, worst};

/// SimPO as the fixtures have it.
pub const SIMPO: Objective = Objective::Simpo(Simpo {
    beta: 10.0,
    gamma_beta_ratio: 0.5,
    loss: MarginLoss::Sigmoid,
    label_smoothing: 0.0,
    sft_weight: 0.0,
});

/// Token ids and labels of a pair; a label of −100 is not predicted.
#[derive(Deserialize)]
struct RowIds {
    chosen_input_ids: Vec<u32>,
    chosen_labels: Vec<i64>,
    rejected_input_ids: Vec<u32>,
    rejected_labels: Vec<i64>,
}

#[derive(Deserialize)]
struct BatchRow {
    #[serde(flatten)]
    ids: RowIds,
    loss: f64,
    logp_mean_chosen: f64,
    logp_mean_rejected: f64,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    grad_norm: f64,
}

impl RowIds {
    fn pair(&self) -> TokenPair {
        let sequence = |ids: &[u32], labels: &[i64]| {
            let n_prompt = labels.iter().take_while(|&&label| label == -100).count();
            Sequence::new(&ids[..n_prompt], &ids[n_prompt..])
        };
        TokenPair {
            chosen: sequence(&self.chosen_input_ids, &self.chosen_labels),
            rejected: sequence(&self.rejected_input_ids, &self.rejected_labels),
        }
    }
}

/// The model that all of these start from.
pub fn policy(subject: &Subject, fixtures: &Fixtures) -> Result<CausalModel, CheckError> {
    Ok(load_causal(&Checkpoint::open(&fixtures.path("gemma2-tiny"))?, &subject.placement)?)
}

/// The same as training takes it: weights in f32, whatever a step computes in.
pub fn trained(device: &Device, fixtures: &Fixtures) -> Result<CausalModel, CheckError> {
    Ok(load_causal(&Checkpoint::open(&fixtures.path("gemma2-tiny"))?, device)?)
}

/// The pairs of the runs.
pub fn pairs(fixtures: &Fixtures) -> Result<Vec<TokenPair>, CheckError> {
    let rows: Vec<RowIds> = fixtures.json("simpo-trajectory/rows.json")?;
    Ok(rows.iter().map(RowIds::pair).collect())
}

/// Every comparison of training.
pub fn findings(subject: &Subject, fixtures: &Fixtures) -> Vec<Finding> {
    let mut found = attempt("simpo-batch", || batch(subject, fixtures));
    found.extend(attempt("simpo-trajectory", || runs(subject, fixtures)));
    found.extend(attempt("rate 8e-7", || masters(subject, fixtures)));
    found
}

/// Log-probabilities, losses and gradients of one batch.
pub fn batch(subject: &Subject, fixtures: &Fixtures) -> Result<Vec<Finding>, CheckError> {
    let model = policy(subject, fixtures)?;
    let rows: Vec<BatchRow> = fixtures.json("simpo-batch/rows.json")?;
    let pairs: Vec<TokenPair> = rows.iter().map(|row| row.ids.pair()).collect();
    let never = AtomicBool::new(false);
    let sums = pair_logps(&model, &pairs, 300, &never).unwrap_or_default();
    let mut means = Vec::new();
    for ((chosen, rejected), pair) in sums.iter().zip(&pairs) {
        means.push((chosen / pair.chosen.n_predicted() as f64) as f32);
        means.push((rejected / pair.rejected.n_predicted() as f64) as f32);
    }
    let expected: Vec<f32> =
        rows.iter().flat_map(|row| [row.logp_mean_chosen, row.logp_mean_rejected]).map(|logp| logp as f32).collect();
    let task = PairTask::new(&SIMPO, &pairs, &[], 300)?;
    let mut losses = Vec::new();
    for row in 0..pairs.len() {
        let totals = task.totals(&model, &[row]);
        let hidden_nd = model.hidden(&Task::<CausalModel>::batch(&task, &[row]));
        let predictions = Task::<CausalModel>::predictions(&task, &[row]);
        let logps_m = predictions.logps(&model, hidden_nd.clone());
        let read = Read { hidden_nd, predictions: &predictions, logps_m };
        losses.extend(values(task.share(&model, read, &[row], &totals).loss));
    }
    let expected_losses: Vec<f32> = rows.iter().map(|row| row.loss as f32).collect();
    let arithmetic = subject.arithmetic;
    let mut found = vec![
        compared(arithmetic, "simpo-batch, mean log-probabilities", &means, &expected, [8e-5, 0.13]),
        compared(arithmetic, "simpo-batch, losses", &losses, &expected_losses, [7e-4, 1.2]),
    ];
    let expected = fixtures.tensors("simpo-batch/batch.safetensors")?;
    let summary: serde_json::Value = fixtures.json("simpo-batch/summary.json")?;
    let norm = summary["grad_norm_total"].as_f64().unwrap_or(f64::NAN);
    for (way, kept, shares_prompts) in [
        ("everything kept", Kept::All, false),
        ("blocks computed twice", Kept::Blocks, false),
        ("prompts shared", Kept::All, true),
    ] {
        let task = PairTask::new(&SIMPO, &pairs, &[], 300)?;
        let task = if shares_prompts { task.sharing_prompts() } else { task };
        let mut gradients = gradients(&model, &task, pairs.len(), kept);
        let norm_error = (gradients.norm() - norm).abs() / norm;
        let error = worst_gradient(model.clone(), &gradients, &expected)?;
        let [of_gradient, of_norm] =
            [[7e-5, 0.34], [7e-5, 0.01]].map(|[f32, bf16]| arithmetic.pick(f32, bf16 / 4.0, bf16));
        found.push(Finding::new(format!("simpo-batch, {way}, gradients, relative"), error, of_gradient));
        found.push(Finding::new(format!("simpo-batch, {way}, norm, relative"), norm_error, of_norm));
    }
    Ok(found)
}

/// Gradients of all rows, from micro-batches of five.
fn gradients(model: &CausalModel, task: &PairTask<'_>, n_rows: usize, kept: Kept) -> GradientSum {
    let all: Vec<usize> = (0..n_rows).collect();
    let totals = task.totals(model, &all);
    let mut gradients = GradientSum::default();
    for micro_batch in all.chunks(5) {
        add_gradients(model, task, micro_batch, &totals, kept, &mut gradients);
    }
    gradients
}

/// Of the parameters whose gradients the fixture has.
fn worst_gradient(mut model: impl Parameters, gradients: &GradientSum, expected: &Tensors) -> Result<f64, CheckError> {
    const NAMED: [&str; 4] = [
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.1.self_attn.q_proj.weight",
        "model.norm.weight",
        "model.embed_tokens.weight",
    ];
    let mut found = Vec::new();
    model.walk(&mut |name, param| {
        if let (true, Some(gradient)) = (NAMED.contains(&name), gradients.get(name)) {
            let gradient: Vec<f32> = gradient.to_data().iter::<f32>().collect();
            found.push((name.to_owned(), published_order(gradient, &param)));
        }
    });
    if found.len() != NAMED.len() {
        return Err(CheckError::Shape { what: format!("gradients of {NAMED:?}") });
    }
    let mut errors = Vec::new();
    for (name, gradient) in found {
        errors.push(relative(&gradient, &expected.floats(&format!("grad.{name}"))?));
    }
    Ok(worst(errors))
}

/// Values of a parameter in the order of its published tensor.
fn published_order(values: Vec<f32>, param: &ParamMut<'_>) -> Vec<f32> {
    match param {
        ParamMut::Vector(_) | ParamMut::Matrix(_) => values,
        ParamMut::Linear(weight) => {
            let [n_in, n_out] = weight.dims();
            (0..n_in * n_out).map(|i| values[(i % n_in) * n_out + i / n_in]).collect()
        }
    }
}

/// Forty steps of SimPO and twenty of DPO, step by step.
pub fn runs(subject: &Subject, fixtures: &Fixtures) -> Result<Vec<Finding>, CheckError> {
    let pairs = pairs(fixtures)?;
    let task = PairTask::new(&SIMPO, &pairs, &[], 4096)?;
    let held = Held { early: [1.9e-4, 0.64], all: [1.6e-3, 1.9], norm: [1.9e-5, 0.02] };
    let mut found = run("simpo", 1e-3, 4, subject, fixtures, &task, held)?;
    let objective = Objective::Dpo(Dpo { beta: 0.1, loss: DpoLoss::Sigmoid, label_smoothing: 0.0 });
    let never = AtomicBool::new(false);
    let model = policy(subject, fixtures)?;
    let reference = reference_logps(&model, &pairs, &objective, 2048, 4096, &never).unwrap_or_default();
    let task = PairTask::new(&objective, &pairs, &reference, 4096)?;
    let held = Held { early: [3.9e-5, 0.022], all: [1.1e-4, 0.12], norm: [2.3e-5, 0.046] };
    found.extend(run("dpo", 5e-4, 2, subject, fixtures, &task, held)?);
    Ok(found)
}

/// How far a run may be from the reference, in f32 and in bf16.
struct Held {
    /// Losses of the first five steps.
    early: [f64; 2],
    /// Losses of all steps.
    all: [f64; 2],
    /// Norms of the gradient over the first five steps, relative.
    norm: [f64; 2],
}

fn run(
    name: &str,
    peak: f64,
    n_warmup_steps: usize,
    subject: &Subject,
    fixtures: &Fixtures,
    task: &PairTask<'_>,
    held: Held,
) -> Result<Vec<Finding>, CheckError> {
    let order: Vec<Vec<Vec<usize>>> = fixtures.json(&format!("simpo-trajectory/{name}/order.json"))?;
    let expected: Vec<Step> = fixtures.json(&format!("simpo-trajectory/{name}/steps.json"))?;
    let n_steps = order.len();
    let recipe = Recipe {
        order: Order::Given(order),
        schedule: Schedule { peak, decay: Decay::Cosine, n_warmup_steps, n_steps },
        adamw: AdamW::default(),
        max_grad_norm: Some(1.0),
        micro_batch_tokens: 4096,
        precision: subject.placement.precision,
        kept: Kept::All,
    };
    let mut steps: Vec<StepMetrics> = Vec::new();
    let mut trainer = Trainer::new(trained(&subject.placement.device, fixtures)?, recipe.adamw)?;
    let mut on_step = |metrics: &StepMetrics, _: &Trainer<CausalModel>| {
        steps.push(metrics.clone());
        ControlFlow::Continue(())
    };
    let never = AtomicBool::new(false);
    trainer.run(task, &recipe, Hooks { cancel: &never, clock: &|| 0.0, on_step: &mut on_step })?;
    if steps.len() != expected.len() {
        return Err(CheckError::Shape { what: format!("{} steps of {name}, and not {}", expected.len(), steps.len()) });
    }
    let losses: Vec<f32> = steps.iter().map(|step| step.loss as f32).collect();
    let expected_losses: Vec<f32> = expected.iter().map(|step| step.loss as f32).collect();
    let norms: Vec<f32> = steps
        .iter()
        .zip(&expected)
        .take(5)
        .map(|(found, expected)| (found.grad_norm / expected.grad_norm) as f32)
        .collect();
    let compared = |what: &str, found: &[f32], expected: &[f32], tolerances| {
        compared(subject.arithmetic, format!("simpo-trajectory, {name}, {what}"), found, expected, tolerances)
    };
    Ok(vec![
        compared("losses of 5 steps", &losses[..5], &expected_losses[..5], held.early),
        compared("losses of all steps", &losses, &expected_losses, held.all),
        compared("norms of the gradient, relative", &norms, &[1.0; 5], held.norm),
    ])
}

/// Every form of weights, with moments in either precision.
pub fn forms() -> impl Iterator<Item = Keeping> {
    let with = |moments| [Master::F32, Master::Split, Master::Stochastic].map(|master| Keeping { master, moments });
    [Precision::F32, Precision::Bf16].into_iter().flat_map(with)
}

/// What a form is called.
pub fn form_name(Keeping { master, moments }: Keeping) -> String {
    format!("weights as `{}`, moments in {}", master.name(), moments.name())
}

/// The rate of the published runs, at which weights rounded to the nearest bf16 stand still, with each form of weights and
/// moments that a trainer takes on this device: what sixteen steps in bf16 gain, as a share of what they gain on the CPU in f32.
pub fn masters(subject: &Subject, fixtures: &Fixtures) -> Result<Vec<Finding>, CheckError> {
    /// Between losing most of the gain and making up most of it; a form that stands still gains less than a fifth.
    const TOLERANCE: f64 = 0.6;
    if subject.arithmetic != Arithmetic::Bf16 {
        return Ok(Vec::new());
    }
    let pairs = &pairs(fixtures)?[..2];
    let Placement { device, precision } = &subject.placement;
    let full = gain(&Device::flex(), Precision::F32, Keeping::default(), pairs, fixtures)?;
    let mut found = Vec::new();
    for keeping in forms() {
        match gain(device, *precision, keeping, pairs, fixtures) {
            Ok(gain) => {
                let share = gain / full;
                let what = format!("rate 8e-7, {}, {share:.2} of the gain in f32", form_name(keeping));
                found.push(Finding::new(what, (share - 1.0).abs(), TOLERANCE));
            }
            // Said by the trainer, before anything is computed.
            Err(CheckError::Train(TrainError::Form { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// How far the loss of these pairs falls in sixteen steps.
fn gain(
    device: &Device,
    precision: Precision,
    keeping: Keeping,
    pairs: &[TokenPair],
    fixtures: &Fixtures,
) -> Result<f64, CheckError> {
    const N_STEPS: usize = 16;
    let task = PairTask::new(&SIMPO, pairs, &[], 4096)?;
    let recipe = Recipe {
        order: Order::Given(vec![vec![(0..pairs.len()).collect()]; N_STEPS]),
        schedule: Schedule { peak: 8e-7, decay: Decay::Constant, n_warmup_steps: 0, n_steps: N_STEPS },
        adamw: AdamW::default(),
        max_grad_norm: Some(1.0),
        micro_batch_tokens: 4096,
        precision,
        kept: Kept::All,
    };
    let mut trainer = Trainer::new(trained(device, fixtures)?, recipe.adamw)?.keeping(keeping)?;
    let never = AtomicBool::new(false);
    let mut losses = Vec::with_capacity(N_STEPS);
    for _ in 0..N_STEPS {
        losses.extend(trainer.step(&task, &recipe, &never)?.map(|metrics| metrics.loss));
    }
    match losses.as_slice() {
        [first, .., last] => Ok(first - last),
        _ => Err(CheckError::Shape { what: format!("{N_STEPS} steps, and not {}", losses.len()) }),
    }
}
