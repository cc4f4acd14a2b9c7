//! Stages with a matrix: a result for each cell, and the cells side by side.

use std::sync::Mutex;

use expect_test::expect;
use sluice_engine::Event;

use crate::fake::{FakeRunner, Workshop};

const SWEEP: &str = "\
version: 1
models: { policy: models/policy }
stages:
  prompts: { ingest: { from: prompts.jsonl, map: { response: answer } } }
  tuned:
    train: { rows: prompts, model: policy, objective: { sft: {} }, learning_rate: '${matrix.lr}', seed: '${matrix.s}' }
    matrix: { lr: [1e-3, 3e-3], s: [1, 2] }
  report: { evaluate: { prompts: prompts, candidate: tuned, baseline: policy } }
";

#[test]
fn a_sweep_runs_cell_by_cell_and_a_new_value_runs_its_cells() {
    let shop = Workshop::new();
    let runner = FakeRunner::default();
    shop.run(&SWEEP.replace("[1e-3, 3e-3]", "[1e-3]"), &runner);
    expect![[r#"
        prompts hit
        tuned[lr=0.001,s=1] hit
        tuned[lr=0.001,s=2] hit
        tuned[lr=0.003,s=1] ran: never ran
        tuned[lr=0.003,s=2] ran: never ran
        report[lr=0.001,s=1] hit
        report[lr=0.001,s=2] hit
        report[lr=0.003,s=1] ran: never ran
        report[lr=0.003,s=2] ran: never ran
        run ran
    "#]]
    .assert_eq(&shop.run(SWEEP, &runner));
    expect![[r#"
        prompts hit
        tuned[lr=0.001,s=2] hit
        tuned[lr=0.001,s=3] run: never ran
        tuned[lr=0.003,s=2] hit
        tuned[lr=0.003,s=3] run: never ran
        report[lr=0.001,s=2] hit
        report[lr=0.001,s=3] pending: waits for `tuned[lr=0.001,s=3]`
        report[lr=0.003,s=2] hit
        report[lr=0.003,s=3] pending: waits for `tuned[lr=0.003,s=3]`
    "#]]
    .assert_eq(&shop.plan(&SWEEP.replace("s: [1, 2]", "s: [2, 3]"), &runner));
    // Another order and another spelling are the same cells.
    let told = shop.run(&SWEEP.replace("lr: [1e-3, 3e-3], s: [1, 2]", "s: [2, 1], lr: [0.003, 0.001]"), &runner);
    assert!(told.contains("tuned[s=2,lr=0.003] hit\n"), "{told}");
    assert!(told.ends_with("run hit\n"), "{told}");
}

#[test]
fn the_last_cells_with_numbers_are_compared() {
    let shop = Workshop::new();
    let runner =
        FakeRunner::default().making("report[lr=0.003,s=2]", "0123456789").making("report[lr=0.001,s=1]", "01234");
    let comparisons = Mutex::new(Vec::new());
    shop.run_with(SWEEP, &runner, &|event| {
        if let Event::RunFinished(report) = event {
            let json = serde_json::to_value(&report.comparisons).expect("JSON");
            comparisons.lock().expect("no panic").push(json.to_string());
        }
    });
    expect![[r#"[{"stage":"report","kind":"evaluate","axes":["lr","s"],"metrics":[{"name":"length","better":null}],"cells":[{"name":"report[lr=0.001,s=1]","values":{"lr":0.001,"s":1},"metrics":{"length":5.0},"best":[]},{"name":"report[lr=0.001,s=2]","values":{"lr":0.001,"s":2},"metrics":{"length":64.0},"best":[]},{"name":"report[lr=0.003,s=1]","values":{"lr":0.003,"s":1},"metrics":{"length":64.0},"best":[]},{"name":"report[lr=0.003,s=2]","values":{"lr":0.003,"s":2},"metrics":{"length":10.0},"best":[]}]}]"#]].assert_eq(&comparisons.into_inner().expect("no panic").join("\n"));
}
