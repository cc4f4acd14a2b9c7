//! Trainings that were stopped: the next run goes on from the last save, and what it makes is what one run makes.

use std::fs;
use std::path::PathBuf;

use expect_test::{Expect, expect};
use sluice_stages::{Produced, StageError, Unit};
use sluice_store::{HowFar, StageKey, Store};

use crate::bench::{Bench, chain};
use crate::{DEMOS, init_folder, plant_own_pairs};

pub const KEY: StageKey = StageKey::from_bytes([99; 32]);
const EVERY_STEP: &str = "checkpoint={every_steps: 1}";

/// A stage to train, and the settings it is trained with.
pub struct Training {
    stage: &'static str,
    set: Vec<String>,
}

impl Training {
    pub fn of(stage: &'static str, set: &[&str]) -> Self {
        Self { stage, set: set.iter().map(|set| format!("stages.{stage}.train.{set}")).collect() }
    }

    pub fn bench(&self) -> Bench {
        let mut bench = Bench::new();
        plant_own_pairs(&mut bench);
        bench.plant_demos(&DEMOS);
        init_folder(&bench);
        bench.key = Some(KEY);
        bench
    }

    fn run(&self, bench: &mut Bench) -> Result<Produced, StageError> {
        let set: Vec<&str> = self.set.iter().map(String::as_str).collect();
        bench.run(self.stage, &set)
    }

    /// Runs it to the end.
    pub fn finish(&self, bench: &mut Bench) -> Produced {
        bench.stop_at = None;
        self.run(bench).unwrap_or_else(|error| panic!("{}: {}", self.stage, chain(&error, bench)))
    }

    /// Runs it until so many steps are done, and asks it to stop then.
    pub fn stop(&self, bench: &mut Bench, at: u64) {
        (bench.stop_at, bench.stop_in) = (Some(at), Some(Unit::Steps));
        assert!(matches!(self.run(bench), Err(StageError::Cancelled)), "{} at {at}", self.stage);
    }
}

fn resume_folder(bench: &Bench) -> PathBuf {
    bench.folder.path().join(".sluice/resume").join(KEY.to_string())
}

/// What was told since the last call, a line each.
fn told(bench: &Bench) -> String {
    let own = format!("{}/", bench.folder.path().display());
    bench.notices.take().join("\n").replace(&own, "").replace(&KEY.to_string(), "KEY")
}

/// Stopped twice and finished, a training makes what it makes in one go.
#[track_caller]
fn check(training: &Training, stops: [u64; 2], expected: Expect) {
    let whole = training.finish(&mut training.bench());
    assert_eq!(whole.n_steps_resumed, 0);
    let mut bench = training.bench();
    for stop in stops {
        training.stop(&mut bench, stop);
    }
    let resumed = training.finish(&mut bench);
    expected.assert_eq(&told(&bench));
    assert_eq!(resumed.n_steps_resumed, stops[1]);
    assert_eq!((&resumed.outputs, &resumed.metrics), (&whole.outputs, &whole.metrics));
    assert!(!resume_folder(&bench).exists());
}

#[test]
fn a_preference_training_goes_on() {
    check(
        &Training::of("tuned", &["epochs=6"]),
        [2, 4],
        expect![[r#"
            saved at step 2 of 6: the next run goes on from there
            resumed at step 2 of 6
            saved at step 4 of 6: the next run goes on from there
            resumed at step 4 of 6"#]],
    );
}

#[test]
fn a_training_with_a_reference_goes_on() {
    check(
        &Training::of("tuned", &["epochs=6", "objective={kto: {}}", EVERY_STEP]),
        [1, 5],
        expect![[r#"
            saved at step 1 of 6: the next run goes on from there
            resumed at step 1 of 6
            saved at step 5 of 6: the next run goes on from there
            resumed at step 5 of 6"#]],
    );
}

#[test]
fn a_supervised_training_goes_on() {
    check(
        &Training::of("fresh", &[]),
        [1, 8],
        expect![[r#"
            saved at step 1 of 9: the next run goes on from there
            resumed at step 1 of 9
            saved at step 8 of 9: the next run goes on from there
            resumed at step 8 of 9"#]],
    );
}

#[test]
fn a_reward_model_goes_on() {
    check(
        &Training::of("fresh", &["objective={reward: {objectives: [label]}}", "epochs=2", "batch_size=1", EVERY_STEP]),
        [2, 3],
        expect![[r#"
            saved at step 2 of 6: the next run goes on from there
            resumed at step 2 of 6
            saved at step 3 of 6: the next run goes on from there
            resumed at step 3 of 6"#]],
    );
}

#[test]
fn a_training_that_saves_nothing_begins_anew() {
    let training = Training::of("tuned", &["epochs=6", "checkpoint=never"]);
    let mut bench = training.bench();
    training.stop(&mut bench, 3);
    expect!["no step is saved: the next run begins with the first"].assert_eq(&told(&bench));
    assert!(!resume_folder(&bench).exists());
    assert_eq!(training.finish(&mut bench).n_steps_resumed, 0);
}

/// What an earlier run saved is damaged: it is named and left, and the training is the one that was never stopped.
#[track_caller]
fn check_damage(damage: impl FnOnce(PathBuf), why: &str) {
    let training = Training::of("tuned", &["epochs=6", EVERY_STEP]);
    let whole = training.finish(&mut training.bench());
    let mut bench = training.bench();
    training.stop(&mut bench, 4);
    bench.notices.take();
    damage(resume_folder(&bench));
    let anew = training.finish(&mut bench);
    let expected = format!("the training that an earlier run saved is not whole and begins anew: {why}");
    assert_eq!(told(&bench), if why.is_empty() { String::new() } else { expected });
    assert_eq!((anew.n_steps_resumed, anew.outputs), (0, whole.outputs));
}

/// The state that counts.
fn state(folder: PathBuf) -> PathBuf {
    folder.join("3.state")
}

#[test]
fn a_damaged_save_is_named_and_left() {
    let flip = |folder: PathBuf| {
        let file = state(folder);
        let mut bytes = fs::read(&file).expect("a state");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).expect("a writable state");
    };
    let cut = |folder: PathBuf| {
        let file = fs::OpenOptions::new().write(true).open(state(folder)).expect("a state");
        file.set_len(1000).expect("a writable state");
    };
    let behead = |folder: PathBuf| fs::write(folder.join("head.json"), "{}").expect("a writable folder");
    let lose = |folder: PathBuf| fs::remove_file(state(folder)).expect("a state");
    check_damage(flip, "`.sluice/resume/KEY/3.state` is damaged");
    check_damage(cut, "`.sluice/resume/KEY/3.state` is damaged");
    check_damage(behead, "`.sluice/resume/KEY/head.json` is damaged");
    check_damage(lose, "read `.sluice/resume/KEY/3.state`: No such file or directory (os error 2)");
    // Nothing is there to be named.
    check_damage(|folder| fs::remove_dir_all(folder).expect("a save"), "");
}

/// What another version saved, or other arithmetic, is not gone on from.
#[test]
fn a_save_of_another_form_is_named_and_left() {
    let training = Training::of("tuned", &["epochs=6", EVERY_STEP]);
    let mut bench = training.bench();
    let how_far = HowFar { form: "trainer v0, cpu-f32", done: 2, total: 6 };
    let store = Store::open(bench.folder.path().join(".sluice")).expect("a store");
    let attempt = store.begin(KEY).expect("an attempt");
    attempt.save_unfinished(how_far, |sink| sink.write_all(b"old")).expect("a save");
    drop(attempt);
    assert_eq!(training.finish(&mut bench).n_steps_resumed, 0);
    expect!["the training that an earlier run saved is not whole and begins anew: it was saved as `trainer v0, cpu-f32`, and this program goes on from `trainer v1, cpu-f32`"].assert_eq(&told(&bench));
}

/// A disk that refuses costs a save, not the training.
#[test]
fn a_save_that_fails_is_told_once() {
    let training = Training::of("tuned", &["epochs=6", EVERY_STEP]);
    let whole = training.finish(&mut training.bench());
    let mut bench = training.bench();
    // A file is where the folder should be.
    fs::create_dir_all(bench.folder.path().join(".sluice/resume")).expect("a writable store");
    fs::write(resume_folder(&bench), "").expect("a writable store");
    assert_eq!(training.finish(&mut bench).outputs, whole.outputs);
    expect!["step 1 could not be saved, and the training goes on: create folder `.sluice/resume/KEY`: File exists (os error 17); a stop before the next save costs the steps since step 0"].assert_eq(&told(&bench));
}
