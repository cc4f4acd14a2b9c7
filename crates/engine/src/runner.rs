//! What the engine asks of whoever runs stages, and what it hands over. The engine never sees how a stage is
//! computed, and the stages never see the engine: whoever implements [`StageRunner`] joins the two.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use sluice_spec::{Location, ModelName, Pipeline, Stage, StageName, Test};
use sluice_store::{Attempt, ContentHash, ModelDigest, Notice, Output, Record, StageKey, Store, StoreError};

use crate::verify::{Recheck, Rechecked};

/// Digests what lies outside the store, and runs stages. Called from several threads at once.
pub trait StageRunner: Sync {
    /// The digest of what these paths and globs name: contents and file names, in an order that does not
    /// depend on the machine.
    fn files_digest(&self, patterns: &[String]) -> Result<ContentHash, StageFailure>;

    /// The digest of a folder that describes a model without weights.
    fn config_digest(&self, folder: &str) -> Result<ContentHash, StageFailure>;

    /// The digest of a model: tensors, config, tokenizer, chat template; not file names.
    fn model_digest(&self, location: &Location) -> Result<ModelDigest, StageFailure>;

    /// The size of what these paths and globs name.
    fn files_bytes(&self, patterns: &[String]) -> Result<u64, StageFailure>;

    /// How many rows a stage would make, and how many of them are known from earlier runs; none for a stage that is
    /// made as a whole, and where the inputs do not tell. An input that is not there yet is left out: a model that is not
    /// there has made no row. It may read tables; it computes nothing.
    fn count_rows(&self, stage: &Stage, inputs: &[JobInput]) -> Result<Option<RowCount>, StageFailure>;

    /// Make data tests of one stage, each of which has an attempt of its own for the rows at fault. There is an answer for
    /// each, in their order; that one cannot be made says nothing of the others.
    fn test(&self, job: &TestJob<'_>) -> Result<Vec<Result<Verdict, StageFailure>>, StageFailure>;

    /// Compute a stage. Outputs are written through the job's attempt; the engine commits them.
    fn run(&self, job: &Job<'_>) -> Result<Produced, StageFailure>;

    /// Compute rows of a stage's result again, or all of it, and compare. What earlier runs know is not to be used.
    fn verify(&self, recheck: &Recheck<'_>) -> Result<Rechecked, StageFailure>;
}

/// Rows of a stage, and how many of them are known from earlier runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RowCount {
    /// All rows it would make.
    pub rows: u64,
    /// Those that need not be made.
    pub rows_known: u64,
    /// What is counted: `rows`; `reference rows`, which a training computes before its first step; or `steps` of a
    /// computation that was stopped.
    pub unit: &'static str,
}

/// One stage to compute.
pub struct Job<'a> {
    /// The stage with its parameters.
    pub stage: &'a Stage,
    /// The pipeline it is of.
    pub pipeline: &'a Pipeline,
    /// Its key.
    pub key: StageKey,
    /// What it reads, in the order of [`sluice_spec::Kind::inputs`].
    pub inputs: &'a [JobInput],
    /// To read inputs from.
    pub store: &'a Store,
    /// To write outputs through.
    pub attempt: &'a Attempt,
    /// Whether everything is to be computed anew: no row of an earlier run and nothing half-done is taken up.
    pub fresh: bool,
    /// Set when the user wants to stop. A long stage looks at it between batches and returns
    /// [`StageFailure::Interrupted`].
    pub cancel: &'a AtomicBool,
    /// Tells how far it is; cheap, call it for every batch.
    pub progress: &'a (dyn Fn(Progress) + Sync),
    /// Tells something a user should hear. A text that comes twice is told once.
    pub notify: &'a (dyn Fn(Notice) + Sync),
}

impl Job<'_> {
    /// The input with this role.
    pub fn input(&self, role: &str) -> Option<&JobInput> {
        self.inputs.iter().find(|input| input.role == role)
    }

    /// Whether the user wants to stop.
    pub fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

/// Data tests of one stage that are to be made.
pub struct TestJob<'a> {
    /// The stage.
    pub stage: &'a Stage,
    /// Its result.
    pub record: &'a Record,
    /// The tests.
    pub tests: &'a [TestRun<'a>],
    /// To read tables from.
    pub store: &'a Store,
    /// Set when the user wants to stop.
    pub cancel: &'a AtomicBool,
}

/// One test that is to be made.
pub struct TestRun<'a> {
    /// The test.
    pub test: &'a Test,
    /// The tables of [`Test::tables`], by their names there.
    pub tables: &'a [(String, Output)],
    /// To write the rows at fault through.
    pub attempt: &'a Attempt,
}

/// What a test has found.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Rows at fault, or 1 for a number; 0 when the test passes.
    pub n_failed: u64,
    /// The first of them, finished through the test's attempt.
    pub rows: Option<Output>,
    /// What was found, in words, where rows do not say it.
    pub found: Option<String>,
}

/// One input of a job.
#[derive(Debug, Clone)]
pub struct JobInput {
    /// The parameter that names it, e.g. `prompts`, `model`, `baseline`.
    pub role: String,
    /// What it is.
    pub given: Given,
}

/// An input, found.
#[derive(Debug, Clone)]
pub enum Given {
    /// An output of an earlier stage.
    Output {
        /// The stage.
        stage: StageName,
        /// Its record, with metrics and facts.
        record: Arc<Record>,
        /// The output: a table or a checkpoint.
        output: Output,
    },
    /// A model of the pipeline's `models`.
    Model {
        /// Its name there.
        name: ModelName,
        /// Where it lies.
        location: Location,
        /// What it is.
        digest: ModelDigest,
    },
    /// Files of the user.
    Files {
        /// Paths and globs, relative to the project folder.
        patterns: Vec<String>,
        /// Of their contents and names.
        digest: ContentHash,
    },
    /// A folder that describes a model without weights.
    Config {
        /// The folder, relative to the project folder.
        folder: String,
        /// Of its contents.
        digest: ContentHash,
    },
}

impl Given {
    /// The digest the key has for it, as hex.
    pub fn digest(&self) -> String {
        match self {
            Self::Output { output, .. } => output.digest(),
            Self::Model { digest, .. } => digest.to_string(),
            Self::Files { digest, .. } | Self::Config { digest, .. } => digest.to_string(),
        }
    }
}

/// What a stage made.
#[derive(Debug, Clone, Default)]
pub struct Produced {
    /// Its outputs, named after the products of its kind, each finished through the job's attempt.
    pub outputs: Vec<Output>,
    /// Named numbers for the summary. Non-finite ones are left out.
    pub metrics: BTreeMap<String, f64>,
    /// Provenance that is not in the key, e.g. the device.
    pub facts: BTreeMap<String, String>,
    /// Rows taken from earlier results instead of computed.
    pub n_rows_reused: u64,
    /// Steps taken over from an attempt that did not end.
    pub n_steps_resumed: u64,
    /// What it worked through one by one, and what that took; none for a stage that is made as a whole.
    pub done: Option<Done>,
}

/// What a stage has worked through, without what it knew from earlier runs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Done {
    /// How many: rows, answers of an evaluation, examples times the passes over them.
    pub n: u64,
    /// Tokens made or read for them.
    pub n_tokens: u64,
    /// Seconds spent on them, without loading models and writing tables.
    pub seconds: f64,
}

/// How far a running stage is. Fields a stage has nothing to say about are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all, once known.
    pub total: Option<u64>,
    /// What is counted: `rows`, `steps`, `bytes`.
    pub unit: &'static str,
    /// Tokens processed so far.
    pub n_tokens: Option<u64>,
    /// The most recent training loss.
    pub loss: Option<f64>,
}

/// Why a stage has no result.
#[derive(Debug, thiserror::Error)]
pub enum StageFailure {
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
    /// The stage says what is wrong.
    #[error(transparent)]
    Stage(Box<dyn Error + Send + Sync>),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stage's code panicked.
    #[error("the stage stopped with a panic: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// Another run is computing it, and nobody wants to wait.
    #[error("another run is computing it; run again later, or without `--no-wait`")]
    Locked,
    /// The pipeline has no such model.
    #[error("the pipeline has no model `{name}`")]
    NoModel {
        /// The name that is read.
        name: ModelName,
    },
    /// It reads something that is not here yet and that can be fetched; whoever runs stages does that beforehand.
    #[error("{what}")]
    NotFetched {
        /// What that is, and that a run fetches it.
        what: String,
    },
    /// Tests of the stage failed. Its result stays.
    #[error("{}", failed_tests(failed, *n_tests))]
    FailedTests {
        /// Those of severity `error` that failed, one at least.
        failed: Vec<FailedTest>,
        /// How many tests the stage has.
        n_tests: usize,
    },
    /// A test of the stage could not be made. Its result stays.
    #[error("test `{test}` cannot be made ({place})")]
    BrokenTest {
        /// The test.
        test: String,
        /// Where it stands.
        place: String,
        /// Why.
        source: Arc<StageFailure>,
    },
    /// A stage before it made no output of the name it reads.
    #[error("stage `{stage}` left no output `{output}` in its record")]
    NoOutput {
        /// The stage before.
        stage: StageName,
        /// The output's name.
        output: &'static str,
    },
}

/// A test that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedTest {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub place: String,
    /// What was found: `3 rows`, or what a test without rows says.
    pub found: String,
}

fn failed_tests(failed: &[FailedTest], n_tests: usize) -> String {
    let told = |test: &FailedTest| format!("`{}`: {} ({})", test.name, test.found, test.place);
    match failed {
        [test] => format!("a test failed, {}", told(test)),
        _ => {
            let told: Vec<String> = failed.iter().map(told).collect();
            format!("{} of {n_tests} tests failed, {}", failed.len(), told.join("; "))
        }
    }
}

impl StageFailure {
    /// A failure of the stage's own.
    pub fn of(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Stage(Box::new(error))
    }

    /// The messages of the chain below the first, outermost first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut cause = self.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        causes
    }
}
