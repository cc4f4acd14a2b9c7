//! Earlier runs of a store, newest first: which key a stage had then. Manifests are read one after the other, only as far
//! back as somebody asks, and each once. It refuses to judge what differs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use sluice_spec::StageName;
use sluice_store::{Record, RunId, RunManifest, RunStage, StageKey, Store, StoreError};

/// How many runs are looked through. Older ones are history, not an explanation.
const DEPTH: usize = 100;
/// How many stages of runs are: a hundred runs of a large matrix would take longer to read than the plan.
const ENTRIES: usize = 20_000;

/// The history of one pipeline, and of the store it shares with others.
pub struct History<'a> {
    store: &'a Store,
    pipeline: &'a str,
    read: RefCell<Read>,
}

/// What has been read so far.
#[derive(Default)]
struct Read {
    /// The runs that have not been, the newest last; none before the first question.
    waiting: Option<Vec<RunId>>,
    runs: Vec<Rc<Past>>,
    n_entries: usize,
}

/// An earlier run, of whatever pipeline.
pub(crate) struct Past {
    pub manifest: RunManifest,
    by_name: HashMap<String, usize>,
}

/// The record a stage had in an earlier run.
#[derive(Debug, Clone)]
pub struct Earlier {
    /// The run.
    pub run: RunId,
    /// What it had.
    pub record: Record,
}

impl Past {
    fn new(manifest: RunManifest) -> Self {
        let by_name = manifest.stages.iter().enumerate().map(|(at, entry)| (entry.name.clone(), at)).collect();
        Self { manifest, by_name }
    }

    /// A stage of the run.
    pub fn entry(&self, stage: &str) -> Option<&RunStage> {
        self.by_name.get(stage).map(|at| &self.manifest.stages[*at])
    }
}

impl<'a> History<'a> {
    /// Of the pipeline with this name.
    pub fn new(store: &'a Store, pipeline: &'a str) -> Self {
        Self { store, pipeline, read: RefCell::default() }
    }

    /// The name of the pipeline whose history this is.
    pub(crate) fn pipeline(&self) -> &'a str {
        self.pipeline
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
        for past in self.runs() {
            let past = past?;
            let key = past.entry(stage.as_str()).and_then(|entry| entry.key);
            if let Some(key) = key.filter(|_| past.manifest.pipeline == self.pipeline)
                && let Some(record) = record(key)?
            {
                return Ok(Some(Earlier { run: past.manifest.run, record }));
            }
        }
        Ok(None)
    }

    /// The runs of all pipelines of the store, the newest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Result<Rc<Past>, StoreError>> + '_ {
        (0..).map_while(|at| self.run(at).transpose())
    }

    /// The run that is `at` runs back.
    fn run(&self, at: usize) -> Result<Option<Rc<Past>>, StoreError> {
        let mut read = self.read.borrow_mut();
        while read.runs.len() <= at {
            if read.waiting.is_none() {
                let runs = self.store.runs()?;
                read.waiting = Some(runs[runs.len().saturating_sub(DEPTH)..].to_vec());
            }
            let is_full = read.n_entries >= ENTRIES;
            let Some(next) = read.waiting.as_mut().and_then(Vec::pop).filter(|_| !is_full) else { return Ok(None) };
            // A manifest of a run that is just being removed, or that does not read, is no history.
            if let Ok(Some(manifest)) = self.store.run(next) {
                read.n_entries += manifest.stages.len();
                read.runs.push(Rc::new(Past::new(manifest)));
            }
        }
        Ok(read.runs.get(at).cloned())
    }
}
