//! What trainings would take of memory, counted from the descriptions of the models they start from. Owns the way from a
//! stage to that description; the counting is crate `train`'s.

use std::collections::HashMap;

use sluice_lm::config::Config;
use sluice_spec::stage::Kind;
use sluice_spec::{Pipeline, Source, Stage, StageName};
use sluice_stages::train::memory;

use crate::session::Project;

/// The models of a project, each opened once.
pub struct Models<'p> {
    project: &'p Project,
    configs: HashMap<Source, Option<Config>>,
}

impl<'p> Models<'p> {
    pub fn of(project: &'p Project) -> Self {
        Self { project, configs: HashMap::new() }
    }

    /// Bytes that a training holds at its fullest; none for a stage that trains nothing, and while the model it starts from
    /// is not there to be looked at.
    pub fn training_bytes(&mut self, stage: &StageName) -> Option<u64> {
        let pipeline = self.project.plan.pipeline();
        let stage = pipeline.stage(stage)?;
        let Kind::Train(params) = &stage.kind else { return None };
        let project = self.project;
        let source = origin(pipeline, stage)?;
        let config = self.configs.entry(source).or_insert_with_key(|source| match source {
            Source::Model(name) => project.wire.open_model(&pipeline.model(name)?.location).ok(),
            Source::Folder(folder) => project.wire.open_config(folder).ok(),
            Source::Stage(_) | Source::Files(_) => None,
        });
        Some(memory(params, config.as_ref()?, project.wire.device))
    }
}

/// The model outside of the pipeline whose sizes a training has: a model that is trained keeps its sizes.
fn origin(pipeline: &Pipeline, stage: &Stage) -> Option<Source> {
    let start = stage.kind.inputs().into_iter().find(|input| input.role == "model")?;
    match &start.source {
        Source::Stage(read) => origin(pipeline, pipeline.stage(&read.stage)?),
        _ => Some(start.source),
    }
}
