//! Joins engine and stages, which do not know each other: digests of what lies outside the store, and one call that
//! runs a stage. Owns the translation between their vocabularies; refuses to know what a kind computes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sluice_engine::{
    Done, Example, Given, Job, JobInput, Likeness, Numerics, Produced, Progress, Recheck, Rechecked, RowCount,
    StageFailure, StageRunner, TestJob, Verdict,
};
use sluice_lm::checkpoint::{Checkpoint, CheckpointError, HubError, HubModel, Snapshot};
use sluice_lm::config::Config;
use sluice_lm::model::{LoadError, check_headers};
use sluice_spec::{KindName, Location, Pipeline, Source, Stage};
use sluice_sql::SqlError;
use sluice_stages::answers::AnswerError;
use sluice_stages::score::JudgeError;
use sluice_stages::test::{TestContext, TestRun, Tested};
use sluice_stages::train::TrainStageError;
use sluice_stages::verify::Verified;
use sluice_stages::{Device, InputData, Reading, StageContext, StageError, StageInput, Unit};
use sluice_store::{Artifact, ContentHash, FolderDigestError, ModelDigest, Output, Store, StoreError};

use crate::exit::Exit;
use crate::hub::{self, Hub};
use crate::world::tidy;

/// Runs the stages of a project.
pub struct Wire {
    project: PathBuf,
    store: Store,
    pub device: Device,
    hub: Hub,
    started: Instant,
    pub numerics: Numerics,
}

/// How the folder of a checkpoint is found.
type CheckpointAt = fn(&Store, &Output) -> Result<PathBuf, StoreError>;

/// What the log-probs of a reference model are counted as.
const REFERENCE_ROWS: &str = "reference rows";

/// The files of a folder that describe a model without weights.
const CONFIG_FILES: [&str; 6] = [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// What lies outside the store and cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    #[error("read the model in {}", folder.display())]
    Model { folder: PathBuf, source: CheckpointError },
    #[error("read the model in {}", folder.display())]
    Unfit { folder: PathBuf, source: LoadError },
    #[error("there is no folder {}, which should hold the model", folder.display())]
    NoFolder { folder: PathBuf },
    #[error("there is no config.json in {}, which should describe a model", folder.display())]
    NoConfig { folder: PathBuf },
}

impl Wire {
    pub fn new(project: &Path, store: &Store, device: Device, hub: &Hub) -> Wire {
        Wire {
            project: project.to_owned(),
            store: store.clone(),
            device,
            hub: hub.clone(),
            started: Instant::now(),
            numerics: Numerics::new(device.numerics()),
        }
    }

    /// Looks whether what a stage reads from outside of the store is there; opens nothing.
    pub fn find(&self, pipeline: &Pipeline, source: &Source) -> Result<(), StageFailure> {
        match source {
            Source::Stage(_) => Ok(()),
            Source::Files(patterns) => {
                sluice_sql::matching(&self.project, patterns).map(drop).map_err(StageFailure::of)
            }
            Source::Folder(folder) => self.config_folder(folder).map(drop),
            Source::Model(name) => {
                pipeline.model(name).map_or(Ok(()), |model| self.model_folder(&model.location).map(drop))
            }
        }
    }

    /// Opens a model as the stages will: everything but the values of its weights. A folder that opened is not opened
    /// again before it changes, so that a run with nothing to do costs a look at its files.
    pub fn open_model(&self, location: &Location) -> Result<Config, StageFailure> {
        let folder = self.model_folder(location)?;
        let open = |folder: &Path| check_headers(&Checkpoint::open(folder)?).map(|()| [0; 32]);
        match self.store.folder_digest(&folder, "model opens v2", open) {
            Ok(_) => {}
            Err(FolderDigestError::Store(error)) => return Err(error.into()),
            Err(FolderDigestError::Compute(source)) => {
                return Err(StageFailure::of(OutsideError::Unfit { folder, source }));
            }
        }
        read_config(&folder).map_err(|source| StageFailure::of(OutsideError::Model { folder, source }))
    }

    /// Opens the configuration of a model that is to have fresh weights.
    pub fn open_config(&self, folder: &str) -> Result<Config, StageFailure> {
        let folder = self.config_folder(folder)?;
        read_config(&folder).map_err(|source| StageFailure::of(OutsideError::Model { folder, source }))
    }

    fn config_folder(&self, folder: &str) -> Result<PathBuf, StageFailure> {
        let folder = tidy(&self.project.join(folder));
        match folder.join("config.json").is_file() {
            true => Ok(folder),
            false => Err(StageFailure::of(OutsideError::NoConfig { folder })),
        }
    }

    fn model_folder(&self, location: &Location) -> Result<PathBuf, StageFailure> {
        let folder = self.folder(location)?;
        match folder.is_dir() {
            true => Ok(folder),
            false => Err(StageFailure::of(OutsideError::NoFolder { folder })),
        }
    }

    fn folder(&self, location: &Location) -> Result<PathBuf, StageFailure> {
        match (hub::model(location), location) {
            (Some(model), _) => self.snapshot(&model).map(|snapshot| snapshot.folder),
            (None, Location::Folder(folder)) => Ok(tidy(&self.project.join(folder))),
            (None, Location::HuggingFace { owner, name, .. }) => {
                Err(StageFailure::of(HubError::Reference { reference: format!("hf://{owner}/{name}") }))
            }
        }
    }

    /// A model of the hub in the local cache. One that can be fetched is no fault; a run does that before anything else.
    fn snapshot(&self, model: &HubModel) -> Result<Snapshot, StageFailure> {
        self.hub.find(model).map_err(|error| match error {
            HubError::Absent { .. } | HubError::Incomplete { .. } if self.hub.fetches() => {
                StageFailure::NotFetched { what: format!("{model} is not in the local cache; a run fetches it") }
            }
            error => StageFailure::of(error),
        })
    }

    /// Which commits the models of a hub are that a stage reads: they are in no key, which has their contents.
    fn commits(&self, inputs: &[JobInput]) -> Vec<(String, String)> {
        let commit = |input: &JobInput| {
            let Given::Model { location, .. } = &input.given else { return None };
            let model = hub::model(location)?;
            let snapshot = self.hub.find(&model).ok()?;
            Some((format!("{}_commit", input.role), format!("{} of hf://{}", snapshot.commit, model.id())))
        };
        inputs.iter().filter_map(commit).collect()
    }

    /// Does something as the stage of a job.
    fn within<T>(
        &self,
        job: &Job<'_>,
        act: impl FnOnce(&StageContext<'_>) -> Result<T, StageError>,
    ) -> Result<T, StageFailure> {
        let inputs = self.stage_inputs(job.inputs, Store::checkpoint_path)?;
        let progress = |progress: sluice_stages::Progress| (job.progress)(engine_progress(progress));
        let context = StageContext {
            project: &self.project,
            store: job.store,
            inputs: &inputs,
            attempt: job.attempt,
            fresh: job.fresh,
            device: self.device,
            progress: &progress,
            notify: &|notice| (job.notify)(notice),
            clock: &|| self.started.elapsed().as_secs_f64(),
            cancel: job.cancel,
        };
        match act(&context) {
            Ok(done) => Ok(done),
            Err(StageError::Cancelled) => Err(StageFailure::Interrupted),
            Err(error) => Err(StageFailure::of(error)),
        }
    }

    /// `checkpoint_at` is where a checkpoint is: checked for who reads its weights, and a place for who only counts.
    fn stage_inputs(&self, inputs: &[JobInput], checkpoint_at: CheckpointAt) -> Result<Vec<StageInput>, StageFailure> {
        let checkpoint_at = |output: &Output| checkpoint_at(&self.store, output);
        inputs.iter().filter_map(|input| self.stage_input(input, &checkpoint_at).transpose()).collect()
    }

    /// What the stages call the inputs they are given. Files they find themselves.
    fn stage_input(
        &self,
        input: &JobInput,
        checkpoint_at: &dyn Fn(&Output) -> Result<PathBuf, StoreError>,
    ) -> Result<Option<StageInput>, StageFailure> {
        let data = match &input.given {
            Given::Output { output, .. } => match &output.artifact {
                Artifact::Table(_) => InputData::Table(output.clone()),
                Artifact::Checkpoint(checkpoint) => {
                    InputData::Model { folder: checkpoint_at(output)?, digest: checkpoint.digest }
                }
            },
            Given::Model { location, digest, .. } => {
                InputData::Model { folder: self.folder(location)?, digest: *digest }
            }
            Given::Config { folder, digest } => InputData::Model {
                folder: self.config_folder(folder)?,
                digest: ModelDigest::from_bytes(*digest.as_bytes()),
            },
            Given::Files { .. } => return Ok(None),
        };
        Ok(Some(StageInput { role: input.role.clone(), data }))
    }
}

fn read_config(folder: &Path) -> Result<Config, CheckpointError> {
    let file = folder.join("config.json");
    let text = fs::read_to_string(&file).map_err(|source| CheckpointError::Read { file: file.clone(), source })?;
    Ok(Config::parse(&text, &file)?.0)
}

impl StageRunner for Wire {
    /// Names without their folders, and contents: where the files lie may change, what they are called is in the rows.
    fn files_digest(&self, patterns: &[String]) -> Result<ContentHash, StageFailure> {
        let files = sluice_sql::matching(&self.project, patterns).map_err(StageFailure::of)?;
        let mut hasher = blake3::Hasher::new_derive_key("sluice files v1");
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
            hasher.update(self.store.file_digest(&file)?.as_bytes());
        }
        Ok(ContentHash::from_bytes(*hasher.finalize().as_bytes()))
    }

    fn files_bytes(&self, patterns: &[String]) -> Result<u64, StageFailure> {
        let files = sluice_sql::matching(&self.project, patterns).map_err(StageFailure::of)?;
        // A file that is just gone has no size; whoever reads it says so.
        Ok(files.iter().filter_map(|file| fs::metadata(file).ok()).map(|found| found.len()).sum())
    }

    fn config_digest(&self, folder: &str) -> Result<ContentHash, StageFailure> {
        let folder = self.config_folder(folder)?;
        let mut hasher = blake3::Hasher::new_derive_key("sluice config folder v1");
        for name in CONFIG_FILES {
            let file = folder.join(name);
            if file.is_file() {
                hasher.update(name.as_bytes()).update(&[0]);
                hasher.update(self.store.file_digest(&file)?.as_bytes());
            }
        }
        Ok(ContentHash::from_bytes(*hasher.finalize().as_bytes()))
    }

    fn model_digest(&self, location: &Location) -> Result<ModelDigest, StageFailure> {
        let folder = self.model_folder(location)?;
        let compute = |folder: &Path| -> Result<[u8; 32], CheckpointError> {
            Ok(Checkpoint::open(folder)?.digest_of_finite()?.0)
        };
        match self.store.folder_digest(&folder, "model digest v1 of finite weights", compute) {
            Ok(digest) => Ok(ModelDigest::from_bytes(digest)),
            Err(FolderDigestError::Store(error)) => Err(error.into()),
            Err(FolderDigestError::Compute(source)) => Err(StageFailure::of(OutsideError::Model { folder, source })),
        }
    }

    fn count_rows(&self, stage: &Stage, inputs: &[JobInput]) -> Result<Option<RowCount>, StageFailure> {
        let inputs = self.stage_inputs(inputs, Store::checkpoint_place)?;
        let reading = Reading { store: &self.store, inputs: &inputs, device: self.device };
        let count = sluice_stages::count_rows(&stage.kind, reading).map_err(StageFailure::of)?;
        let unit = if stage.kind.name() == KindName::Train { REFERENCE_ROWS } else { "rows" };
        Ok(count.map(|count| RowCount { rows: count.n_rows, rows_known: count.n_known, unit }))
    }

    fn test(&self, job: &TestJob<'_>) -> Result<Vec<Result<Verdict, StageFailure>>, StageFailure> {
        let tests = job.tests.iter();
        let runs: Vec<TestRun<'_>> =
            tests.map(|sluice_engine::TestRun { test, tables, attempt }| TestRun { test, tables, attempt }).collect();
        let context = TestContext { store: job.store, record: job.record, cancel: job.cancel };
        let verdict = |tested| match tested {
            Ok(Tested { n_failed, rows, found }) => Ok(Verdict { n_failed, rows, found }),
            Err(StageError::Cancelled) => Err(StageFailure::Interrupted),
            Err(error) => Err(StageFailure::of(error)),
        };
        Ok(sluice_stages::test::run(&runs, &context).into_iter().map(verdict).collect())
    }

    fn run(&self, job: &Job<'_>) -> Result<Produced, StageFailure> {
        let produced = self.within(job, |context| sluice_stages::run(&job.stage.kind, context))?;
        let mut produced = engine_produced(produced);
        produced.facts.extend(self.commits(job.inputs));
        Ok(produced)
    }

    fn verify(&self, recheck: &Recheck<'_>) -> Result<Rechecked, StageFailure> {
        let Recheck { job, record, rows, is_foreign } = recheck;
        let again = sluice_stages::verify::Recheck { stored: &record.outputs, rows, is_foreign: *is_foreign };
        let verified = self.within(job, |context| sluice_stages::verify::verify(&job.stage.kind, context, again))?;
        let Verified { unit, n_exact, n_near, n_different, tolerance, worst, produced } = verified;
        let worst = worst.into_iter().map(|example| Example {
            likeness: match example.likeness {
                sluice_stages::verify::Likeness::Exact => Likeness::Exact,
                sluice_stages::verify::Likeness::Near => Likeness::Near,
                sluice_stages::verify::Likeness::Different => Likeness::Different,
            },
            row: example.row,
            what: example.what,
        });
        let (worst, produced) = (worst.collect(), produced.map(engine_produced));
        Ok(Rechecked { unit, n_exact, n_near, n_different, tolerance, worst, produced })
    }
}

fn engine_produced(produced: sluice_stages::Produced) -> Produced {
    let sluice_stages::Produced { outputs, n_rows: _, metrics, facts, n_rows_reused, n_steps_resumed, done } = produced;
    let done = done.map(|sluice_stages::Done { n, n_tokens, seconds }| Done { n, n_tokens, seconds });
    Produced { outputs, metrics, facts, n_rows_reused, n_steps_resumed, done }
}

fn engine_progress(progress: sluice_stages::Progress) -> Progress {
    let sluice_stages::Progress { unit, done, total, n_tokens, loss } = progress;
    Progress {
        done,
        total,
        unit: match unit {
            Unit::Rows => "rows",
            Unit::Steps => "steps",
            Unit::ReferenceRows => REFERENCE_ROWS,
        },
        n_tokens: (n_tokens > 0).then_some(n_tokens),
        loss: loss.map(f64::from),
    }
}

/// Whether a store's error is damage, a wrong folder, or bad luck.
pub fn exit_of_store(error: &StoreError) -> Exit {
    match error {
        error if error.is_damage() => Exit::Corrupt,
        StoreError::NewerFormat { .. }
        | StoreError::NotAStore { .. }
        | StoreError::Taken { .. }
        | StoreError::NewerRecord { .. }
        | StoreError::NewerFile { .. }
        | StoreError::TagTaken { .. } => Exit::Usage,
        _ => Exit::Failed,
    }
}

/// What the process ends with when a stage failed so.
pub fn exit_of(failure: &StageFailure) -> Exit {
    let error = match failure {
        StageFailure::Interrupted => return Exit::Interrupted,
        StageFailure::Locked => return Exit::Locked,
        StageFailure::Store(error) => return exit_of_store(error),
        StageFailure::NotFetched { .. } => return Exit::Remote,
        StageFailure::FailedTests { .. } => return Exit::Contract,
        StageFailure::BrokenTest { source, .. } => return exit_of(source),
        StageFailure::Panicked { .. } | StageFailure::NoModel { .. } | StageFailure::NoOutput { .. } => {
            return Exit::Failed;
        }
        StageFailure::Stage(error) => error,
    };
    if let Some(error) = error.downcast_ref::<StageError>() {
        return exit_of_stage(error);
    }
    if error.is::<sluice_lm::checkpoint::HubError>() {
        return Exit::Remote;
    }
    Exit::Failed
}

/// Whether the data, the pipeline file, the store or the stage is to blame.
fn exit_of_stage(error: &StageError) -> Exit {
    match error {
        StageError::InputTable { .. }
        | StageError::Ingest(_)
        | StageError::Pair(_)
        | StageError::Prompts(_)
        | StageError::Answer(AnswerError::TooLong { .. })
        | StageError::Judge(JudgeError::NoResponses | JudgeError::TooLong { .. })
        | StageError::Train(
            TrainStageError::OffPolicy { .. }
            | TrainStageError::NoTrainRows { .. }
            | TrainStageError::Missing { .. }
            | TrainStageError::NoObjective { .. }
            | TrainStageError::TooLong { .. },
        ) => Exit::Contract,
        StageError::ReadInput { source, .. }
        | StageError::WriteOutput { source, .. }
        | StageError::Rows { source }
        | StageError::Files(SqlError::Stored { source, .. }) => exit_of_store(source),
        StageError::Files(SqlError::Line { .. } | SqlError::ReadFile { .. }) => Exit::Contract,
        StageError::Files(
            SqlError::Syntax { .. }
            | SqlError::UnknownTable { .. }
            | SqlError::UnknownColumn { .. }
            | SqlError::Plan { .. }
            | SqlError::NotAQuery
            | SqlError::NotRepeatable { .. }
            | SqlError::NoSuchFile { .. }
            | SqlError::Folder { .. },
        )
        | StageError::Query(_)
        | StageError::Test(_) => Exit::Usage,
        _ => Exit::Failed,
    }
}
