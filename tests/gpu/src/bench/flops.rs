//! The operations that a model's mathematics needs, whatever a program does on top.
//!
//! Counts multiplications and additions of products, two for each weight and token; norms, activations and the optimiser
//! are left out, and so is what is computed a second time to save memory. A backward pass is two products for each one of
//! the forward pass. Attention is counted over the keys that a token sees, which are all before it and itself: the
//! sequences here are shorter than any window.
//!
//! forward = s · L · (2 · P · t + 2 · Q · t · (t + 1)) + 2 · d · w · m
//!
//! s sequences of t tokens, L blocks, P weights of the matrices of a block, Q width of the queries, d hidden size,
//! w vocabulary, m tokens with logits

use sluice_lm::memory::Sizes;

/// Of one forward pass.
pub fn forward(sizes: &Sizes, n_sequences: usize, n_tokens: usize, n_logits: usize) -> f64 {
    let matrices = sizes.of_a_block() - sizes.norms * sizes.hidden;
    let of_a_block = 2 * matrices * n_tokens + 2 * sizes.queries * n_tokens * (n_tokens + 1);
    (n_sequences * sizes.n_blocks * of_a_block + 2 * sizes.hidden * sizes.vocabulary * n_logits) as f64
}

/// Of one forward and one backward pass.
pub fn training(sizes: &Sizes, n_sequences: usize, n_tokens: usize, n_logits: usize) -> f64 {
    3.0 * forward(sizes, n_sequences, n_tokens, n_logits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_by_hand() {
        // Matrices: q and o 2 · 2 each, k and v 2 · 1 each, three of the gated unit 2 · 3 each: 8 + 4 + 18 = 30.
        let sizes = Sizes {
            n_parameters: 0,
            n_blocks: 2,
            hidden: 2,
            feed_forward: 3,
            vocabulary: 5,
            queries: 2,
            keys: 1,
            max_positions: 8,
            norms: 4,
            is_tied: true,
        };
        // Three tokens see 1 + 2 + 3 keys; a key costs 2 · 2 for its score and 2 · 2 for its value: 6 · 8 = 48 in a block.
        let of_a_block = 2 * 30 * 3 + 48;
        let of_the_head = 2 * 2 * 5 * 4;
        assert_eq!(forward(&sizes, 7, 3, 4), f64::from(7 * 2 * of_a_block + of_the_head));
        assert_eq!(training(&sizes, 7, 3, 4), 3.0 * forward(&sizes, 7, 3, 4));
    }
}
