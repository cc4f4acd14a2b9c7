//! From a stage and the records of what it reads to its key, and from the key to a record or a reason to run.
//! It reads records, never tables, and digests each source outside the store once.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_spec::{Pipeline, Source, Stage, StageName};
use sluice_store::{Leaf, Lookup, Record, StageKey, Store, StoreError};

use crate::history::History;
use crate::key::{self, InputDigest, Numerics, derive_key};
use crate::reason::{LeafChange, Reason, compare_leaves};
use crate::runner::{Given, JobInput, StageFailure, StageRunner};

/// A stage whose inputs are all known.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub key: StageKey,
    pub leaves: Vec<Leaf>,
    pub inputs: Vec<JobInput>,
}

/// What is known of a stage some of whose inputs are not there.
pub(crate) struct Known {
    pub leaves: Vec<Leaf>,
    pub inputs: Vec<JobInput>,
}

/// Whether a resolved stage has a result.
pub(crate) enum Answer {
    Hit(Arc<Record>),
    Run(Reason),
}

pub(crate) struct Resolver<'a> {
    pub store: &'a Store,
    pub pipeline: &'a Pipeline,
    pub runner: &'a dyn StageRunner,
    pub numerics: &'a Numerics,
    pub history: History<'a>,
    /// What lies outside the store, found once.
    outside: HashMap<Source, Given>,
}

impl<'a> Resolver<'a> {
    pub fn new(
        store: &'a Store,
        pipeline: &'a Pipeline,
        runner: &'a dyn StageRunner,
        numerics: &'a Numerics,
        history: History<'a>,
    ) -> Self {
        Self { store, pipeline, runner, numerics, history, outside: HashMap::new() }
    }

    /// The key of a stage, given the record of every stage it reads.
    pub fn resolve(
        &mut self,
        stage: &Stage,
        record_of: impl Fn(&StageName) -> Option<Arc<Record>>,
    ) -> Result<Resolved, StageFailure> {
        let mut inputs = Vec::new();
        let mut digests = Vec::new();
        for input in stage.kind.inputs() {
            let given = self.given(&input.source, &record_of)?;
            digests.push(InputDigest { role: input.role.clone(), hex: given.digest(), place: input.place });
            inputs.push(JobInput { role: input.role, given });
        }
        let leaves = key::leaves(stage, &self.pipeline.sources, self.numerics, &digests);
        Ok(Resolved { key: derive_key(&leaves), leaves, inputs })
    }

    /// The record of a resolved stage, or why it has to run.
    pub fn answer(&self, stage: &Stage, resolved: &Resolved) -> Result<Answer, StoreError> {
        Ok(match self.store.inspect(resolved.key)? {
            Lookup::Hit(record) => Answer::Hit(Arc::new(record)),
            Lookup::Incomplete { output, .. } => Answer::Run(Reason::OutputGone { output }),
            Lookup::Damaged(_) => Answer::Run(Reason::RecordDamaged),
            Lookup::Absent => Answer::Run(match self.history.last(&stage.name, None)? {
                None => Reason::NeverRan,
                Some(earlier) => Reason::Changed(compare_leaves(&earlier.record.leaves, &resolved.leaves)),
            }),
        })
    }

    /// What has changed since a stage's last record in all that is known of its key; none if it has no record.
    pub fn known_changes(
        &mut self,
        stage: &Stage,
        record_of: impl Fn(&StageName) -> Option<Arc<Record>>,
    ) -> Result<Option<Vec<LeafChange>>, StoreError> {
        let Some(mut earlier) = self.history.last(&stage.name, None)? else { return Ok(None) };
        let known = self.known(stage, record_of).leaves;
        let is_known = |path: &str| known.iter().any(|leaf| leaf.path == path);
        let is_read = |role: &str| stage.kind.inputs().iter().any(|input| input.role == role);
        earlier.record.leaves.retain(|leaf| match leaf.path.strip_prefix(key::INPUT) {
            Some(role) => is_known(&leaf.path) || !is_read(role),
            None => true,
        });
        Ok(Some(compare_leaves(&earlier.record.leaves, &known)))
    }

    /// The leaves and inputs of a stage but for the inputs that are not there yet, or cannot be read: that is told when it
    /// runs.
    pub fn known(&mut self, stage: &Stage, record_of: impl Fn(&StageName) -> Option<Arc<Record>>) -> Known {
        let (mut digests, mut inputs) = (Vec::new(), Vec::new());
        for input in stage.kind.inputs() {
            if let Ok(given) = self.given(&input.source, &record_of) {
                digests.push(InputDigest { role: input.role.clone(), hex: given.digest(), place: input.place });
                inputs.push(JobInput { role: input.role, given });
            }
        }
        Known { leaves: key::leaves(stage, &self.pipeline.sources, self.numerics, &digests), inputs }
    }

    fn given(
        &mut self,
        source: &Source,
        record_of: impl Fn(&StageName) -> Option<Arc<Record>>,
    ) -> Result<Given, StageFailure> {
        if let Some(given) = self.outside.get(source) {
            return Ok(given.clone());
        }
        let given = match source {
            Source::Stage(read) => {
                let output = read.product.name();
                let absent = || StageFailure::NoOutput { stage: read.stage.clone(), output };
                let record = record_of(&read.stage).ok_or_else(absent)?;
                let output = record.output(output).ok_or_else(absent)?.clone();
                return Ok(Given::Output { stage: read.stage.clone(), record, output });
            }
            Source::Files(patterns) => {
                let digest = self.runner.files_digest(patterns)?;
                Given::Files { patterns: patterns.clone(), digest }
            }
            Source::Folder(folder) => {
                let digest = self.runner.config_digest(folder)?;
                Given::Config { folder: folder.clone(), digest }
            }
            Source::Model(name) => {
                let model = self.pipeline.model(name).ok_or_else(|| StageFailure::NoModel { name: name.clone() })?;
                let digest = self.runner.model_digest(&model.location)?;
                Given::Model { name: name.clone(), location: model.location.clone(), digest }
            }
        };
        self.outside.insert(source.clone(), given.clone());
        Ok(given)
    }
}
