//! How much memory training takes, counted before it starts.
//!
//! Owns what a step holds at the moment when most is alive. Knows nothing of tasks beyond the tokens they read.

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
    let TrainingLoad { precision, keeping: Keeping { master, moments }, kept, n_tokens, n_predicted } = load;
    let (n, width) = (sizes.n_parameters, precision.bytes());
    let weights = match (precision, master) {
        (Precision::F32, _) | (Precision::Bf16, Master::F32) => n * 4,
        (Precision::Bf16, Master::Split) => n * 4,
        (Precision::Bf16, Master::Stochastic) => n * 2,
    };
    let copies = if precision == Precision::Bf16 && master == Master::F32 { n * 2 } else { 0 };
    let table = sizes.vocabulary * sizes.hidden;
    // The gradient of the table, twice while chunks are summed, beside one chunk of logits.
    let head = sizes.logits_chunk(n_predicted) + table * (width + 4) + n_predicted * sizes.hidden * 2 * width;
    // The gradients within a block, beside that of the table.
    let block = n_tokens * (3 * sizes.feed_forward + 4 * sizes.hidden) * width + table * width;
    let block = block + if precision == Precision::Bf16 { n_tokens * sizes.composed_of_a_token() * 4 } else { 0 };
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
