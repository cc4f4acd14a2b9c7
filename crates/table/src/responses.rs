//! `responses`, what a policy answered, and `scores`, what a reward model says of each answer. Made by `sample` and
//! `score`.

use crate::column::{Float32, UInt32, UInt32List, UInt64, Utf8, Utf8Float32Map, Word};
use crate::declare::table;
use crate::words::{FinishReason, Split};

table! {
    /// Responses, one row per prompt and sample.
    ///
    /// | column          | type         | null | meaning                                                           |
    /// |-----------------|--------------|------|-------------------------------------------------------------------|
    /// | response_id     | Utf8         | no   | row key: sampling parameters, policy, prompt and sample, hex      |
    /// | prompt_id       | Utf8         | no   | as in `prompts`                                                   |
    /// | prompt          | Utf8         | no   | as in `prompts`                                                   |
    /// | reference       | Utf8         | yes  | as in `prompts`                                                   |
    /// | group           | Utf8         | yes  | as in `prompts`                                                   |
    /// | split           | Utf8         | no   | as in `prompts`                                                   |
    /// | sample_index    | UInt32       | no   | which answer to this prompt, from 0                               |
    /// | response        | Utf8         | no   | decoded text, without special tokens                              |
    /// | token_ids       | List(UInt32) | no   | sampled tokens, the stop token included                           |
    /// | n_prompt_tokens | UInt32       | no   | tokens of the rendered prompt                                     |
    /// | n_tokens        | UInt32       | no   | sampled tokens                                                    |
    /// | logp_sum        | Float32      | no   | log-probability of the sampled tokens at temperature 1, nats      |
    /// | finish_reason   | Utf8         | no   | `stop` or `length`                                                |
    /// | seed            | UInt64       | no   | seed of this row's random stream                                  |
    /// | policy_digest   | Utf8         | no   | model digest of the policy, hex                                   |
    Responses, ResponseRow, ResponsesBuilder, "responses" {
        response_id: Utf8,
        prompt_id: Utf8,
        prompt: Utf8,
        reference: Option<Utf8>,
        group: Option<Utf8>,
        split: Word<Split>,
        sample_index: UInt32,
        response: Utf8,
        token_ids: UInt32List,
        n_prompt_tokens: UInt32,
        n_tokens: UInt32,
        logp_sum: Float32,
        finish_reason: Word<FinishReason>,
        seed: UInt64,
        policy_digest: Utf8,
    }
}

table! {
    /// Scores, one row per response.
    ///
    /// | column              | type               | null | meaning                                                 |
    /// |---------------------|--------------------|------|---------------------------------------------------------|
    /// | response_id         | Utf8               | no   | as in `responses`                                       |
    /// | prompt_id           | Utf8               | no   | as in `prompts`                                         |
    /// | prompt              | Utf8               | no   | as in `prompts`                                         |
    /// | reference           | Utf8               | yes  | as in `prompts`                                         |
    /// | group               | Utf8               | yes  | as in `prompts`                                         |
    /// | split               | Utf8               | no   | as in `prompts`                                         |
    /// | sample_index        | UInt32             | no   | as in `responses`                                       |
    /// | response            | Utf8               | no   | as in `responses`                                       |
    /// | n_prompt_tokens     | UInt32             | no   | as in `responses`                                       |
    /// | n_tokens            | UInt32             | no   | as in `responses`                                       |
    /// | logp_sum            | Float32            | no   | as in `responses`                                       |
    /// | finish_reason       | Utf8               | no   | as in `responses`                                       |
    /// | seed                | UInt64             | no   | as in `responses`                                       |
    /// | policy_digest       | Utf8               | no   | as in `responses`                                       |
    /// | score               | Float32            | no   | scalar reward, higher is better, raw                    |
    /// | rewards             | Map(Utf8, Float32) | no   | every objective by name, raw; empty for a scalar head   |
    /// | gating              | Map(Utf8, Float32) | no   | weight of every objective; empty for a scalar head      |
    /// | reward_model_digest | Utf8               | no   | model digest of the reward model, hex                   |
    Scores, ScoreRow, ScoresBuilder, "scores" {
        response_id: Utf8,
        prompt_id: Utf8,
        prompt: Utf8,
        reference: Option<Utf8>,
        group: Option<Utf8>,
        split: Word<Split>,
        sample_index: UInt32,
        response: Utf8,
        n_prompt_tokens: UInt32,
        n_tokens: UInt32,
        logp_sum: Float32,
        finish_reason: Word<FinishReason>,
        seed: UInt64,
        policy_digest: Utf8,
        score: Float32,
        rewards: Utf8Float32Map,
        gating: Utf8Float32Map,
        reward_model_digest: Utf8,
    }
}
