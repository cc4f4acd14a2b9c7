//! What a plan says before anything runs, and why: what changed, and the root of it.

use std::fs;

use expect_test::expect;

use crate::fake::{FakeRunner, Workshop};
use crate::{PIPELINE, with};

#[test]
fn a_plan_tells_what_a_run_would_do() {
    let shop = Workshop::new();
    let runner = FakeRunner::default();
    expect![[r#"
        prompts run: never ran
        responses pending: waits for `prompts`
        scores pending: waits for `responses`
        pairs pending: waits for `scores`
        lengths pending: waits for `responses`
        tuned pending: waits for `pairs`
        report pending: waits for `prompts`, `tuned`
    "#]]
    .assert_eq(&shop.plan(PIPELINE, &runner));
    assert!(!shop.store().root().join("records").exists(), "planning computes nothing");
    shop.run(PIPELINE, &runner);
    let changed = with("ties: drop", "ties: first").replace("learning_rate: 8.0e-7", "learning_rate: 1.0e-6");
    expect![[r#"
        prompts hit
        responses hit
        scores hit
        pairs run: pair.ties drop -> first (p.yaml:7:46)
        lengths hit
        tuned pending: train.learning_rate 8e-7 -> 1e-6 (p.yaml:14:22)
        report pending: waits for `tuned`
    "#]]
    .assert_eq(&shop.plan(&changed, &runner));
    assert_eq!(runner.runs(), 7, "planning runs nothing");
}

#[test]
fn why_compares_with_the_result_before() {
    let shop = Workshop::new();
    let runner = FakeRunner::default();
    let changed = with("ties: drop", "ties: first");
    expect!["pairs, against none"].assert_eq(&shop.why(PIPELINE, &runner, "pairs"));
    shop.run(PIPELINE, &runner);
    expect![[r#"
        pairs, against r1
          pair.ties drop -> first (p.yaml:7:46)"#]]
    .assert_eq(&shop.why(&changed, &runner, "pairs"));
    shop.run(&changed, &runner);
    shop.run(&changed, &runner);
    expect![[r#"
        pairs, against r1
          pair.ties drop -> first (p.yaml:7:46)"#]]
    .assert_eq(&shop.why(&changed, &runner, "pairs"));
    expect![[r#"
        tuned, against r1
          input.pairs * -> * (p.yaml:11:14)
          because of `pairs` pair.ties drop -> first (p.yaml:7:46)"#]]
    .assert_eq(&shop.why(&changed, &runner, "tuned"));
}

#[test]
fn why_goes_back_to_the_root() {
    let shop = Workshop::new();
    let runner = FakeRunner::default();
    shop.run(PIPELINE, &runner);
    // Before anything runs: through what waits.
    let changed = with("ties: drop", "ties: first").replace("n: 5", "n: 6");
    expect![[r#"
        report, against r1
          because of `pairs` pair.ties drop -> first (p.yaml:7:46), through `tuned`
          because of `responses` sample.n 5 -> 6 (p.yaml:5:62), through `scores`, `pairs`, `tuned`"#]]
    .assert_eq(&shop.why(&changed, &runner, "report"));
    // In part: what has run since is followed by its records, and what is yet to run by the plan.
    shop.run_targets(&changed, &runner, &["pairs"]);
    expect![[r#"
        report, against r1
          because of `pairs` pair.ties drop -> first (p.yaml:7:46), through `tuned`
          because of `responses` sample.n 5 -> 6 (p.yaml:5:62), through `scores`, `pairs`, `tuned`"#]]
    .assert_eq(&shop.why(&changed, &runner, "report"));
    // Afterwards: along the records of both runs. A file and a model are roots, too.
    let other =
        FakeRunner::default().with_outside("prompts.jsonl", "other rows").with_outside("models/reward", "other");
    shop.run(&changed, &other);
    expect![[r#"
        report, against r1
          input.candidate * -> * (p.yaml:15:57)
          input.judge * -> * (p.yaml:15:89)
          input.prompts * -> * (p.yaml:15:37)
          because of `prompts` input.from * -> * (p.yaml:4:32)
          because of `pairs` pair.ties drop -> first (p.yaml:7:46), through `tuned`
          because of `scores` input.model * -> * (p.yaml:6:54), through `pairs`, `tuned`
          because of `responses` sample.n 5 -> 6 (p.yaml:5:62), through `scores`, `pairs`, `tuned`"#]]
    .assert_eq(&shop.why(&changed, &other, "report"));
    expect![[r#"
        pairs, against r2
          input.scores * -> * (p.yaml:7:32)
          because of `scores` input.model * -> * (p.yaml:6:54)
          because of `prompts` input.from * -> * (p.yaml:4:32), through `responses`, `scores`"#]]
    .assert_eq(&shop.why(&changed, &other, "pairs"));
    // What is gone, or was never there, is a root of its own.
    let lost = shop.record(&changed, "prompts");
    fs::remove_file(shop.store().table_path(&lost.outputs[0]).expect("a table")).expect("a file");
    expect![[r#"
        scores, against r3
          input.model * -> * (p.yaml:6:54)
          because of `prompts` its output `prompts` is gone from the store, through `responses`"#]]
    .assert_eq(&shop.why(&changed, &runner, "scores"));
    let more = "  more:      { sql: { from: [prompts], query: select 1 } }\n  lengths:";
    let longer = changed.replace("  lengths:", more);
    let longer = longer.replace("from: [responses], query", "from: [responses, more], query");
    expect![[r#"
        lengths, against r3
          because of `more` never ran
          because of `prompts` its output `prompts` is gone from the store, through `responses`"#]]
    .assert_eq(&shop.why(&longer, &runner, "lengths"));
    // A change that came to nothing ends the way back.
    let early = FakeRunner::default().making("pairs", "the same pairs");
    let shop = Workshop::new();
    shop.run(PIPELINE, &early);
    shop.run(&with("ties: drop", "ties: first").replace("learning_rate: 8.0e-7", "learning_rate: 1.0e-6"), &early);
    let tuned = with("ties: drop", "ties: first").replace("learning_rate: 8.0e-7", "learning_rate: 1.0e-6");
    expect![[r#"
        report, against r1
          input.candidate * -> * (p.yaml:15:57)
          because of `tuned` train.learning_rate 8e-7 -> 1e-6 (p.yaml:14:22)"#]]
    .assert_eq(&shop.why(&tuned, &early, "report"));
}

#[test]
fn rows_that_are_known_are_planned_and_told() {
    let shop = Workshop::new();
    let runner = FakeRunner::default().knowing("responses", 4, 6);
    shop.run(&with("n: 5", "n: 4"), &FakeRunner::default());
    expect![[r#"
        prompts hit
        responses partial 4/6: sample.n 4 -> 5 (p.yaml:5:62)
        scores pending: waits for `responses`
        pairs pending: waits for `scores`
        lengths pending: waits for `responses`
        tuned pending: waits for `pairs`
        report pending: waits for `tuned`
    "#]]
    .assert_eq(&shop.plan(PIPELINE, &runner));
    expect![[r#"
        prompts hit
        responses partial: sample.n 4 -> 5 (p.yaml:5:62)
        scores ran: input.responses * -> * (p.yaml:6:36)
        pairs ran: input.scores * -> * (p.yaml:7:32)
        lengths ran: input.responses * -> * (p.yaml:8:30)
        tuned ran: input.pairs * -> * (p.yaml:11:14)
        report ran: input.candidate * -> * (p.yaml:15:57)
        run ran
    "#]]
    .assert_eq(&shop.run(PIPELINE, &runner));
}
