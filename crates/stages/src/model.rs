//! The models that stages run: policies, which answer, and judges, which score.
//!
//! Owns which checkpoints a stage can use, and what a message says of those it cannot. Knows nothing of how a model
//! computes, and of what a stage does with it.

mod causal;
mod source;

use std::path::PathBuf;

use burn::tensor::Device;
use sluice_lm::checkpoint::{Checkpoint, CheckpointError};
use sluice_lm::config::{Config, Head, ModelConfig};
use sluice_lm::gemma2::Gemma2;
use sluice_lm::llama::Llama;
use sluice_lm::reward::{ArmoRm, ArmoRmConfig, Classifier, RewardModel};
use sluice_lm::template::Message;
use sluice_lm::weights::Loader;
use sluice_store::ModelDigest;

use crate::{StageContext, StageError};

pub use causal::Causal;
pub use source::{Fresh, Grown, Stored};

/// A causal language model with the files around it.
#[derive(Debug)]
pub struct Policy {
    pub checkpoint: Checkpoint,
    pub model: Causal,
    pub digest: ModelDigest,
}

/// A reward model with the files around it.
#[derive(Debug)]
pub struct Judge {
    pub checkpoint: Checkpoint,
    pub model: RewardModel,
    pub digest: ModelDigest,
}

/// Why a stage cannot use a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("load `{role}`")]
    Load { role: String, source: CheckpointError },
    #[error(
        "`{role}` is {found} ({architecture} in {}); this stage needs {wanted}", folder.display()
    )]
    WrongHead { role: String, folder: PathBuf, architecture: &'static str, found: &'static str, wanted: &'static str },
    #[error("`{role}` gives {n_outputs} numbers for a conversation ({}); a reward model with one output is needed", folder.display())]
    Outputs { role: String, folder: PathBuf, n_outputs: usize },
    #[error("this build computes on the CPU alone; CUDA device {index} needs one with the feature `cuda`")]
    NoCuda { index: usize },
}

impl Policy {
    /// Loads the model of a role, which must be a causal language model.
    pub fn load(context: &StageContext<'_>, role: &str) -> Result<Self, StageError> {
        let (folder, digest) = context.model(role)?;
        let device = device(context.device)?;
        let failed = |source| ModelError::Load { role: role.to_owned(), source };
        let checkpoint = Checkpoint::open(folder).map_err(failed)?;
        expect_causal(&checkpoint, role)?;
        let model =
            load(&checkpoint, &device, |loader| Causal::load(&checkpoint.config.model, loader)).map_err(failed)?;
        Ok(Self { checkpoint, model, digest })
    }
}

impl Judge {
    /// Loads the model of a role, which must be a reward model with one score.
    pub fn load(context: &StageContext<'_>, role: &str) -> Result<Self, StageError> {
        let (folder, digest) = context.model(role)?;
        let device = device(context.device)?;
        let failed = |source| ModelError::Load { role: role.to_owned(), source };
        let checkpoint = Checkpoint::open(folder).map_err(failed)?;
        expect_one_score(&checkpoint, role)?;
        let pattern = gating_pattern(&checkpoint).map_err(failed)?;
        let config = &checkpoint.config;
        let model = load(&checkpoint, &device, |loader| reward_model(config, pattern, loader)).map_err(failed)?;
        Ok(Self { checkpoint, model, digest })
    }
}

/// The device of the tensors.
pub fn device(wanted: crate::Device) -> Result<Device, ModelError> {
    match wanted {
        crate::Device::Cpu => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        crate::Device::Cuda { index } => Ok(Device::cuda(index)),
        #[cfg(not(feature = "cuda"))]
        crate::Device::Cuda { index } => Err(ModelError::NoCuda { index }),
    }
}

/// Reads a model from a checkpoint and refuses tensors that the model did not ask for.
pub fn load<M>(
    checkpoint: &Checkpoint,
    device: &Device,
    build: impl FnOnce(&mut Loader<'_>) -> Result<M, CheckpointError>,
) -> Result<M, CheckpointError> {
    let mut source = Stored::new(checkpoint);
    let model = build(&mut Loader::new(&mut source, device))?;
    checkpoint.expect_no_extra(source.used())?;
    Ok(model)
}

/// The reward model that a configuration describes; its head has one score.
pub fn reward_model(
    config: &Config,
    gating_pattern: Vec<u32>,
    loader: &mut Loader<'_>,
) -> Result<RewardModel, CheckpointError> {
    match (&config.model, armorm_config(config, gating_pattern)) {
        (ModelConfig::Llama(body), Some(head)) => {
            let body = Llama::load_body(body, loader)?;
            Ok(RewardModel::ArmoRm(ArmoRm::load(body, head, loader)?))
        }
        (ModelConfig::Llama(c), None) => {
            let body = Llama::load_body(c, loader)?;
            Ok(RewardModel::Llama(Classifier::load(body, c.hidden_size, config.pad_token_id, loader)?))
        }
        (ModelConfig::Gemma2(c), _) => {
            let body = Gemma2::load(c, loader)?;
            Ok(RewardModel::Gemma2(Classifier::load(body, c.hidden_size, config.pad_token_id, loader)?))
        }
    }
}

/// The sizes of ArmoRM's head, where the configuration has one.
pub fn armorm_config(config: &Config, gating_pattern: Vec<u32>) -> Option<ArmoRmConfig> {
    match config.head {
        Head::ArmoRm { num_objectives, gating_hidden_dim, gating_n_hidden, gating_temperature } => Some(ArmoRmConfig {
            n_objectives: num_objectives,
            gating_hidden_dim,
            gating_n_hidden,
            gating_temperature,
            pad_id: config.pad_token_id,
            gating_pattern,
        }),
        Head::CausalLm | Head::SequenceClassification { .. } => None,
    }
}

/// The tokens between a user's words and the assistant's: the end of the one turn and the header of the other.
///
/// Found by rendering two prompts that differ in their words alone, so that any template gives its own; on the
/// published ArmoRM it is `<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n`.
pub fn gating_pattern(checkpoint: &Checkpoint) -> Result<Vec<u32>, CheckpointError> {
    let template = checkpoint.template()?;
    let ids = |words: &str| -> Result<Vec<u32>, CheckpointError> {
        Ok(checkpoint.tokenizer.encode(&template.render(&[Message::user(words)], true)?)?)
    };
    let (one, other) = (ids("a")?, ids("7")?);
    let n_common = one.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
    Ok(one[one.len() - n_common..].to_vec())
}

/// Refuses a reward model where a policy is needed.
pub fn expect_causal(checkpoint: &Checkpoint, role: &str) -> Result<(), ModelError> {
    match checkpoint.config.head {
        Head::CausalLm => Ok(()),
        Head::SequenceClassification { .. } | Head::ArmoRm { .. } => {
            Err(wrong_head(checkpoint, role, "a reward model", "a causal language model"))
        }
    }
}

fn expect_one_score(checkpoint: &Checkpoint, role: &str) -> Result<(), ModelError> {
    match checkpoint.config.head {
        Head::ArmoRm { .. } | Head::SequenceClassification { num_labels: 1 } => Ok(()),
        Head::SequenceClassification { num_labels: n_outputs } => {
            Err(ModelError::Outputs { role: role.to_owned(), folder: checkpoint.folder.clone(), n_outputs })
        }
        Head::CausalLm => Err(wrong_head(checkpoint, role, "a causal language model", "a reward model")),
    }
}

fn wrong_head(checkpoint: &Checkpoint, role: &str, found: &'static str, wanted: &'static str) -> ModelError {
    ModelError::WrongHead {
        role: role.to_owned(),
        folder: checkpoint.folder.clone(),
        architecture: checkpoint.config.architecture(),
        found,
        wanted,
    }
}
