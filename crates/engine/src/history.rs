//! Earlier runs of a pipeline, newest first: which key a stage had then. It reads manifests only when somebody
//! asks why, and refuses to judge what differs.

use std::cell::OnceCell;

use sluice_spec::StageName;
use sluice_store::{Record, RunId, RunManifest, StageKey, Store, StoreError};

/// How many runs are looked through for a stage's last record. Older ones are history, not an explanation.
const DEPTH: usize = 100;

/// The history of one pipeline in a store.
pub(crate) struct History<'a> {
    store: &'a Store,
    pipeline: &'a str,
    manifests: OnceCell<Vec<RunManifest>>,
}

/// The record a stage had in an earlier run.
#[derive(Debug, Clone)]
pub(crate) struct Earlier {
    pub run: RunId,
    pub record: Record,
}

impl<'a> History<'a> {
    pub fn new(store: &'a Store, pipeline: &'a str) -> Self {
        Self { store, pipeline, manifests: OnceCell::new() }
    }

    /// The most recent earlier record of a stage, other than the one of `except`.
    pub fn last(&self, stage: &StageName, except: Option<StageKey>) -> Result<Option<Earlier>, StoreError> {
        for manifest in self.manifests()? {
            let Some(key) = manifest.key_of(stage.as_str()).filter(|key| Some(*key) != except) else { continue };
            // A run that failed or died has keys without a record, and a damaged record explains nothing.
            if let Ok(Some(record)) = self.store.record(key) {
                return Ok(Some(Earlier { run: manifest.run, record }));
            }
        }
        Ok(None)
    }

    fn manifests(&self) -> Result<&[RunManifest], StoreError> {
        if let Some(manifests) = self.manifests.get() {
            return Ok(manifests);
        }
        let mut found = Vec::new();
        for run in self.store.runs()?.into_iter().rev().take(DEPTH) {
            // A manifest of a run that is just being removed, or that does not read, is no history.
            if let Ok(Some(manifest)) = self.store.run(run)
                && manifest.pipeline == self.pipeline
            {
                found.push(manifest);
            }
        }
        Ok(self.manifests.get_or_init(|| found))
    }
}
