//! Which stage a key was of, as far as manifests tell: for messages about files that are named by digests. It refuses to
//! decide anything.

use std::collections::HashMap;

use crate::digest::StageKey;
use crate::runs::{RunId, RunManifest};

/// The stage and the newest run of each key.
#[derive(Default)]
pub(crate) struct Names(HashMap<StageKey, (String, RunId)>);

impl Names {
    /// Takes up the keys of a run.
    pub fn take(&mut self, manifest: &RunManifest) {
        for stage in &manifest.stages {
            let Some(key) = stage.key else { continue };
            let is_newer = self.0.get(&key).is_none_or(|(_, run)| *run < manifest.run);
            if is_newer {
                self.0.insert(key, (stage.name.clone(), manifest.run));
            }
        }
    }

    /// The stage that had a key.
    pub fn stage(&self, key: StageKey) -> Option<&str> {
        self.0.get(&key).map(|(name, _)| name.as_str())
    }

    /// The newest run that named a key.
    pub fn run(&self, key: StageKey) -> Option<RunId> {
        self.0.get(&key).map(|(_, run)| *run)
    }
}
