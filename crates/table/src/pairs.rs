//! `pairs`, the best and the worst answer of each prompt, and `dropped`, the prompts that gave none. Made by `pair`.

use crate::column::{Float32, UInt32, Utf8, Word};
use crate::declare::table;
use crate::words::DropRule;

table! {
    /// Preference pairs, one row per prompt that gave one.
    ///
    /// | column              | type    | null | meaning                                                     |
    /// |---------------------|---------|------|-------------------------------------------------------------|
    /// | pair_id             | Utf8    | no   | digest of prompt, chosen and rejected text, 32 hex digits   |
    /// | prompt_id           | Utf8    | no   | as in `prompts`                                             |
    /// | prompt              | Utf8    | no   | as in `prompts`                                             |
    /// | reference           | Utf8    | yes  | as in `prompts`                                             |
    /// | group               | Utf8    | yes  | as in `prompts`                                             |
    /// | chosen              | Utf8    | no   | the answer with the highest score                           |
    /// | rejected            | Utf8    | no   | the answer with the lowest score                            |
    /// | chosen_index        | UInt32  | no   | `sample_index` of the chosen answer                         |
    /// | rejected_index      | UInt32  | no   | `sample_index` of the rejected answer                       |
    /// | chosen_score        | Float32 | no   | reward of the chosen answer, raw                            |
    /// | rejected_score      | Float32 | no   | reward of the rejected answer, raw                          |
    /// | margin              | Float32 | no   | chosen_score minus rejected_score, never negative           |
    /// | n_candidates        | UInt32  | no   | answers the two were picked from                            |
    /// | chosen_tokens       | UInt32  | no   | sampled tokens of the chosen answer                         |
    /// | rejected_tokens     | UInt32  | no   | sampled tokens of the rejected answer                       |
    /// | policy_digest       | Utf8    | no   | model digest of the policy that answered, hex               |
    /// | reward_model_digest | Utf8    | no   | model digest of the reward model, hex                       |
    Pairs, PairRow, PairsBuilder, "pairs" {
        pair_id: Utf8,
        prompt_id: Utf8,
        prompt: Utf8,
        reference: Option<Utf8>,
        group: Option<Utf8>,
        chosen: Utf8,
        rejected: Utf8,
        chosen_index: UInt32,
        rejected_index: UInt32,
        chosen_score: Float32,
        rejected_score: Float32,
        margin: Float32,
        n_candidates: UInt32,
        chosen_tokens: UInt32,
        rejected_tokens: UInt32,
        policy_digest: Utf8,
        reward_model_digest: Utf8,
    }
}

table! {
    /// Prompts that gave no pair, one row each.
    ///
    /// | column       | type   | null | meaning                                                                         |
    /// |--------------|--------|------|---------------------------------------------------------------------------------|
    /// | prompt_id    | Utf8   | no   | as in `prompts`                                                                 |
    /// | prompt       | Utf8   | no   | as in `prompts`                                                                 |
    /// | rule         | Utf8   | no   | `heldout`, `not_finite`, `single_candidate`, `tie`, `identical` or `min_margin` |
    /// | n_candidates | UInt32 | no   | answers there were                                                              |
    Dropped, DroppedRow, DroppedBuilder, "dropped" {
        prompt_id: Utf8,
        prompt: Utf8,
        rule: Word<DropRule>,
        n_candidates: UInt32,
    }
}
