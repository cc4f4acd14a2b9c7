//! How much memory training takes, counted before it starts.
//!
//! Owns what a step holds at the moment when most is alive. Knows nothing of tasks beyond the tokens they read.

use sluice_lm::kernel::CHUNKS_TOGETHER;
use sluice_lm::memory::{PROGRAM_BYTES, Share, Sizes};
use sluice_lm::precision::Precision;

use crate::backward::Kept;
use crate::optimizer::{Keeping, Master};

/// Copies in f32 of a chunk of logits that a composed head keeps and makes.
const COMPOSED_LOGITS: usize = 9;

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
    // A chunk of logits, which the composition in bf16 keeps in several forms for its gradient.
    let (n_forms, composed) = match precision {
        Precision::F32 => (1, 0),
        Precision::Bf16 => (COMPOSED_LOGITS, n_tokens * sizes.composed_of_a_token() * 4),
    };
    let head = n_forms * sizes.logits_chunk(n_predicted) + beside_logits(sizes, load);
    step(sizes, load, head, composed)
}

/// The same where products of the backend have kernels between them: see `kernel/blocks.rs` and `kernel/vocabulary.rs` of
/// crate `lm`.
pub fn training_on_gpu(sizes: &Sizes, load: TrainingLoad) -> Vec<Share> {
    step(sizes, load, head_on_gpu(sizes, load), sizes.attention_by_blocks(load.n_tokens, load.precision.bytes()))
}

fn head_on_gpu(sizes: &Sizes, load: TrainingLoad) -> usize {
    let TrainingLoad { precision, keeping: _, kept: _, n_tokens: _, n_predicted } = load;
    let chunk = sizes.logits_chunk(n_predicted);
    // Gradients of several chunks, and a slice of them laid together.
    let together = (n_predicted * sizes.vocabulary).min(CHUNKS_TOGETHER * chunk / 4) * precision.bytes();
    let laid_together = together / sizes.vocabulary * sizes.rows_of_slice();
    chunk + together + laid_together + beside_logits(sizes, load)
}

/// Bytes of what a vocabulary head holds beside logits: the gradient of a slice of its table in f32, and the hidden states
/// that it reads with their gradient.
fn beside_logits(sizes: &Sizes, load: TrainingLoad) -> usize {
    sizes.rows_of_slice() * sizes.hidden * 4 + load.n_predicted * sizes.hidden * 2 * load.precision.bytes()
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
    let block = n_tokens * (3 * sizes.feed_forward + 4 * sizes.hidden) * width + beside;
    let of_blocks = |n_blocks: usize| n_blocks * n_tokens * sizes.kept_of_a_token() * width;
    let flow = n_tokens * sizes.hidden * width;
    let (activations, passing) = match kept {
        // What passes while all activations are there, or all gradients that a tape has of one micro-batch, whichever is more.
        Kept::All => {
            let (kept, on_tape) = (of_blocks(sizes.n_blocks) + 3 * flow, (n - sizes.of_tables()) * width);
            (kept, head.max(block).max(on_tape.saturating_sub(kept)))
        }
        // The inputs of the blocks, and one block with its gradients, one of them also as it is added.
        Kept::Blocks => {
            let gradients = sizes.of_a_block() * width + sizes.hidden * sizes.feed_forward * 4;
            ((sizes.n_blocks + 1) * flow, head.max(block + of_blocks(1) + gradients))
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

    /// Of the published Gemma 2 9B, blocks computed twice: nothing is as large as its table.
    #[test]
    fn the_head_on_a_gpu_holds_slices() {
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
        let (chunk, slice) = (262 * 256_000 * 4, 9344 * 3584 * 4);
        // 262 rows of logits in f32; 1400 rows in bf16, and 9344 columns of them laid together; a slice of the table in f32; two
        // hidden states a token.
        let head = chunk + 1400 * (256_000 + 9344) * 2 + slice + 1400 * 3584 * 4;
        assert_eq!(head_on_gpu(&sizes, load(2800)), head);
        // 4000 rows are more than eight chunks, of which 2096 are kept.
        let head = chunk + 2096 * (256_000 + 9344) * 2 + slice + 4000 * 3584 * 4;
        assert_eq!(head_on_gpu(&sizes, load(8000)), head);
        // Weights, moments and gradients take 92.4 GB of it.
        let n_bytes = Share::total(&training_on_gpu(&sizes, load(4096)));
        assert!((92_400_000_000..100_000_000_000).contains(&n_bytes), "{n_bytes}");
    }
}
