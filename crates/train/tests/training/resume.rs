//! A run that was stopped and taken up again is the run that was never stopped, bit for bit.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use expect_test::expect;
use serde_json::json;
use sluice_lm::gemma2::Gemma2;
use sluice_lm::params::{ParamMut, Parameters};
use sluice_train::metrics::StepMetrics;
use sluice_train::order::{Order, Shuffle};
use sluice_train::resume::{load, save};
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

#[test]
fn a_resumed_run_takes_the_same_steps() {
    let settings = BTreeMap::from([("learning_rate".to_owned(), json!(1e-3))]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path().join("trainer");
    let (_, model) = fixture::gemma2_tiny();
    let fresh = || Trainer::new(model.clone(), recipe().adamw).expect("the weights are f32");
    let take_up = || load(&folder, model.clone(), recipe().adamw, &settings, &Device::flex());

    let mut whole = fresh();
    let steps = run(&mut whole, N_STEPS);
    assert_eq!(steps.len(), N_STEPS);

    assert!(take_up().expect("an absent folder is no fault").is_none());
    let mut stopped = fresh();
    run(&mut stopped, 2);
    save(&folder, &stopped, &settings).expect("the folder can be written");
    run(&mut stopped, 3);
    save(&folder, &stopped, &settings).expect("the folder can be written");
    let mut resumed = take_up().expect("the folder can be read").expect("a trainer was saved");
    assert_eq!(run(&mut resumed, N_STEPS), steps[3..]);
    assert_eq!(bits(&resumed.model), bits(&whole.model));

    let mut names: Vec<_> =
        std::fs::read_dir(&folder).expect("the folder").map(|e| e.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["step-00000003.safetensors", "trainer.json"]);
}

#[test]
fn a_folder_that_does_not_fit_is_refused() {
    let settings = |rate: f64| BTreeMap::from([("learning_rate".to_owned(), json!(rate))]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (_, model) = fixture::gemma2_tiny();
    let trainer = Trainer::new(model.clone(), recipe().adamw).expect("the weights are f32");
    save(folder.path(), &trainer, &settings(1e-3)).expect("the folder can be written");
    let message = |rate: f64| {
        let refused = load(folder.path(), model.clone(), recipe().adamw, &settings(rate), &Device::flex());
        let message = refused.expect_err("the folder does not fit").to_string();
        message.replace(&folder.path().display().to_string(), "FOLDER")
    };
    expect!["FOLDER/trainer.json was saved under other settings (learning_rate); start afresh or put them back"]
        .assert_eq(&message(2e-3));

    let tensors = folder.path().join("step-00000000.safetensors");
    let mut bytes = std::fs::read(&tensors).expect("the tensors");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&tensors, bytes).expect("the tensors can be written");
    assert!(message(1e-3).starts_with("FOLDER/step-00000000.safetensors is damaged: its BLAKE3 is "));
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
