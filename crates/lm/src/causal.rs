//! What training and generation ask of a causal language model.
//!
//! Owns the trait and the cache it hands around. Knows nothing of architectures, files or optimisers.
//!
//! n tokens over all sequences, d hidden size, m picked rows

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};

use crate::kernel::{AttentionSpec, CachedSegment, LayerCache, next_logits};
use crate::nn::{laid_out, pick};
use crate::precision::Precision;
use crate::stack::Stack;

/// A language model that reads padding-free batches and predicts the next token of each position.
pub trait CausalLm: Stack {
    /// Log-probabilities `[m]` in nats of `targets[i]`, predicted from row `rows[i]` of the hidden states, off the tape.
    fn token_logps(&self, hidden_nd: Tensor<2>, rows: &[usize], targets: &[u32]) -> Tensor<1> {
        self.vocabulary_head().token_logps(hidden_nd, rows, targets)
    }

    /// Logits `[m, vocab]` of the picked rows, after the final soft cap.
    fn logits(&self, hidden_nd: Tensor<2>, rows: &[usize]) -> Tensor<2> {
        self.vocabulary_head().logits(hidden_nd, rows)
    }

    /// Hidden states `[n, d]` of new tokens, given by their ids, whose sequences' earlier tokens are in `cache`, which takes the new ones in.
    fn hidden_cached(&self, ids_n: Tensor<1, Int>, segments: &Arc<[CachedSegment]>, cache: &mut KvCache) -> Tensor<2>;

    /// An empty cache: `capacity` tokens in each of `n_slots`.
    fn new_cache(&self, n_slots: usize, capacity: usize) -> KvCache;

    /// As [`CausalLm::logits`], with the head as `cache` has it laid out.
    fn next_logits(&self, hidden_nd: Tensor<2>, rows: &[usize], cache: &KvCache) -> Tensor<2> {
        next_logits(pick(hidden_nd, rows), &cache.head_dw, self.vocabulary_head().softcap)
    }

    /// The device the parameters live on.
    fn device(&self) -> Device;

    /// Rows of the embedding table.
    fn vocab_size(&self) -> usize;

    /// Positions the model was made for.
    fn max_positions(&self) -> usize;
}

/// What generation keeps between steps.
#[derive(Debug)]
pub struct KvCache {
    /// Keys and values, one entry a layer.
    pub layers: Vec<LayerCache>,
    /// The vocabulary head `[d, w]`, in f32 laid out once for products with few rows.
    pub head_dw: Tensor<2>,
}

impl KvCache {
    /// An empty cache of `n_slots` sequences of at most `capacity` tokens: of layers that attend by `layers`, under the
    /// vocabulary head `[w, d]`.
    pub fn new<'a>(
        layers: impl Iterator<Item = &'a AttentionSpec>,
        head_wd: Tensor<2>,
        n_slots: usize,
        capacity: usize,
    ) -> Self {
        let (device, dtype) = (head_wd.device(), head_wd.dtype());
        let layers = layers.map(|spec| LayerCache::new(n_slots, capacity, spec, &device, dtype)).collect();
        let head_dw = match Precision::of(&head_wd) {
            Precision::F32 => laid_out(head_wd.transpose()),
            // The products in bf16 read either layout equally fast, and a second head is a tenth of a model.
            Precision::Bf16 => head_wd.transpose(),
        };
        Self { layers, head_dw }
    }

    /// Copies the first `n_tokens` of slot `from` to slot `to`.
    pub fn copy_slot(&mut self, from: usize, to: usize, n_tokens: usize) {
        for layer in &mut self.layers {
            layer.copy_slot(from, to, n_tokens);
        }
    }
}
