//! Run manifests: which run had which key for which name. They are history, not truth: losing one loses an
//! explanation, never a result, so writing one costs no sync. They also say what is worth keeping: what no manifest
//! names, `gc` may take away.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::StageKey;
use crate::disk::{self, Put};
use crate::error::StoreError;
use crate::layout::Layout;
use crate::lock::{RunLock, StoreLock};
use crate::sealed::{self, Form};

/// Version of a manifest's form. Version 1 had neither a seal nor `program`, `set` and `targets`, which are read as
/// absent; programs of its time read version 2 as far as they know it.
pub const RUN_SCHEMA_VERSION: u32 = 2;

const FORM: Form = Form { what: "run manifest", sealed_since: 2, supported: RUN_SCHEMA_VERSION };

/// The number of a run in its store, counted from 1; written `r17`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u32);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// A text that should be a run id and is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a run: `r` and a number are expected, e.g. `r17`")]
pub struct RunIdError {
    text: String,
}

impl FromStr for RunId {
    type Err = RunIdError;

    fn from_str(text: &str) -> Result<Self, RunIdError> {
        text.strip_prefix('r')
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| RunIdError { text: text.to_owned() })
    }
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How a run, or one stage of it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not over; in the manifest of a dead run: where it stood.
    Running,
    /// Nothing had to be done.
    Hit,
    /// Computed.
    Ran,
    /// Computed, with some rows from earlier.
    Partial,
    /// Ended with an error.
    Failed,
    /// Not begun, because something it reads failed.
    Blocked,
    /// Stopped by the user.
    Interrupted,
}

/// How a data test of a stage came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestOutcome {
    /// What must hold holds.
    Passed,
    /// It does not, and that is only told.
    Warned,
    /// It does not, and what reads the stage did not run.
    Failed,
    /// It could not be found out.
    Broken,
}

/// The manifest of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunManifest {
    /// [`RUN_SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// This run.
    pub run: RunId,
    /// The pipeline's name.
    pub pipeline: String,
    /// The chosen profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The version of the program that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// What was put into the pipeline file on the command line, as `PATH=VALUE`. The records have what came of it;
    /// this is how to do it again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// The stages that were asked for; empty when all were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Milliseconds since 1970 by the caller's clock.
    pub started_unix_ms: u64,
    /// Wall-clock seconds so far.
    pub seconds: f64,
    /// How it ended.
    pub outcome: Outcome,
    /// One entry a stage, in plan order.
    pub stages: Vec<RunStage>,
}

/// One stage of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStage {
    /// The stage's name in the pipeline.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Its key, once derived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<StageKey>,
    /// Its data tests. Readers before there were any pass over them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<RunTest>,
}

/// One data test of a stage of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunTest {
    /// The test's name in its stage.
    pub name: String,
    /// How it came out.
    pub outcome: TestOutcome,
    /// The key of the record that has its outcome and the rows at fault; there is none for a broken one.
    pub key: StageKey,
}

impl RunManifest {
    /// The key a stage had in this run.
    pub fn key_of(&self, stage: &str) -> Option<StageKey> {
        self.stages.iter().find(|entry| entry.name == stage)?.key
    }
}

/// Take the next free run number with a manifest that `make` builds for it. The lock says that the run is alive; it is
/// there before the manifest is, so that nobody takes the run for dead.
pub(crate) fn begin(
    layout: &Layout,
    make: impl Fn(RunId) -> RunManifest,
) -> Result<(RunManifest, RunLock), StoreError> {
    layout.create()?;
    let _entered = StoreLock::shared(layout)?;
    let mut run = RunId(list(layout)?.last().map_or(1, |last| last.0 + 1));
    loop {
        if let Some(lock) = RunLock::take(layout, run)? {
            let manifest = make(run);
            let path = layout.run(run);
            if disk::claim(&path, &sealed::encode(&path, &manifest)?)? == Put::Created {
                return Ok((manifest, lock));
            }
        }
        run.0 += 1;
    }
}

pub(crate) fn update(layout: &Layout, manifest: &RunManifest) -> Result<(), StoreError> {
    let path = layout.run(manifest.run);
    disk::replace(&path, &sealed::encode(&path, manifest)?)
}

/// The manifest of a run, or `None` if there is no such run.
pub(crate) fn get(layout: &Layout, run: RunId) -> Result<Option<RunManifest>, StoreError> {
    let path = layout.run(run);
    disk::get(&path)?.map(|bytes| from_bytes(&path, &bytes)).transpose()
}

/// The manifest in a file at `path`, checked.
pub(crate) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<RunManifest, StoreError> {
    sealed::decode(path, bytes, &FORM)
}

/// All runs, oldest first.
pub(crate) fn list(layout: &Layout) -> Result<Vec<RunId>, StoreError> {
    let names = disk::list(&layout.runs())?;
    let mut runs: Vec<RunId> =
        names.iter().filter_map(|name| name.strip_suffix(".json")).filter_map(|name| name.parse().ok()).collect();
    runs.sort();
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_is_r_and_a_number() {
        assert_eq!("r17".parse::<RunId>().map(|run| run.to_string()), Ok("r17".to_owned()));
        assert!("17".parse::<RunId>().is_err());
    }
}
