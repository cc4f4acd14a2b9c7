//! Results made again: what is exact, what is near and what is different, of each kind.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, ListArray, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{Float32Type, UInt32Type};
use expect_test::{Expect, expect};
use sluice_table::Split;

use crate::bench::Bench;
use crate::{plant_own_pairs, run, with_prompts};

/// Counts, and what is said of the worst.
fn told(bench: &mut Bench, stage: &str, rows: &[u64], is_foreign: bool) -> String {
    let verified = bench.verify(stage, rows, is_foreign).expect("a check");
    let (exact, near, different) = (verified.n_exact, verified.n_near, verified.n_different);
    let mut told = format!("{exact} exact, {near} near, {different} different {}\n", verified.unit);
    for example in &verified.worst {
        // Ids are long, and numbers of a model's arithmetic differ between processors.
        let words = example.row.split(' ').map(|word| if word.len() == 32 { "ID" } else { word });
        let what = example.what.split(' ').filter(|word| word.parse::<f64>().is_err());
        let (row, what): (Vec<&str>, Vec<&str>) = (words.collect(), what.collect());
        told += &format!("{:?} {}: {}\n", example.likeness, row.join(" "), what.join(" "));
    }
    told
}

#[track_caller]
fn check(bench: &mut Bench, stage: &str, rows: &[u64], is_foreign: bool, expected: Expect) {
    expected.assert_eq(&told(bench, stage, rows, is_foreign));
}

/// The table with one column made by `change`.
fn changed(batch: &RecordBatch, column: &str, change: impl Fn(&ArrayRef) -> ArrayRef) -> RecordBatch {
    let at = batch.schema().index_of(column).expect("a column");
    let mut columns = batch.columns().to_vec();
    columns[at] = change(&columns[at]);
    RecordBatch::try_new(batch.schema(), columns).expect("the same types")
}

/// Numbers, the first of them `by` more.
fn first_more(by: f32) -> impl Fn(&ArrayRef) -> ArrayRef {
    move |column| {
        let values = column.as_primitive::<Float32Type>().values();
        let values = values.iter().enumerate().map(|(at, value)| if at == 0 { value + by } else { *value });
        Arc::new(values.collect::<Float32Array>())
    }
}

/// Texts, the first of them another.
fn first_other(column: &ArrayRef) -> ArrayRef {
    let texts = column.as_string::<i32>();
    let texts = (0..texts.len())
        .map(|at| if at == 0 { Some("another text") } else { texts.is_valid(at).then(|| texts.value(at)) });
    Arc::new(texts.collect::<StringArray>())
}

fn with_responses() -> Bench {
    let mut bench = with_prompts(Split::Train);
    run(&mut bench, "responses", &[]);
    bench
}

#[test]
fn responses() {
    let mut bench = with_responses();
    let all: Vec<u64> = (0..9).collect();
    check(
        &mut bench,
        "responses",
        &all,
        false,
        expect![[r#"
        9 exact, 0 near, 0 different rows
    "#]],
    );
    check(
        &mut bench,
        "responses",
        &[2, 7],
        false,
        expect![[r#"
        2 exact, 0 near, 0 different rows
    "#]],
    );
    let batch = bench.table("responses", "responses");
    let mut check_changed =
        |column: &str, change: &dyn Fn(&ArrayRef) -> ArrayRef, is_foreign: bool, expected: Expect| {
            bench.plant("responses", "responses", &changed(&batch, column, change));
            check(&mut bench, "responses", &all, is_foreign, expected);
        };
    check_changed(
        "logp_sum",
        &first_more(1e-4),
        false,
        expect![[r#"
        8 exact, 1 near, 0 different rows
        Near answer 0 to prompt ID: logp_sum is now
    "#]],
    );
    check_changed(
        "logp_sum",
        &first_more(0.5),
        false,
        expect![[r#"
        8 exact, 0 near, 1 different rows
        Different answer 0 to prompt ID: logp_sum is now
    "#]],
    );
    check_changed(
        "response_id",
        &first_other,
        false,
        expect![[r#"
        8 exact, 0 near, 1 different rows
        Different answer 0 to prompt ID: its id is not the one its prompt and parameters give
    "#]],
    );
    check_changed(
        "policy_digest",
        &first_other,
        false,
        expect![[r#"
        8 exact, 0 near, 1 different rows
        Different answer 0 to prompt ID: its policy is another text, and the model is 0238f2d51d983697b7616570735324e34d26e28c48b4eb1d64ebc7689f9be31e
    "#]],
    );
    // The first answer with another token, which would have to read the same.
    let other_token = |column: &ArrayRef| -> ArrayRef {
        let lists = column.as_list::<i32>();
        let mut rows: Vec<Vec<Option<u32>>> =
            (0..lists.len()).map(|at| lists.value(at).as_primitive::<UInt32Type>().iter().collect()).collect();
        rows[0][0] = rows[0][0].map(|id| id ^ 1);
        let lists = ListArray::from_iter_primitive::<UInt32Type, _, _>(rows.into_iter().map(Some));
        let field = match column.data_type() {
            arrow::datatypes::DataType::List(field) => field.clone(),
            other => panic!("{other} is a list"),
        };
        let (_, offsets, values, nulls) = lists.into_parts();
        Arc::new(ListArray::new(field, offsets, values, nulls))
    };
    check_changed(
        "token_ids",
        &other_token,
        false,
        expect![[r#"
        8 exact, 1 near, 0 different rows
        Near answer 0 to prompt ID: the same text of other tokens
    "#]],
    );
    check_changed(
        "token_ids",
        &other_token,
        true,
        expect![[r#"
        8 exact, 1 near, 0 different rows
        Near answer 0 to prompt ID: the same text of other tokens
    "#]],
    );
}

/// A draw that other arithmetic would not make is near, as long as its log-probability is that of its tokens.
#[test]
fn responses_of_another_arithmetic() {
    let mut bench = with_responses();
    let batch = bench.table("responses", "responses");
    // Answers of another seed, which say that they are of this one.
    let mut other = with_prompts(Split::Train);
    run(&mut other, "responses", &["stages.responses.sample.seed=8"]);
    let drawn = other.table("responses", "responses");
    let mut mixed = batch.clone();
    for column in ["response", "token_ids", "n_tokens", "logp_sum", "finish_reason"] {
        let from = drawn.column_by_name(column).expect("a column").clone();
        mixed = changed(&mixed, column, |_| from.clone());
    }
    bench.plant("responses", "responses", &mixed);
    let all: Vec<u64> = (0..9).collect();
    let here = told(&mut bench, "responses", &all, false);
    assert!(here.contains(" different rows\n") && !here.starts_with("9 exact"), "{here}");
    let foreign = told(&mut bench, "responses", &all, true);
    assert!(foreign.contains(" near, 0 different rows\n"), "{foreign}");
    assert!(foreign.contains("Near answer"), "{foreign}");
}

#[test]
fn scores() {
    let mut bench = with_responses();
    run(&mut bench, "scores", &[]);
    let all: Vec<u64> = (0..9).collect();
    check(
        &mut bench,
        "scores",
        &all,
        false,
        expect![[r#"
        9 exact, 0 near, 0 different rows
    "#]],
    );
    let batch = bench.table("scores", "scores");
    let mut check_changed =
        |column: &str, change: &dyn Fn(&ArrayRef) -> ArrayRef, is_foreign: bool, expected: Expect| {
            bench.plant("scores", "scores", &changed(&batch, column, change));
            check(&mut bench, "scores", &all, is_foreign, expected);
        };
    check_changed(
        "score",
        &first_more(5e-5),
        false,
        expect![[r#"
        8 exact, 1 near, 0 different rows
        Near answer 0 to prompt ID: score is now
    "#]],
    );
    check_changed(
        "score",
        &first_more(0.01),
        false,
        expect![[r#"
        8 exact, 0 near, 1 different rows
        Different answer 0 to prompt ID: score is now
    "#]],
    );
    check_changed(
        "score",
        &first_more(0.01),
        true,
        expect![[r#"
        8 exact, 1 near, 0 different rows
        Near answer 0 to prompt ID: score is now
    "#]],
    );
    check_changed(
        "response",
        &first_other,
        false,
        expect![[r#"
        8 exact, 0 near, 1 different rows
        Different answer 0 to prompt ID: reward of `objective-00`, is now
    "#]],
    );
}

#[test]
fn comparisons() {
    let mut bench = with_prompts(Split::Heldout);
    run(&mut bench, "report", &[]);
    let all: Vec<u64> = (0..9).collect();
    check(
        &mut bench,
        "report",
        &all,
        false,
        expect![[r#"
        9 exact, 0 near, 0 different rows
    "#]],
    );
    let (batch, metrics) = (bench.table("report", "comparisons"), bench.table("report", "metrics"));
    let mut check_changed =
        |column: &str, change: &dyn Fn(&ArrayRef) -> ArrayRef, is_foreign: bool, expected: Expect| {
            bench.plant("report", "comparisons", &changed(&batch, column, change));
            check(&mut bench, "report", &[0, 1], is_foreign, expected);
        };
    check_changed(
        "candidate_score",
        &first_more(1e-5),
        false,
        expect![[r#"
            1 exact, 0 near, 5 different rows
            Different greedy answer 0 to prompt ID: outcome is now
            Different metric mean_score_candidate, greedy: is now
            Different metric mean_score_difference, greedy: is now
            Different metric mean_score_candidate, greedy, group `names`: is now
            Different metric mean_score_difference, greedy, group `names`: is now
        "#]],
    );
    check_changed(
        "baseline",
        &first_other,
        false,
        expect![[r#"
        1 exact, 0 near, 1 different rows
        Different greedy answer 0 to prompt ID: the baseline's answer of tokens is another one of now
    "#]],
    );
    check_changed(
        "baseline",
        &first_other,
        true,
        expect![[r#"
        1 exact, 0 near, 1 different rows
        Different greedy answer 0 to prompt ID: score of the baseline's answer, is now
    "#]],
    );
    let more = |column: &ArrayRef| -> ArrayRef {
        let numbers = column.as_primitive::<UInt32Type>().values().iter().map(|n| n + 1);
        Arc::new(numbers.collect::<UInt32Array>())
    };
    check_changed(
        "candidate_tokens",
        &more,
        false,
        expect![[r#"
            0 exact, 0 near, 8 different rows
            Different greedy answer 0 to prompt ID: the candidate's answer of tokens is another one of now
            Different sampled answer 0 to prompt ID: the candidate's answer of tokens is another one of now
            Different metric mean_tokens_candidate, greedy: is now
            Different metric mean_tokens_difference, greedy: is now
            Different metric length_ratio, greedy: is now
        "#]],
    );
    bench.plant("report", "comparisons", &batch);
    bench.plant("report", "metrics", &changed(&metrics, "metric", first_other));
    check(
        &mut bench,
        "report",
        &[0],
        false,
        expect![[r#"
            1 exact, 0 near, 1 different rows
            Different metric another text, greedy: is now
        "#]],
    );
}

#[test]
fn wholes() {
    let mut bench = with_responses();
    run(&mut bench, "scores", &[]);
    run(&mut bench, "pairs", &["stages.pairs.pair.identical=keep", "stages.pairs.pair.ties=first"]);
    // Made by other rules than those of the file.
    let told_of = told(&mut bench, "pairs", &[], false);
    assert!(told_of.contains(" different rows\n"), "{told_of}");
    let batch = bench.table("pairs", "pairs");
    run(&mut bench, "pairs", &[]);
    check(
        &mut bench,
        "pairs",
        &[],
        false,
        expect![[r#"
        3 exact, 0 near, 0 different rows
    "#]],
    );
    assert!(batch.num_rows() > 0);
    let pairs = bench.table("pairs", "pairs");
    bench.plant("pairs", "pairs", &changed(&pairs, "chosen", first_other));
    check(
        &mut bench,
        "pairs",
        &[],
        false,
        expect![[r#"
        2 exact, 0 near, 1 different rows
        Different pairs, row 0: chosen another text is   fter in numbers�� now
    "#]],
    );
}

#[test]
fn trainings() {
    let mut bench = Bench::new();
    plant_own_pairs(&mut bench);
    run(&mut bench, "tuned", &[]);
    check(
        &mut bench,
        "tuned",
        &[],
        false,
        expect![[r#"
        1 exact, 0 near, 0 different results
    "#]],
    );
    let steps = bench.table("tuned", "steps");
    // The checkpoint of another seed, under the losses of this one, and then its own.
    let (seed, right) = ("stages.tuned.train.seed=1", steps.clone());
    run(&mut bench, "tuned", &[seed]);
    let other = bench.table("tuned", "steps");
    bench.plant("tuned", "steps", &right);
    check(
        &mut bench,
        "tuned",
        &[],
        false,
        expect![[r#"
        0 exact, 1 near, 0 different results
        Near checkpoint: other weights after the same losses
    "#]],
    );
    bench.plant("tuned", "steps", &other);
    let told_of = told(&mut bench, "tuned", &[], false);
    assert!(
        told_of.starts_with("0 exact, 0 near, 1 different results\nDifferent checkpoint: loss of step"),
        "{told_of}"
    );
}
