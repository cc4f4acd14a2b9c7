//! Where every stage of a run stands. One enum, and one place where it changes; the events and the run's
//! manifest follow from that one place. It refuses to decide what happens next.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sluice_spec::{Stage, StageName};
use sluice_store::{
    Notice, Outcome, RUN_SCHEMA_VERSION, Record, RunLock, RunManifest, RunStage, StageKey, Store, StoreError,
};

use crate::event::{Event, StageInfo};
use crate::reason::Reason;
use crate::report::{self, RunReport, StageReport};
use crate::resolve::Resolved;
use crate::run::Called;
use crate::runner::{Progress, StageFailure};

/// Where a stage stands. `Waiting` leads to everything, `Ready` to `Running` or `Interrupted`, `Running` to an
/// end; the others are ends. Only damage leads back: a result that has to be made again, and who reads it, wait anew.
#[derive(Debug, Clone)]
pub(crate) enum StageState {
    /// Something it reads is not settled.
    Waiting,
    /// It has to run, and waits for a slot.
    Ready { resolved: Arc<Resolved>, reason: Reason },
    /// It runs.
    Running { resolved: Arc<Resolved>, reason: Reason },
    /// It has a result; `how` is `Hit`, `Ran` or `Partial`.
    Done { record: Arc<Record>, how: Outcome, reason: Option<Reason>, seconds: f64, divergence: Option<PathBuf> },
    /// It has no result.
    Failed { key: Option<StageKey>, failure: Arc<StageFailure> },
    /// Something it reads has no result.
    Blocked { by: StageName },
    /// The user stopped it, or the run before it.
    Interrupted,
}

impl StageState {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Waiting | Self::Ready { .. } | Self::Running { .. } => Outcome::Running,
            Self::Done { how, .. } => *how,
            Self::Failed { .. } => Outcome::Failed,
            Self::Blocked { .. } => Outcome::Blocked,
            Self::Interrupted => Outcome::Interrupted,
        }
    }

    fn key(&self) -> Option<StageKey> {
        match self {
            Self::Ready { resolved, .. } | Self::Running { resolved, .. } => Some(resolved.key),
            Self::Done { record, .. } => Some(record.key),
            Self::Failed { key, .. } => *key,
            Self::Waiting | Self::Blocked { .. } | Self::Interrupted => None,
        }
    }
}

/// The states of a run's stages, in plan order.
pub(crate) struct Board<'a> {
    stages: Vec<&'a Stage>,
    states: Vec<StageState>,
    /// What each stage told while it ran.
    notices: Vec<Vec<Notice>>,
    store: &'a Store,
    /// None when the store is read-only: then nothing can run, and finding hits needs no manifest.
    manifest: Option<RunManifest>,
    /// Whether the manifest lacks a hit.
    is_behind: bool,
    /// Says to others that the run is alive.
    _alive: Option<RunLock>,
    /// The seconds that stages were expected to take.
    predicted: HashMap<StageName, f64>,
    pipeline: String,
    started: Instant,
    events: &'a (dyn Fn(Event) + Sync),
}

impl<'a> Board<'a> {
    /// A board on which every stage waits, and the run's manifest.
    pub fn begin(
        stages: Vec<&'a Stage>,
        store: &'a Store,
        header: RunHeader<'_>,
        events: &'a (dyn Fn(Event) + Sync),
    ) -> Result<Self, StoreError> {
        let states = vec![StageState::Waiting; stages.len()];
        let notices = vec![Vec::new(); stages.len()];
        let make = |run| RunManifest {
            schema_version: RUN_SCHEMA_VERSION,
            run,
            pipeline: header.pipeline.to_owned(),
            profile: header.profile.map(str::to_owned),
            program: header.called.program.clone(),
            set: header.called.set.clone(),
            targets: header.targets.to_vec(),
            started_unix_ms: header.started_unix_ms,
            seconds: 0.0,
            outcome: Outcome::Running,
            stages: run_stages(&stages, &states),
        };
        let (manifest, alive) = match store.begin_run(make) {
            Ok((manifest, alive)) => (Some(manifest), Some(alive)),
            Err(StoreError::ReadOnly { .. }) => (None, None),
            Err(error) => return Err(error),
        };
        events(Event::RunStarted {
            run: manifest.as_ref().map(|manifest| manifest.run),
            pipeline: header.pipeline.to_owned(),
            stages: stages
                .iter()
                .map(|stage| StageInfo { name: stage.name.clone(), kind: stage.kind.name().name() })
                .collect(),
        });
        let (pipeline, started) = (header.pipeline.to_owned(), Instant::now());
        let (is_behind, _alive) = (false, alive);
        Ok(Self {
            stages,
            states,
            notices,
            store,
            manifest,
            is_behind,
            _alive,
            predicted: HashMap::new(),
            pipeline,
            started,
            events,
        })
    }

    /// Take note of the seconds that stages are expected to take.
    pub fn expect(&mut self, predicted: HashMap<StageName, f64>) {
        self.predicted = predicted;
    }

    pub fn len(&self) -> usize {
        self.stages.len()
    }

    pub fn stage(&self, index: usize) -> &'a Stage {
        self.stages[index]
    }

    pub fn state(&self, index: usize) -> &StageState {
        &self.states[index]
    }

    /// The place of a stage by name.
    pub fn index_of(&self, name: &StageName) -> Option<usize> {
        self.stages.iter().position(|stage| stage.name == *name)
    }

    /// The state of a stage by name.
    pub fn state_of(&self, name: &StageName) -> Option<&StageState> {
        self.index_of(name).map(|index| &self.states[index])
    }

    /// Tells of what is no transition.
    pub fn report(&self, event: Event) {
        (self.events)(event);
    }

    /// The record of a stage that has a result.
    pub fn record_of(&self, name: &StageName) -> Option<Arc<Record>> {
        match self.state_of(name) {
            Some(StageState::Done { record, .. }) => Some(record.clone()),
            _ => None,
        }
    }

    /// Keeps what a stage told, for the report.
    pub fn keep(&mut self, index: usize, notices: Vec<Notice>) {
        self.notices[index] = notices;
    }

    /// The one place where a stage's state changes.
    pub fn transition(&mut self, index: usize, next: StageState) -> Result<(), StoreError> {
        use StageState::{Blocked, Done, Failed, Interrupted, Ready, Running, Waiting};
        let legal = matches!(
            (&self.states[index], &next),
            (Waiting, Ready { .. } | Done { .. } | Failed { .. } | Blocked { .. } | Interrupted)
                | (Ready { .. }, Running { .. } | Interrupted)
                | (Running { .. }, Done { .. } | Failed { .. } | Interrupted | Waiting)
                | (Done { .. }, Waiting)
        );
        debug_assert!(legal, "{} from {:?} to {next:?}", self.stages[index].name, self.states[index]);
        self.tell(index, &next);
        let is_hit = matches!(next, Done { how: Outcome::Hit, .. });
        let has_news = !matches!(next, Ready { .. } | Blocked { .. });
        self.states[index] = next;
        // Hits come in crowds, and are written down together.
        self.is_behind |= is_hit;
        if has_news && !is_hit { self.write_manifest(Outcome::Running) } else { Ok(()) }
    }

    /// Write the manifest if there are hits that it lacks.
    pub fn write_down(&mut self) -> Result<(), StoreError> {
        if self.is_behind { self.write_manifest(Outcome::Running) } else { Ok(()) }
    }

    /// The events of a transition.
    fn tell(&self, index: usize, next: &StageState) {
        let stage = self.stages[index].name.clone();
        let event = match next {
            StageState::Waiting | StageState::Ready { .. } => return,
            StageState::Running { resolved, reason } => {
                Event::StageStarted { stage, key: resolved.key, reason: reason.to_string() }
            }
            StageState::Done { record, how: Outcome::Hit, .. } => Event::StageHit {
                stage,
                key: record.key,
                rows: report::rows(record),
                digest: report::digest(record),
                saved_seconds: record.seconds,
            },
            StageState::Done { record, seconds, divergence, .. } => {
                if let Some(evidence) = divergence {
                    let (stage, key, evidence) = (stage.clone(), record.key, evidence.clone());
                    (self.events)(Event::Diverged { stage, key, evidence });
                }
                Event::StageFinished {
                    stage,
                    key: record.key,
                    rows: report::rows(record),
                    rows_reused: record.n_rows_reused,
                    seconds: *seconds,
                    digest: report::digest(record),
                    metrics: record.metrics.clone(),
                }
            }
            StageState::Failed { failure, .. } => {
                Event::StageFailed { stage, error: failure.to_string(), causes: failure.causes() }
            }
            StageState::Blocked { by } => Event::StageBlocked { stage, by: by.clone() },
            StageState::Interrupted => Event::StageInterrupted { stage },
        };
        (self.events)(event);
    }

    fn write_manifest(&mut self, outcome: Outcome) -> Result<(), StoreError> {
        let Some(manifest) = &mut self.manifest else { return Ok(()) };
        self.is_behind = false;
        manifest.seconds = self.started.elapsed().as_secs_f64();
        manifest.outcome = outcome;
        manifest.stages = run_stages(&self.stages, &self.states);
        self.store.update_run(manifest)
    }

    /// Close the run: the report, the last event, the last manifest.
    pub fn finish(mut self, reached: &Reached) -> Result<RunReport, StoreError> {
        let seconds = self.started.elapsed().as_secs_f64();
        let notices = std::mem::take(&mut self.notices).into_iter();
        let ended = self.stages.iter().zip(&self.states).zip(notices);
        let predicted = |stage: &Stage| self.predicted.get(&stage.name).copied();
        let reports = ended
            .map(|((stage, state), notices)| StageReport {
                predicted_seconds: predicted(stage),
                ..stage_report(stage, state, reached, notices)
            })
            .collect();
        let run = self.manifest.as_ref().map(|manifest| manifest.run);
        let report = RunReport::new(run, std::mem::take(&mut self.pipeline), seconds, reports);
        self.write_manifest(report.outcome)?;
        (self.events)(Event::RunFinished(report.clone()));
        Ok(report)
    }
}

/// How far each stage has told to be.
#[derive(Default)]
pub(crate) struct Reached(Mutex<HashMap<StageName, Progress>>);

impl Reached {
    pub fn hear(&self, event: &Event) {
        if let Event::StageProgress { stage, progress } = event {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(stage.clone(), *progress);
        }
    }

    fn of(&self, stage: &StageName) -> Option<Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(stage).copied()
    }
}

/// What a manifest says about the run as a whole.
pub(crate) struct RunHeader<'a> {
    pub pipeline: &'a str,
    pub profile: Option<&'a str>,
    pub called: &'a Called,
    pub targets: &'a [String],
    pub started_unix_ms: u64,
}

fn run_stages(stages: &[&Stage], states: &[StageState]) -> Vec<RunStage> {
    let entry = |(stage, state): (&&Stage, &StageState)| RunStage {
        name: stage.name.to_string(),
        kind: stage.kind.name().name().to_owned(),
        outcome: state.outcome(),
        key: state.key(),
    };
    stages.iter().zip(states).map(entry).collect()
}

fn stage_report(stage: &Stage, state: &StageState, reached: &Reached, notices: Vec<Notice>) -> StageReport {
    let mut report = StageReport {
        name: stage.name.clone(),
        kind: stage.kind.name().name(),
        state: state.outcome(),
        rows: None,
        rows_reused: 0,
        seconds: 0.0,
        digest: None,
        key: state.key(),
        reason: None,
        error: None,
        progress: None,
        predicted_seconds: None,
        notices,
        failure: None,
        record: None,
    };
    match state {
        StageState::Waiting | StageState::Ready { .. } | StageState::Running { .. } => {}
        StageState::Interrupted => report.progress = reached.of(&stage.name),
        StageState::Done { record, how, reason, seconds, divergence: _ } => {
            report.rows = report::rows(record);
            report.rows_reused = if *how == Outcome::Hit { 0 } else { record.n_rows_reused };
            report.seconds = *seconds;
            report.digest = report::digest(record);
            report.reason = reason.as_ref().map(ToString::to_string);
            report.record = Some(record.clone());
        }
        StageState::Failed { key: _, failure } => {
            report.error = Some(failure.to_string());
            report.failure = Some(failure.clone());
        }
        StageState::Blocked { by } => report.error = Some(format!("`{by}`, which it needs, has no result")),
    }
    report
}
