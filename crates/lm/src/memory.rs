//! How much memory a model takes, counted from its sizes before anything is loaded.
//!
//! Owns the sizes that matter and what sampling holds; crate `train` counts training from the same sizes. Knows nothing of
//! devices beyond how wide a number is. What is counted is what lives at the moment when most does; what an allocator keeps
//! in reserve comes on top.
//!
//! d hidden size, f feed-forward size, w vocabulary, q and kv widths of queries and of keys

use crate::config::{Config, Head, ModelConfig};
use crate::generate::PASS_TOKENS;
use crate::kernel::{CHUNK_BYTES, MAX_SCORES, rows_of_slice};
use crate::precision::Precision;

/// What the program itself takes: its code, its tables, a tokenizer.
pub const PROGRAM_BYTES: usize = 48 << 20;

/// The sizes of a model that decide how much memory it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub n_parameters: usize,
    pub n_blocks: usize,
    pub hidden: usize,
    pub feed_forward: usize,
    pub vocabulary: usize,
    pub queries: usize,
    pub keys: usize,
    /// Tokens that a sequence may have.
    pub max_positions: usize,
    /// Norms of a block: the post-norms of Gemma keep an input each for the backward pass.
    pub norms: usize,
    /// Whether the vocabulary head is the embedding.
    pub is_tied: bool,
}

/// A named part of a sum of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub name: &'static str,
    pub n_bytes: usize,
}

impl Share {
    pub fn new(name: &'static str, n_bytes: usize) -> Self {
        Self { name, n_bytes }
    }

    /// The sum of some parts.
    pub fn total(shares: &[Self]) -> usize {
        shares.iter().map(|share| share.n_bytes).sum()
    }
}

/// What decides the memory of sampling besides the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplingLoad {
    pub precision: Precision,
    /// Answers worked on at one time.
    pub max_batch: usize,
    /// Tokens of the longest prompt.
    pub n_prompt: usize,
    /// Tokens of one answer at most.
    pub n_new: usize,
}

impl Sizes {
    /// The sizes of a model, from its configuration alone.
    pub fn of(config: &Config) -> Self {
        let without_head = match &config.model {
            ModelConfig::Gemma2(c) => Self {
                n_parameters: 0,
                n_blocks: c.n_layers,
                hidden: c.hidden_size,
                feed_forward: c.intermediate_size,
                vocabulary: c.vocab_size,
                queries: c.n_heads * c.head_dim,
                keys: c.n_kv_heads * c.head_dim,
                max_positions: c.max_position_embeddings,
                norms: 4,
                is_tied: c.tie_word_embeddings,
            },
            ModelConfig::Llama(c) => Self {
                n_parameters: 0,
                n_blocks: c.n_layers,
                hidden: c.hidden_size,
                feed_forward: c.intermediate_size,
                vocabulary: c.vocab_size,
                queries: c.n_heads * c.head_dim,
                keys: c.n_kv_heads * c.head_dim,
                max_positions: c.max_position_embeddings,
                norms: 2,
                is_tied: c.tie_word_embeddings,
            },
        };
        let d = without_head.hidden;
        // A reward model has no vocabulary head, as one whose head is the embedding has not.
        let (is_tied, head) = match config.head {
            Head::CausalLm => (without_head.is_tied, 0),
            Head::SequenceClassification { num_labels } => (true, num_labels * d),
            Head::ArmoRm { num_objectives: o, gating_hidden_dim: g, gating_n_hidden, gating_temperature: _ } => {
                let hidden = |n_in: usize| n_in * g + g;
                let gate = hidden(d) + (gating_n_hidden.max(1) - 1) * hidden(g) + g * o + o + 1;
                (true, d * o + o * o + gate)
            }
        };
        let sizes = Self { is_tied, ..without_head };
        Self { n_parameters: sizes.n_blocks * sizes.of_a_block() + sizes.around_blocks() + head, ..sizes }
    }

    /// Numbers that a block keeps of each token for its backward pass: the inputs of the norms and of the products, queries,
    /// keys, values, and what the gated unit reads and makes.
    pub fn kept_of_a_token(&self) -> usize {
        (self.norms + 2) * self.hidden + 2 * self.queries + 2 * self.keys + 3 * self.feed_forward
    }

    /// Numbers that live within a block while it runs forward, a token.
    fn passing_of_a_token(&self) -> usize {
        (2 * self.hidden + 3 * self.feed_forward).max(3 * self.hidden + 2 * self.queries + 2 * self.keys)
    }

    /// Numbers in f32 that a composed operation keeps of a token while its gradient is computed; most in the gated unit.
    pub fn composed_of_a_token(&self) -> usize {
        10 * self.feed_forward
    }

    /// Parameters of one block.
    pub fn of_a_block(&self) -> usize {
        let attention = 2 * self.hidden * self.queries + 2 * self.hidden * self.keys;
        attention + 3 * self.hidden * self.feed_forward + self.norms * self.hidden
    }

    /// Parameters of the embedding, the final norm and the vocabulary head.
    fn around_blocks(&self) -> usize {
        self.of_tables() + self.hidden
    }

    /// Parameters with a row for each token: the embedding, and the vocabulary head where it is another table.
    pub fn of_tables(&self) -> usize {
        self.vocabulary * self.hidden * if self.is_tied { 1 } else { 2 }
    }

    /// Rows of a table whose gradients exist at one time beside their sum.
    pub fn rows_of_slice(&self) -> usize {
        rows_of_slice(self.hidden).min(self.vocabulary)
    }

    /// Bytes of the logits that exist at one time in a pass over `n_tokens`.
    pub fn logits_chunk(&self, n_tokens: usize) -> usize {
        let n_rows = (CHUNK_BYTES / (4 * self.vocabulary.max(1))).clamp(1, 512);
        n_rows.min(n_tokens) * self.vocabulary * 4
    }

    /// Bytes that attention by blocks takes beside what a block keeps, at its fullest, which is in its backward pass: a
    /// block's scores and weights with their gradients; queries, keys and values turned, and laid side by side with the
    /// gradient of the output; the gradients in f32, of keys and values also while a block's are added.
    pub fn attention_by_blocks(&self, n_tokens: usize, width: usize) -> usize {
        let of_a_token = 3 * (self.queries + self.keys) * width + (2 * self.queries + 4 * self.keys) * 4;
        MAX_SCORES * 2 * (4 + width) + n_tokens * of_a_token
    }

    /// As [`Sizes::sampling`], where a device draws: prompts are read a bounded number of tokens at a time, and logits stay
    /// in f32.
    pub fn sampling_on_gpu(&self, load: SamplingLoad) -> Vec<Share> {
        let SamplingLoad { precision, max_batch, n_prompt, n_new } = load;
        let width = precision.bytes();
        let n_tokens = (n_prompt + n_new).min(self.max_positions);
        let cache = (max_batch.max(2) + 1) * n_tokens * self.n_blocks * 2 * self.keys * width;
        let n_pass = (max_batch * n_prompt).min(PASS_TOKENS.max(n_prompt));
        let prefill = n_pass * self.passing_of_a_token() * width + self.attention_by_blocks(n_pass, width);
        // As the product gives them, and capped.
        let logits = max_batch * self.vocabulary * 8;
        let head = if precision == Precision::F32 { self.vocabulary * self.hidden * 4 } else { 0 };
        vec![
            Share::new("program", PROGRAM_BYTES),
            Share::new("weights", self.n_parameters * width),
            Share::new("head", head),
            Share::new("cache", cache),
            Share::new("step", prefill.max(logits)),
        ]
    }

    /// What sampling holds at its fullest: all slots taken, every prompt read in the same step.
    pub fn sampling(&self, load: SamplingLoad) -> Vec<Share> {
        let SamplingLoad { precision, max_batch, n_prompt, n_new } = load;
        let width = precision.bytes();
        // A slot more than answers: see `generate`.
        let n_tokens = (n_prompt + n_new).min(self.max_positions);
        let cache = (max_batch + 1) * n_tokens * self.n_blocks * 2 * self.keys * width;
        // In f32 the head is laid out a second time, for products with few rows.
        let head = if precision == Precision::F32 { self.vocabulary * self.hidden * 4 } else { 0 };
        // In bf16 the gated unit computes in f32, on a few copies.
        let composed = if precision == Precision::Bf16 { 4 * self.feed_forward * 4 } else { 0 };
        let prefill = max_batch * n_prompt * (self.passing_of_a_token() * width + composed);
        let logits = max_batch * self.vocabulary * (width + 4);
        vec![
            Share::new("program", PROGRAM_BYTES),
            Share::new("weights", self.n_parameters * width),
            Share::new("head", head),
            Share::new("cache", cache),
            Share::new("step", prefill.max(logits)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::Checkpoint;

    /// 2 blocks, hidden 4, feed-forward 8, vocabulary 10, queries 6 wide and keys 2; in bf16.
    #[test]
    fn sampling_on_a_gpu_holds_what_a_pass_does() {
        let sizes = Sizes {
            n_parameters: 100,
            n_blocks: 2,
            hidden: 4,
            feed_forward: 8,
            vocabulary: 10,
            queries: 6,
            keys: 2,
            max_positions: 10_000,
            norms: 4,
            is_tied: true,
        };
        let load = SamplingLoad { precision: Precision::Bf16, max_batch: 3, n_prompt: 5000, n_new: 1000 };
        let shares = sizes.sampling_on_gpu(load);
        let of = |name: &str| shares.iter().find(|share| share.name == name).map(|share| share.n_bytes);
        assert_eq!((of("weights"), of("head")), (Some(200), Some(0)));
        // 4 slots of 6000 tokens, keys and values in 2 blocks, 2 numbers of 2 bytes.
        assert_eq!(of("cache"), Some(4 * 6000 * 2 * 2 * 2 * 2));
        // 8192 of 15,000 tokens: 32 numbers pass within a block; in attention 24 of 2 bytes and 20 of 4; scores 12 bytes each.
        assert_eq!(of("step"), Some(8192 * 32 * 2 + 8192 * (24 * 2 + 20 * 4) + (12 << 26)));
    }

    #[test]
    fn parameters_are_counted_from_the_configuration() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        let names = [
            "gemma2-tiny",
            "gemma2-tiny-bf16",
            "llama3-armorm-tiny",
            "reward-seqcls-tiny",
            "reward-seqcls-gemma2-tiny",
        ];
        for name in names {
            let checkpoint = Checkpoint::open(&fixtures.join(name)).expect(name);
            assert_eq!(Sizes::of(&checkpoint.config).n_parameters as u64, checkpoint.weights.n_elements(), "{name}");
        }
    }
}
