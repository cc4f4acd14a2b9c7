//! The run loop. Stages go over the board from waiting to an end; this file decides which one moves next, and
//! nothing else does. It refuses to know how a stage is computed and what a key is made of.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, Scope};

use sluice_plan::Plan;
use sluice_spec::{Source, Stage, StageName};
use sluice_store::{Notice, Outcome, Store, StoreError};

use crate::board::{Board, Reached, RunHeader, Slots, StageState};
use crate::event::Event;
use crate::history::History;
use crate::key::Numerics;
use crate::mend::Mending;
use crate::price::PricedStage;
use crate::reason::Reason;
use crate::report::RunReport;
use crate::resolve::{Answer, Resolved, Resolver};
use crate::runner::{Given, StageFailure, StageRunner};
use crate::testing::{self, TestReport};
use crate::worker::{Shop, Worked};

/// A plan, a store, and somebody who runs stages.
#[derive(Clone, Copy)]
pub struct Engine<'a> {
    /// What to run.
    pub plan: &'a Plan,
    /// Where results are.
    pub store: &'a Store,
    /// Who computes them.
    pub runner: &'a dyn StageRunner,
    /// The family of arithmetic model stages run in.
    pub numerics: &'a Numerics,
    /// The pipeline's name in manifests: runs of one name are each other's history.
    pub pipeline: &'a str,
    /// Milliseconds since 1970.
    pub clock: fn() -> u64,
}

/// What may differ from run to run without changing a result.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The stages that are wanted, with all they need; all stages if empty.
    pub targets: Vec<String>,
    /// Wanted stages that are computed even if they have a result. That result stays; one that differs is kept beside it
    /// as evidence.
    pub forced: HashSet<StageName>,
    /// How many stages that run no model may run side by side; at least one does.
    pub cpu_slots: usize,
    /// Whether a stage that another run computes fails instead of waiting for it.
    pub no_wait: bool,
    /// What the run's manifest says of how it was called.
    pub called: Called,
}

/// How a run was called: for the reader of its manifest, since the results do not depend on it.
#[derive(Debug, Clone, Default)]
pub struct Called {
    /// The version of the program.
    pub program: Option<String>,
    /// What was put into the pipeline file, as `PATH=VALUE`.
    pub set: Vec<String>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { targets: Vec::new(), forced: HashSet::new(), cpu_slots: 2, no_wait: false, called: Called::default() }
    }
}

/// Why there is no report. The failure of a stage is in the report, not here.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A target is not a stage of the plan.
    #[error("no stage is named `{name}`; the pipeline has {}", known.join(", "))]
    UnknownStage {
        /// The name.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
}

/// Message of a worker, about a stage.
enum Message {
    /// What came of it, and what it told.
    Worked(Result<Worked, StageFailure>, Vec<Notice>),
    /// What came of its tests.
    Tested(Result<Vec<TestReport>, StageFailure>),
}

type Done = (usize, Message);

impl<'a> Engine<'a> {
    /// Run what has no result, and report on everything wanted. `cancel` is looked at between stages and handed
    /// to the running ones.
    ///
    /// # Errors
    /// `UnknownStage`, and `Store` when the run's own manifest cannot be written. A stage that fails is reported
    /// and blocks only what needs it.
    pub fn run(
        &self,
        options: &RunOptions,
        cancel: &AtomicBool,
        events: &(dyn Fn(Event) + Sync),
    ) -> Result<RunReport, EngineError> {
        let stages = self.wanted(&options.targets)?;
        let header = RunHeader {
            pipeline: self.pipeline,
            profile: self.plan.pipeline().profile.as_ref().map(|profile| profile.as_str()),
            called: &options.called,
            targets: &options.targets,
            started_unix_ms: (self.clock)(),
        };
        let reached = Reached::default();
        let events = &|event: Event| {
            reached.hear(&event);
            events(event);
        };
        let mut resolver = self.resolver();
        let mut board = Board::begin(stages, self.store, header, events)?;
        let mut mending = Mending::default();
        let (store, pipeline) = (self.store, self.plan.pipeline());
        let shop =
            Shop { store, pipeline, runner: self.runner, clock: self.clock, no_wait: options.no_wait, cancel, events };
        let (sender, receiver) = mpsc::channel::<Done>();
        let mut is_begun = false;
        thread::scope(|scope| -> Result<(), StoreError> {
            loop {
                self.settle(&mut board, &mut resolver, &mending, options, cancel)?;
                if !std::mem::replace(&mut is_begun, true) {
                    let predicted = self.predicted(&board, &options.targets);
                    board.expect(predicted);
                }
                start(scope, &mut board, options, shop, &sender)?;
                let Slots { with_model, without } = board.n_running();
                if with_model + without + board.n_testing() == 0 {
                    return Ok(());
                }
                // A worker always sends: a panic in a stage is caught where it happens.
                let Ok((index, message)) = receiver.recv() else { return Ok(()) };
                let end = match message {
                    Message::Worked(worked, notices) => {
                        if let Err(failure) = &worked
                            && mending.take_up(&mut board, index, failure)?
                        {
                            continue;
                        }
                        board.keep(index, notices);
                        let is_outdated = worked.is_ok() && mending.is_outdated(&board, index);
                        let end = if is_outdated { StageState::Waiting } else { end_of(board.state(index), worked) };
                        self.judged(&mut board, index, end)?
                    }
                    Message::Tested(tested) => {
                        let end = tested_end(&mut board, index, tested);
                        if let StageState::Rejected { failure, .. } = &end
                            && mending.take_up_tested(&mut board, index, failure)?
                        {
                            continue;
                        }
                        end
                    }
                };
                board.transition(index, end)?;
                mending.ended(&mut board, index)?;
            }
        })?;
        // Losing it costs the next run some reading.
        let _ = self.store.save_stat_cache();
        Ok(board.finish(self.plan, &reached)?)
    }

    /// The seconds that each stage is expected to take, by what is known before the first of them starts. Nothing if
    /// nothing is to be done, or if counting the rows would itself take a while.
    fn predicted(&self, board: &Board<'_>, targets: &[String]) -> HashMap<StageName, f64> {
        const ROWS: u64 = 50_000;
        let ready = || {
            (0..board.len()).filter_map(|index| match board.state(index) {
                StageState::Ready { resolved, .. } => Some(resolved),
                _ => None,
            })
        };
        let n_rows = |resolved: &Arc<Resolved>| -> u64 {
            let rows = resolved.inputs.iter().filter_map(|input| match &input.given {
                Given::Output { output, .. } => output.n_rows(),
                Given::Model { .. } | Given::Files { .. } | Given::Config { .. } => None,
            });
            rows.sum()
        };
        if ready().next().is_none() || ready().any(|resolved| n_rows(resolved) > ROWS) {
            return HashMap::new();
        }
        // A prediction that fails costs nothing but itself.
        let Ok(plan) = self.plan_priced(targets) else { return HashMap::new() };
        let seconds = |stage: PricedStage| Some((stage.planned.name, stage.price?.seconds?));
        plan.stages.into_iter().filter_map(seconds).collect()
    }

    /// Move every waiting stage whose inputs are settled: to its result, to ready, or to the end it shares with
    /// what it reads. One pass does, because the stages are in plan order. Results that are found are in the run's
    /// manifest before anybody may take them away.
    fn settle(
        &self,
        board: &mut Board<'_>,
        resolver: &mut Resolver<'_>,
        mending: &Mending,
        options: &RunOptions,
        cancel: &AtomicBool,
    ) -> Result<(), StoreError> {
        let _entered = self.store.enter()?;
        for index in 0..board.len() {
            let cancelled = cancel.load(Ordering::Relaxed);
            let next = match board.state(index) {
                StageState::Waiting | StageState::Ready { .. } | StageState::Testing { begun: false, .. }
                    if cancelled =>
                {
                    Some(StageState::Interrupted)
                }
                StageState::Waiting => self.next_of_waiting(board, index, resolver, mending, options)?,
                _ => None,
            };
            if let Some(next) = next {
                let next = self.judged(board, index, next)?;
                board.transition(index, next)?;
            }
        }
        board.write_down()
    }

    /// What becomes of a waiting stage; none while something it reads is not settled.
    fn next_of_waiting(
        &self,
        board: &Board<'_>,
        index: usize,
        resolver: &mut Resolver<'_>,
        mending: &Mending,
        options: &RunOptions,
    ) -> Result<Option<StageState>, StoreError> {
        let stage = board.stage(index);
        for need in self.plan.reads(&stage.name).map(|need| &need.name) {
            match board.state_of(need) {
                Some(StageState::Done { .. }) | None => {}
                Some(StageState::Failed { .. } | StageState::Rejected { .. }) => {
                    return Ok(Some(StageState::Blocked { by: need.clone() }));
                }
                Some(StageState::Blocked { by }) => return Ok(Some(StageState::Blocked { by: by.clone() })),
                Some(StageState::Interrupted) => return Ok(Some(StageState::Interrupted)),
                Some(StageState::Waiting | StageState::Ready { .. }) => return Ok(None),
                Some(StageState::Running { .. } | StageState::Testing { .. }) => return Ok(None),
            }
        }
        let failed = |key, failure| Some(StageState::Failed { key, failure: Arc::new(failure) });
        let resolved = match resolver.resolve(stage, |name| board.record_of(name)) {
            Ok(resolved) => Arc::new(resolved),
            Err(StageFailure::Interrupted) => return Ok(Some(StageState::Interrupted)),
            Err(failure) => return Ok(failed(None, failure)),
        };
        if let Some(reason) = mending.due(index) {
            return Ok(Some(StageState::Ready { resolved, reason }));
        }
        Ok(match resolver.answer(stage, &resolved) {
            Ok(Answer::Hit(_)) if options.forced.contains(&stage.name) => {
                Some(StageState::Ready { resolved, reason: Reason::Forced })
            }
            Ok(Answer::Hit(record)) => Some(StageState::hit(record, None)),
            Ok(Answer::Run(reason)) => Some(StageState::Ready { resolved, reason }),
            Err(error) => failed(Some(resolved.key), error.into()),
        })
    }

    /// What becomes of a stage that comes to a result: it is done if all of its tests are known and none of them fails.
    fn judged(&self, board: &mut Board<'_>, index: usize, next: StageState) -> Result<StageState, StoreError> {
        let stage = board.stage(index);
        let StageState::Done { record, .. } = &next else { return Ok(next) };
        if stage.tests.is_empty() {
            return Ok(next);
        }
        let sources = &self.plan.pipeline().sources;
        let cases = match testing::cases(stage, record, sources, |name| board.record_of(name)) {
            Ok(cases) => cases,
            Err(failure) => return Ok(StageState::Rejected { done: Box::new(next), failure: Arc::new(failure) }),
        };
        let known: Option<Vec<TestReport>> = testing::known(self.store, stage, sources, &cases)?.into_iter().collect();
        let Some(tests) = known else {
            return Ok(StageState::Testing { done: Box::new(next), cases: Arc::new(cases), begun: false });
        };
        let failure = testing::failure(&tests);
        board.keep_tests(index, tests);
        Ok(match failure {
            Some(failure) => StageState::Rejected { done: Box::new(next), failure: Arc::new(failure) },
            None => next,
        })
    }

    pub(crate) fn resolver(&self) -> Resolver<'a> {
        let history = History::new(self.store, self.pipeline);
        Resolver::new(self.store, self.plan.pipeline(), self.runner, self.numerics, history)
    }

    /// The wanted stages and all they need, in plan order.
    pub(crate) fn wanted(&self, targets: &[String]) -> Result<Vec<&'a Stage>, EngineError> {
        let stages: Vec<&Stage> = self.plan.stages().collect();
        if targets.is_empty() {
            return Ok(stages);
        }
        let by_name: HashMap<&str, &Stage> = stages.iter().map(|stage| (stage.name.as_str(), *stage)).collect();
        let named = |name: &String| by_name.get(name.as_str()).copied();
        if let Some(name) = targets.iter().find(|name| named(name).is_none()) {
            let known = stages.iter().map(|stage| format!("`{}`", stage.name)).collect();
            return Err(EngineError::UnknownStage { name: name.clone(), known });
        }
        Ok(self.plan.with_needs(targets.iter().filter_map(named).map(|stage| &stage.name)))
    }
}

/// The stages a stage reads.
pub(crate) fn needs(stage: &Stage) -> Vec<StageName> {
    let of_stage = |source| match source {
        Source::Stage(read) => Some(read.stage),
        Source::Model(_) | Source::Files(_) | Source::Folder(_) => None,
    };
    stage.kind.inputs().into_iter().filter_map(|input| of_stage(input.source)).collect()
}

/// Start ready stages while there are slots: one for all that run a model, some for the others.
fn start<'scope, 'a: 'scope>(
    scope: &'scope Scope<'scope, '_>,
    board: &mut Board<'a>,
    options: &RunOptions,
    shop: Shop<'a>,
    sender: &Sender<Done>,
) -> Result<(), StoreError> {
    for index in 0..board.len() {
        start_tests(scope, board, index, shop, sender)?;
        let StageState::Ready { resolved, reason } = board.state(index) else { continue };
        let (resolved, reason, stage) = (resolved.clone(), reason.clone(), board.stage(index));
        let mut slots = Slots { with_model: 1, without: options.cpu_slots.max(1) };
        if board.n_running().of(stage) >= slots.of(stage) {
            continue;
        }
        board.transition(index, StageState::Running { resolved: resolved.clone(), reason: reason.clone() })?;
        let sender = sender.clone();
        let forced = options.forced.contains(&stage.name);
        scope.spawn(move || {
            let (worked, notices) = shop.work(stage, &resolved, &reason, forced);
            // The loop outlives its workers, so somebody is there to receive.
            let _ = sender.send((index, Message::Worked(worked, notices)));
        });
    }
    Ok(())
}

/// Start the tests of a stage that waits for them. They are short, and whoever waits for the stage waits for them: they
/// need no slot. The cells of a matrix may be many, so that not all of them are tested at once.
fn start_tests<'scope, 'a: 'scope>(
    scope: &'scope Scope<'scope, '_>,
    board: &mut Board<'a>,
    index: usize,
    shop: Shop<'a>,
    sender: &Sender<Done>,
) -> Result<(), StoreError> {
    const MAX_TESTING: usize = 16;
    let StageState::Testing { done, cases, begun: false } = board.state(index) else { return Ok(()) };
    if board.n_testing() >= MAX_TESTING {
        return Ok(());
    }
    let StageState::Done { record, .. } = done.as_ref() else { return Ok(()) };
    let (stage, record, cases) = (board.stage(index), record.clone(), cases.clone());
    let begun = StageState::Testing { done: done.clone(), cases: cases.clone(), begun: true };
    board.transition(index, begun)?;
    let sender = sender.clone();
    scope.spawn(move || {
        // As for a stage, somebody is there to receive.
        let _ = sender.send((index, Message::Tested(shop.test(stage, &record, &cases))));
    });
    Ok(())
}

/// The end of a stage whose tests ran.
fn tested_end(board: &mut Board<'_>, index: usize, tested: Result<Vec<TestReport>, StageFailure>) -> StageState {
    let done = match board.state(index) {
        StageState::Testing { done, .. } => done.clone(),
        other => Box::new(other.clone()),
    };
    let failure = match tested {
        Ok(tests) => {
            let failure = testing::failure(&tests);
            board.keep_tests(index, tests);
            failure
        }
        Err(StageFailure::Interrupted) => return StageState::Interrupted,
        Err(failure) => Some(failure),
    };
    match failure {
        Some(failure) => StageState::Rejected { done, failure: Arc::new(failure) },
        None => *done,
    }
}

/// The end of a running stage.
fn end_of(state: &StageState, worked: Result<Worked, StageFailure>) -> StageState {
    let (key, reason) = match state {
        StageState::Running { resolved, reason } => (Some(resolved.key), Some(reason.clone())),
        _ => (None, None),
    };
    match worked {
        Ok(Worked::Shared(record)) => StageState::hit(record, reason),
        Ok(Worked::Computed { record, seconds, reused, recomputed }) => {
            let how = if reused.is_any() { Outcome::Partial } else { Outcome::Ran };
            StageState::Done { record, how, reason, seconds, reused, recomputed }
        }
        Err(StageFailure::Interrupted) => StageState::Interrupted,
        Err(failure) => StageState::Failed { key, failure: Arc::new(failure) },
    }
}
