//! A training that is going on, as another terminal sees it.

use std::process::Command;

use sluice_tests::binary;
use sluice_tests::running::{Running, Signal};
use sluice_tests::six_stages::six_stages;

const STEPS: &[&str] = &["sql", "p.yaml", "select step, loss from tuned.steps order by step", "--format", "csv"];

#[test]
fn the_steps_so_far_are_queried_while_a_training_runs() {
    let project = six_stages("p.yaml");
    // A result of other settings, which has two steps.
    project.sluice(["run", "p.yaml", "tuned", "--quiet"]).ended(0);
    let before = project.sluice(STEPS).ended(0);
    assert_eq!(before.out.lines().count(), 3, "{}", before.out);
    assert!(!before.err.contains("so far"), "{}", before.err);
    // More steps than anybody waits for.
    let mut command = Command::new(binary());
    command.args(["run", "p.yaml", "tuned", "--json", "--set", "stages.tuned.train.epochs=10000"]);
    command.current_dir(project.path());
    let mut run = Running::start(command);
    let is_at = |n: u64| {
        move |line: &sluice_tests::running::Line| {
            line.is("stage_progress", "tuned") && line.event()["done"].as_u64().is_some_and(|done| done >= n)
        }
    };
    run.find(is_at(5)).expect("a training");
    let early = project.sluice(STEPS).ended(0);
    assert!(early.err.starts_with("note: `tuned.steps` has the "), "{}", early.err);
    assert!(early.err.ends_with(" rows so far of run r2, which is at it\n"), "{}", early.err);
    let n_early = early.out.lines().count() as u64 - 1;
    assert!(n_early >= 5, "{}", early.out);
    run.find(is_at(n_early + 1)).expect("a training");
    let later = project.sluice(STEPS).ended(0).out;
    assert!(later.starts_with(&early.out) && later.len() > early.out.len(), "{}", later);
    // It is gone with the process, and the last result is there again.
    run.signal(Signal::Kill);
    run.wait();
    assert_eq!(project.sluice(STEPS).ended(0).out, before.out);
}
