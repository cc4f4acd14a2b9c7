//! A run that was stopped and taken up again is the run that was never stopped, bit for bit.

use std::io::Cursor;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use expect_test::{Expect, expect};
use sluice_lm::gemma2::Gemma2;
use sluice_lm::params::{ParamMut, Parameters};
use sluice_train::metrics::{PairMetrics, StepMetrics};
use sluice_train::order::{Order, Shuffle};
use sluice_train::resume::{ResumeError, n_bytes, read, write};
use sluice_train::task::PairTask;
use sluice_train::trainer::{Hooks, Outcome, Recipe, Trainer};

use crate::batch::SIMPO;
use crate::{fixture, trajectory};

const N_STEPS: usize = 6;

fn recipe() -> Recipe {
    let mut recipe = trajectory::recipe("simpo", 1e-3, 1);
    recipe.order = Order::Shuffled(Shuffle { n_rows: 320, batch_size: 4, seed: 7 });
    recipe.schedule.n_steps = N_STEPS;
    recipe.micro_batch_tokens = 200;
    recipe
}

/// Steps of a run that stops after `until` steps.
fn run(trainer: &mut Trainer<Gemma2>, until: usize) -> Vec<StepMetrics> {
    let pairs = trajectory::pairs();
    let task = PairTask::new(&SIMPO, &pairs, &[], 200).expect("the pairs have responses");
    let mut steps = Vec::new();
    let mut on_step = |metrics: &StepMetrics, _: &Trainer<Gemma2>| {
        steps.push(metrics.clone());
        if metrics.step == until { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let never = AtomicBool::new(false);
    let hooks = Hooks { cancel: &never, clock: &|| 0.0, on_step: &mut on_step };
    trainer.run(&task, &recipe(), hooks).expect("the run stays finite");
    steps
}

fn bits(model: &Gemma2) -> Vec<u32> {
    let mut bits = Vec::new();
    model.clone().walk(&mut |_, param| {
        let data = match param {
            ParamMut::Vector(weight) => weight.to_data(),
            ParamMut::Matrix(weight) | ParamMut::Linear(weight) => weight.to_data(),
        };
        bits.extend(data.iter::<f32>().map(f32::to_bits));
    });
    bits
}

/// A stream as it lies on a disk.
fn written(trainer: &Trainer<Gemma2>, steps: &[StepMetrics]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(trainer, steps, &mut bytes).expect("memory takes all");
    bytes
}

fn taken_up(bytes: &[u8]) -> Result<(Trainer<Gemma2>, Vec<StepMetrics>), ResumeError> {
    let (_, model) = fixture::gemma2_tiny();
    let fresh = Trainer::new(model, recipe().adamw).expect("the weights are f32");
    read(&mut Cursor::new(bytes), fresh, &Device::flex())
}

#[test]
fn a_resumed_run_takes_the_same_steps() {
    let (_, model) = fixture::gemma2_tiny();
    let fresh = || Trainer::new(model.clone(), recipe().adamw).expect("the weights are f32");
    let mut whole = fresh();
    let steps = run(&mut whole, N_STEPS);
    assert_eq!(steps.len(), N_STEPS);

    for stop in [0, 3] {
        let mut stopped = fresh();
        let before = if stop == 0 { Vec::new() } else { run(&mut stopped, stop) };
        let bytes = written(&stopped, &before);
        // What is written is what was announced, and a header.
        let announced = n_bytes(&stopped) as usize;
        if stop > 0 {
            assert!((announced..announced + 20_000).contains(&bytes.len()), "{} for {announced}", bytes.len());
        }
        let (mut resumed, taken) = taken_up(&bytes).expect("a whole stream");
        assert_eq!(taken, steps[..stop]);
        assert_eq!(run(&mut resumed, N_STEPS), steps[stop..]);
        assert_eq!(bits(&resumed.model), bits(&whole.model));
    }
}

/// Figures come back bit for bit, those that are no numbers included.
#[test]
fn figures_are_kept_exactly() {
    let pairs = |chosen_logp, rejected_logp| {
        Some(PairMetrics { margin: f64::INFINITY, accuracy: 1.0 / 3.0, chosen_logp, rejected_logp })
    };
    let of = |step, pairs| StepMetrics {
        step,
        epoch: step as f64 / 7.0,
        loss: 0.1 + 0.2,
        pairs,
        grad_norm: 1e-300,
        learning_rate: 8.0e-7,
        n_tokens: 123_456_789,
        seconds: 0.25,
    };
    let steps = vec![of(1, None), of(2, pairs(None, None)), of(3, pairs(Some(-0.1), Some(-2.5)))];
    let (_, model) = fixture::gemma2_tiny();
    let trainer = Trainer::new(model, recipe().adamw).expect("the weights are f32");
    assert_eq!(taken_up(&written(&trainer, &steps)).expect("a whole stream").1, steps);
}

/// Changes a sound stream; what is said of it.
#[track_caller]
fn check_fault(change: impl FnOnce(&mut Vec<u8>), expected: Expect) {
    let (_, model) = fixture::gemma2_tiny();
    let trainer = Trainer::new(model, recipe().adamw).expect("the weights are f32");
    let mut bytes = written(&trainer, &[]);
    change(&mut bytes);
    expected.assert_eq(&taken_up(&bytes).expect_err("a damaged stream").to_string());
}

#[test]
fn a_stream_that_does_not_fit_is_refused() {
    let edit = |old: &'static str, new: &'static str| {
        move |bytes: &mut Vec<u8>| {
            assert_eq!(old.len(), new.len(), "the header keeps its length");
            let at = bytes.windows(old.len()).position(|part| part == old.as_bytes()).expect("a piece of the header");
            bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
        }
    };
    check_fault(|bytes| bytes.truncate(5), expect!["read the saved trainer"]);
    check_fault(
        |bytes| bytes.truncate(2000),
        expect!["the saved trainer does not hold together: its header would have 5200 of 2000 bytes"],
    );
    check_fault(
        |bytes| bytes[7] = 0x7f,
        expect!["the saved trainer does not hold together: its header would have 9151314442816853072 of 927064 bytes"],
    );
    check_fault(
        |bytes| bytes.truncate(bytes.len() - 4),
        expect!["the saved trainer does not hold together: it describes 921856 bytes of tensors, and has 921852"],
    );
    check_fault(
        edit("weight/model.norm.weight", "weight/model.form.weight"),
        expect!["tensor weight/model.norm.weight of the saved trainer is absent, the model needs F32 [64]"],
    );
    check_fault(
        edit("n_optimizer_steps", "n_optimiser_steps"),
        expect!["the saved trainer does not hold together: it does not say `n_optimizer_steps`"],
    );
    check_fault(
        edit("\"shape\":[512,64]", "\"shape\":[64,512]"),
        expect![
            "tensor weight/model.embed_tokens.weight of the saved trainer is F32 [64, 512], the model needs F32 [512, 64]"
        ],
    );
}

#[test]
fn a_cancelled_step_leaves_the_trainer_as_it_was() {
    let pairs = trajectory::pairs();
    let task = PairTask::new(&SIMPO, &pairs, &[], 200).expect("the pairs have responses");
    let (_, model) = fixture::gemma2_tiny();
    let before = bits(&model);
    let mut trainer = Trainer::new(model, recipe().adamw).expect("the weights are f32");
    let cancel = AtomicBool::new(true);
    let mut on_step = |_: &StepMetrics, _: &Trainer<Gemma2>| ControlFlow::Continue(());
    let hooks = Hooks { cancel: &cancel, clock: &|| 0.0, on_step: &mut on_step };
    assert_eq!(trainer.run(&task, &recipe(), hooks), Ok(Outcome::Cancelled));
    assert_eq!((trainer.n_done, bits(&trainer.model)), (0, before));
}
