//! `simpo-trajectory`: 40 steps of SimPO and 20 steps of DPO, step by step and weight by weight.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use serde::Deserialize;
use sluice_lm::gemma2::Gemma2;
use sluice_lm::params::{ParamMut, Parameters};
use sluice_lm::precision::Precision;
use sluice_train::backward::Kept;
use sluice_train::batch::TokenPair;
use sluice_train::metrics::StepMetrics;
use sluice_train::objective::{Dpo, DpoLoss, Objective};
use sluice_train::optimizer::AdamW;
use sluice_train::order::Order;
use sluice_train::schedule::{Decay, Schedule};
use sluice_train::task::{PairTask, ReferenceLogps, reference_logps};
use sluice_train::trainer::{Hooks, Outcome, Recipe, Trainer};

use crate::batch::{RowIds, SIMPO, published_order};
use crate::fixture::{self, Tensors, norm};

#[derive(Deserialize)]
struct Step {
    loss: f64,
    lr_used: f64,
    grad_norm: f64,
    margin_mean: f64,
    accuracy: Option<f64>,
    logp_chosen_mean: f64,
    logp_rejected_mean: f64,
}

#[derive(Deserialize)]
struct ReferenceFile {
    chosen_sum: Vec<f64>,
    rejected_sum: Vec<f64>,
}

/// Ten times what f32 differs from f64 in the run, from the README's table.
struct Tolerance {
    loss_1_5: f64,
    loss_1_10: f64,
    loss_all: f64,
    grad_norm_1_5: f64,
    grad_norm_all: f64,
    weights_step_5: f64,
    weights_end: f64,
}

pub fn pairs() -> Vec<TokenPair> {
    let rows: Vec<RowIds> = fixture::json("simpo-trajectory/rows.json");
    rows.iter().map(RowIds::pair).collect()
}

pub fn recipe(run: &str, peak: f64, n_warmup_steps: usize) -> Recipe {
    let order: Vec<Vec<Vec<usize>>> = fixture::json(&format!("simpo-trajectory/{run}/order.json"));
    let n_steps = order.len();
    Recipe {
        order: Order::Given(order),
        schedule: Schedule { peak, decay: Decay::Cosine, n_warmup_steps, n_steps },
        adamw: AdamW::default(),
        max_grad_norm: Some(1.0),
        micro_batch_tokens: 4096,
        precision: Precision::F32,
        kept: Kept::All,
    }
}

#[test]
fn simpo() {
    let (_, model) = fixture::gemma2_tiny();
    let pairs = pairs();
    let task = PairTask::new(&SIMPO, &pairs, &[], 4096).expect("the pairs have responses");
    let tolerance = Tolerance {
        loss_1_5: 1.9e-4,
        loss_1_10: 2e-4,
        loss_all: 1.6e-3,
        grad_norm_1_5: 1.9e-5,
        grad_norm_all: 2.3e-4,
        weights_step_5: 2.2e-3,
        weights_end: 2.3e-3,
    };
    check("simpo", model, &task, &recipe("simpo", 1e-3, 4), &tolerance);
}

#[test]
fn dpo() {
    let (_, model) = fixture::gemma2_tiny();
    let pairs = pairs();
    let objective = Objective::Dpo(Dpo { beta: 0.1, loss: DpoLoss::Sigmoid, label_smoothing: 0.0 });
    let never = AtomicBool::new(false);
    let reference = reference_logps(&model, &pairs, &objective, 64, 4096, &never).expect("nobody cancels");
    check_reference(&reference);
    let task = PairTask::new(&objective, &pairs, &reference, 4096).expect("each pair has its reference");
    let tolerance = Tolerance {
        loss_1_5: 3.9e-5,
        loss_1_10: 7.4e-5,
        loss_all: 1.1e-4,
        grad_norm_1_5: 2.3e-5,
        grad_norm_all: 1.1e-4,
        weights_step_5: 3.3e-3,
        weights_end: 3.3e-3,
    };
    check("dpo", model, &task, &recipe("dpo", 5e-4, 2), &tolerance);
}

/// Sums of some 20 tokens of log-prob near −20: 8e-5 a token, as in `simpo-batch`.
fn check_reference(found: &[ReferenceLogps]) {
    let expected: ReferenceFile = fixture::json("simpo-trajectory/dpo/reference_logps.json");
    let worst = found
        .iter()
        .enumerate()
        .map(|(row, logps)| {
            let chosen = (logps.chosen - expected.chosen_sum[row]).abs();
            chosen.max((logps.rejected - expected.rejected_sum[row]).abs())
        })
        .fold(0.0, f64::max);
    fixture::row("simpo-trajectory", "dpo: log-prob sums of the reference", worst, 2e-3);
    assert!(worst <= 2e-3);
}

fn check(run: &str, model: Gemma2, task: &PairTask<'_>, recipe: &Recipe, tolerance: &Tolerance) {
    let expected: Vec<Step> = fixture::json(&format!("simpo-trajectory/{run}/steps.json"));
    let initial = model.clone();
    let mut trainer = Trainer::new(model, recipe.adamw).expect("the weights are f32");
    let mut found: Vec<StepMetrics> = Vec::new();
    let mut after_step_5 = None;
    let mut on_step = |metrics: &StepMetrics, trainer: &Trainer<Gemma2>| {
        found.push(metrics.clone());
        if metrics.step == 5 {
            after_step_5 = Some(trainer.model.clone());
        }
        ControlFlow::Continue(())
    };
    let never = AtomicBool::new(false);
    let hooks = Hooks { cancel: &never, clock: &|| 0.0, on_step: &mut on_step };
    assert_eq!(trainer.run(task, recipe, hooks), Ok(Outcome::Finished));
    check_steps(run, &found, &expected, tolerance);
    if run == "simpo" {
        let after_step_5 = after_step_5.expect("the run has five steps");
        check_weights("step 5", "simpo/after_step_5", &initial, after_step_5, tolerance.weights_step_5);
    }
    check_weights("end", &format!("{run}/model"), &initial, trainer.model, tolerance.weights_end);
}

fn check_steps(run: &str, found: &[StepMetrics], expected: &[Step], tolerance: &Tolerance) {
    assert_eq!(found.len(), expected.len());
    let steps = || found.iter().zip(expected);
    let worst = |n: usize, error: &dyn Fn(&StepMetrics, &Step) -> f64| {
        steps().take(n).map(|(found, expected)| error(found, expected)).fold(0.0, f64::max)
    };
    let loss = |found: &StepMetrics, expected: &Step| (found.loss - expected.loss).abs();
    let grad_norm =
        |found: &StepMetrics, expected: &Step| (found.grad_norm - expected.grad_norm).abs() / expected.grad_norm;
    let compared = [
        ("loss, steps 1-5", worst(5, &loss), tolerance.loss_1_5),
        ("loss, steps 1-10", worst(10, &loss), tolerance.loss_1_10),
        ("loss, all steps", worst(usize::MAX, &loss), tolerance.loss_all),
        ("grad_norm, steps 1-5", worst(5, &grad_norm), tolerance.grad_norm_1_5),
        ("grad_norm, all steps", worst(usize::MAX, &grad_norm), tolerance.grad_norm_all),
        ("learning rate", worst(usize::MAX, &|f, e| (f.learning_rate - e.lr_used).abs() / recipe_peak(e)), 1e-12),
    ];
    let mut faults = Vec::new();
    for (what, error, allowed) in compared {
        fixture::row("simpo-trajectory", &format!("{run}: {what}"), error, allowed);
        if error.is_nan() || error > allowed {
            faults.push(format!("{run}: {what} is off by {error:.3e}, allowed {allowed:.1e}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for (found, expected) in steps() {
        let pairs = found.pairs.expect("a step has pairs");
        let allowed = 1e-5 * (expected.logp_chosen_mean.abs() + expected.logp_rejected_mean.abs());
        let logps = [
            (pairs.chosen_logp, expected.logp_chosen_mean),
            (pairs.rejected_logp, expected.logp_rejected_mean),
            (Some(pairs.margin), expected.margin_mean),
        ];
        for (found, expected) in logps {
            let found = found.expect("preference steps report log-probs");
            assert!((found - expected).abs() <= allowed, "{found} instead of {expected}");
        }
        if let Some(accuracy) = expected.accuracy {
            assert_eq!(pairs.accuracy, accuracy);
        }
    }
}

/// The learning rate's error is relative to itself, and absolute where it is 0.
fn recipe_peak(step: &Step) -> f64 {
    if step.lr_used > 0.0 { step.lr_used } else { 1.0 }
}

/// Norm of the difference over the norm of the change since the start, the worst parameter.
fn check_weights(what: &str, file: &str, initial: &Gemma2, mut found: Gemma2, tolerance: f64) {
    let expected = Tensors::open(&format!("simpo-trajectory/{file}.safetensors"));
    let mut before = Vec::new();
    initial.clone().walk(&mut |_, param| before.push(values(&param)));
    let mut before = before.into_iter();
    let mut worst = (0.0, String::new());
    found.walk(&mut |name, param| {
        let (found, before) = (values(&param), before.next().expect("one walk, one order"));
        let expected = expected.values(name);
        let difference = norm(found.iter().zip(&expected).map(|(f, e)| f - e));
        let change = norm(expected.iter().zip(&before).map(|(e, b)| e - b));
        if difference / change > worst.0 {
            worst = (difference / change, name.to_owned());
        }
    });
    let run = file.split('/').next().unwrap_or_default();
    fixture::row("simpo-trajectory", &format!("{run}: weights at {what}, by norm of the change"), worst.0, tolerance);
    assert!(worst.0 <= tolerance, "{file}: {} is off by {:.3e}", worst.1, worst.0);
}

fn values(param: &ParamMut<'_>) -> Vec<f64> {
    let values = match param {
        ParamMut::Vector(weight) => weight.to_data().iter::<f64>().collect(),
        ParamMut::Matrix(weight) | ParamMut::Linear(weight) => weight.to_data().iter::<f64>().collect(),
    };
    published_order(values, param)
}
