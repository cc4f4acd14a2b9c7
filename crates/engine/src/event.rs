//! What happens during a run, as it happens. Events are for whoever shows the run; nothing in the engine
//! depends on them. Their JSON has the name of the event under `event`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use sluice_spec::StageName;
use sluice_store::{Notice, RunId, StageKey};

use crate::cell::CellInfo;
use crate::report::RunReport;
use crate::runner::Progress;
use crate::testing::TestReport;

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run begins with these stages, in this order.
    RunStarted {
        /// Its number; none when the store is read-only.
        run: Option<RunId>,
        /// The pipeline's name.
        pipeline: String,
        /// The stages that are wanted.
        stages: Vec<StageInfo>,
    },
    /// A stage has a result already.
    StageHit {
        /// The stage.
        #[serde(serialize_with = "as_text")]
        stage: StageName,
        /// Its key.
        key: StageKey,
        /// Rows of its first table.
        rows: Option<u64>,
        /// Logical digest of its first output.
        digest: Option<String>,
        /// Seconds it once took.
        saved_seconds: f64,
    },
    /// A stage starts to run.
    StageStarted {
        /// The stage.
        #[serde(serialize_with = "as_text")]
        stage: StageName,
        /// Its key.
        key: StageKey,
        /// Why, in one line.
        reason: String,
    },
    /// A stage waits, because another run is computing the same key.
    StageWaiting {
        /// The stage.
        #[serde(serialize_with = "as_text")]
        stage: StageName,
        /// Its key.
        key: StageKey,
    },
    /// A running stage tells how far it is.
    StageProgress {
        /// The stage.
        #[serde(serialize_with = "as_text")]
        stage: StageName,
        /// How far.
        #[serde(flatten)]
        progress: Progress,
    },
    /// A running stage tells something a user should hear: a warning or a note.
    StageNotice {
        /// The stage.
        #[serde(serialize_with = "as_text")]
        stage: StageName,
        /// What it says: `level` and `text`.
        #[serde(flatten)]
        notice: Notice,
    },
    /// A stage has run and its result is committed.
    StageFinished {
        /// The stage.
        #[serde(serialize_with = "as_text")]
        stage: StageName,
        /// Its key.
        key: StageKey,
        /// Rows of its first table.
        rows: Option<u64>,
        /// Rows taken from earlier results.
        rows_reused: u64,
        /// Wall-clock seconds.
        seconds: f64,
        /// Logical digest of its first output.
        digest: Option<String>,
        /// The numbers it reports.
        metrics: BTreeMap<String, f64>,
    },
    /// The data tests of a stage came out so; some may be known from earlier runs.
    StageTested {
        /// The stage.
        #[serde(serialize_with = "as_text")]
        stage: StageName,
        /// Its tests, its contract first.
        tests: Vec<TestReport>,
    },
    /// A stage ended without a result, or with one that failed a test.
    StageFailed {
        /// The stage.
        #[serde(serialize_with = "as_text")]
        stage: StageName,
        /// What is wrong.
        error: String,
        /// What caused it, outermost first.
        causes: Vec<String>,
    },
    /// A stage stopped, or was not begun, because the user wants to stop.
    StageInterrupted {
        /// The stage.
        #[serde(serialize_with = "as_text")]
        stage: StageName,
    },
    /// A stage cannot run, because something it reads has no result.
    StageBlocked {
        /// The stage.
        #[serde(serialize_with = "as_text")]
        stage: StageName,
        /// The stage that failed.
        #[serde(serialize_with = "as_text")]
        by: StageName,
    },
    /// What a stage made was found damaged by one that reads it. Both run again.
    Damaged {
        /// The stage.
        #[serde(serialize_with = "as_text")]
        stage: StageName,
        /// The output that is damaged.
        output: String,
        /// The file or folder of the store.
        file: String,
    },
    /// A stage gave another result than the one already recorded for its key. The first one stays.
    Diverged {
        /// The stage.
        #[serde(serialize_with = "as_text")]
        stage: StageName,
        /// Its key.
        key: StageKey,
        /// The file that holds the other result's record.
        evidence: PathBuf,
    },
    /// The run is over.
    RunFinished(RunReport),
}

/// A stage of a run, before anything is known about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageInfo {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub name: StageName,
    /// Its kind.
    pub kind: &'static str,
    /// Which cell of a matrix it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cell: Option<CellInfo>,
}

/// Names are text in JSON.
pub(crate) fn as_text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
