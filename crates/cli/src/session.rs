//! One call of the program over a pipeline: the store, the plan and the engine put together. Owns the wiring that all
//! pipeline verbs share; each verb does one thing with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum as _;
use sluice_engine::{Earlier, Engine, EngineError, History, PlanState};
use sluice_plan::Plan;
use sluice_spec::StageName;
use sluice_store::{Record, RunId, RunManifest, Store, StoreError};

use crate::args::Global;
use crate::device;
use crate::exit::{Exit, Failure};
use crate::pipeline_file;
use crate::wire::{Wire, exit_of_store};
use crate::world::{World, now_unix_ms};

/// How many runs are looked through for one of a pipeline.
const DEPTH: usize = 100;

/// What the pipeline verbs share.
pub struct Session {
    pub global: Global,
    pub world: World,
    pub store: Store,
}

/// A pipeline, ready to be asked or run.
pub struct Project {
    pub plan: Plan,
    /// The pipeline's name in the store's history.
    pub name: String,
    /// The file, when the command line names it.
    pub named: Option<PathBuf>,
    pub wire: Wire,
}

/// The last result of a stage.
#[derive(Clone)]
pub struct Found {
    pub stage: StageName,
    pub record: Arc<Record>,
    /// The run it is of, when the pipeline has changed since.
    pub stale: Option<RunId>,
}

impl Session {
    /// Opens the store; nothing is written.
    pub fn open(global: Global, world: World) -> Result<Session, Failure> {
        if !world.project.is_dir() {
            return Err(Failure::usage(format!("there is no project folder {}", world.project.display())));
        }
        let store = Store::open(&world.store).map_err(store_failure)?;
        Ok(Session { global, world, store })
    }

    /// The pipeline that the words of a verb name, and the other words.
    pub fn project<'w>(&self, words: &'w [String]) -> Result<(Project, &'w [String]), Failure> {
        let (file, rest) = pipeline_file::split(words);
        let named = file.or_else(|| self.global.pipeline.clone());
        let pipeline = pipeline_file::load(named.clone(), &self.global, &self.world, &self.store)?;
        let name = pipeline.sources.name().to_owned();
        let device = device::chosen(&self.global, pipeline.dtype);
        let plan = sluice_plan::plan(pipeline).map_err(|faults| Failure::new(Exit::Usage, faults))?;
        let wire = Wire::new(&self.world.project, &self.store, device, &self.world.hub);
        Ok((Project { plan, name, named, wire }, rest))
    }

    /// The engine over a project.
    pub fn engine<'a>(&'a self, project: &'a Project) -> Engine<'a> {
        Engine {
            plan: &project.plan,
            store: &self.store,
            runner: &project.wire,
            numerics: &project.wire.numerics,
            pipeline: &project.name,
            clock: now_unix_ms,
        }
    }

    /// The result of every stage that has one: of the pipeline as it is, or else of the last run that had one.
    pub fn results(&self, project: &Project) -> Result<Vec<Found>, Failure> {
        let mut found = Vec::new();
        let history = History::new(&self.store, &project.name);
        for planned in self.engine(project).plan_states(&[]).map_err(engine_failure)? {
            if let PlanState::Hit { record, .. } = planned.state {
                found.push(Found { stage: planned.name, record, stale: None });
            } else if let Some(Earlier { run, record }) = history.last_result(&planned.name).map_err(store_failure)? {
                found.push(Found { stage: planned.name, record: Arc::new(record), stale: Some(run) });
            }
        }
        Ok(found)
    }

    /// The manifest of the last run of a pipeline.
    pub fn last_run(&self, pipeline: &str) -> Result<Option<RunManifest>, StoreError> {
        let runs = self.store.runs()?.into_iter().rev().take(DEPTH);
        Ok(runs.filter_map(|run| self.store.run(run).ok()?).find(|manifest| manifest.pipeline == pipeline))
    }

    /// The manifests of the runs of a pipeline that are going on, the youngest first.
    pub fn living_runs(&self, pipeline: &str) -> Result<Vec<RunManifest>, StoreError> {
        let alive = self.store.runs()?.into_iter().rev().take(DEPTH).filter(|run| self.store.is_alive(*run));
        let manifests = alive.filter_map(|run| self.store.run(run).ok()?);
        Ok(manifests.filter(|manifest| manifest.pipeline == pipeline).collect())
    }

    /// A command of this program that works as printed: with the options this call had. `file` is left out where the
    /// rule for the usual file finds it.
    pub fn command(&self, rest: &str, file: Option<&Path>) -> String {
        let mut words = vec![self.world.command.clone(), rest.to_owned()];
        let Global { project, store, profile, set, dtype, limit, .. } = &self.global;
        let path = |path: &Path| quoted(&path.display().to_string());
        words.extend(project.iter().map(|folder| format!("--project {}", path(folder))));
        words.extend(store.iter().map(|folder| format!("--store {}", path(folder))));
        words.extend(file.iter().map(|file| format!("-p {}", path(file))));
        words.extend(profile.iter().map(|profile| format!("--profile {}", quoted(profile))));
        words.extend(set.iter().map(|set| format!("--set {}", quoted(set))));
        words.extend(
            dtype.iter().filter_map(|dtype| Some(format!("--dtype {}", dtype.to_possible_value()?.get_name()))),
        );
        words.extend(limit.iter().map(|limit| format!("--limit {limit}")));
        words.join(" ")
    }
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@,%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The store refused.
pub fn store_failure(error: StoreError) -> Failure {
    Failure::new(exit_of_store(&error), error)
}

/// The engine refused.
pub fn engine_failure(error: EngineError) -> Failure {
    match error {
        EngineError::Store(error) => store_failure(error),
        EngineError::UnknownStage { .. } => Failure::new(Exit::Usage, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_when_a_shell_would_take_them_apart() {
        for (word, expected) in
            [("params.seed=1", "params.seed=1"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("", "''")]
        {
            assert_eq!(quoted(word), expected);
        }
    }
}
