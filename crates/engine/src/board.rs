//! Where every stage of a run stands. One enum, and one place where it changes; the events and the run's
//! manifest follow from that one place. It refuses to decide what happens next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sluice_plan::Plan;
use sluice_spec::{Stage, StageName};
use sluice_store::{
    Notice, Outcome, RUN_SCHEMA_VERSION, Record, RunLock, RunManifest, RunStage, StageKey, Store, StoreError,
};

use crate::cell::CellInfo;
use crate::compare::comparisons;
use crate::event::{Event, StageInfo};
use crate::key::runs_a_model;
use crate::reason::Reason;
use crate::report::{self, Recomputed, Reused, RunReport, StageReport};
use crate::resolve::Resolved;
use crate::run::Called;
use crate::runner::{Progress, StageFailure};
use crate::testing::{Case, TestReport};

/// Where a stage stands. `Waiting` leads to everything, `Ready` to `Running` or `Interrupted`, `Running` to an
/// end; the others are ends. A stage with tests comes to `Done` or `Rejected` by way of `Testing`, unless their
/// outcomes are known. Only damage leads back: a result that has to be made again, and who reads it, wait anew.
#[derive(Debug, Clone)]
pub(crate) enum StageState {
    /// Something it reads is not settled.
    Waiting,
    /// It has to run, and waits for a slot.
    Ready { resolved: Arc<Resolved>, reason: Reason },
    /// It runs.
    Running { resolved: Arc<Resolved>, reason: Reason },
    /// It has a result.
    Done {
        record: Arc<Record>,
        /// `Hit`, `Ran` or `Partial`.
        how: Outcome,
        reason: Option<Reason>,
        seconds: f64,
        /// What was taken over from before in this run.
        reused: Reused,
        /// What came of computing it, if its key had a result before.
        recomputed: Option<Recomputed>,
    },
    /// It has a result, whose tests run; `done` is the state it comes to if none fails.
    Testing { done: Box<StageState>, cases: Arc<Vec<Case>>, begun: bool },
    /// It has a result, that of `done`, and nothing may read it: a test failed, or could not be made.
    Rejected { done: Box<StageState>, failure: Arc<StageFailure> },
    /// It has no result.
    Failed { key: Option<StageKey>, failure: Arc<StageFailure> },
    /// Something it reads has no result.
    Blocked { by: StageName },
    /// The user stopped it, or the run before it.
    Interrupted,
}

impl StageState {
    /// It had a result before this run came to it.
    pub fn hit(record: Arc<Record>, reason: Option<Reason>) -> Self {
        Self::Done { record, how: Outcome::Hit, reason, seconds: 0.0, reused: Reused::default(), recomputed: None }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Waiting | Self::Ready { .. } | Self::Running { .. } | Self::Testing { .. } => Outcome::Running,
            Self::Done { how, .. } => *how,
            Self::Failed { .. } | Self::Rejected { .. } => Outcome::Failed,
            Self::Blocked { .. } => Outcome::Blocked,
            Self::Interrupted => Outcome::Interrupted,
        }
    }

    fn key(&self) -> Option<StageKey> {
        match self {
            Self::Ready { resolved, .. } | Self::Running { resolved, .. } => Some(resolved.key),
            Self::Done { record, .. } => Some(record.key),
            Self::Testing { done, .. } | Self::Rejected { done, .. } => done.key(),
            Self::Failed { key, .. } => *key,
            Self::Waiting | Self::Blocked { .. } | Self::Interrupted => None,
        }
    }
}

/// The states of a run's stages, in plan order.
pub(crate) struct Board<'a> {
    stages: Vec<&'a Stage>,
    states: Vec<StageState>,
    index_of: HashMap<&'a StageName, usize>,
    /// Running stages that run a model, and those that do not.
    n_running: Slots,
    /// Stages whose tests run. They take no slot of a stage.
    n_testing: usize,
    /// What each stage told while it ran.
    notices: Vec<Vec<Notice>>,
    /// How the tests of each stage came out.
    tests: Vec<Vec<TestReport>>,
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
        let tests = vec![Vec::new(); stages.len()];
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
            stages: stages.iter().map(|stage| run_stage(stage, &StageState::Waiting, &[])).collect(),
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
                .map(|stage| StageInfo {
                    name: stage.name.clone(),
                    kind: stage.kind.name().name(),
                    cell: CellInfo::of(stage),
                })
                .collect(),
        });
        let (pipeline, started) = (header.pipeline.to_owned(), Instant::now());
        let index_of = stages.iter().enumerate().map(|(index, stage)| (&stage.name, index)).collect();
        let (n_running, n_testing, is_behind, _alive) = (Slots::default(), 0, false, alive);
        Ok(Self {
            stages,
            states,
            index_of,
            n_running,
            n_testing,
            notices,
            tests,
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
        self.index_of.get(name).copied()
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

    /// How many stages run now.
    pub fn n_running(&self) -> Slots {
        self.n_running
    }

    /// Of how many stages the tests run now.
    pub fn n_testing(&self) -> usize {
        self.n_testing
    }

    /// Keeps how a stage's tests came out, for its next state, the manifest and the report.
    pub fn keep_tests(&mut self, index: usize, tests: Vec<TestReport>) {
        self.tests[index] = tests;
    }

    /// The one place where a stage's state changes.
    pub fn transition(&mut self, index: usize, next: StageState) -> Result<(), StoreError> {
        use StageState::{Blocked, Done, Failed, Interrupted, Ready, Rejected, Running, Testing, Waiting};
        let legal = matches!(
            (&self.states[index], &next),
            (Waiting, Ready { .. } | Testing { .. } | Done { .. } | Rejected { .. })
                | (Waiting, Failed { .. } | Blocked { .. } | Interrupted)
                | (Ready { .. }, Running { .. } | Interrupted)
                | (Running { .. }, Testing { .. } | Done { .. } | Rejected { .. })
                | (Running { .. }, Failed { .. } | Interrupted | Waiting)
                | (Testing { .. }, Testing { .. } | Done { .. } | Rejected { .. } | Interrupted | Waiting)
                | (Done { .. }, Waiting)
        );
        debug_assert!(legal, "{} from {:?} to {next:?}", self.stages[index].name, self.states[index]);
        self.tell(index, &next);
        let is_hit = matches!(next, Done { how: Outcome::Hit, .. });
        let has_news = !matches!(next, Ready { .. } | Blocked { .. } | Testing { begun: true, .. });
        let runs = |state: &StageState| usize::from(matches!(state, Running { .. }));
        let (before, after) = (runs(&self.states[index]), runs(&next));
        let n_running = self.n_running.of(self.stages[index]);
        *n_running = *n_running + after - before;
        let is_tested = |state: &StageState| usize::from(matches!(state, Testing { begun: true, .. }));
        self.n_testing = self.n_testing + is_tested(&next) - is_tested(&self.states[index]);
        self.states[index] = next;
        if let Some(manifest) = &mut self.manifest {
            manifest.stages[index] = run_stage(self.stages[index], &self.states[index], &self.tests[index]);
        }
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
        let tested = matches!(self.states[index], StageState::Testing { .. });
        let tests = || Event::StageTested { stage: stage.clone(), tests: self.tests[index].clone() };
        match next {
            StageState::Waiting | StageState::Ready { .. } | StageState::Testing { begun: true, .. } => {}
            StageState::Running { resolved, reason } => {
                (self.events)(Event::StageStarted { stage, key: resolved.key, reason: reason.to_string() });
            }
            StageState::Testing { done, .. } => self.tell_result(stage, done),
            StageState::Done { .. } => {
                // A stage that was tested has told its result before.
                if !tested {
                    self.tell_result(stage.clone(), next);
                }
                if !self.tests[index].is_empty() {
                    (self.events)(tests());
                }
            }
            StageState::Rejected { done, failure } => {
                if !tested {
                    self.tell_result(stage.clone(), done);
                }
                (self.events)(tests());
                (self.events)(Event::StageFailed { stage, error: failure.to_string(), causes: failure.causes() });
            }
            StageState::Failed { failure, .. } => {
                (self.events)(Event::StageFailed { stage, error: failure.to_string(), causes: failure.causes() });
            }
            StageState::Blocked { by } => (self.events)(Event::StageBlocked { stage, by: by.clone() }),
            StageState::Interrupted => (self.events)(Event::StageInterrupted { stage }),
        }
    }

    /// The events of a stage's having a result.
    fn tell_result(&self, stage: StageName, done: &StageState) {
        let StageState::Done { record, how, reason: _, seconds, reused, recomputed } = done else { return };
        let (key, rows, digest) = (record.key, report::rows(record), report::digest(record));
        if *how == Outcome::Hit {
            return (self.events)(Event::StageHit { stage, key, rows, digest, saved_seconds: record.seconds });
        }
        if let Some(Recomputed::Differs { evidence }) = recomputed {
            (self.events)(Event::Diverged { stage: stage.clone(), key, evidence: evidence.clone() });
        }
        (self.events)(Event::StageFinished {
            stage,
            key,
            rows,
            rows_reused: reused.n_rows,
            seconds: *seconds,
            digest,
            metrics: record.metrics.clone(),
        });
    }

    fn write_manifest(&mut self, outcome: Outcome) -> Result<(), StoreError> {
        let Some(manifest) = &mut self.manifest else { return Ok(()) };
        self.is_behind = false;
        manifest.seconds = self.started.elapsed().as_secs_f64();
        manifest.outcome = outcome;
        self.store.update_run(manifest)
    }

    /// Close the run: the report, the last event, the last manifest.
    pub fn finish(mut self, plan: &Plan, reached: &Reached) -> Result<RunReport, StoreError> {
        let seconds = self.started.elapsed().as_secs_f64();
        let notices = std::mem::take(&mut self.notices).into_iter();
        let tests = std::mem::take(&mut self.tests).into_iter();
        let ended = self.stages.iter().zip(&self.states).zip(notices.zip(tests));
        let predicted = |stage: &Stage| self.predicted.get(&stage.name).copied();
        let reports: Vec<StageReport> = ended
            .map(|((stage, state), told)| StageReport {
                predicted_seconds: predicted(stage),
                ..stage_report(stage, state, reached, told)
            })
            .collect();
        let comparisons = comparisons(plan, &reports);
        let run = self.manifest.as_ref().map(|manifest| manifest.run);
        let report = RunReport::new(run, std::mem::take(&mut self.pipeline), seconds, reports, comparisons);
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

/// Numbers of stages: those that run a model and share the accelerator, and the others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slots {
    pub with_model: usize,
    pub without: usize,
}

impl Slots {
    /// The number that a stage counts in.
    pub fn of(&mut self, stage: &Stage) -> &mut usize {
        if runs_a_model(stage.kind.name()) { &mut self.with_model } else { &mut self.without }
    }
}

fn run_stage(stage: &Stage, state: &StageState, tests: &[TestReport]) -> RunStage {
    RunStage {
        name: stage.name.to_string(),
        kind: stage.kind.name().name().to_owned(),
        outcome: state.outcome(),
        key: state.key(),
        tests: tests.iter().map(TestReport::in_manifest).collect(),
    }
}

fn stage_report(
    stage: &Stage,
    state: &StageState,
    reached: &Reached,
    (notices, tests): (Vec<Notice>, Vec<TestReport>),
) -> StageReport {
    let mut report = StageReport {
        name: stage.name.clone(),
        kind: stage.kind.name().name(),
        cell: CellInfo::of(stage),
        state: state.outcome(),
        rows: None,
        rows_reused: 0,
        seconds: 0.0,
        digest: None,
        key: state.key(),
        reason: None,
        recomputed: None,
        error: None,
        progress: None,
        predicted_seconds: None,
        notices,
        tests,
        failure: None,
        record: None,
    };
    match state {
        StageState::Waiting | StageState::Ready { .. } | StageState::Running { .. } | StageState::Testing { .. } => {}
        StageState::Rejected { done, failure } => {
            let (notices, tests) = (report.notices, report.tests);
            report = stage_report(stage, done, reached, (notices, tests));
            report.state = state.outcome();
            report.error = Some(failure.to_string());
            report.failure = Some(failure.clone());
        }
        StageState::Interrupted => report.progress = reached.of(&stage.name),
        StageState::Done { record, how: _, reason, seconds, reused, recomputed } => {
            report.rows = report::rows(record);
            report.rows_reused = reused.n_rows;
            report.recomputed.clone_from(recomputed);
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
