//! What a plan says it would cost, and which earlier runs it believes.

use expect_test::{Expect, expect};
use sluice_engine::{PlanState, Price, PricedPlan, PricedStage, Reason, Total};
use sluice_spec::Options;

use crate::fake::{FakeRunner, Workshop};

const PIPELINE: &str = "\
version: 1
profiles: { small: { policy: models/policy }, large: { policy: models/large } }
models: { policy: \"${profile.policy}\", reward: models/reward }
stages:
  prompts:   { ingest: { from: prompts.jsonl } }
  responses: { sample: { prompts: prompts, model: policy, n: 2 } }
  scores:    { score: { responses: responses, model: reward } }
  pairs:     { pair: { scores: scores } }
  tuned:     { train: { pairs: pairs, model: policy, objective: { orpo: {} }, learning_rate: 1, batch_size: 1 } }
  report:    { evaluate: { prompts: prompts, candidate: tuned, baseline: policy, judge: reward } }
";

/// Stages that say what they took.
fn costing() -> FakeRunner {
    FakeRunner::default()
        .costing("responses", 100, 1_000, 50.0)
        .costing("scores", 100, 2_000, 10.0)
        .costing("tuned", 10, 500, 40.0)
        .costing("report", 40, 400, 20.0)
}

/// The model stages of a plan: units to be made of all, tokens and seconds, and which run says so.
fn told(plan: &PricedPlan) -> String {
    let mut told = String::new();
    for PricedStage { planned, price } in &plan.stages {
        let Some(price) = price else { continue };
        let Price { rows: _, rows_exact: _, unit, units, units_known, tokens, seconds, bytes: _, evidence } = price;
        let units = units.map_or("?".to_owned(), |units| (units - units_known).to_string());
        let evidence = evidence.as_ref().map_or("nothing".to_owned(), |evidence| {
            format!("{:?} of {}, {} in {}", evidence.basis, evidence.run, evidence.n_done, evidence.n_records)
        });
        let figures = match (tokens, seconds) {
            // Of what is made as a whole, the seconds are real.
            (Some(0), Some(_)) => "* s".to_owned(),
            (Some(tokens), Some(seconds)) => format!("{tokens} tokens, {seconds:.1} s"),
            _ => "?".to_owned(),
        };
        let never_ran = matches!(
            planned.state,
            PlanState::Run { reason: Reason::NeverRan, .. } | PlanState::Pending { never_ran: true, .. }
        );
        let first = if never_ran { ", never ran" } else { "" };
        told += &format!("{}: {units} {unit}, {figures}, by {evidence}{first}\n", planned.name);
    }
    let Total { hit, partial, run, fail, unknown, .. } = plan.total;
    told + &format!("{hit} hit, {partial} partial, {run} to run, {fail} failing; {unknown} unknown\n")
}

#[track_caller]
fn check(shop: &Workshop, set: &[&str], profile: Option<&str>, runner: &FakeRunner, expected: Expect) {
    let options =
        Options { profile: profile.map(str::to_owned), set: set.iter().map(|one| (*one).to_owned()).collect() };
    let plan = shop.with_options(PIPELINE, &options, runner, |engine| engine.plan_priced(&[]).expect("a plan"));
    expected.assert_eq(&told(&plan));
}

#[test]
fn a_first_plan_knows_no_price() {
    check(
        &Workshop::new(),
        &[],
        None,
        &FakeRunner::default(),
        expect![[r#"
        prompts: 13 bytes, ?, by nothing, never ran
        responses: ? rows, ?, by nothing, never ran
        scores: ? rows, ?, by nothing, never ran
        pairs: ? rows, ?, by nothing, never ran
        tuned: ? examples, ?, by nothing, never ran
        report: ? answers, ?, by nothing, never ran
        0 hit, 0 partial, 6 to run, 0 failing; 6 unknown
    "#]],
    );
}

#[test]
fn a_row_costs_what_it_cost() {
    let shop = Workshop::new();
    shop.run(PIPELINE, &costing());
    check(
        &shop,
        &[],
        None,
        &costing(),
        expect![[r#"
        6 hit, 0 partial, 0 to run, 0 failing; 0 unknown
    "#]],
    );
    // The rows of `responses` are counted, and the others follow.
    let runner = costing().knowing("responses", 100, 150);
    check(
        &shop,
        &["stages.responses.sample.n=3"],
        None,
        &runner,
        expect![[r#"
        responses: 50 rows, 500 tokens, 25.0 s, by Stage of r1, 100 in 1
        scores: 50 rows, 1000 tokens, 5.0 s, by Stage of r1, 100 in 1
        pairs: 150 rows, * s, by Stage of r1, 1 in 1
        tuned: ? examples, ?, by nothing
        report: ? answers, ?, by nothing
        1 hit, 2 partial, 3 to run, 0 failing; 2 unknown
    "#]],
    );
    check(
        &shop,
        &["stages.tuned.train.epochs=4"],
        None,
        &costing(),
        expect![[r#"
        tuned: 4 examples, 200 tokens, 16.0 s, by Stage of r1, 10 in 1
        report: ? answers, ?, by nothing
        4 hit, 0 partial, 2 to run, 0 failing; 1 unknown
    "#]],
    );
    // Another model, in another profile or in the same one, is another price.
    check(
        &shop,
        &[],
        Some("large"),
        &costing(),
        expect![[r#"
        responses: ? rows, ?, by nothing
        scores: ? rows, ?, by nothing
        pairs: ? rows, ?, by nothing
        tuned: ? examples, ?, by nothing
        report: ? answers, ?, by nothing
        1 hit, 0 partial, 5 to run, 0 failing; 5 unknown
    "#]],
    );
    let other = costing().with_outside("models/reward", "another model");
    check(
        &shop,
        &[],
        None,
        &other,
        expect![[r#"
        scores: 1 rows, ?, by nothing
        pairs: 1 rows, * s, by Stage of r1, 1 in 1
        tuned: ? examples, ?, by nothing
        report: ? answers, ?, by nothing
        2 hit, 0 partial, 4 to run, 0 failing; 3 unknown
    "#]],
    );
    // And so is another arithmetic.
    check(
        &shop.with_numerics("cuda-bf16"),
        &[],
        None,
        &costing(),
        expect![[r#"
        responses: ? rows, ?, by nothing
        scores: ? rows, ?, by nothing
        pairs: ? rows, ?, by nothing
        tuned: ? examples, ?, by nothing
        report: ? answers, ?, by nothing
        1 hit, 0 partial, 5 to run, 0 failing; 5 unknown
    "#]],
    );
}

#[test]
fn a_run_with_few_rows_says_little() {
    let shop = Workshop::new();
    shop.run(PIPELINE, &costing());
    // Three answers at thirty times the price.
    let few = FakeRunner::default().costing("responses", 3, 30, 45.0);
    let three = PIPELINE.replace("n: 2", "n: 3");
    shop.run_targets(&three, &few, &["responses"]);
    let counted = |rows| costing().knowing("responses", 0, rows);
    check(
        &shop,
        &["stages.responses.sample.n=4"],
        None,
        &counted(200),
        expect![[r#"
        responses: 200 rows, 2000 tokens, 184.5 s, by Stage of r1, 103 in 2
        scores: 200 rows, 4000 tokens, 20.0 s, by Stage of r1, 100 in 1
        pairs: 200 rows, * s, by Stage of r1, 1 in 1
        tuned: ? examples, ?, by nothing
        report: ? answers, ?, by nothing
        1 hit, 0 partial, 5 to run, 0 failing; 2 unknown
    "#]],
    );
    // For as few as it had, it is what was found last.
    check(
        &shop,
        &["stages.responses.sample.n=4"],
        None,
        &counted(4),
        expect![[r#"
        responses: 4 rows, 40 tokens, 60.0 s, by Stage of r2, 3 in 1
        scores: 4 rows, 80 tokens, 0.4 s, by Stage of r1, 100 in 1
        pairs: 4 rows, * s, by Stage of r1, 1 in 1
        tuned: ? examples, ?, by nothing
        report: ? answers, ?, by nothing
        1 hit, 0 partial, 5 to run, 0 failing; 2 unknown
    "#]],
    );
}

#[test]
fn another_stage_with_the_same_model_is_second_best() {
    let shop = Workshop::new();
    shop.run(PIPELINE, &costing());
    let renamed =
        PIPELINE.replace("  responses: {", "  answers:   {").replace("responses: responses", "responses: answers");
    let counted = costing().knowing("answers", 0, 10);
    let options = Options { profile: None, set: vec!["stages.answers.sample.n=7".to_owned()] };
    let plan = shop.with_options(&renamed, &options, &counted, |engine| engine.plan_priced(&[]).expect("a plan"));
    expect![[r#"
        answers: 7 rows, 70 tokens, 3.5 s, by Model of r1, 100 in 1, never ran
        scores: 7 rows, 140 tokens, 0.7 s, by Stage of r1, 100 in 1
        pairs: 7 rows, * s, by Stage of r1, 1 in 1
        tuned: ? examples, ?, by nothing
        report: ? answers, ?, by nothing
        1 hit, 0 partial, 5 to run, 0 failing; 2 unknown
    "#]]
    .assert_eq(&told(&plan));
}
