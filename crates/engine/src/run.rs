//! The run loop. Stages go over the board from waiting to an end; this file decides which one moves next, and
//! nothing else does. It refuses to know how a stage is computed and what a key is made of.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, Scope};

use sluice_plan::Plan;
use sluice_spec::{Source, Stage, StageName};
use sluice_store::{Notice, Outcome, Store, StoreError};

use crate::board::{Board, Reached, RunHeader, StageState};
use crate::event::Event;
use crate::history::History;
use crate::key::{Numerics, runs_a_model};
use crate::mend::Mending;
use crate::price::PricedStage;
use crate::report::RunReport;
use crate::resolve::{Answer, Resolved, Resolver};
use crate::runner::{Given, StageFailure, StageRunner};
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
    /// How many stages that run no model may run side by side; at least one does.
    pub cpu_slots: usize,
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
        Self { targets: Vec::new(), cpu_slots: 2, called: Called::default() }
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

/// Message of a worker: which stage, what came of it, and what it told.
type Done = (usize, Result<Worked, StageFailure>, Vec<Notice>);

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
        let shop = Shop { store, pipeline, runner: self.runner, clock: self.clock, cancel, events };
        let (sender, receiver) = mpsc::channel::<Done>();
        let mut is_begun = false;
        thread::scope(|scope| -> Result<(), StoreError> {
            loop {
                self.settle(&mut board, &mut resolver, &mending, cancel)?;
                if !std::mem::replace(&mut is_begun, true) {
                    let predicted = self.predicted(&board, &options.targets);
                    board.expect(predicted);
                }
                start(scope, &mut board, options, shop, &sender)?;
                if n_running(&board, |_| true) == 0 {
                    return Ok(());
                }
                // A worker always sends: a panic in a stage is caught where it happens.
                let Ok((index, worked, notices)) = receiver.recv() else { return Ok(()) };
                if let Err(failure) = &worked
                    && mending.take_up(&mut board, index, failure)?
                {
                    continue;
                }
                board.keep(index, notices);
                let is_outdated = worked.is_ok() && mending.is_outdated(&board, index);
                let end = if is_outdated { StageState::Waiting } else { end_of(board.state(index), worked) };
                board.transition(index, end)?;
                mending.ended(&mut board, index)?;
            }
        })?;
        // Losing it costs the next run some reading.
        let _ = self.store.save_stat_cache();
        Ok(board.finish(&reached)?)
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
        cancel: &AtomicBool,
    ) -> Result<(), StoreError> {
        let _entered = self.store.enter()?;
        for index in 0..board.len() {
            let cancelled = cancel.load(Ordering::Relaxed);
            let next = match board.state(index) {
                StageState::Ready { .. } if cancelled => Some(StageState::Interrupted),
                StageState::Waiting if cancelled => Some(StageState::Interrupted),
                StageState::Waiting => self.next_of_waiting(board, index, resolver, mending)?,
                _ => None,
            };
            if let Some(next) = next {
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
    ) -> Result<Option<StageState>, StoreError> {
        let stage = board.stage(index);
        for need in needs(stage) {
            match board.state_of(&need) {
                Some(StageState::Done { .. }) | None => {}
                Some(StageState::Failed { .. }) => return Ok(Some(StageState::Blocked { by: need })),
                Some(StageState::Blocked { by }) => return Ok(Some(StageState::Blocked { by: by.clone() })),
                Some(StageState::Interrupted) => return Ok(Some(StageState::Interrupted)),
                Some(StageState::Waiting | StageState::Ready { .. } | StageState::Running { .. }) => return Ok(None),
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
            Ok(Answer::Hit(record)) => {
                Some(StageState::Done { record, how: Outcome::Hit, reason: None, seconds: 0.0, divergence: None })
            }
            Ok(Answer::Run(reason)) => Some(StageState::Ready { resolved, reason }),
            Err(error) => failed(Some(resolved.key), error.into()),
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
        let named = |name: &String| stages.iter().find(|stage| stage.name.as_str() == name);
        if let Some(name) = targets.iter().find(|name| named(name).is_none()) {
            let known = stages.iter().map(|stage| format!("`{}`", stage.name)).collect();
            return Err(EngineError::UnknownStage { name: name.clone(), known });
        }
        let mut wanted: Vec<StageName> = targets.iter().filter_map(named).map(|stage| stage.name.clone()).collect();
        // Backwards: whatever a wanted stage reads stands before it.
        for stage in stages.iter().rev() {
            if wanted.contains(&stage.name) {
                wanted.extend(needs(stage));
            }
        }
        Ok(stages.into_iter().filter(|stage| wanted.contains(&stage.name)).collect())
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
        let StageState::Ready { resolved, reason } = board.state(index) else { continue };
        let (resolved, reason, stage) = (resolved.clone(), reason.clone(), board.stage(index));
        let on_accelerator = runs_a_model(stage.kind.name());
        let slots = if on_accelerator { 1 } else { options.cpu_slots.max(1) };
        if n_running(board, |other| runs_a_model(other.kind.name()) == on_accelerator) >= slots {
            continue;
        }
        board.transition(index, StageState::Running { resolved: resolved.clone(), reason: reason.clone() })?;
        let sender = sender.clone();
        scope.spawn(move || {
            let (worked, notices) = shop.work(stage, &resolved, &reason);
            // The loop outlives its workers, so somebody is there to receive.
            let _ = sender.send((index, worked, notices));
        });
    }
    Ok(())
}

fn n_running(board: &Board<'_>, counts: impl Fn(&Stage) -> bool) -> usize {
    let running = |index: &usize| matches!(board.state(*index), StageState::Running { .. });
    (0..board.len()).filter(running).filter(|index| counts(board.stage(*index))).count()
}

/// The end of a running stage.
fn end_of(state: &StageState, worked: Result<Worked, StageFailure>) -> StageState {
    let (key, reason) = match state {
        StageState::Running { resolved, reason } => (Some(resolved.key), Some(reason.clone())),
        _ => (None, None),
    };
    match worked {
        Ok(Worked::Shared(record)) => {
            StageState::Done { record, how: Outcome::Hit, reason, seconds: 0.0, divergence: None }
        }
        Ok(Worked::Computed { record, seconds, divergence }) => {
            let is_partial = record.n_rows_reused > 0 || record.n_steps_resumed > 0;
            let how = if is_partial { Outcome::Partial } else { Outcome::Ran };
            StageState::Done { record, how, reason, seconds, divergence }
        }
        Err(StageFailure::Interrupted) => StageState::Interrupted,
        Err(failure) => StageState::Failed { key, failure: Arc::new(failure) },
    }
}
