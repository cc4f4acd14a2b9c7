//! The causal language models of crate `lm` as one type, so that a stage is written once for all of them.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use sluice_lm::causal::{CausalLm, KvCache};
use sluice_lm::checkpoint::CheckpointError;
use sluice_lm::config::ModelConfig;
use sluice_lm::gemma2::Gemma2;
use sluice_lm::kernel::CachedSegment;
use sluice_lm::llama::Llama;
use sluice_lm::packed::Packed;
use sluice_lm::params::{ParamMut, Parameters};
use sluice_lm::weights::Loader;

/// A causal language model of any supported architecture.
#[derive(Clone, Debug)]
pub enum Causal {
    Gemma2(Gemma2),
    Llama(Llama),
}

/// Runs an expression over the model inside.
macro_rules! with {
    ($causal:expr, $model:ident => $body:expr) => {
        match $causal {
            Causal::Gemma2($model) => $body,
            Causal::Llama($model) => $body,
        }
    };
}

impl Causal {
    /// Reads the model that a configuration describes.
    pub fn load(config: &ModelConfig, loader: &mut Loader<'_>) -> Result<Self, CheckpointError> {
        match config {
            ModelConfig::Gemma2(config) => Gemma2::load(config, loader).map(Self::Gemma2),
            ModelConfig::Llama(config) => Llama::load(config, loader).map(Self::Llama),
        }
    }
}

impl Parameters for Causal {
    fn walk(&mut self, visit: &mut dyn FnMut(&str, ParamMut<'_>)) {
        with!(self, model => model.walk(visit));
    }
}

impl CausalLm for Causal {
    fn hidden(&self, batch: &Packed) -> Tensor<2> {
        with!(self, model => model.hidden(batch))
    }

    fn token_logps(&self, hidden_nd: Tensor<2>, rows: &[usize], targets: &[u32]) -> Tensor<1> {
        with!(self, model => model.token_logps(hidden_nd, rows, targets))
    }

    fn logits(&self, hidden_nd: Tensor<2>, rows: &[usize]) -> Tensor<2> {
        with!(self, model => model.logits(hidden_nd, rows))
    }

    fn hidden_cached(&self, ids: &[u32], segments: &Arc<[CachedSegment]>, cache: &mut KvCache) -> Tensor<2> {
        with!(self, model => model.hidden_cached(ids, segments, cache))
    }

    fn new_cache(&self, n_slots: usize, capacity: usize) -> KvCache {
        with!(self, model => model.new_cache(n_slots, capacity))
    }

    fn next_logits(&self, hidden_nd: Tensor<2>, rows: &[usize], cache: &KvCache) -> Tensor<2> {
        with!(self, model => model.next_logits(hidden_nd, rows, cache))
    }

    fn device(&self) -> Device {
        with!(self, model => model.device())
    }

    fn vocab_size(&self) -> usize {
        with!(self, model => model.vocab_size())
    }

    fn max_positions(&self) -> usize {
        with!(self, model => model.max_positions())
    }
}
