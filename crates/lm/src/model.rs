//! From an opened checkpoint to the model it describes.
//!
//! Owns the choice of architecture and the check that a folder's tensors are the model's tensors, no fewer and no more.
//! Knows nothing of what a model is then used for.

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use crate::causal::{CausalLm, KvCache};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::{Head, ModelConfig};
use crate::gemma2::Gemma2;
use crate::kernel::CachedSegment;
use crate::llama::Llama;
use crate::packed::Packed;
use crate::params::{ParamMut, Parameters};
use crate::reward::{ArmoRm, ArmoRmConfig, Classifier, RewardModel};
use crate::tokenizer::TokenizerError;
use crate::weights::{Loader, WeightSource};

/// Why a checkpoint is not the model that is needed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error("{}: is a {architecture}, and a {needed} is needed here", folder.display())]
    WrongHead { folder: PathBuf, architecture: &'static str, needed: &'static str },
    #[error(
        "{}: the tokenizer writes the opening of an assistant turn as {found}, and the gate needs the five tokens \
         that end the user's turn and open the assistant's", folder.display()
    )]
    GatingPattern { folder: PathBuf, found: String },
}

/// A causal language model of any supported architecture.
#[derive(Clone, Debug)]
pub enum CausalModel {
    Gemma2(Gemma2),
    Llama(Llama),
}

/// Reads the tensors of an opened checkpoint and remembers which.
pub struct CheckpointSource<'a> {
    checkpoint: &'a Checkpoint,
    used: Vec<String>,
}

impl<'a> CheckpointSource<'a> {
    /// Nothing is read yet.
    pub fn new(checkpoint: &'a Checkpoint) -> Self {
        Self { checkpoint, used: Vec::new() }
    }

    /// Refuses a folder that holds tensors the model did not ask for.
    pub fn finish(self) -> Result<(), CheckpointError> {
        self.checkpoint.expect_no_extra(&self.used)
    }
}

impl WeightSource for CheckpointSource<'_> {
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        self.used.push(name.to_owned());
        self.checkpoint.tensor_f32(name, shape)
    }
}

/// Loads a checkpoint that must be a causal language model, in f32.
pub fn load_causal(checkpoint: &Checkpoint, device: &Device) -> Result<CausalModel, LoadError> {
    let mut source = CheckpointSource::new(checkpoint);
    let model = causal_from(checkpoint, &mut source, device)?;
    source.finish()?;
    Ok(model)
}

/// Builds the causal language model a checkpoint describes, with its weights from `source`.
pub fn causal_from(
    checkpoint: &Checkpoint,
    source: &mut dyn WeightSource,
    device: &Device,
) -> Result<CausalModel, LoadError> {
    if checkpoint.config.head != Head::CausalLm {
        return Err(wrong_head(checkpoint, "causal language model"));
    }
    checkpoint.tokenizer.expect_rows(checkpoint.config.model.vocab_size())?;
    let mut loader = Loader::new(source, device);
    Ok(match &checkpoint.config.model {
        ModelConfig::Gemma2(config) => CausalModel::Gemma2(Gemma2::load(config, &mut loader)?),
        ModelConfig::Llama(config) => CausalModel::Llama(Llama::load(config, &mut loader)?),
    })
}

/// Loads a checkpoint that must be a reward model, in f32.
pub fn load_reward(checkpoint: &Checkpoint, device: &Device) -> Result<RewardModel, LoadError> {
    let mut source = CheckpointSource::new(checkpoint);
    let model = reward_from(checkpoint, &mut source, device)?;
    source.finish()?;
    Ok(model)
}

/// Builds the reward model a checkpoint describes, with its weights from `source`.
pub fn reward_from(
    checkpoint: &Checkpoint,
    source: &mut dyn WeightSource,
    device: &Device,
) -> Result<RewardModel, LoadError> {
    checkpoint.tokenizer.expect_rows(checkpoint.config.model.vocab_size())?;
    let mut loader = Loader::new(source, device);
    let (config, pad_id) = (&checkpoint.config, checkpoint.pad_id());
    let d = config.model.hidden_size();
    Ok(match (&config.model, &config.head) {
        (ModelConfig::Llama(body), Head::SequenceClassification { num_labels: 1 }) => {
            let body = Llama::load_body(body, &mut loader)?;
            RewardModel::Llama(Classifier::load(body, d, pad_id, &mut loader)?)
        }
        (ModelConfig::Gemma2(body), Head::SequenceClassification { num_labels: 1 }) => {
            let body = Gemma2::load_body(body, &mut loader)?;
            RewardModel::Gemma2(Classifier::load(body, d, pad_id, &mut loader)?)
        }
        (ModelConfig::Llama(body), Head::ArmoRm { .. }) => {
            let body = Llama::load_body(body, &mut loader)?;
            RewardModel::ArmoRm(ArmoRm::load(body, armorm_config(checkpoint)?, &mut loader)?)
        }
        _ => return Err(wrong_head(checkpoint, "reward model with one score")),
    })
}

fn wrong_head(checkpoint: &Checkpoint, needed: &'static str) -> LoadError {
    LoadError::WrongHead {
        folder: checkpoint.folder.clone(),
        architecture: checkpoint.config.architecture(),
        needed,
    }
}

/// The sizes of ArmoRM's head, and the gate's pattern as this checkpoint's tokenizer writes it.
pub fn armorm_config(checkpoint: &Checkpoint) -> Result<ArmoRmConfig, LoadError> {
    let Head::ArmoRm { num_objectives, gating_hidden_dim, gating_n_hidden, gating_temperature } =
        checkpoint.config.head
    else {
        return Err(wrong_head(checkpoint, "ArmoRM reward model"));
    };
    let opening = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n";
    let gating_pattern = checkpoint.tokenizer.encode(opening)?;
    let specials_kept = gating_pattern.len() >= 4
        && ["<|eot_id|>", "<|start_header_id|>"]
            .iter()
            .zip(&gating_pattern)
            .all(|(token, id)| checkpoint.tokenizer.token_to_id(token) == Some(*id));
    if !specials_kept {
        let found = format!("{gating_pattern:?}");
        return Err(LoadError::GatingPattern { folder: checkpoint.folder.clone(), found });
    }
    Ok(ArmoRmConfig {
        n_objectives: num_objectives,
        gating_hidden_dim,
        gating_n_hidden,
        gating_temperature,
        pad_id: checkpoint.pad_id(),
        gating_pattern,
    })
}

impl Parameters for CausalModel {
    fn walk(&mut self, visit: &mut dyn FnMut(&str, ParamMut<'_>)) {
        match self {
            Self::Gemma2(model) => model.walk(visit),
            Self::Llama(model) => model.walk(visit),
        }
    }
}

/// The same call on whichever architecture it is.
macro_rules! either {
    ($self:ident, $model:ident => $call:expr) => {
        match $self {
            CausalModel::Gemma2($model) => $call,
            CausalModel::Llama($model) => $call,
        }
    };
}

impl CausalLm for CausalModel {
    fn hidden(&self, batch: &Packed) -> Tensor<2> {
        either!(self, model => model.hidden(batch))
    }

    fn token_logps(&self, hidden_nd: Tensor<2>, rows: &[usize], targets: &[u32]) -> Tensor<1> {
        either!(self, model => model.token_logps(hidden_nd, rows, targets))
    }

    fn logits(&self, hidden_nd: Tensor<2>, rows: &[usize]) -> Tensor<2> {
        either!(self, model => model.logits(hidden_nd, rows))
    }

    fn hidden_cached(&self, ids: &[u32], segments: &Arc<[CachedSegment]>, cache: &mut KvCache) -> Tensor<2> {
        either!(self, model => model.hidden_cached(ids, segments, cache))
    }

    fn new_cache(&self, n_slots: usize, capacity: usize) -> KvCache {
        either!(self, model => model.new_cache(n_slots, capacity))
    }

    fn next_logits(&self, hidden_nd: Tensor<2>, rows: &[usize], cache: &KvCache) -> Tensor<2> {
        either!(self, model => model.next_logits(hidden_nd, rows, cache))
    }

    fn device(&self) -> Device {
        either!(self, model => model.device())
    }

    fn vocab_size(&self) -> usize {
        either!(self, model => model.vocab_size())
    }

    fn max_positions(&self) -> usize {
        either!(self, model => model.max_positions())
    }
}
