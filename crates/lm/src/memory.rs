//! How much memory a model takes, counted from its sizes before anything is loaded.
//!
//! Owns the sizes that matter and what sampling holds; crate `train` counts training from the same sizes. Knows nothing of
//! devices beyond how wide a number is. What is counted is what lives at the moment when most does; what an allocator keeps
//! in reserve comes on top.
//!
//! d hidden size, f feed-forward size, w vocabulary, q and kv widths of queries and of keys

use crate::config::{Config, ModelConfig};
use crate::kernel::CHUNK_BYTES;
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
    /// The sizes of a model of `n_parameters`, which the files of its weights tell.
    pub fn of(config: &Config, n_parameters: usize) -> Self {
        match &config.model {
            ModelConfig::Gemma2(c) => Self {
                n_parameters,
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
                n_parameters,
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
        }
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
        let around = self.vocabulary * self.hidden * if self.is_tied { 1 } else { 2 };
        self.n_parameters.saturating_sub(around) / self.n_blocks.max(1)
    }

    /// Bytes of the logits that exist at one time in a pass over `n_tokens`.
    pub fn logits_chunk(&self, n_tokens: usize) -> usize {
        let n_rows = (CHUNK_BYTES / (4 * self.vocabulary.max(1))).clamp(1, 512);
        n_rows.min(n_tokens) * self.vocabulary * 4
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
