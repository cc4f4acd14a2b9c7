//! A model as a stack of blocks that can be run one by one.
//!
//! Owns the order: what stands before the blocks, the blocks, what stands after them. A backward pass that computes each
//! block anew keeps nothing but what flows between them; how it does that is not known here.
//!
//! n tokens, d hidden size

use burn::tensor::Tensor;

use crate::nn::token_ids;
use crate::packed::Packed;
use crate::params::Parameters;
use crate::vocabulary::{Embedding, VocabularyHead};

/// A body of decoder blocks.
pub trait Stack: Parameters + Clone {
    /// Number of blocks.
    fn n_blocks(&self) -> usize;

    /// What makes the input of the first block of token ids.
    fn embedding(&self) -> Embedding<'_>;

    /// What makes log-probabilities of hidden states.
    fn vocabulary_head(&self) -> VocabularyHead<'_>;

    /// The output of block `i` on its input, `[n, d]` both.
    fn block(&self, i: usize, x_nd: Tensor<2>, batch: &Packed) -> Tensor<2>;

    /// Hidden states from the output of the last block: the final norm.
    fn normed(&self, x_nd: Tensor<2>) -> Tensor<2>;

    /// What the first block reads: `[n, d]`.
    fn embedded(&self, batch: &Packed) -> Tensor<2> {
        let embedding = self.embedding();
        let table_wd = embedding.table.weight_wd;
        embedding.of(token_ids(batch.ids(), table_wd.dims()[0], &table_wd.device()))
    }

    /// Hidden states `[n, d]` after the final norm.
    fn hidden(&self, batch: &Packed) -> Tensor<2> {
        self.hidden_from(self.embedded(batch), batch)
    }

    /// Hidden states `[n, d]` from what the first block reads, on the tape when either that or the parameters are.
    fn hidden_from(&self, embedded_nd: Tensor<2>, batch: &Packed) -> Tensor<2> {
        let blocks = 0..self.n_blocks();
        self.normed(blocks.fold(embedded_nd, |x_nd, i| self.block(i, x_nd, batch)))
    }
}

/// The part of a stack that a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Block(usize),
    /// Before or after the blocks: embedding, final norm, heads.
    Around,
}

impl Part {
    /// The part of a parameter by its published name.
    pub fn of(name: &str) -> Self {
        let rest = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
        rest.and_then(|(number, _)| number.parse().ok()).map_or(Self::Around, Self::Block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_belong_to_a_block_or_stand_around_them() {
        assert_eq!(Part::of("model.layers.12.mlp.up_proj.weight"), Part::Block(12));
        for name in ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", "gating.layers.1.weight"] {
            assert_eq!(Part::of(name), Part::Around);
        }
    }
}
