//! Results held against the same computation done again: what is checked, what is skipped and why, and what is kept.

use std::fs;
use std::sync::atomic::AtomicBool;

use expect_test::{Expect, expect};
use sluice_engine::{Amount, Checked, VerifyOptions, VerifyReport};
use sluice_spec::Options;

use crate::fake::{FakeRunner, Workshop};
use crate::{PIPELINE, with};

fn verified(shop: &Workshop, text: &str, runner: &FakeRunner, targets: &[&str], train: bool) -> VerifyReport {
    let targets = targets.iter().map(|name| (*name).to_owned()).collect();
    let options = VerifyOptions { targets, amount: Amount::Share(0.01), train, seed: 3 };
    shop.with_options(text, &Options::default(), runner, |engine| {
        engine.verify(&options, &AtomicBool::new(false), &|_, _| {}).expect("a check")
    })
}

#[track_caller]
fn check(report: &VerifyReport, expected: Expect) {
    let told = report.stages.iter().map(|stage| {
        let state = match &stage.state {
            Checked::Done { verdict, exact, near, different, of, numerics, worst, evidence, .. } => {
                let numerics = numerics.as_ref().map_or(String::new(), |(of, by)| format!(", {of} by {by}"));
                let worst: String = worst.iter().map(|one| format!(", {}: {}", one.row, one.what)).collect();
                let kept = if evidence.is_some() { ", kept" } else { "" };
                format!("{verdict:?}, {exact} + {near} + {different} of {of}{numerics}{worst}{kept}")
            }
            Checked::Skipped { reason } => format!("skipped: {reason}"),
            Checked::Failed { failure } => format!("failed: {failure}"),
        };
        format!("{} {state}\n", stage.name)
    });
    expected.assert_eq(&told.collect::<String>());
}

#[test]
fn results_that_come_out_again_are_exact() {
    let shop = Workshop::new();
    let runner = FakeRunner::default();
    check(
        &verified(&shop, PIPELINE, &runner, &[], false),
        expect![[r#"
        prompts skipped: it has no result: never ran
        responses skipped: `prompts`, which it reads, has no result
        scores skipped: `responses`, which it reads, has no result
        pairs skipped: `scores`, which it reads, has no result
        lengths skipped: `responses`, which it reads, has no result
        tuned skipped: `pairs`, which it reads, has no result
        report skipped: `prompts`, which it reads, has no result
    "#]],
    );
    shop.run(PIPELINE, &runner);
    check(
        &verified(&shop, PIPELINE, &runner, &[], false),
        expect![[r#"
        prompts Exact, 1 + 0 + 0 of 1
        responses Exact, 1 + 0 + 0 of 1
        scores Exact, 1 + 0 + 0 of 1
        pairs Exact, 1 + 0 + 0 of 1
        lengths Exact, 1 + 0 + 0 of 1
        tuned skipped: a training is done again as a whole, and only with --train or --recompute 100%
        report Exact, 1 + 0 + 0 of 1
    "#]],
    );
    check(
        &verified(&shop, PIPELINE, &runner, &["tuned", "pairs"], true),
        expect![[r#"
        pairs Exact, 1 + 0 + 0 of 1
        tuned Exact, 1 + 0 + 0 of 1
    "#]],
    );
    // What has no result is not checked, nor what reads it.
    check(
        &verified(&shop, &with("ties: drop", "ties: first"), &runner, &[], false),
        expect![[r#"
        prompts Exact, 1 + 0 + 0 of 1
        responses Exact, 1 + 0 + 0 of 1
        scores Exact, 1 + 0 + 0 of 1
        pairs skipped: it has no result: pair.ties drop -> first (p.yaml:7:46)
        lengths Exact, 1 + 0 + 0 of 1
        tuned skipped: `pairs`, which it reads, has no result
        report skipped: `tuned`, which it reads, has no result
    "#]],
    );
}

#[test]
fn a_result_that_comes_out_otherwise_is_kept_beside_the_first() {
    let shop = Workshop::new();
    shop.run(PIPELINE, &FakeRunner::default());
    let before = shop.record(PIPELINE, "pairs");
    let other = FakeRunner::default().making("pairs", "other pairs");
    let report = verified(&shop, PIPELINE, &other, &["pairs"], false);
    check(
        &report,
        expect![[r#"
        pairs Different, 0 + 0 + 1 of 1, row 0: another text, kept
    "#]],
    );
    assert_eq!(shop.record(PIPELINE, "pairs"), before);
    let divergences = fs::read_dir(shop.store().root().join("divergences")).expect("a folder").count();
    assert_eq!(divergences, 1);
    assert!(shop.run(PIPELINE, &other).ends_with("run hit\n"));
}

#[test]
fn a_stage_that_cannot_be_made_again_says_so() {
    let shop = Workshop::new();
    shop.run(PIPELINE, &FakeRunner::default());
    check(
        &verified(&shop, PIPELINE, &FakeRunner::default().failing("scores"), &["scores", "pairs"], false),
        expect![[r#"
            scores failed: scores fails
            pairs Exact, 1 + 0 + 0 of 1
        "#]],
    );
    check(
        &verified(
            &shop,
            PIPELINE,
            &FakeRunner::default().without_outside("prompts.jsonl"),
            &["prompts", "lengths"],
            false,
        ),
        expect![[r#"
            prompts failed: `prompts.jsonl` is not there
            lengths skipped: `responses`, which it reads, has no result
        "#]],
    );
}

/// Results of another device are found and held against this one, and what differs is no evidence against them.
#[test]
fn results_of_another_arithmetic_are_near() {
    let shop = Workshop::new();
    let gpu = shop.with_numerics("cuda-bf16");
    gpu.run(PIPELINE, &FakeRunner::default());
    check(
        &verified(&shop, PIPELINE, &FakeRunner::default(), &["responses", "pairs"], false),
        expect![[r#"
        responses Exact, 1 + 0 + 0 of 1, cuda-bf16 by cpu-f32
        pairs Exact, 1 + 0 + 0 of 1
    "#]],
    );
    let other = FakeRunner::default().making("responses", "otherwise").making("scores", "otherwise");
    check(
        &verified(&shop, PIPELINE, &other, &["responses", "scores"], false),
        expect![[r#"
        responses Near, 0 + 1 + 0 of 1, cuda-bf16 by cpu-f32
        scores Near, 0 + 1 + 0 of 1, cuda-bf16 by cpu-f32
    "#]],
    );
    assert_eq!(fs::read_dir(shop.store().root().join("divergences")).expect("a folder").count(), 0);
}
