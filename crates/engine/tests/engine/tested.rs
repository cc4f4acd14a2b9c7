//! Data tests around the run loop: when they run, what is known, and what follows for whoever reads the stage.

use expect_test::{Expect, expect};

use crate::fake::{FakeRunner, Workshop};

/// `pairs` has the tests under test; a query says how often it fails.
fn pipeline(tests: &str) -> String {
    format!(
        "\
version: 1
models: {{ policy: models/policy, reward: models/reward }}
stages:
  prompts:   {{ ingest: {{ from: prompts.jsonl }} }}
  responses: {{ sample: {{ prompts: prompts, model: policy }} }}
  scores:    {{ score: {{ responses: responses, model: reward }} }}
  pairs:
    pair: {{ scores: scores }}
    tests: [{tests}]
  picked:    {{ sql: {{ from: [pairs], query: select 1 from pairs }} }}
"
    )
}

/// Runs a pipeline in a store, and tells of `pairs` and `picked`, and how many stages and tests were made.
fn run(shop: &Workshop, tests: &str) -> String {
    let runner = FakeRunner::default();
    let told = shop.run(&pipeline(tests), &runner);
    let of_pairs =
        told.lines().filter(|line| line.starts_with("pairs") || line.starts_with("picked") || line.starts_with("run"));
    let lines: String = of_pairs.map(|line| format!("{line}\n")).collect();
    format!("{lines}{} stages, {} tests made\n", runner.runs(), runner.tests())
}

fn check(shop: &Workshop, tests: &str, expected: Expect) {
    expected.assert_eq(&run(shop, tests));
}

#[test]
fn a_test_is_made_once_for_a_table() {
    let shop = Workshop::new();
    check(
        &shop,
        "sql: holds, not_null: [chosen]",
        expect![[r#"
            pairs ran: never ran
            picked ran: never ran
            run ran
            5 stages, 2 tests made
        "#]],
    );
    check(
        &shop,
        "sql: holds, not_null: [chosen]",
        expect![[r#"
            pairs hit
            picked hit
            run hit
            0 stages, 0 tests made
        "#]],
    );
    // Another name, another severity and another order are no other test; another query is.
    check(
        &shop,
        "{ not_null: [chosen], severity: warn }, { sql: holds, name: other }, sql: still holds",
        expect![[r#"
            pairs hit
            picked hit
            run hit
            0 stages, 1 tests made
        "#]],
    );
}

#[test]
fn a_test_that_fails_blocks_what_reads_the_stage_and_computes_nothing_again() {
    let shop = Workshop::new();
    let failing = "sql: holds, { sql: fails 3, name: odd_ones }, { sql: fails 1, severity: warn }";
    check(
        &shop,
        failing,
        expect![[r#"
            pairs failed: a test failed, `odd_ones`: 3 rows (p.yaml:9:27)
            picked blocked: `pairs`, which it needs, has no result
            run failed
            4 stages, 3 tests made
        "#]],
    );
    check(
        &shop,
        failing,
        expect![[r#"
            pairs failed: a test failed, `odd_ones`: 3 rows (p.yaml:9:27)
            picked blocked: `pairs`, which it needs, has no result
            run failed
            0 stages, 0 tests made
        "#]],
    );
    check(
        &shop,
        "{ sql: fails 3, severity: warn }",
        expect![[r#"
            pairs hit
            picked ran: never ran
            run ran
            1 stages, 0 tests made
        "#]],
    );
    // What reads it is a hit by now, and is blocked all the same: its input is one that should not be read.
    check(
        &shop,
        "sql: fails 3, sql: fails 2",
        expect![[r#"
            pairs failed: 2 of 2 tests failed, `sql`: 3 rows (p.yaml:9:13); `sql_2`: 2 rows (p.yaml:9:27)
            picked blocked: `pairs`, which it needs, has no result
            run failed
            0 stages, 1 tests made
        "#]],
    );
}

#[test]
fn a_test_that_cannot_be_made_is_tried_again() {
    let shop = Workshop::new();
    for made in [(4, 2), (0, 1)] {
        let told = run(&shop, "sql: breaks, sql: holds");
        let expected = format!(
            "pairs failed: test `sql` cannot be made (p.yaml:9:13)\n\
             picked blocked: `pairs`, which it needs, has no result\n\
             run failed\n\
             {} stages, {} tests made\n",
            made.0, made.1
        );
        assert_eq!(told, expected);
    }
}

#[test]
fn a_plan_says_what_is_known_of_the_tests() {
    let shop = Workshop::new();
    run(&shop, "sql: holds");
    let plan = |tests: &str| {
        let told = shop.plan(&pipeline(tests), &FakeRunner::default());
        told.lines().filter(|line| line.starts_with('p')).skip(1).map(|line| format!("{line}\n")).collect::<String>()
    };
    expect![[r#"
        pairs hit, 2 tests to make
        picked hit
    "#]]
    .assert_eq(&plan("sql: holds, sql: holds too, row_count: { min: 1 }"));
    run(&shop, "sql: fails 2");
    expect![[r#"
        pairs fail: a test failed, `sql`: 2 rows (p.yaml:9:13)
        picked pending: waits for `pairs`
    "#]]
    .assert_eq(&plan("sql: fails 2"));
}

#[test]
fn outcomes_are_told_as_events_and_kept_in_the_manifest() {
    let shop = Workshop::new();
    let events = std::sync::Mutex::new(Vec::new());
    shop.run_with(
        &pipeline("sql: holds, { sql: fails 1, severity: warn, name: odd }"),
        &FakeRunner::default(),
        &|event| {
            let event = serde_json::to_value(&event).expect("events have a JSON form");
            if event["stage"] == "pairs" {
                events.lock().expect("no panic").push(event);
            }
        },
    );
    let events = events.into_inner().expect("no panic");
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(names, ["stage_started", "stage_progress", "stage_finished", "stage_tested"]);
    let told = |test: &serde_json::Value| {
        format!("{} {} {} {} {}\n", test["name"], test["check"], test["outcome"], test["failures"], test["known"])
    };
    let tests = events[3]["tests"].as_array().expect("a list");
    expect![[r#"
        "sql" "sql" "passed" 0 false
        "odd" "sql" "warned" 1 false
    "#]]
    .assert_eq(&tests.iter().map(told).collect::<String>());
    let store = shop.store();
    let run = store.runs().expect("a store").pop().expect("a run");
    let manifest = store.run(run).expect("a manifest").expect("a manifest");
    let stage = manifest.stages.iter().find(|stage| stage.name == "pairs").expect("the stage");
    let kept: Vec<(&str, String)> = stage.tests.iter().map(|test| (test.name.as_str(), test.key.to_string())).collect();
    let keys: Vec<&str> = tests.iter().filter_map(|test| test["key"].as_str()).collect();
    assert_eq!(kept, [("sql", keys[0].to_owned()), ("odd", keys[1].to_owned())]);
}
