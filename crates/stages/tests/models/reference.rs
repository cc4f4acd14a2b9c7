//! Log-probs of the reference model: computed once, whatever the training is changed to, and the training is the one that
//! computes them itself.

use std::fs;

use sluice_stages::StageError;
use sluice_store::Output;

use crate::bench::{Bench, chain};
use crate::{PAIRS, PairTexts, plant_pairs};

const DPO: &str = "objective={dpo: {beta: 0.1}}";
const KTO: &str = "objective={kto: {}}";

fn with_pairs(pairs: &[PairTexts]) -> Bench {
    let mut bench = Bench::new();
    plant(&mut bench, pairs);
    bench
}

fn plant(bench: &mut Bench, pairs: &[PairTexts]) {
    let digest = bench.digest("gemma2-tiny").expect("a fixture").to_string();
    plant_pairs(bench, &digest, pairs);
}

/// Trains under settings; the outputs, and how many reference rows there were and were known. The plan before it said
/// the same.
fn run(bench: &mut Bench, set: &[&str]) -> (Vec<Output>, (u64, u64)) {
    let set: Vec<String> = set.iter().map(|set| format!("stages.tuned.train.{set}")).collect();
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let count = bench.count("tuned", &set).expect("rows to count");
    let produced = bench.run("tuned", &set).unwrap_or_else(|error| panic!("{set:?}: {}", chain(&error, bench)));
    assert_eq!(produced.n_rows_reused, count.n_known, "{set:?}");
    (produced.outputs, (count.n_rows, count.n_known))
}

/// A DPO training, and then another one in the same store: how many rows the second one has, and how many it takes from
/// the first. What it makes is what it makes in a store that knows nothing.
#[track_caller]
fn check(after: &[PairTexts], set: &[&str], expected: (u64, u64)) {
    let mut bench = with_pairs(&PAIRS);
    assert_eq!(run(&mut bench, &[DPO]).1, (3, 0));
    plant(&mut bench, after);
    let (outputs, count) = run(&mut bench, set);
    assert_eq!(count, expected, "{set:?}");
    assert_eq!(outputs, run(&mut with_pairs(after), set).0, "{set:?}");
}

#[test]
fn another_training_asks_for_nothing_again() {
    check(&PAIRS, &[DPO, "learning_rate=3e-4"], (3, 3));
    check(&PAIRS, &["objective={dpo: {beta: 0.5, loss: hinge}}", "epochs=1", "batch_size=3"], (3, 3));
    check(&PAIRS, &[DPO, "micro_batch_tokens=50", "seed=7"], (3, 3));
    check(&PAIRS, &["objective={ipo: {}}"], (3, 3));
    check(&PAIRS, &["objective={r_dpo: {}}"], (3, 3));
    // Each mismatched response is a row of its own.
    check(&PAIRS, &[KTO], (6, 3));
}

#[test]
fn other_tokens_are_asked_for_again() {
    check(&PAIRS, &[DPO, "max_length=1000"], (3, 0));
    check(&PAIRS, &[DPO, "response_header=response"], (3, 0));
}

#[test]
fn only_new_pairs_are_asked_for() {
    let more = [PAIRS[1], ("Who?", "Tom.", "Nobody."), PAIRS[0], PAIRS[2]];
    check(&more, &[DPO], (4, 3));
    check(&PAIRS[..2], &[DPO], (2, 2));
    // One pair twice is one row that is computed.
    check(&[PAIRS[0], PAIRS[0]], &[DPO], (2, 2));
    let mut bench = with_pairs(&PAIRS);
    assert_eq!(run(&mut bench, &[KTO]).1, (6, 0));
    assert_eq!(run(&mut bench, &["objective={kto: {beta: 0.3}}"]).1, (6, 6));
    // A new pair in between changes the neighbour of one.
    plant(&mut bench, &[PAIRS[0], ("Why?", "So.", "No."), PAIRS[1], PAIRS[2]]);
    assert_eq!(run(&mut bench, &[KTO]).1, (8, 5));
}

/// Fresh weights are another reference with another seed.
#[test]
fn a_reference_that_is_drawn_has_its_seed() {
    let mut bench = with_pairs(&PAIRS);
    let folder = bench.copy_model("gemma2-tiny", "init");
    fs::remove_file(folder.join("model.safetensors")).expect("weights to remove");
    let fresh = [DPO, "model={init: init}", "off_policy=allow"];
    assert_eq!(run(&mut bench, &fresh).1, (3, 0));
    assert_eq!(run(&mut bench, &[&fresh[..], &["epochs=1"]].concat()).1, (3, 3));
    assert_eq!(run(&mut bench, &[&fresh[..], &["seed=7"]].concat()).1, (3, 0));
}

#[test]
fn a_stop_loses_one_batch_at_most() {
    let mut bench = with_pairs(&PAIRS);
    let set = ["stages.tuned.train.objective={kto: {}}", "stages.tuned.train.micro_batch_tokens=1"];
    bench.stop_at = Some(4);
    assert!(matches!(bench.run("tuned", &set), Err(StageError::Cancelled)));
    let count = bench.count("tuned", &set).expect("rows to count");
    assert_eq!((count.n_rows, count.n_known), (6, 4));
    bench.stop_at = None;
    let (outputs, count) = run(&mut bench, &[KTO, "micro_batch_tokens=1"]);
    assert_eq!(count, (6, 4));
    assert_eq!(outputs, run(&mut with_pairs(&PAIRS), &[KTO, "micro_batch_tokens=1"]).0);
}
