//! What training starts from: a stored model, or a description of one whose weights are drawn.

use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::config::ModelConfig;
use sluice_lm::model::{CausalModel, LoadError, causal_from, load_causal};
use sluice_lm::precision::{Placement, Precision};
use sluice_lm::weights::FreshWeights;
use sluice_spec::stage::ModelRef;
use sluice_spec::stage::train::{self, Tokens, Train};
use sluice_store::ModelDigest;

use crate::model::{ModelError, placement, warn};
use crate::{StageContext, StageError};

/// Standard deviation of fresh matrices: `initializer_range` of the published configurations.
const FRESH_STD: f64 = 0.02;

/// The starting model, its weights not yet read.
pub struct Start {
    pub checkpoint: Checkpoint,
    /// Of the model, or of the folder that describes it.
    pub digest: ModelDigest,
    /// Of the weights that are trained: they are in f32 whatever a step computes in.
    pub placement: Placement,
    /// Its weights are to be drawn.
    pub is_fresh: bool,
    /// As the pipeline file names it, for the model card.
    pub name: String,
    seed: u64,
}

impl Start {
    pub fn open(params: &Train, context: &StageContext<'_>) -> Result<Self, StageError> {
        let (folder, digest) = context.model("model")?;
        let (is_fresh, name) = match &params.model.value {
            train::Start::Model(ModelRef::Model(name)) => (false, format!("model `{name}`")),
            train::Start::Model(ModelRef::Stage(name)) => (false, format!("stage `{name}`")),
            train::Start::Init(folder) => (true, format!("fresh weights of the shape in `{folder}`")),
        };
        let open = if is_fresh { Checkpoint::open_without_weights } else { Checkpoint::open };
        let checkpoint = open(folder).map_err(loading)?;
        warn(context, &checkpoint);
        let seed = params.seed.value.get();
        let placement = Placement { precision: Precision::F32, ..placement(context.device)? };
        Ok(Self { checkpoint, digest, placement, is_fresh, name, seed })
    }

    /// The starting model as a causal language model.
    pub fn causal(&self) -> Result<CausalModel, StageError> {
        let model = if self.is_fresh {
            causal_from(&self.checkpoint, &mut self.fresh_weights(), &self.placement)
        } else {
            load_causal(&self.checkpoint, &self.placement)
        };
        Ok(model.map_err(loading)?)
    }

    /// Tokens an example has at most.
    pub fn longest(&self, tokens: &Tokens) -> usize {
        (tokens.max_length.get() as usize).min(self.checkpoint.config.model.max_position_embeddings())
    }

    /// Weights drawn from the stage's seed.
    pub fn fresh_weights(&self) -> FreshWeights {
        let neutral_norm = match self.checkpoint.config.model {
            ModelConfig::Gemma2(_) => 0.0,
            ModelConfig::Llama(_) => 1.0,
        };
        FreshWeights::new(self.seed, FRESH_STD, neutral_norm)
    }
}

/// The error of a starting model that cannot be read.
pub fn loading(source: impl Into<LoadError>) -> ModelError {
    ModelError::Load { role: "model".to_owned(), source: source.into() }
}
