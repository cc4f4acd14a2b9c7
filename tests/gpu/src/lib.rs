//! Checks and measurements of the models on a GPU, and on whatever else this build can put tensors on.
//!
//! Owns what is compared with what, and how far apart the two may be. Knows nothing of pipelines, tables and stores, so
//! that the binaries stay small enough to be carried to a machine that has a GPU and nothing else. The same checks run on
//! the CPU in the tests of this package, which keeps them honest where there is no GPU.

pub mod attention;
pub mod bench;
pub mod device;
pub mod fidelity;
pub mod fixture;
pub mod job;
pub mod kernels;
pub mod machine;
pub mod objectives;
pub mod rehearsal;
pub mod soak;
pub mod training;
pub mod verdict;

use std::path::PathBuf;

use sluice_lm::checkpoint::{CheckpointError, WriteError};
use sluice_lm::generate::GenerateError;
use sluice_lm::model::LoadError;
use sluice_lm::reward::ScoreError;
use sluice_lm::sampling::SamplingError;
use sluice_lm::tokenizer::TokenizerError;
use sluice_train::task::TaskError;
use sluice_train::trainer::TrainError;

/// A check that could not be made, which is another thing than one that found something.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Fixture(#[from] fixture::FixtureError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("generate")]
    Generate(#[from] GenerateError),
    #[error("score")]
    Score(#[from] ScoreError),
    #[error("set up sampling")]
    Sampling(#[from] SamplingError),
    #[error("decode an answer")]
    Decode(#[from] TokenizerError),
    #[error("take up pairs")]
    Task(#[from] TaskError),
    #[error("train")]
    Train(#[from] TrainError),
    #[error("read the prompts of the job")]
    Prompts(#[from] serde_json::Error),
    #[error("write a checkpoint")]
    Checkpoints(#[from] WriteError),
    #[error("read {}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("write {}", file.display())]
    Write { file: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Place(#[from] device::PlaceError),
    #[error("expected {what}")]
    Shape { what: String },
}
