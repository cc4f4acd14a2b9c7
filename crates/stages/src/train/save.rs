//! A trained model becomes a folder in Hugging Face layout, weights in f32, and an output of the stage.

use sluice_lm::checkpoint::{Checkpoint, CheckpointWriter, Companions};
use sluice_lm::config::{Config, Dtype};
use sluice_lm::params::Parameters;
use sluice_spec::Product;
use sluice_store::{Artifact, ModelDigest, Output};

use super::TrainStageError;
use super::card::{Lineage, card};
use crate::{StageContext, StageError};

/// Writes `model` with the tokenizer, the template and the generation ids of `base`.
pub fn save(
    model: &mut impl Parameters,
    config: &Config,
    base: &Checkpoint,
    lineage: &Lineage<'_>,
    context: &StageContext<'_>,
) -> Result<Output, StageError> {
    let name = Product::Checkpoint.name();
    let seal_failed = |source| StageError::WriteOutput { table: name.to_owned(), source };
    let folder = context.attempt.folder(name).map_err(seal_failed)?;
    let mut writer = CheckpointWriter::new(folder.path());
    let card = card(config, lineage);
    let companions = Companions { config, dtype: Dtype::F32, source: &base.folder, card: &card };
    let written = writer.parameters(model, Dtype::F32).and_then(|()| writer.finish(companions));
    written.map_err(|source| TrainStageError::Write { source })?;
    let digest = Checkpoint::open(folder.path()).and_then(|checkpoint| checkpoint.digest());
    let digest = digest.map_err(|source| TrainStageError::Reread { source })?;
    let sealed = folder.seal(ModelDigest::from_bytes(digest.0)).map_err(seal_failed)?;
    Ok(Output { name: name.to_owned(), artifact: Artifact::Checkpoint(sealed) })
}
