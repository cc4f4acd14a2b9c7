//! Earlier runs of a pipeline, newest first: which key a stage had then. It reads manifests only when somebody
//! asks, no more of them than the answer needs, and each once; and it refuses to judge what differs.

use std::cell::RefCell;
use std::collections::HashMap;

use sluice_spec::StageName;
use sluice_store::{Record, RunId, StageKey, Store, StoreError};

/// How many runs are looked through for a stage's last record. Older ones are history, not an explanation.
const DEPTH: usize = 100;

/// The history of one pipeline in a store.
pub struct History<'a> {
    store: &'a Store,
    pipeline: &'a str,
    read: RefCell<Read>,
}

/// What has been read of it.
#[derive(Default)]
struct Read {
    /// The keys of each run of the pipeline, newest first.
    runs: Vec<(RunId, HashMap<String, StageKey>)>,
    /// The runs that are not read yet, the newest last; none before the first question.
    unread: Option<Vec<RunId>>,
}

/// The record a stage had in an earlier run.
#[derive(Debug, Clone)]
pub struct Earlier {
    /// The run.
    pub run: RunId,
    /// What it had.
    pub record: Record,
}

impl<'a> History<'a> {
    /// Of the pipeline with this name.
    pub fn new(store: &'a Store, pipeline: &'a str) -> Self {
        Self { store, pipeline, read: RefCell::default() }
    }

    /// The most recent earlier record of a stage, other than the one of `except`. What it made may be gone.
    ///
    /// # Errors
    /// `Io` when the list of runs cannot be read.
    pub fn last(&self, stage: &StageName, except: Option<StageKey>) -> Result<Option<Earlier>, StoreError> {
        // A run that failed or died has keys without a record, and a damaged record explains nothing.
        self.find(stage, |key| Ok(if Some(key) == except { None } else { self.store.record(key).ok().flatten() }))
    }

    /// The most recent earlier result of a stage that is still there.
    ///
    /// # Errors
    /// `Io` when the list of runs, or a record, cannot be read.
    pub fn last_result(&self, stage: &StageName) -> Result<Option<Earlier>, StoreError> {
        self.find(stage, |key| self.store.lookup(key))
    }

    fn find(
        &self,
        stage: &StageName,
        record: impl Fn(StageKey) -> Result<Option<Record>, StoreError>,
    ) -> Result<Option<Earlier>, StoreError> {
        let mut read = self.read.borrow_mut();
        let mut at = 0;
        loop {
            while at >= read.runs.len() {
                if !self.read_next(&mut read)? {
                    return Ok(None);
                }
            }
            let (run, keys) = &read.runs[at];
            if let Some(key) = keys.get(stage.as_str())
                && let Some(record) = record(*key)?
            {
                return Ok(Some(Earlier { run: *run, record }));
            }
            at += 1;
        }
    }

    /// Reads one more manifest; whether there was one.
    fn read_next(&self, read: &mut Read) -> Result<bool, StoreError> {
        if read.unread.is_none() {
            let runs = self.store.runs()?;
            read.unread = Some(runs[runs.len().saturating_sub(DEPTH)..].to_vec());
        }
        let Some(run) = read.unread.as_mut().and_then(Vec::pop) else { return Ok(false) };
        // A manifest of a run that is just being removed, or that does not read, is no history.
        if let Ok(Some(manifest)) = self.store.run(run)
            && manifest.pipeline == self.pipeline
        {
            let keys = manifest.stages.into_iter().filter_map(|stage| Some((stage.name, stage.key?)));
            read.runs.push((run, keys.collect()));
        }
        Ok(true)
    }
}
