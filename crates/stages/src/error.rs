//! How a stage fails. Each kind has its own errors in its own file; here is what they have in common. Which stage it was
//! and where it stands in the pipeline file is for the caller to add.

use arrow::error::ArrowError;
use sluice_sql::SqlError;
use sluice_store::StoreError;
use sluice_table::TableError;

use crate::answers::AnswerError;
use crate::evaluate::EvaluateError;
use crate::ingest::IngestError;
use crate::model::ModelError;
use crate::pair::PairError;
use crate::prompts::PromptsError;
use crate::score::JudgeError;
use crate::sql::QueryError;
use crate::test::TestError;
use crate::train::TrainStageError;

/// Why a stage gave no result.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("stopped before the end")]
    Cancelled,

    #[error("the input `{role}` was not handed to the stage")]
    MissingInput { role: String },
    #[error("the input `{role}` is not {expected}")]
    WrongInput { role: String, expected: &'static str },
    #[error("read the input `{role}`")]
    ReadInput { role: String, source: StoreError },
    #[error("read the input `{role}`")]
    InputTable { role: String, source: TableError },
    #[error("read the stored table `{output}`")]
    ReadStored { output: String, source: StoreError },
    #[error("show a row")]
    ShowRow { source: arrow::error::ArrowError },
    #[error("write the table `{table}`")]
    WriteOutput { table: String, source: StoreError },
    #[error("keep the rows that are done")]
    Rows { source: StoreError },

    #[error("tell the columns that break the contract")]
    Contract { source: ArrowError },
    #[error(transparent)]
    Test(#[from] TestError),

    #[error(transparent)]
    Files(#[from] SqlError),
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error(transparent)]
    Pair(#[from] PairError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Prompts(#[from] PromptsError),
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error(transparent)]
    Judge(#[from] JudgeError),
    #[error(transparent)]
    Train(#[from] TrainStageError),
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
}
