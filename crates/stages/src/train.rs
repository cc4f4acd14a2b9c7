//! `train`: pairs or rows and a starting model in, a checkpoint and its `steps` table out. It owns the way through the
//! stage and the guard against pairs of another policy, and refuses to know how a step is computed.

mod card;
mod examples;
mod fit;
mod grown;
mod live;
mod policy;
mod recipe;
mod reference;
mod reward;
mod save;
mod saves;
mod start;

use std::path::PathBuf;

use sluice_lm::checkpoint::{CheckpointError, WriteError};
use sluice_spec::stage::train::{Objective, Train};
use sluice_table::Steps;
use sluice_train::batch::{BatchError, FormatError};
use sluice_train::task::TaskError;
use sluice_train::trainer::TrainError;

use crate::{Produced, StageContext, StageError};
use fit::Fitted;
pub use recipe::memory;
pub use reference::count_rows;
use start::Start;

/// Why nothing was trained.
#[derive(Debug, thiserror::Error)]
pub enum TrainStageError {
    #[error(
        "{n_other} of {n_pairs} pairs were answered by policy {sampled_by}, but the model to train is {trained}; sample \
         with the model that is trained, or set `off_policy: allow`"
    )]
    OffPolicy { n_other: usize, n_pairs: usize, sampled_by: String, trained: String },
    #[error("none of the {n_rows} rows is in the split `train`; held-out rows are never trained on")]
    NoTrainRows { n_rows: usize },
    #[error("{row} has no {what}; map a column to it where the rows are ingested")]
    Missing { row: String, what: String },
    #[error("the rows have no column `{objective}`, which is an objective of the reward model; they have {}", found.join(", "))]
    NoObjective { objective: String, found: Vec<String> },
    #[error("read objective `{objective}` as numbers")]
    Objective { objective: String, source: arrow::error::ArrowError },
    #[error("`objectives` is empty; name at least one, the first being whether a response is right")]
    NoObjectives,
    #[error("the starting model's objectives are {}; the stage names {}", found.join(", "), wanted.join(", "))]
    OtherObjectives { found: Vec<String>, wanted: Vec<String> },
    #[error("{architecture} in {} cannot become an ArmoRM reward model; a Llama body is needed", folder.display())]
    NoArmoRm { folder: PathBuf, architecture: &'static str },
    #[error("write {what} in tokens")]
    Format { what: String, source: FormatError },
    #[error("write {row} in tokens")]
    Encode { row: String, source: CheckpointError },
    #[error("{row} has {n_tokens} tokens, more than the {max} {what}; change `max_length`, or leave the example out")]
    TooLong { row: String, n_tokens: usize, max: usize, what: &'static str },
    #[error("cut examples to length")]
    Limits { source: BatchError },
    #[error("the reference log-probs that were kept do not fit the pairs; remove the folder `rows` of the store")]
    KeptReference,
    #[error("take up the examples")]
    Task { source: TaskError },
    #[error("train")]
    Step { source: TrainError },
    #[error("write the checkpoint")]
    Write { source: WriteError },
    #[error("read the checkpoint that was written")]
    Reread { source: CheckpointError },
}

pub fn run(params: &Train, context: &StageContext<'_>) -> Result<Produced, StageError> {
    let start = Start::open(params, context)?;
    let fitted = match &params.objective.value {
        Objective::Reward(objective) => reward::train(objective, params, &start, context)?,
        _ => policy::train(params, &start, context)?,
    };
    let Fitted { checkpoint, steps, metrics, n_resumed, n_reused, done } = fitted;
    let steps = context.write_table(Steps::NAME, Steps::schema(), [Ok(steps)])?;
    let mut produced = Produced::new(vec![checkpoint, steps]);
    produced.metrics = metrics;
    produced.n_steps_resumed = n_resumed as u64;
    produced.n_rows_reused = n_reused;
    produced.done = Some(done);
    produced.facts.insert("base_digest".to_owned(), start.digest.to_string());
    Ok(produced)
}
