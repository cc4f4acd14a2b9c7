//! Results whose bytes are not the ones that were written, or are gone: made again in the run that finds it.

use std::fs;
use std::sync::Mutex;

use expect_test::expect;
use sluice_engine::Event;

use crate::fake::{FakeRunner, Workshop};
use crate::{PIPELINE, with};

#[test]
fn a_damaged_result_is_made_again_in_the_run_that_finds_it() {
    let shop = Workshop::new();
    let runner = FakeRunner::default();
    shop.run(PIPELINE, &runner);
    let changed = with("ties: drop", "ties: first");
    shop.damage(&shop.record(PIPELINE, "scores"));
    expect![[r#"
        prompts hit
        responses hit
        scores ran: its output `scores` is damaged: * (the same)
        pairs ran: pair.ties drop -> first (p.yaml:7:46)
        lengths hit
        tuned ran: input.pairs * -> * (p.yaml:11:14)
        report ran: input.candidate * -> * (p.yaml:15:57)
        run ran
    "#]]
    .assert_eq(&shop.run(&changed, &runner));
    // So is one whose own input is damaged.
    shop.damage(&shop.record(&changed, "responses"));
    shop.damage(&shop.record(&changed, "scores"));
    expect![[r#"
        prompts hit
        responses ran: its output `responses` is damaged: * (the same)
        scores ran: its output `scores` is damaged: * (the same)
        pairs ran: pair.min_margin 0.0 -> 0.5 (p.yaml:7:65)
        lengths hit
        tuned ran: input.pairs * -> * (p.yaml:11:14)
        report ran: input.candidate * -> * (p.yaml:15:57)
        run ran
    "#]]
    .assert_eq(&shop.run(&with("ties: drop", "ties: first, min_margin: 0.5"), &runner));
    // And a checkpoint.
    shop.damage(&shop.record(PIPELINE, "tuned"));
    let again = with("judge: reward", "judge: reward, seed: 7");
    expect![[r#"
        prompts hit
        responses hit
        scores hit
        pairs hit
        lengths hit
        tuned ran: its output `checkpoint` is damaged: * (the same)
        report ran: evaluate.seed 0 -> 7 (p.yaml:15:103), input.candidate * -> * (p.yaml:15:57)
        run ran
    "#]]
    .assert_eq(&shop.run(&again, &runner));
    assert!(shop.plan(&again, &runner).lines().all(|line| line.ends_with(" hit")));
}

#[test]
fn a_damaged_result_that_comes_out_otherwise_is_followed_up() {
    let shop = Workshop::new();
    shop.run(PIPELINE, &FakeRunner::default());
    shop.damage(&shop.record(PIPELINE, "responses"));
    let changed = with("select count(*)", "select 2 * count(*)");
    expect![[r#"
        prompts hit
        responses ran: its output `responses` is damaged: * (differs)
        scores ran: input.responses * -> * (p.yaml:6:36)
        pairs ran: input.scores * -> * (p.yaml:7:32)
        lengths ran: input.responses * -> * (p.yaml:8:30), sql.query select count(*) from responses -> select 2 * count(*) from responses (p.yaml:8:49)
        tuned ran: input.pairs * -> * (p.yaml:11:14)
        report ran: input.candidate * -> * (p.yaml:15:57)
        responses diverged
        run ran
    "#]]
    .assert_eq(&shop.run(&changed, &FakeRunner::default().making("responses", "others")));
    assert!(shop.plan(&changed, &FakeRunner::default()).lines().all(|line| line.ends_with(" hit")));
}

#[test]
fn a_disk_that_damages_everything_ends_the_run() {
    let shop = Workshop::new();
    let runner = FakeRunner::default();
    shop.run(PIPELINE, &runner);
    let scores = shop.record(PIPELINE, "scores");
    shop.damage(&scores);
    let told = Mutex::new(Vec::new());
    shop.run_with(&with("ties: drop", "ties: first"), &runner, &|event| match event {
        Event::StageFinished { stage, .. } if stage.as_str() == "scores" => shop.damage(&scores),
        Event::Damaged { stage, output, .. } => {
            told.lock().expect("no panic").push(format!("{stage}: {output} damaged"))
        }
        Event::StageFailed { stage, error, .. } => {
            let error = error.split('`').nth(2).unwrap_or_default().split(':').next().unwrap_or_default();
            told.lock().expect("no panic").push(format!("{stage}:{error}"));
        }
        _ => {}
    });
    assert_eq!(told.into_inner().expect("no panic"), ["scores: scores damaged", "pairs: is damaged"]);
}

#[test]
fn a_lost_output_that_comes_out_differently_is_a_divergence() {
    let shop = Workshop::new();
    shop.run(PIPELINE, &FakeRunner::default().making("lengths", "first"));
    let store = shop.store();
    let lengths = shop.record(PIPELINE, "lengths");
    fs::remove_file(store.table_path(&lengths.outputs[0]).expect("a table")).expect("a file");
    let told = shop.run(PIPELINE, &FakeRunner::default().making("lengths", "second"));
    assert!(told.contains("lengths ran: its output `table` is gone from the store"), "{told}");
    assert!(told.contains("lengths diverged"), "{told}");
    assert!(shop.run(PIPELINE, &FakeRunner::default()).ends_with("run hit\n"));
}
