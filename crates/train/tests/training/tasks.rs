//! What holds of every task: a batch's loss and gradient do not depend on how it is cut, faults are named, and training
//! lowers the loss.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use burn::tensor::Tensor;
use expect_test::{Expect, expect};
use sluice_lm::gemma2::Gemma2;
use sluice_lm::params::{ParamMut, Parameters};
use sluice_lm::precision::Precision;
use sluice_lm::stack::Stack;
use sluice_train::backward::{Kept, add_gradients};
use sluice_train::batch::{Sequence, TokenPair};
use sluice_train::metrics::StepMetrics;
use sluice_train::objective::{Cpo, Dpo, DpoLoss, Kto, MarginLoss, Objective, Orpo, Simpo};
use sluice_train::optimizer::{AdamW, GradientSum};
use sluice_train::order::{Order, Shuffle};
use sluice_train::schedule::{Decay, Schedule};
use sluice_train::task::{PairTask, ReferenceLogps, SftTask, Task, TaskError, reference_logps};
use sluice_train::trainer::{Hooks, Recipe, TrainError, Trainer};

use crate::{fixture, trajectory};

const DPO: Objective = Objective::Dpo(Dpo { beta: 0.1, loss: DpoLoss::Sigmoid, label_smoothing: 0.0 });
const KTO: Objective = Objective::Kto(Kto { beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0 });
const ORPO: Objective = Objective::Orpo(Orpo { lambda: 0.1 });
const CPO: Objective =
    Objective::Cpo(Cpo { beta: 0.1, cpo_alpha: 1.0, loss: MarginLoss::Sigmoid, label_smoothing: 0.0 });
const SIMPO_SFT: Objective = Objective::Simpo(Simpo {
    beta: 2.0,
    gamma_beta_ratio: 0.25,
    loss: MarginLoss::Sigmoid,
    label_smoothing: 0.1,
    sft_weight: 0.5,
});

/// Loss and gradient of a batch cut into the given micro-batches.
pub fn whole<M: Stack, T: Task<M>>(model: &M, task: &T, micro_batches: &[&[usize]], kept: Kept) -> (f64, GradientSum) {
    let totals = task.totals(model, &micro_batches.concat());
    let (mut loss, mut gradients) = (0.0, GradientSum::default());
    for micro_batch in micro_batches {
        loss += add_gradients(model, task, micro_batch, &totals, kept, &mut gradients).0;
    }
    (loss, gradients)
}

pub fn check_cut<M: Stack, T: Task<M>>(model: &M, task: &T) {
    let (loss, mut gradients) = whole(model, task, &[&[0, 1, 2, 3, 4, 5]], Kept::All);
    let (cut_loss, mut cut_gradients) = whole(model, task, &[&[0], &[1, 2, 3], &[4, 5]], Kept::All);
    let (norm, cut_norm) = (gradients.norm(), cut_gradients.norm());
    assert!((loss - cut_loss).abs() <= 1e-5 * loss.abs(), "{loss} and {cut_loss}");
    assert!((norm - cut_norm).abs() <= 1e-4 * norm, "{norm} and {cut_norm}");
    check_recompute(model, task);
}

/// A block that is computed a second time gives the same gradient, to the bit.
fn check_recompute<M: Stack, T: Task<M>>(model: &M, task: &T) {
    let of = |kept| {
        let (loss, gradients) = whole(model, task, &[&[0], &[1, 2, 3], &[4, 5]], kept);
        (loss, of_parameters(model, &gradients))
    };
    assert_eq!(of(Kept::Blocks), of(Kept::All));
}

/// The bits of the gradient of every parameter that has one.
fn of_parameters<M: Stack>(model: &M, gradients: &GradientSum) -> Vec<(String, Vec<u32>)> {
    let mut found = Vec::new();
    model.clone().walk(&mut |name, _| {
        if let Some(gradient) = gradients.get(name) {
            let bits = gradient.to_data().iter::<f32>().map(f32::to_bits).collect();
            found.push((name.to_owned(), bits));
        }
    });
    assert!(found.len() > 10, "{} gradients", found.len());
    found
}

/// A prompt that is read once for both responses gives the loss and the gradient of one that is read twice.
#[test]
fn a_shared_prompt_is_worth_two() {
    let (_, model) = fixture::gemma2_tiny();
    let mut pairs = trajectory::pairs()[..6].to_vec();
    // One pair without a common prompt, as a cut may leave it, and one without any.
    pairs[3].rejected = Sequence::new(&pairs[3].rejected.prompt()[1..], pairs[3].rejected.response());
    pairs[4] = TokenPair { chosen: Sequence::new(&[], &[7, 8, 9]), rejected: Sequence::new(&[], &[7, 5]) };
    for objective in [SIMPO_SFT, ORPO, CPO] {
        let task = || PairTask::new(&objective, &pairs, &[], 500).expect("the pairs fit the objective");
        let (apart, together) = (task(), task().sharing_prompts());
        let n_tokens = |task: &PairTask<'_>| (0..6).map(|row| Task::<Gemma2>::n_tokens(task, row)).sum::<usize>();
        assert!(n_tokens(&together) < n_tokens(&apart));
        let cut: [&[usize]; 2] = [&[0, 1, 2, 3], &[4, 5]];
        let (loss, gradients) = whole(&model, &apart, &cut, Kept::All);
        let (shared_loss, shared) = whole(&model, &together, &cut, Kept::All);
        // The forward pass computes the same numbers; only sums over them run in another order.
        assert!((loss - shared_loss).abs() <= 1e-6 * loss.abs(), "{loss} and {shared_loss}");
        let mut worst = 0.0_f64;
        model.clone().walk(&mut |name, _| {
            let of = |gradients: &GradientSum| -> Vec<f64> {
                gradients.get(name).expect("a gradient").to_data().iter::<f64>().collect()
            };
            let (apart, together) = (of(&gradients), of(&shared));
            let difference = fixture::norm(apart.iter().zip(&together).map(|(a, b)| a - b));
            worst = worst.max(difference / fixture::norm(apart.iter().copied()));
        });
        assert!(worst <= 7e-5, "{}: {worst:e}", objective.name());
        check_recompute(&model, &together);
    }
}

#[test]
fn a_batch_does_not_depend_on_its_cut() {
    let (_, model) = fixture::gemma2_tiny();
    let pairs = &trajectory::pairs()[..6];
    let never = AtomicBool::new(false);
    for objective in [DPO, KTO, ORPO, CPO, SIMPO_SFT] {
        let mut reference = reference_logps(&model, pairs, &objective, 64, 500, &never).expect("nobody cancels");
        // A reference that differs from the policy, so that the KL is not clamped at 0.
        for (row, logps) in reference.iter_mut().enumerate() {
            logps.chosen -= row as f64;
            if let Some(mismatched) = &mut logps.mismatched {
                mismatched.logp -= 2.0;
            }
        }
        let task = PairTask::new(&objective, pairs, &reference, 500).expect("the pairs fit the objective");
        check_cut(&model, &task);
    }
    let rows: Vec<Sequence> = pairs.iter().map(|pair| pair.chosen.clone()).collect();
    check_cut(&model, &SftTask::new(&rows).expect("the rows have responses"));
}

/// The losses of the first and the last of 12 steps over the same rows.
pub fn trained<M: Stack, T: Task<M>>(model: M, task: &T, peak: f64) -> (StepMetrics, StepMetrics, M) {
    let recipe = Recipe {
        order: Order::Shuffled(Shuffle { n_rows: task.n_rows(), batch_size: task.n_rows(), seed: 1 }),
        schedule: Schedule { peak, decay: Decay::Constant, n_warmup_steps: 0, n_steps: 12 },
        adamw: AdamW::default(),
        max_grad_norm: Some(1.0),
        micro_batch_tokens: 500,
        precision: Precision::F32,
        kept: Kept::All,
    };
    let mut steps: Vec<StepMetrics> = Vec::new();
    let mut trainer = Trainer::new(model, recipe.adamw).expect("the weights are f32");
    let mut on_step = |metrics: &StepMetrics, _: &Trainer<M>| {
        steps.push(metrics.clone());
        ControlFlow::Continue(())
    };
    let never = AtomicBool::new(false);
    let hooks = Hooks { cancel: &never, clock: &|| 0.0, on_step: &mut on_step };
    trainer.run(task, &recipe, hooks).expect("the run stays finite");
    (steps[0].clone(), steps[11].clone(), trainer.model)
}

#[test]
fn training_lowers_the_loss() {
    let (_, model) = fixture::gemma2_tiny();
    let pairs = &trajectory::pairs()[..6];
    let never = AtomicBool::new(false);
    for objective in [DPO, KTO, ORPO, CPO, SIMPO_SFT] {
        let reference = reference_logps(&model, pairs, &objective, 64, 500, &never).expect("nobody cancels");
        let task = PairTask::new(&objective, pairs, &reference, 500).expect("the pairs fit the objective");
        let (first, last, _) = trained(model.clone(), &task, 1e-3);
        assert!(last.loss < first.loss, "{}: {} then {}", objective.name(), first.loss, last.loss);
        let accuracy = last.pairs.map(|pairs| pairs.accuracy);
        assert_eq!(accuracy, Some(1.0), "{}", objective.name());
    }
    let rows: Vec<Sequence> = pairs.iter().map(|pair| pair.chosen.clone()).collect();
    let (first, last, _) = trained(model, &SftTask::new(&rows).expect("the rows have responses"), 1e-3);
    assert!(last.loss < first.loss && last.pairs.is_none());
}

/// The first step under DPO: policy and reference agree to the bit, so every margin is 0 and every loss ln 2.
#[test]
fn dpo_starts_at_ln_2() {
    let (_, model) = fixture::gemma2_tiny();
    let pairs = &trajectory::pairs()[..6];
    let never = AtomicBool::new(false);
    let reference = reference_logps(&model, pairs, &DPO, 64, 500, &never).expect("nobody cancels");
    let task = PairTask::new(&DPO, pairs, &reference, 500).expect("the pairs fit the objective");
    let (first, _, _) = trained(model, &task, 1e-3);
    assert!((first.loss - std::f64::consts::LN_2).abs() < 1e-6);
    assert_eq!(first.pairs.map(|pairs| (pairs.margin, pairs.accuracy)), Some((0.0, 0.0)));
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_changes_nothing() {
    let (_, mut model) = fixture::gemma2_tiny();
    model.walk(&mut |name, param| {
        if let ("model.norm.weight", ParamMut::Vector(weight)) = (name, param) {
            *weight = Tensor::full_like(weight, f32::NAN);
        }
    });
    let pairs = trajectory::pairs();
    let task = PairTask::new(&ORPO, &pairs, &[], 500).expect("the pairs fit the objective");
    let recipe = trajectory::recipe("simpo", 1e-3, 4);
    let mut trainer: Trainer<Gemma2> = Trainer::new(model, recipe.adamw).expect("the weights are f32");
    let fault = trainer.step(&task, &recipe, &AtomicBool::new(false)).expect_err("the loss is not finite");
    assert!(matches!(fault, TrainError::LossNotFinite { step: 1, value } if value.is_nan()), "{fault:?}");
    assert_eq!((trainer.n_done, trainer.optimizer.n_steps()), (0, 0));
}

fn check_refusal(objective: &Objective, pairs: &[TokenPair], reference: &[ReferenceLogps], expected: Expect) {
    let refused: Result<PairTask<'_>, TaskError> = PairTask::new(objective, pairs, reference, 500);
    let message = refused.err().map(|fault| fault.to_string());
    expected.assert_eq(&message.expect("the task is refused"));
}

#[test]
fn tasks_that_cannot_be_trained_on_are_refused() {
    let pair = |chosen: &[u32]| TokenPair { chosen: Sequence::new(&[2], chosen), rejected: Sequence::new(&[2], &[1]) };
    let pairs = [pair(&[5, 1])];
    let logps = ReferenceLogps { chosen: -1.0, rejected: -1.0, mismatched: None };
    check_refusal(&ORPO, &[], &[], expect!["there are no rows to train on"]);
    check_refusal(
        &ORPO,
        &[pair(&[5, 1]), pair(&[])],
        &[],
        expect!["row 1: the chosen response has no token to predict; it must have at least one after a prompt token"],
    );
    check_refusal(
        &DPO,
        &pairs,
        &[],
        expect!["objective dpo compares with a reference model, and no reference log-probs were given"],
    );
    check_refusal(
        &DPO,
        &pairs,
        &[logps.clone(), logps.clone()],
        expect!["2 reference log-probs were given for 1 pairs; each pair must have one"],
    );
    check_refusal(
        &DPO,
        &pairs,
        &[ReferenceLogps { chosen: f64::NAN, ..logps.clone() }],
        expect!["reference log-probs of pair 0 are not finite"],
    );
    check_refusal(
        &KTO,
        &pairs,
        &[logps],
        expect!["objective kto estimates a KL, and pair 0 has no reference log-prob of a mismatched response"],
    );
}
