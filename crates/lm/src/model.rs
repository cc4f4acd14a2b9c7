//! From an opened checkpoint to the model it describes.
//!
//! Owns the choice of architecture and the check that a folder's tensors are the model's tensors, no fewer and no more.
//! Knows nothing of what a model is then used for.

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use half::bf16;

use crate::causal::{CausalLm, KvCache};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::{Config, Head, ModelConfig};
use crate::gemma2::Gemma2;
use crate::kernel::CachedSegment;
use crate::llama::Llama;
use crate::packed::Packed;
use crate::params::{ParamMut, Parameters};
use crate::precision::Placement;
use crate::reward::{ArmoRm, ArmoRmConfig, Classifier, RewardModel};
use crate::stack::Stack;
use crate::template::Message;
use crate::vocabulary::{Embedding, VocabularyHead};
use crate::weights::{Loader, WeightSource};

/// Why a checkpoint is not the model that is needed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("{}: is {found} ({architecture}); {needed} is needed", folder.display())]
    WrongHead { folder: PathBuf, architecture: &'static str, found: &'static str, needed: &'static str },
    #[error("{}: gives {n_outputs} numbers for a conversation; a reward model with one is needed", folder.display())]
    Outputs { folder: PathBuf, n_outputs: usize },
    #[error("{}: render a prompt, to find the tokens that the gate of this reward model reads", folder.display())]
    GateTemplate { folder: PathBuf, source: CheckpointError },
    #[error(
        "{}: the chat template writes nothing of its own after a prompt; the gate of this reward model reads the \
         tokens that open the answer", folder.display()
    )]
    NoGate { folder: PathBuf },
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
    look: Look,
}

/// What of a tensor is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Its values, which are wanted.
    Read,
    /// Its values, to see that they could be read.
    Check,
    /// That it is there, and its shape.
    Header,
}

impl<'a> CheckpointSource<'a> {
    /// Nothing is read yet.
    pub fn new(checkpoint: &'a Checkpoint) -> Self {
        Self { checkpoint, used: Vec::new(), look: Look::Read }
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

    fn read_bf16(&mut self, name: &str, shape: &[usize]) -> Result<Vec<bf16>, CheckpointError> {
        self.used.push(name.to_owned());
        Ok(self.checkpoint.weights.tensor(name, shape)?)
    }

    fn check_only(&mut self, name: &str, shape: &[usize]) -> Result<bool, CheckpointError> {
        match self.look {
            Look::Read => return Ok(false),
            Look::Check => self.checkpoint.weights.check(name, shape)?,
            Look::Header => self.checkpoint.weights.expect(name, shape)?,
        }
        self.used.push(name.to_owned());
        Ok(true)
    }
}

/// Looks whether a checkpoint would load as what its configuration says it is, without holding any of it: all tensors are
/// there, none is left over, each has its shape, and all their values are finite.
pub fn check(checkpoint: &Checkpoint) -> Result<(), LoadError> {
    look(checkpoint, Look::Check)
}

/// As [`check`], by what the files say of their tensors: no value is read, so it takes as long for a large model as for a
/// small one.
pub fn check_headers(checkpoint: &Checkpoint) -> Result<(), LoadError> {
    look(checkpoint, Look::Header)
}

fn look(checkpoint: &Checkpoint, look: Look) -> Result<(), LoadError> {
    let mut source = CheckpointSource { look, ..CheckpointSource::new(checkpoint) };
    let device = Device::flex();
    match checkpoint.config.head {
        Head::CausalLm => causal_from(checkpoint, &mut source, &device).map(drop)?,
        Head::SequenceClassification { .. } | Head::ArmoRm { .. } => {
            reward_from(checkpoint, &mut source, &device).map(drop)?;
        }
    }
    Ok(source.finish()?)
}

/// Loads a checkpoint that must be a causal language model; onto a device alone, in f32.
pub fn load_causal(checkpoint: &Checkpoint, placement: impl Into<Placement>) -> Result<CausalModel, LoadError> {
    let mut source = CheckpointSource::new(checkpoint);
    let model = causal_from(checkpoint, &mut source, placement)?;
    source.finish()?;
    Ok(model)
}

/// Builds the causal language model a checkpoint describes, with its weights from `source`.
pub fn causal_from(
    checkpoint: &Checkpoint,
    source: &mut dyn WeightSource,
    placement: impl Into<Placement>,
) -> Result<CausalModel, LoadError> {
    if checkpoint.config.head != Head::CausalLm {
        return Err(wrong_head(checkpoint, "a causal language model"));
    }
    let mut loader = Loader::new(source, placement);
    Ok(match &checkpoint.config.model {
        ModelConfig::Gemma2(config) => CausalModel::Gemma2(Gemma2::load(config, &mut loader)?),
        ModelConfig::Llama(config) => CausalModel::Llama(Llama::load(config, &mut loader)?),
    })
}

/// Loads a checkpoint that must be a reward model with one score; onto a device alone, in f32. Its head is always in f32.
pub fn load_reward(checkpoint: &Checkpoint, placement: impl Into<Placement>) -> Result<RewardModel, LoadError> {
    let mut source = CheckpointSource::new(checkpoint);
    let model = reward_from(checkpoint, &mut source, placement)?;
    source.finish()?;
    Ok(model)
}

/// Builds the reward model a checkpoint describes, with its weights from `source`.
pub fn reward_from(
    checkpoint: &Checkpoint,
    source: &mut dyn WeightSource,
    placement: impl Into<Placement>,
) -> Result<RewardModel, LoadError> {
    let config = &checkpoint.config;
    match config.head {
        Head::CausalLm => Err(wrong_head(checkpoint, "a reward model")),
        Head::ArmoRm { .. } => Ok(RewardModel::ArmoRm(armorm_from(config, checkpoint, source, placement)?)),
        Head::SequenceClassification { num_labels: 1 } => {
            Ok(classifier_from(config, &mut Loader::new(source, placement))?)
        }
        Head::SequenceClassification { num_labels: n_outputs } => {
            Err(LoadError::Outputs { folder: checkpoint.folder.clone(), n_outputs })
        }
    }
}

fn classifier_from(config: &Config, loader: &mut Loader<'_>) -> Result<RewardModel, CheckpointError> {
    let (d, pad_id) = (config.model.hidden_size(), config.pad_token_id);
    Ok(match &config.model {
        ModelConfig::Llama(body) => {
            let body = Llama::load_body(body, loader)?;
            RewardModel::Llama(Classifier::load(body, d, pad_id, loader)?)
        }
        ModelConfig::Gemma2(body) => {
            let body = Gemma2::load_body(body, loader)?;
            RewardModel::Gemma2(Classifier::load(body, d, pad_id, loader)?)
        }
    })
}

/// Builds the ArmoRM that `config` describes, with its weights from `source`, on the tokenizer and the chat template of
/// `checkpoint`, which may describe another model.
pub fn armorm_from(
    config: &Config,
    checkpoint: &Checkpoint,
    source: &mut dyn WeightSource,
    placement: impl Into<Placement>,
) -> Result<ArmoRm, LoadError> {
    let (
        ModelConfig::Llama(body),
        Head::ArmoRm { num_objectives, gating_hidden_dim, gating_n_hidden, gating_temperature },
    ) = (&config.model, &config.head)
    else {
        return Err(wrong_head(checkpoint, "an ArmoRM reward model on a Llama body"));
    };
    let head = ArmoRmConfig {
        n_objectives: *num_objectives,
        gating_hidden_dim: *gating_hidden_dim,
        gating_n_hidden: *gating_n_hidden,
        gating_temperature: *gating_temperature,
        pad_id: config.pad_token_id,
        gating_pattern: gating_pattern(checkpoint)?,
    };
    let mut loader = Loader::new(source, placement);
    let body = Llama::load_body(body, &mut loader)?;
    Ok(ArmoRm::load(body, head, &mut loader)?)
}

/// The tokens between a user's words and the assistant's: the end of the one turn and the header of the other.
///
/// Found by rendering two prompts that differ in their words alone, so that any template gives its own; on the
/// published ArmoRM it is `<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n`.
fn gating_pattern(checkpoint: &Checkpoint) -> Result<Vec<u32>, LoadError> {
    let ids = |words: &str| {
        let ids = checkpoint.conversation_ids(&[Message::user(words)], true, 0);
        ids.map_err(|source| LoadError::GateTemplate { folder: checkpoint.folder.clone(), source })
    };
    let (one, other) = (ids("a")?, ids("7")?);
    let n_common = one.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
    // A template that leaves the words out, too, has nothing that stands after them.
    if n_common == 0 || n_common == one.len() {
        return Err(LoadError::NoGate { folder: checkpoint.folder.clone() });
    }
    Ok(one[one.len() - n_common..].to_vec())
}

fn wrong_head(checkpoint: &Checkpoint, needed: &'static str) -> LoadError {
    let found = match checkpoint.config.head {
        Head::CausalLm => "a causal language model",
        Head::SequenceClassification { .. } | Head::ArmoRm { .. } => "a reward model",
    };
    let (folder, architecture) = (checkpoint.folder.clone(), checkpoint.config.architecture());
    LoadError::WrongHead { folder, architecture, found, needed }
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

impl Stack for CausalModel {
    fn n_blocks(&self) -> usize {
        either!(self, model => model.n_blocks())
    }

    fn embedding(&self) -> Embedding<'_> {
        either!(self, model => model.embedding())
    }

    fn vocabulary_head(&self) -> VocabularyHead<'_> {
        either!(self, model => model.vocabulary_head())
    }

    fn block(&self, i: usize, x_nd: Tensor<2>, batch: &Packed) -> Tensor<2> {
        either!(self, model => model.block(i, x_nd, batch))
    }

    fn normed(&self, x_nd: Tensor<2>) -> Tensor<2> {
        either!(self, model => model.normed(x_nd))
    }
}

impl CausalLm for CausalModel {
    fn hidden_cached(&self, ids_n: Tensor<1, Int>, segments: &Arc<[CachedSegment]>, cache: &mut KvCache) -> Tensor<2> {
        either!(self, model => model.hidden_cached(ids_n, segments, cache))
    }

    fn new_cache(&self, n_slots: usize, capacity: usize) -> KvCache {
        either!(self, model => model.new_cache(n_slots, capacity))
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

#[cfg(test)]
mod tests;
