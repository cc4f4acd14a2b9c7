//! How each kind of stage runs: one file per kind, named as in crate `spec`. This file owns what the kinds share: what a
//! stage is given, what it hands back, and how it fails. It refuses to know why a stage runs or which runs next.
//!
//! A stage reads its inputs by role, the name of the parameter that names them, and writes its outputs into an attempt
//! of the store. It sees no environment and no other stage, and of the clock only what `train` measures; whether it runs
//! on a laptop or as one of many workers makes no difference to it. Dropping the attempt undoes a stage that failed.

pub mod answers;
mod chat;
mod contract;
mod error;
pub mod evaluate;
pub mod ingest;
mod ledger;
pub mod model;
pub mod pair;
pub mod prompts;
pub mod row_key;
pub mod sample;
pub mod score;
pub mod sql;
pub mod test;
pub mod train;
pub mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use sluice_spec::stage::Kind;
use sluice_store::{Artifact, Attempt, ModelDigest, Notice, NoticeLevel, Output, Store};

pub use error::StageError;
pub use sluice_lm::precision::Precision;

/// What a stage is given.
pub struct StageContext<'a> {
    /// The folder that paths in the pipeline file are relative to.
    pub project: &'a Path,
    /// Where the input tables are.
    pub store: &'a Store,
    /// One entry for each of `Kind::inputs` that is a table or a model, in the same order.
    pub inputs: &'a [StageInput],
    /// Where the outputs go.
    pub attempt: &'a Attempt,
    /// Whether everything is to be made anew, though an earlier run may have made some of it.
    pub fresh: bool,
    /// What to compute on.
    pub device: Device,
    /// Called now and then from the thread that runs the stage.
    pub progress: &'a dyn Fn(Progress),
    /// Called with what a user should hear; a text that comes twice is told once.
    pub notify: &'a dyn Fn(Notice),
    /// Seconds since some fixed moment; measured columns depend on it, and how often what is done is saved.
    pub clock: &'a dyn Fn() -> f64,
    /// Set from outside when the stage should stop.
    pub cancel: &'a AtomicBool,
}

/// What a stage reads, and what it would compute on: enough to count its rows before it runs.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    pub store: &'a Store,
    /// As in [`StageContext::inputs`], but that some may not be there yet.
    pub inputs: &'a [StageInput],
    pub device: Device,
}

/// One input that is resolved: it exists, and the stage's key already has its digest.
#[derive(Debug, Clone)]
pub struct StageInput {
    /// The parameter that names it, such as `scores` or `baseline`; for `sql` the name it is read under.
    pub role: String,
    pub data: InputData,
}

#[derive(Debug, Clone)]
pub enum InputData {
    /// A table in the store.
    Table(Output),
    /// A folder in Hugging Face layout.
    Model { folder: PathBuf, digest: ModelDigest },
}

/// What to compute on, and in which precision. Only the kinds that run a model look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Device {
    pub place: Place,
    pub precision: Precision,
}

/// Where models run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    #[default]
    Cpu,
    Cuda {
        index: usize,
    },
}

/// How far a stage is. Rates and times are for the caller to work out; it has the clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    pub unit: Unit,
    pub done: u64,
    /// `None` while the end is not known.
    pub total: Option<u64>,
    /// Tokens read or made so far; 0 where there are none.
    pub n_tokens: u64,
    /// Loss of the last optimiser step.
    pub loss: Option<f32>,
}

/// What `Progress::done` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Rows,
    Steps,
    /// Log-probs of the reference model, before the first step.
    ReferenceRows,
}

/// What a stage has made.
#[derive(Debug, Clone, PartialEq)]
pub struct Produced {
    /// In the order of `Kind::products`; written into the attempt, and public once it is committed.
    pub outputs: Vec<Output>,
    /// Rows of the first output; 0 for a checkpoint.
    pub n_rows: u64,
    /// Named numbers about the result: equal inputs give equal metrics.
    pub metrics: BTreeMap<String, f64>,
    /// Provenance, such as the digest of the policy.
    pub facts: BTreeMap<String, String>,
    /// Rows that earlier runs made, of those that [`count_rows`] counts.
    pub n_rows_reused: u64,
    /// Optimiser steps that an earlier run took, which did not come to the end.
    pub n_steps_resumed: u64,
    /// What it worked through one by one; none for a stage that is made as a whole.
    pub done: Option<Done>,
}

/// What was worked through one by one, without what was known: rows, answers of both sides, examples times passes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Done {
    pub n: u64,
    /// Made or read for them.
    pub n_tokens: u64,
    /// Spent on them by the context's clock, without loading models and writing tables.
    pub seconds: f64,
}

/// The rows a stage makes one by one, each of which can be known from an earlier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowCount {
    pub n_rows: u64,
    pub n_known: u64,
}

/// Runs one stage.
///
/// # Errors
/// What was wrong with the parameters, the inputs or the machine; `Cancelled` when asked to stop. The attempt is then to
/// be dropped.
pub fn run(kind: &Kind, context: &StageContext<'_>) -> Result<Produced, StageError> {
    match kind {
        Kind::Ingest(params) => ingest::run(params, context),
        Kind::Pair(params) => pair::run(params, context),
        Kind::Sample(params) => on_device(sample::run(params, context)?, context),
        Kind::Score(params) => on_device(score::run(params, context)?, context),
        Kind::Train(params) => on_device(train::run(params, context)?, context),
        Kind::Evaluate(params) => on_device(evaluate::run(params, context)?, context),
        Kind::Sql(params) => sql::run(params, context),
    }
}

/// Says which device computed it.
fn on_device(mut produced: Produced, context: &StageContext<'_>) -> Result<Produced, StageError> {
    produced.facts.insert("device".to_owned(), model::device_name(context.device)?);
    Ok(produced)
}

/// How many rows a stage would make, and how many of them earlier runs made; `None` for a stage that is made as a whole,
/// and where the table with its rows is not there yet. A model that is not there has made no row. Reads the input tables and the keys of known rows; no model is loaded.
///
/// # Errors
/// Those that [`run`] would have with the same inputs.
pub fn count_rows(kind: &Kind, reading: Reading<'_>) -> Result<Option<RowCount>, StageError> {
    match kind {
        Kind::Sample(params) => sample::count_rows(params, reading),
        Kind::Score(params) => score::count_rows(params, reading),
        Kind::Evaluate(params) => evaluate::count_rows(params, reading),
        Kind::Train(params) => train::count_rows(params, reading),
        Kind::Ingest(_) | Kind::Pair(_) | Kind::Sql(_) => Ok(None),
    }
}

impl std::ops::AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        let Self { n, n_tokens, seconds } = other;
        self.n += n;
        self.n_tokens += n_tokens;
        self.seconds += seconds;
    }
}

impl std::iter::Sum for RowCount {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        let zero = Self { n_rows: 0, n_known: 0 };
        counts.fold(zero, |sum, one| Self { n_rows: sum.n_rows + one.n_rows, n_known: sum.n_known + one.n_known })
    }
}

impl Device {
    /// The CPU in f32.
    pub const CPU: Self = Self { place: Place::Cpu, precision: Precision::F32 };

    /// The family of arithmetic, e.g. `cpu-f32`: two of them give different digits, two devices of one family do not.
    pub const fn numerics(self) -> &'static str {
        match (self.place, self.precision) {
            (Place::Cpu, Precision::F32) => "cpu-f32",
            (Place::Cpu, Precision::Bf16) => "cpu-bf16",
            (Place::Cuda { .. }, Precision::F32) => "cuda-f32",
            (Place::Cuda { .. }, Precision::Bf16) => "cuda-bf16",
        }
    }
}

impl Progress {
    /// Rows of a table stage.
    pub fn rows(done: u64, total: Option<u64>) -> Self {
        Self { unit: Unit::Rows, done, total, n_tokens: 0, loss: None }
    }
}

impl Produced {
    /// No metrics and no facts yet.
    pub fn new(outputs: Vec<Output>) -> Self {
        let n_rows = outputs.first().and_then(Output::n_rows).unwrap_or(0);
        Self {
            outputs,
            n_rows,
            metrics: BTreeMap::new(),
            facts: BTreeMap::new(),
            n_rows_reused: 0,
            n_steps_resumed: 0,
            done: None,
        }
    }

    pub fn with_metrics<'m>(mut self, metrics: impl IntoIterator<Item = (&'m str, f64)>) -> Self {
        self.metrics.extend(metrics.into_iter().map(|(name, value)| (name.to_owned(), value)));
        self
    }
}

impl<'a> Reading<'a> {
    /// Whether an input is there. One that a stage is yet to make is not.
    pub fn has(&self, role: &str) -> bool {
        self.inputs.iter().any(|input| input.role == role)
    }

    /// The stored table of a role.
    pub fn output(&self, role: &str) -> Result<&'a Output, StageError> {
        match &self.input(role)?.data {
            InputData::Table(output) => Ok(output),
            InputData::Model { .. } => Err(StageError::WrongInput { role: role.to_owned(), expected: "a table" }),
        }
    }

    /// All rows of the table of a role.
    pub fn table(&self, role: &str) -> Result<Vec<RecordBatch>, StageError> {
        let output = self.output(role)?;
        self.store.read_table(output).map_err(|source| StageError::ReadInput { role: role.to_owned(), source })
    }

    /// The folder and the digest of the model of a role.
    pub fn model(&self, role: &str) -> Result<(&'a Path, ModelDigest), StageError> {
        match &self.input(role)?.data {
            InputData::Model { folder, digest } => Ok((folder, *digest)),
            InputData::Table(_) => Err(StageError::WrongInput { role: role.to_owned(), expected: "a model" }),
        }
    }

    fn input(&self, role: &str) -> Result<&'a StageInput, StageError> {
        let found = self.inputs.iter().find(|input| input.role == role);
        found.ok_or_else(|| StageError::MissingInput { role: role.to_owned() })
    }
}

impl StageContext<'_> {
    /// The part of it that a stage reads.
    pub fn reading(&self) -> Reading<'_> {
        Reading { store: self.store, inputs: self.inputs, device: self.device }
    }

    /// The stored table of a role.
    pub fn output(&self, role: &str) -> Result<&Output, StageError> {
        self.reading().output(role)
    }

    /// All rows of the table of a role.
    pub fn table(&self, role: &str) -> Result<Vec<RecordBatch>, StageError> {
        self.reading().table(role)
    }

    /// The folder and the digest of the model of a role.
    pub fn model(&self, role: &str) -> Result<(&Path, ModelDigest), StageError> {
        self.reading().model(role)
    }

    /// Writes one output table.
    pub fn write_table(
        &self,
        name: &str,
        schema: SchemaRef,
        batches: impl IntoIterator<Item = Result<RecordBatch, StageError>>,
    ) -> Result<Output, StageError> {
        let failed = |source| StageError::WriteOutput { table: name.to_owned(), source };
        let mut writer = self.attempt.write_table(name, schema).map_err(failed)?;
        for batch in batches {
            self.stop_if_cancelled()?;
            writer.write(&batch?).map_err(failed)?;
        }
        let table = writer.finish().map_err(failed)?;
        Ok(Output { name: name.to_owned(), artifact: Artifact::Table(table) })
    }

    /// Reports progress; the caller decides how much of it is shown.
    pub fn report(&self, progress: Progress) {
        (self.progress)(progress);
    }

    /// Tells something that is good to know.
    pub fn note(&self, text: impl Into<String>) {
        (self.notify)(Notice { level: NoticeLevel::Note, text: text.into() });
    }

    /// Tells something that may be other than the user thinks.
    pub fn warn(&self, text: impl Into<String>) {
        (self.notify)(Notice { level: NoticeLevel::Warning, text: text.into() });
    }

    /// To be asked between any two pieces of work that take longer than a blink.
    pub fn stop_if_cancelled(&self) -> Result<(), StageError> {
        if self.cancel.load(Ordering::Relaxed) { Err(StageError::Cancelled) } else { Ok(()) }
    }
}
