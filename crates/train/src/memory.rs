//! How much memory training takes, counted before it starts.
//!
//! Owns what a step holds at the moment when most is alive. Knows nothing of tasks beyond the tokens they read.

use sluice_lm::kernel::CHUNKS_TOGETHER;
use sluice_lm::memory::{PROGRAM_BYTES, Share, Sizes};
use sluice_lm::precision::Precision;

use crate::backward::Kept;
use crate::optimizer::{Keeping, Master};

/// What decides the memory of training besides the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingLoad {
    pub precision: Precision,
    pub keeping: Keeping,
    pub kept: Kept,
    /// Tokens of the largest micro-batch.
    pub n_tokens: usize,
    /// Those of them that are predicted.
    pub n_predicted: usize,
}

/// What a step holds at its fullest.
pub fn training(sizes: &Sizes, load: TrainingLoad) -> Vec<Share> {
    let TrainingLoad { precision, keeping: _, kept: _, n_tokens, n_predicted } = load;
    let width = precision.bytes();
    let table = sizes.vocabulary * sizes.hidden;
    // The gradient of the table, twice while chunks are summed, beside one chunk of logits.
    let head = sizes.logits_chunk(n_predicted) + table * (width + 4) + n_predicted * sizes.hidden * 2 * width;
    let composed = if precision == Precision::Bf16 { n_tokens * sizes.composed_of_a_token() * 4 } else { 0 };
    step(sizes, load, head, composed)
}

/// The same where products of the backend have kernels between them: see `kernel/blocks.rs` and `kernel/vocabulary.rs` of
/// crate `lm`.
pub fn training_on_gpu(sizes: &Sizes, load: TrainingLoad) -> Vec<Share> {
    let TrainingLoad { precision, keeping: _, kept: _, n_tokens, n_predicted } = load;
    let width = precision.bytes();
    let table = sizes.vocabulary * sizes.hidden;
    let chunk = sizes.logits_chunk(n_predicted);
    let logits = n_predicted * sizes.vocabulary * width;
    // Gradients of logits, apart and laid together; that of the table in f32, another where there are more, and as it is held.
    let gradients = 2 * logits.min(CHUNKS_TOGETHER * chunk / 4 * width);
    let n_tables = if n_predicted * sizes.vocabulary * 4 > CHUNKS_TOGETHER * chunk { 2 } else { 1 };
    let head = chunk + gradients + table * (4 * n_tables + width) + n_predicted * sizes.hidden * 2 * width;
    step(sizes, load, head, sizes.attention_by_blocks(n_tokens, width))
}

/// A step whose vocabulary head takes `head` bytes, and a block `beside` the gradients within it.
fn step(sizes: &Sizes, load: TrainingLoad, head: usize, beside: usize) -> Vec<Share> {
    let TrainingLoad { precision, keeping: Keeping { master, moments }, kept, n_tokens, n_predicted: _ } = load;
    let (n, width) = (sizes.n_parameters, precision.bytes());
    let weights = match (precision, master) {
        (Precision::F32, _) | (Precision::Bf16, Master::F32) => n * 4,
        (Precision::Bf16, Master::Split) => n * 4,
        (Precision::Bf16, Master::Stochastic) => n * 2,
    };
    let copies = if precision == Precision::Bf16 && master == Master::F32 { n * 2 } else { 0 };
    let table = sizes.vocabulary * sizes.hidden;
    // The gradients within a block, beside that of the table.
    let block = n_tokens * (3 * sizes.feed_forward + 4 * sizes.hidden) * width + table * width + beside;
    let of_blocks = |n_blocks: usize| n_blocks * n_tokens * sizes.kept_of_a_token() * width;
    let flow = n_tokens * sizes.hidden * width;
    let (activations, passing) = match kept {
        // What passes while all activations are there, or all gradients of one micro-batch, whichever is more.
        Kept::All => {
            let kept = of_blocks(sizes.n_blocks) + 3 * flow;
            (kept, head.max(block).max((n * width).saturating_sub(kept)))
        }
        // The inputs of the blocks, and one block.
        Kept::Blocks => {
            let block = block + of_blocks(1) + sizes.of_a_block() * (width + 4);
            ((sizes.n_blocks + 1) * flow, head.max(block))
        }
    };
    vec![
        Share::new("program", PROGRAM_BYTES),
        Share::new("weights", weights),
        Share::new("copies to compute on", copies),
        Share::new("moments", n * 2 * moments.bytes()),
        Share::new("gradients", n * 4),
        Share::new("activations", activations),
        Share::new("head or block", passing),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the published Gemma 2 9B, blocks computed twice, the vocabulary head is what takes most.
    #[test]
    fn the_head_on_a_gpu_holds_eight_chunks_of_gradients() {
        let sizes = Sizes {
            n_parameters: 9_241_705_984,
            n_blocks: 42,
            hidden: 3584,
            feed_forward: 14_336,
            vocabulary: 256_000,
            queries: 4096,
            keys: 2048,
            max_positions: 8192,
            norms: 4,
            is_tied: true,
        };
        let load = |n_tokens| TrainingLoad {
            precision: Precision::Bf16,
            keeping: Keeping { master: Master::Stochastic, moments: Precision::Bf16 },
            kept: Kept::Blocks,
            n_tokens,
            n_predicted: n_tokens / 2,
        };
        let of =
            |shares: Vec<Share>| shares.into_iter().find(|share| share.name == "head or block").map(|it| it.n_bytes);
        // 262 rows of logits in f32; twice 1400 rows in bf16; the table in f32 and in bf16; two hidden states a token.
        let (chunk, table) = (262 * 256_000 * 4, 256_000 * 3584);
        let head = chunk + 2 * 1400 * 256_000 * 2 + table * 6 + 1400 * 3584 * 4;
        assert_eq!(of(training_on_gpu(&sizes, load(2800))), Some(head));
        // 4000 rows are more than eight chunks: of these 2096 are kept, and a second table is added to the first.
        let head = chunk + 2 * 2096 * 256_000 * 2 + table * 10 + 4000 * 3584 * 4;
        assert_eq!(of(training_on_gpu(&sizes, load(8000))), Some(head));
    }
}
