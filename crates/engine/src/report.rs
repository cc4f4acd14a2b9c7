//! What a run came to: the object `run --json` ends with. It owns the form, and refuses to decide anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use sluice_spec::StageName;
use sluice_store::{Notice, Outcome, Record, RunId, StageKey};

use crate::cell::CellInfo;
use crate::compare::Comparison;
use crate::event::as_text;
use crate::runner::{Progress, StageFailure};
use crate::testing::TestReport;

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// Its number; none when the store is read-only.
    pub run: Option<RunId>,
    /// The pipeline's name.
    pub pipeline: String,
    /// `hit` when nothing had to be done, `ran`, `failed` or `interrupted`.
    pub outcome: Outcome,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// The wanted stages, in plan order.
    pub stages: Vec<StageReport>,
    /// The numbers of all stages with a result, as `STAGE.METRIC`.
    pub metrics: BTreeMap<String, f64>,
    /// The cells of each matrix side by side, where they differ in what they report.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub comparisons: Vec<Comparison>,
}

/// The result of one stage of a run.
#[derive(Debug, Clone, Serialize)]
pub struct StageReport {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub name: StageName,
    /// Its kind.
    pub kind: &'static str,
    /// Which cell of a matrix it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cell: Option<CellInfo>,
    /// How it ended.
    pub state: Outcome,
    /// Rows of its first table.
    pub rows: Option<u64>,
    /// Rows taken from earlier results, when it ran.
    pub rows_reused: u64,
    /// Wall-clock seconds it took in this run: 0 for a hit.
    pub seconds: f64,
    /// Seconds it was expected to take when the run began, if anything told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted_seconds: Option<f64>,
    /// Logical digest of its first output.
    pub digest: Option<String>,
    /// Its key, if all of its inputs were known.
    pub key: Option<StageKey>,
    /// Why it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What came of computing it although it had a result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recomputed: Option<Recomputed>,
    /// What went wrong, or which stage blocks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How far it was when the user stopped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What it told in this run: warnings and notes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
    /// How its data tests came out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<TestReport>,
    /// The failure itself, for whoever shows it with its causes.
    #[serde(skip)]
    pub failure: Option<Arc<StageFailure>>,
    /// The record, if it has a result.
    #[serde(skip)]
    pub record: Option<Arc<Record>>,
}

/// What a stage took over from before instead of computing it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reused {
    /// Rows of earlier results.
    pub n_rows: u64,
    /// Steps of a training that was stopped.
    pub n_steps: u64,
}

impl Reused {
    pub fn is_any(self) -> bool {
        self != Self::default()
    }
}

/// How a result compares with the one that its key had before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Recomputed {
    /// Rows and weights are the same.
    Same,
    /// They are not. The first result stays.
    Differs {
        /// The file that holds the record of the other.
        evidence: PathBuf,
    },
}

impl RunReport {
    /// The report of one stage.
    pub fn stage(&self, name: &str) -> Option<&StageReport> {
        self.stages.iter().find(|stage| stage.name.as_str() == name)
    }

    /// Sum the stages up.
    pub(crate) fn new(
        run: Option<RunId>,
        pipeline: String,
        seconds: f64,
        stages: Vec<StageReport>,
        comparisons: Vec<Comparison>,
    ) -> Self {
        let outcome = run_outcome(&stages);
        let metrics = stages
            .iter()
            .filter_map(|stage| Some((stage, stage.record.as_ref()?)))
            .flat_map(|(stage, record)| {
                record.metrics.iter().map(move |(name, value)| (format!("{}.{name}", stage.name), *value))
            })
            .collect();
        Self { run, pipeline, outcome, seconds, stages, metrics, comparisons }
    }
}

fn run_outcome(stages: &[StageReport]) -> Outcome {
    let any = |outcome: Outcome| stages.iter().any(|stage| stage.state == outcome);
    if any(Outcome::Failed) {
        Outcome::Failed
    } else if any(Outcome::Interrupted) {
        Outcome::Interrupted
    } else if any(Outcome::Ran) || any(Outcome::Partial) {
        Outcome::Ran
    } else {
        Outcome::Hit
    }
}

/// Rows of a record's first table.
pub(crate) fn rows(record: &Record) -> Option<u64> {
    record.outputs.iter().find_map(|output| output.n_rows())
}

/// Logical digest of a record's first output.
pub(crate) fn digest(record: &Record) -> Option<String> {
    record.outputs.first().map(|output| output.digest())
}
