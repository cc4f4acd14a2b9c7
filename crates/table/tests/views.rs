//! What a view accepts and what it says when it does not; and that what a builder was given is what a view reads.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int64Array, LargeStringArray, RecordBatch, StringArray, StringViewArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::Int32Type;
use expect_test::{Expect, expect};
use sluice_table::{
    Decoding, DropRule, Dropped, DroppedBuilder, DroppedRow, MetricRow, Metrics, MetricsBuilder, Named, PromptId,
    ResponseRow, Responses, ResponsesBuilder, ScoreRow, Scores, ScoresBuilder, Split, TableError,
};
use sluice_table::{FinishReason, Prompts};

/// Reads a batch as `dropped` and prints each row, or the error.
fn check_dropped(columns: Vec<(&str, ArrayRef)>, expected: Expect) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .expect("columns of one length");
    let printed = match Dropped::view(&batch) {
        Ok(view) => view.rows().map(|row| format!("{row:?}\n")).collect(),
        Err(error) => said(&error),
    };
    expected.assert_eq(&printed);
}

fn said(error: &TableError) -> String {
    let source = std::error::Error::source(error).map(|cause| format!("\n  because: {cause}"));
    format!("{error}{}", source.unwrap_or_default())
}

fn text(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn whole(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

#[test]
fn any_order_any_text_encoding_other_columns_and_wider_integers_are_read() {
    let dictionary: DictionaryArray<Int32Type> = ["tie", "identical"].into_iter().collect();
    check_dropped(
        vec![
            ("n_candidates", whole(&[5, 4])),
            ("mood", whole(&[0, 0])),
            ("rule", Arc::new(dictionary)),
            ("prompt", Arc::new(LargeStringArray::from(vec!["one", "two"]))),
            ("prompt_id", Arc::new(StringViewArray::from(vec!["a", "b"]))),
        ],
        expect![[r#"
            DroppedRow { prompt_id: "a", prompt: "one", rule: Tie, n_candidates: 5 }
            DroppedRow { prompt_id: "b", prompt: "two", rule: Identical, n_candidates: 4 }
        "#]],
    );
}

#[test]
fn a_missing_column_names_those_present() {
    check_dropped(
        vec![("prompt_id", text(&["a"])), ("prompts", text(&["one"]))],
        expect!["table `dropped` lacks the column `prompt` (Utf8); it has `prompt_id`, `prompts`"],
    );
}

#[test]
fn a_column_of_another_type_is_refused() {
    check_dropped(
        vec![("prompt_id", whole(&[1]))],
        expect!["column `prompt_id` of table `dropped` is Int64, expected Utf8"],
    );
}

#[test]
fn a_null_is_refused_with_its_row() {
    check_dropped(
        vec![("prompt_id", Arc::new(StringArray::from(vec![Some("a"), None])))],
        expect!["column `prompt_id` of table `dropped` is null in row 1, expected Utf8"],
    );
}

#[test]
fn a_word_outside_the_vocabulary_is_refused_with_its_row() {
    check_dropped(
        vec![("prompt_id", text(&["a"])), ("prompt", text(&["one"])), ("rule", text(&["bored"]))],
        expect![
            "column `rule` of table `dropped` is `bored` in row 0, expected `heldout`, `not_finite`, `single_candidate`, `tie`, `identical`, `min_margin`"
        ],
    );
}

#[test]
fn a_number_that_does_not_fit_is_refused() {
    check_dropped(
        vec![
            ("prompt_id", text(&["a"])),
            ("prompt", text(&["one"])),
            ("rule", text(&["tie"])),
            ("n_candidates", whole(&[-1])),
        ],
        expect![[r#"
            convert column `n_candidates` of table `dropped` from Int64 to UInt32
              because: Cast error: Can't cast value -1 to type UInt32"#]],
    );
}

#[test]
fn a_nullable_column_may_be_absent_and_numbers_become_floats() {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("metric", text(&["exact"])),
        ("value", Arc::new(Float64Array::from(vec![0.5]))),
        ("low", whole(&[0])),
        ("n", whole(&[600])),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let metrics = Metrics::view(&batch).expect("a metrics table");
    expect![[
        r#"MetricRow { metric: "exact", decoding: None, group: None, value: 0.5, low: Some(0.0), high: None, n: 600 }"#
    ]]
    .assert_eq(&format!("{:?}", metrics.row(0)));
}

#[test]
fn rows_are_read_as_they_were_built_also_from_slices() {
    let mut builder = ResponsesBuilder::new();
    for (sample_index, tokens) in [(0, &[7, 8, 1][..]), (1, &[]), (2, &[9])] {
        builder.push(response(sample_index, tokens));
    }
    let batch = builder.finish();
    assert!(builder.is_empty());
    let view = Responses::view(&batch.slice(1, 2)).expect("a responses table");
    assert_eq!(view.len(), 2);
    assert_eq!((view.token_ids(0), view.token_ids(1)), (&[][..], &[9][..]));
    assert_eq!((view.split(1), view.finish_reason(1)), (Split::Heldout, FinishReason::Stop));
    assert_eq!((view.reference(0), view.reference(1)), (None, Some("42")));
}

fn response(sample_index: u32, token_ids: &[u32]) -> ResponseRow<'_> {
    ResponseRow {
        response_id: "r",
        prompt_id: "p",
        prompt: "what is 6 times 7?",
        reference: (sample_index == 2).then_some("42"),
        group: None,
        split: Split::Heldout,
        sample_index,
        response: "42",
        token_ids,
        n_prompt_tokens: 12,
        n_tokens: token_ids.len() as u32,
        logp_sum: -1.5,
        finish_reason: FinishReason::Stop,
        seed: u64::MAX,
        policy_digest: "d",
    }
}

#[test]
fn maps_keep_the_order_of_names_and_may_be_empty() {
    let names = ["help".to_owned(), "brevity".to_owned()];
    let mut batches = Vec::new();
    for values in [&[0.5, -1.0][..], &[], &[2.0]] {
        let mut builder = ScoresBuilder::new();
        builder.push(score(Named::new(&names, values)));
        batches.push(builder.finish());
    }
    let batch = concat_batches(&Scores::schema(), &batches).expect("batches of one schema");
    let scores = Scores::view(&batch).expect("a scores table");
    let printed: String = scores.rows().map(|row| format!("{:?}\n", row.rewards)).collect();
    expect![[r#"
        {"help": 0.5, "brevity": -1.0}
        {}
        {"help": 2.0}
    "#]]
    .assert_eq(&printed);
    assert_eq!(scores.rewards(0).get("brevity"), Some(-1.0));
}

fn score(rewards: Named<'_>) -> ScoreRow<'_> {
    ScoreRow {
        response_id: "r",
        prompt_id: "p",
        prompt: "",
        reference: None,
        group: None,
        split: Split::Train,
        sample_index: 0,
        response: "",
        n_prompt_tokens: 0,
        n_tokens: 0,
        logp_sum: 0.0,
        finish_reason: FinishReason::Length,
        seed: 0,
        policy_digest: "",
        score: 0.0,
        rewards,
        gating: Named::new(&[], &[]),
        reward_model_digest: "",
    }
}

#[test]
fn builders_give_the_declared_schema_also_when_empty() {
    assert_eq!(DroppedBuilder::new().finish().schema(), Dropped::schema());
    let mut metrics = MetricsBuilder::new();
    metrics.push(MetricRow {
        metric: "win_rate",
        decoding: Some(Decoding::Sampled),
        group: None,
        value: 0.61,
        low: Some(0.58),
        high: Some(0.64),
        n: 600,
    });
    assert_eq!(metrics.finish().schema(), Metrics::schema());
    assert!(Prompts::schema().field_with_name("label").is_ok_and(|field| field.is_nullable()));
    let mut dropped = DroppedBuilder::default();
    dropped.push(DroppedRow { prompt_id: "a", prompt: "one", rule: DropRule::Tie, n_candidates: 5 });
    assert_eq!(dropped.len(), 1);
}

#[test]
fn the_id_of_a_prompt_is_the_first_half_of_its_blake3() {
    // BLAKE3 of the empty text begins with these 16 bytes (the published test vector of length 0).
    expect!["af1349b9f5f9a1a6a0404dea36dcc949"].assert_eq(&PromptId::of("").to_string());
}
