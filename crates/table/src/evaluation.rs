//! `comparisons`, candidate against baseline answer by answer, and `metrics`, what follows from them. Made by `evaluate`.

use crate::column::{Boolean, Float32, Float64, UInt32, UInt64, Utf8, Word};
use crate::declare::table;
use crate::words::Decoding;

table! {
    /// Comparisons, one row per prompt, decoding and sample.
    ///
    /// | column             | type    | null | meaning                                                              |
    /// |--------------------|---------|------|----------------------------------------------------------------------|
    /// | prompt_id          | Utf8    | no   | as in `prompts`                                                      |
    /// | prompt             | Utf8    | no   | as in `prompts`                                                      |
    /// | reference          | Utf8    | yes  | as in `prompts`                                                      |
    /// | group              | Utf8    | yes  | as in `prompts`                                                      |
    /// | decoding           | Utf8    | no   | `greedy` or `sampled`                                                |
    /// | sample_index       | UInt32  | no   | which answer of this decoding, from 0                                |
    /// | candidate          | Utf8    | no   | answer of the model under test                                       |
    /// | baseline           | Utf8    | no   | answer of the model it is held against                               |
    /// | candidate_score    | Float32 | yes  | reward of the candidate's answer, raw; null without a judge          |
    /// | baseline_score     | Float32 | yes  | reward of the baseline's answer, raw; null without a judge           |
    /// | outcome            | Float32 | yes  | 1 the candidate wins, 0.5 tie, 0 it loses; null without a judge      |
    /// | candidate_exact    | Boolean | yes  | the candidate's answer is the reference; null without a reference    |
    /// | baseline_exact     | Boolean | yes  | the baseline's answer is the reference; null without a reference     |
    /// | candidate_finished | Boolean | no   | the candidate's answer ended with a stop token                       |
    /// | baseline_finished  | Boolean | no   | the baseline's answer ended with a stop token                        |
    /// | candidate_tokens   | UInt32  | no   | sampled tokens of the candidate's answer                             |
    /// | baseline_tokens    | UInt32  | no   | sampled tokens of the baseline's answer                              |
    Comparisons, ComparisonRow, ComparisonsBuilder, "comparisons" {
        prompt_id: Utf8,
        prompt: Utf8,
        reference: Option<Utf8>,
        group: Option<Utf8>,
        decoding: Word<Decoding>,
        sample_index: UInt32,
        candidate: Utf8,
        baseline: Utf8,
        candidate_score: Option<Float32>,
        baseline_score: Option<Float32>,
        outcome: Option<Float32>,
        candidate_exact: Option<Boolean>,
        baseline_exact: Option<Boolean>,
        candidate_finished: Boolean,
        baseline_finished: Boolean,
        candidate_tokens: UInt32,
        baseline_tokens: UInt32,
    }
}

table! {
    /// Metrics, one row per metric, decoding and group.
    ///
    /// | column   | type    | null | meaning                                                                        |
    /// |----------|---------|------|--------------------------------------------------------------------------------|
    /// | metric   | Utf8    | no   | what is measured                                                               |
    /// | decoding | Utf8    | yes  | `greedy` or `sampled`; null where it does not matter                           |
    /// | group    | Utf8    | yes  | family of prompts; null for all of them together                               |
    /// | value    | Float64 | no   | the estimate; shares are 0 to 1                                                |
    /// | low      | Float64 | yes  | lower end of the confidence interval, in the unit of `value`                   |
    /// | high     | Float64 | yes  | upper end of the confidence interval, in the unit of `value`                   |
    /// | n        | UInt64  | no   | rows the estimate rests on                                                     |
    Metrics, MetricRow, MetricsBuilder, "metrics" {
        metric: Utf8,
        decoding: Option<Word<Decoding>>,
        group: Option<Utf8>,
        value: Float64,
        low: Option<Float64>,
        high: Option<Float64>,
        n: UInt64,
    }
}
