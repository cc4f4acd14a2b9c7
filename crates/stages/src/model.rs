//! The models that stages run: policies, which answer, and judges, which score.
//!
//! Owns which model a role stands for, and what it runs on. Knows nothing of how a folder becomes a model, how that
//! computes, and what a stage does with it.

use burn::tensor::Device;
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::device::{GpuError, gpu};
use sluice_lm::model::{CausalModel, LoadError, load_causal, load_reward};
use sluice_lm::precision::Placement;
use sluice_lm::reward::RewardModel;
use sluice_store::ModelDigest;

use crate::{Place, StageContext, StageError};

/// A causal language model with the files around it.
#[derive(Debug)]
pub struct Policy {
    pub checkpoint: Checkpoint,
    pub model: CausalModel,
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
    Load { role: String, source: LoadError },
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

impl Policy {
    /// Loads the model of a role, which must be a causal language model.
    pub fn load(context: &StageContext<'_>, role: &str) -> Result<Self, StageError> {
        let (checkpoint, model, digest) = load(context, role, load_causal)?;
        Ok(Self { checkpoint, model, digest })
    }
}

impl Judge {
    /// Loads the model of a role, which must be a reward model with one score.
    pub fn load(context: &StageContext<'_>, role: &str) -> Result<Self, StageError> {
        let (checkpoint, model, digest) = load(context, role, load_reward)?;
        Ok(Self { checkpoint, model, digest })
    }
}

/// Where a model's tensors go, and what they are held in.
pub fn placement(wanted: crate::Device) -> Result<Placement, ModelError> {
    let device = match wanted.place {
        Place::Cpu => Device::flex(),
        Place::Cuda { index } => gpu(index)?.device,
    };
    Ok(Placement::new(device, wanted.precision))
}

/// What a device is called: `cpu`, `cuda:0 (NVIDIA H200)`.
pub fn device_name(device: crate::Device) -> Result<String, ModelError> {
    match device.place {
        Place::Cpu => Ok("cpu".to_owned()),
        Place::Cuda { index } => Ok(format!("cuda:{index} ({})", gpu(index)?.name)),
    }
}

/// Passes on what a user should hear of a model's files.
pub fn warn(context: &StageContext<'_>, checkpoint: &Checkpoint) {
    for (file, warning) in &checkpoint.warnings {
        // As the pipeline file names it, where it is a folder of the project.
        let file = file.strip_prefix(context.project).unwrap_or(file);
        context.warn(format!("{}: {warning}", file.display()));
    }
}

fn load<M>(
    context: &StageContext<'_>,
    role: &str,
    load: impl FnOnce(&Checkpoint, Placement) -> Result<M, LoadError>,
) -> Result<(Checkpoint, M, ModelDigest), StageError> {
    let (folder, digest) = context.model(role)?;
    let placement = placement(context.device)?;
    let failed = |source| ModelError::Load { role: role.to_owned(), source };
    let checkpoint = Checkpoint::open(folder).map_err(|source| failed(source.into()))?;
    warn(context, &checkpoint);
    let model = load(&checkpoint, placement).map_err(failed)?;
    Ok((checkpoint, model, digest))
}
