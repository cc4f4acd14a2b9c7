//! Training in bf16 with the rates of the published runs: weights rounded to nearest stand still, and those that keep what
//! bf16 cannot hold learn.

use std::io::Cursor;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use sluice_lm::gemma2::Gemma2;
use sluice_lm::params::{Parameters, held};
use sluice_lm::precision::Precision;
use sluice_lm::weights::published_values;
use sluice_train::backward::Kept;
use sluice_train::batch::TokenPair;
use sluice_train::metrics::StepMetrics;
use sluice_train::optimizer::{AdamW, Keeping, Master};
use sluice_train::order::Order;
use sluice_train::resume::{n_bytes, read, write};
use sluice_train::schedule::{Decay, Schedule};
use sluice_train::task::PairTask;
use sluice_train::trainer::{Recipe, Trainer};

use crate::batch::SIMPO;
use crate::{fixture, trajectory};

const N_STEPS: usize = 16;

fn recipe(precision: Precision) -> Recipe {
    Recipe {
        order: Order::Given(vec![vec![vec![0, 1]]; N_STEPS]),
        schedule: Schedule { peak: 8e-7, decay: Decay::Constant, n_warmup_steps: 0, n_steps: N_STEPS },
        adamw: AdamW::default(),
        max_grad_norm: Some(1.0),
        micro_batch_tokens: 4096,
        precision,
        kept: Kept::All,
    }
}

/// The losses of a run over the same pairs, and its last weights.
fn run(pairs: &[TokenPair], precision: Precision, keeping: Keeping, rounds_to_nearest: bool) -> (Vec<f64>, Gemma2) {
    let (_, model) = fixture::gemma2_tiny();
    let task = PairTask::new(&SIMPO, pairs, &[], 4096).expect("the pairs have responses");
    let recipe = recipe(precision);
    let trainer = Trainer::new(model, recipe.adamw).expect("the weights are f32");
    let mut trainer = trainer.keeping(keeping).expect("the weights are on the CPU");
    let mut losses = Vec::new();
    for _ in 0..N_STEPS {
        let step = trainer.step(&task, &recipe, &AtomicBool::new(false)).expect("the loss is finite");
        losses.push(step.expect("nobody cancels").loss);
        if rounds_to_nearest {
            trainer.model = held(&held(&trainer.model, Precision::Bf16), Precision::F32);
        }
    }
    (losses, trainer.exact())
}

/// Every form of weights, with moments in either precision.
fn forms() -> impl Iterator<Item = Keeping> {
    let with = |moments| [Master::F32, Master::Split, Master::Stochastic].map(|master| Keeping { master, moments });
    [Precision::F32, Precision::Bf16].into_iter().flat_map(with)
}

fn bits(model: &Gemma2) -> Vec<u32> {
    let mut bits = Vec::new();
    model.clone().walk(&mut |_, param| bits.extend(published_values(&param).iter().map(|value| value.to_bits())));
    bits
}

/// The share of weights that are not where they started, as `precision` held them then.
fn moved(model: &Gemma2, precision: Precision) -> f64 {
    let (_, start) = fixture::gemma2_tiny();
    let start = bits(&held(&held(&start, precision), Precision::F32));
    let bits = bits(model);
    bits.iter().zip(&start).filter(|(after, before)| after != before).count() as f64 / start.len() as f64
}

#[test]
fn a_rate_of_8e_7_trains_unless_weights_are_rounded_to_nearest() {
    let pairs = &trajectory::pairs()[..2];
    let (full, exact) = run(pairs, Precision::F32, Keeping::default(), false);
    let gain = |losses: &[f64]| losses[0] - losses[N_STEPS - 1];
    assert!(gain(&full) > 0.0 && moved(&exact, Precision::F32) > 0.99, "{full:?}");

    // Weights in bf16, rounded to nearest after each step: all but those next to zero stand still.
    let (stuck, stuck_model) = run(pairs, Precision::Bf16, Keeping::default(), true);
    let n_moved = moved(&stuck_model, Precision::Bf16);
    assert!(n_moved < 0.05, "{n_moved} moved");
    assert!(gain(&stuck) < 0.2 * gain(&full), "{stuck:?} beside {full:?}");

    for keeping in forms() {
        let (losses, model) = run(pairs, Precision::Bf16, keeping, false);
        let share = gain(&losses) / gain(&full);
        println!("{keeping:?}: {:.4} to {:.4}, {share:.2} of the gain in f32", losses[0], losses[N_STEPS - 1]);
        assert!((0.4..1.6).contains(&share), "{keeping:?}: {losses:?} beside {full:?}");
        match keeping.master {
            Master::F32 | Master::Split => assert!(moved(&model, Precision::F32) > 0.99),
            // A step of a thousandth of the way to the neighbour takes a thousandth of the weights there.
            Master::Stochastic => {
                let n_moved = moved(&model, Precision::Bf16);
                assert!((0.001..0.5).contains(&n_moved), "{n_moved} moved");
            }
        }
    }
}

/// A trainer gives back the weights it was given: to the bit where it can, and rounded where it holds no more.
#[test]
fn weights_come_back_from_every_form() {
    let (_, model) = fixture::gemma2_tiny();
    let back = |master| {
        let keeping = Keeping { master, ..Keeping::default() };
        let trainer = Trainer::new(model.clone(), AdamW::default()).expect("the weights are f32");
        bits(&trainer.keeping(keeping).expect("the weights are on the CPU").exact())
    };
    assert_eq!(back(Master::F32), bits(&model));
    assert_eq!(back(Master::Split), bits(&model));
    assert_eq!(back(Master::Stochastic), bits(&held(&held(&model, Precision::Bf16), Precision::F32)));
}

/// Weights in bf16 are saved as they lie, and go on from there as if nothing had been.
#[test]
fn every_form_of_weights_is_taken_up_again() {
    let pairs = &trajectory::pairs()[..2];
    let task = PairTask::new(&SIMPO, pairs, &[], 4096).expect("the pairs have responses");
    let recipe = recipe(Precision::Bf16);
    let never = AtomicBool::new(false);
    for keeping in forms() {
        let fresh = || {
            let trainer = Trainer::new(fixture::gemma2_tiny().1, recipe.adamw).expect("the weights are f32");
            trainer.keeping(keeping).expect("the weights are on the CPU")
        };
        let mut whole = fresh();
        let mut steps: Vec<StepMetrics> = Vec::new();
        let step = |trainer: &mut Trainer<Gemma2>| {
            let metrics = trainer.step(&task, &recipe, &never).expect("the loss is finite");
            metrics.expect("nobody cancels")
        };
        steps.push(step(&mut whole));
        steps.push(step(&mut whole));
        let mut saved = Vec::new();
        write(&whole, &steps, &mut saved).expect("memory takes all");
        let expected = n_bytes(&whole);
        assert!((expected..expected + 32_768).contains(&(saved.len() as u64)), "{} of {expected}", saved.len());
        let (mut resumed, _) = read(&mut Cursor::new(&saved), fresh(), &Device::flex()).expect("it is whole");
        assert_eq!(step(&mut resumed), step(&mut whole), "{keeping:?}");
        assert_eq!(bits(&resumed.exact()), bits(&whole.exact()), "{keeping:?}");
    }
}
