//! What a run would do and why, without running anything; where no rows are counted, without opening a table.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use sluice_spec::{Stage, StageName};
use sluice_store::{Leaf, Record, RunId, StageKey};

use crate::cause::Cause;
use crate::cell::CellInfo;
use crate::event::as_text;
use crate::history::History;
use crate::key;
use crate::mend::{damage, damaged_output};
use crate::reason::{LeafChange, Reason, compare_leaves, write_changes};
use crate::resolve::{Answer, Resolved};
use crate::run::{Engine, EngineError};
use crate::runner::{RowCount, StageFailure};
use crate::testing;

/// A stage, and what a run would do with it.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedStage {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub name: StageName,
    /// Its kind.
    pub kind: &'static str,
    /// Which cell of a matrix it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cell: Option<CellInfo>,
    /// What a run would do.
    #[serde(flatten)]
    pub state: PlanState,
    /// Data tests that a run would make of a result that is there.
    #[serde(skip_serializing_if = "is_zero")]
    pub tests_to_run: usize,
}

/// What a run would do with a stage.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PlanState {
    /// Nothing: it has a result.
    Hit {
        /// Its key.
        key: StageKey,
        /// The result.
        #[serde(skip)]
        record: Arc<Record>,
    },
    /// Compute it.
    Run {
        /// Its key.
        key: StageKey,
        /// Why.
        reason: Reason,
    },
    /// Compute it, but for the rows that are known from earlier runs, or for the steps that one took which was stopped.
    Partial {
        /// Its key.
        key: StageKey,
        /// Why.
        reason: Reason,
        /// Its rows, of which at least one is known.
        #[serde(flatten)]
        count: RowCount,
    },
    /// Decide when what it reads is there: if that comes out as before, it is a hit.
    Pending {
        /// The stages it waits for.
        #[serde(serialize_with = "as_texts")]
        upstream: Vec<StageName>,
        /// Whether no earlier run has a result of it: then it runs in any case.
        never_ran: bool,
        /// What changed in its own parameters and in the inputs that are there; if nothing did, only the others can
        /// make it run.
        changes: Vec<LeafChange>,
    },
    /// Decide when something from outside is fetched, which a run does first: if it is as before, it is a hit.
    Fetch {
        /// What it is.
        what: String,
        /// Whether no earlier run has a result of it: then it runs in any case.
        never_ran: bool,
    },
    /// Fail: what it reads from outside is not there, or its result is known to fail a test.
    Fail {
        /// What is wrong.
        #[serde(serialize_with = "as_text")]
        failure: Arc<StageFailure>,
    },
}

impl PlanState {
    /// The result that is there.
    pub fn record(&self) -> Option<Arc<Record>> {
        match self {
            Self::Hit { record, .. } => Some(record.clone()),
            _ => None,
        }
    }
}

impl fmt::Display for PlanState {
    /// The reason, in one line; empty for a hit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit { .. } => Ok(()),
            Self::Partial { reason, count: RowCount { rows, rows_known, unit: "steps" }, .. } => {
                write!(f, "resumes at step {rows_known}/{rows}; {reason}")
            }
            Self::Partial { reason, count: RowCount { rows, rows_known, unit: unit @ "reference rows" }, .. } => {
                write!(f, "{rows_known}/{rows} {unit} known; {reason}")
            }
            Self::Run { reason, .. } | Self::Partial { reason, .. } => write!(f, "{reason}"),
            Self::Pending { upstream, changes, .. } if changes.is_empty() => {
                write!(f, "waits for {}", names(upstream).join(", "))
            }
            Self::Pending { changes, .. } => write_changes(f, changes),
            Self::Fetch { what, .. } => f.write_str(what),
            Self::Fail { failure } => write!(f, "{failure}"),
        }
    }
}

/// Why a stage would run, or ran last.
#[derive(Debug, Clone, Serialize)]
pub struct Why {
    /// The stage, and what a run would do with it.
    pub stage: PlannedStage,
    /// The earlier run it is compared with; none if it never had another result.
    pub against: Option<RunId>,
    /// What differs between that run and now; for a stage with a result, between that result and the one before.
    pub changes: Vec<LeafChange>,
    /// What made the inputs change: stages before it, the nearest first.
    pub causes: Vec<Cause>,
}

impl Engine<'_> {
    /// What a run would do with each wanted stage, in plan order.
    ///
    /// # Errors
    /// `UnknownStage`; `Store` when the store does not read.
    pub fn plan_states(&self, targets: &[String]) -> Result<Vec<PlannedStage>, EngineError> {
        self.states(targets, &|_, resolved, reason| PlanState::Run { key: resolved.key, reason })
    }

    /// Like [`Engine::plan_states`], and finds the stages of which some rows are known or some steps are taken.
    ///
    /// # Errors
    /// `UnknownStage`; `Store` when the store does not read.
    pub fn plan_rows(&self, targets: &[String]) -> Result<Vec<PlannedStage>, EngineError> {
        Ok(self.plan_counted(targets)?.0)
    }

    /// Like [`Engine::plan_rows`], and gives the counts also where no row is known.
    pub(crate) fn plan_counted(&self, targets: &[String]) -> Result<(Vec<PlannedStage>, Counts), EngineError> {
        let damaged = RefCell::new(Vec::new());
        let counts = RefCell::new(Counts::new());
        let mut planned = self.states(targets, &|stage, resolved, reason| {
            let key = resolved.key;
            let count = self.count(stage, resolved);
            if let Ok(Some(count)) = &count {
                counts.borrow_mut().insert(stage.name.clone(), *count);
            }
            match count {
                Ok(Some(count)) if count.rows_known > 0 => PlanState::Partial { key, reason, count },
                Ok(_) => PlanState::Run { key, reason },
                Err(failure) => {
                    let found = damage(&failure).and_then(|damage| {
                        let output = resolved.inputs.iter().find_map(|input| damaged_output(&input.given, damage));
                        Some((damage.path()?.display().to_string(), output?))
                    });
                    damaged.borrow_mut().extend(found.map(|found| (stage.name.clone(), found)));
                    PlanState::Fail { failure: Arc::new(failure) }
                }
            }
        })?;
        for (reader, (file, (source, output))) in damaged.into_inner() {
            mend_plan(&mut planned, &reader, &source, Reason::OutputDamaged { output, file });
        }
        Ok((self.with_tests(planned)?, counts.into_inner()))
    }

    /// Says of each result what is known of its tests. What reads one that fails does not run.
    fn with_tests(&self, mut planned: Vec<PlannedStage>) -> Result<Vec<PlannedStage>, EngineError> {
        let pipeline = self.plan.pipeline();
        let index_of: HashMap<StageName, usize> =
            planned.iter().enumerate().map(|(at, stage)| (stage.name.clone(), at)).collect();
        for at in 0..planned.len() {
            let Some(stage) = pipeline.stage(&planned[at].name) else { continue };
            let PlanState::Hit { record, .. } = &planned[at].state else { continue };
            let record = record.clone();
            let result_of = |name: &StageName| index_of.get(name).and_then(|at| planned[*at].state.record());
            let needs = self.plan.reads(&stage.name).map(|need| &need.name);
            let upstream: Vec<StageName> = needs.filter(|need| result_of(need).is_none()).cloned().collect();
            if !upstream.is_empty() {
                planned[at].state = PlanState::Pending { upstream, never_ran: false, changes: Vec::new() };
                continue;
            }
            match self.known_tests(stage, &record, result_of)? {
                Err(failure) => planned[at].state = PlanState::Fail { failure: Arc::new(failure) },
                Ok(tests) => {
                    let known: Vec<_> = tests.iter().flatten().cloned().collect();
                    planned[at].tests_to_run = tests.len() - known.len();
                    if let Some(failure) = testing::failure(&known) {
                        planned[at].state = PlanState::Fail { failure: Arc::new(failure) };
                    }
                }
            }
        }
        Ok(planned)
    }

    /// Like [`Engine::plan_states`], and says which results are known to fail a test, and how many tests a run would make.
    ///
    /// # Errors
    /// `UnknownStage`; `Store` when the store does not read.
    pub fn plan_tests(&self, targets: &[String]) -> Result<Vec<PlannedStage>, EngineError> {
        self.with_tests(self.plan_states(targets)?)
    }

    /// What of a stage's work is done: steps an earlier run saved, or else rows that are known.
    fn count(&self, stage: &Stage, resolved: &Resolved) -> Result<Option<RowCount>, StageFailure> {
        if let Some(unfinished) = self.store.unfinished(resolved.key)? {
            return Ok(Some(RowCount { rows: unfinished.total, rows_known: unfinished.done, unit: "steps" }));
        }
        self.runner.count_rows(stage, &resolved.inputs)
    }

    /// `to_run` says what becomes of a stage that has no result though all it reads is there.
    pub(crate) fn states(
        &self,
        targets: &[String],
        to_run: &dyn Fn(&Stage, &Resolved, Reason) -> PlanState,
    ) -> Result<Vec<PlannedStage>, EngineError> {
        let mut resolver = self.resolver();
        let mut planned: Vec<PlannedStage> = Vec::new();
        let mut index_of: HashMap<&StageName, usize> = HashMap::new();
        for stage in self.wanted(targets)? {
            let result_of = |name: &StageName| index_of.get(name).map(|at| &planned[*at].state);
            let upstream: Vec<StageName> = self
                .plan
                .reads(&stage.name)
                .map(|need| &need.name)
                .filter(|need| !matches!(result_of(need), Some(PlanState::Hit { .. })))
                .cloned()
                .collect();
            let record_of = |name: &StageName| match result_of(name) {
                Some(PlanState::Hit { record, .. }) => Some(record.clone()),
                _ => None,
            };
            let state = if upstream.is_empty() {
                match resolver.resolve(stage, record_of) {
                    Err(StageFailure::NotFetched { what }) => {
                        PlanState::Fetch { what, never_ran: resolver.known_changes(stage, record_of)?.is_none() }
                    }
                    Err(failure) => PlanState::Fail { failure: Arc::new(failure) },
                    Ok(resolved) => match resolver.answer(stage, &resolved)? {
                        Answer::Hit(record) => PlanState::Hit { key: resolved.key, record },
                        Answer::Run(reason) => to_run(stage, &resolved, reason),
                    },
                }
            } else {
                let changes = resolver.known_changes(stage, record_of)?;
                PlanState::Pending { upstream, never_ran: changes.is_none(), changes: changes.unwrap_or_default() }
            };
            index_of.insert(&stage.name, planned.len());
            let (name, kind) = (stage.name.clone(), stage.kind.name().name());
            planned.push(PlannedStage { name, kind, cell: CellInfo::of(stage), state, tests_to_run: 0 });
        }
        let _ = self.store.save_stat_cache();
        Ok(planned)
    }

    /// Why a stage would run; for a stage with a result, what set it apart from the result before.
    ///
    /// # Errors
    /// `UnknownStage`; `Store` when the store does not read.
    pub fn why(&self, stage: &str) -> Result<Why, EngineError> {
        let (stage, _) = self.present(stage)?;
        let history = History::new(self.store, self.pipeline);
        let (except, current) = match &stage.state {
            PlanState::Hit { key, record } => (Some(*key), Some(record.clone())),
            PlanState::Run { .. }
            | PlanState::Partial { .. }
            | PlanState::Pending { .. }
            | PlanState::Fetch { .. }
            | PlanState::Fail { .. } => (None, None),
        };
        let earlier = history.last(&stage.name, except)?;
        let changes = match (&stage.state, &earlier, current) {
            (PlanState::Hit { .. }, Some(earlier), Some(record)) => {
                compare_leaves(&earlier.record.leaves, &record.leaves)
            }
            (PlanState::Run { reason: Reason::Changed(changes), .. }, ..) => changes.clone(),
            (PlanState::Pending { changes, .. }, ..) => changes.clone(),
            _ => Vec::new(),
        };
        let against = earlier.map(|earlier| earlier.run);
        let causes = self.causes(stage.name.as_str(), against)?;
        Ok(Why { stage, against, changes, causes })
    }

    /// What differs between a stage as it was in some run and as it is now. Where an input is not there yet, that is its
    /// own parameters alone.
    ///
    /// # Errors
    /// `UnknownStage`; `Store` when the store does not read.
    pub fn why_against(&self, stage: &str, run: RunId, earlier: &Record) -> Result<Why, EngineError> {
        let (stage, present) = self.present(stage)?;
        let changes = match present {
            Present::Whole(leaves) => compare_leaves(&earlier.leaves, &leaves),
            Present::Own(leaves) => {
                let own = earlier.leaves.iter().filter(|leaf| !leaf.path.starts_with(key::INPUT));
                compare_leaves(&own.cloned().collect::<Vec<Leaf>>(), &leaves)
            }
        };
        let causes = self.causes(stage.name.as_str(), Some(run))?;
        Ok(Why { stage, against: Some(run), changes, causes })
    }

    /// A stage as it is now, and what enters its key.
    fn present(&self, name: &str) -> Result<(PlannedStage, Present), EngineError> {
        let resolved_leaves = RefCell::new(None);
        let planned = self.states(&[name.to_owned()], &|stage, resolved, reason| {
            if stage.name.as_str() == name {
                *resolved_leaves.borrow_mut() = Some(resolved.leaves.clone());
            }
            PlanState::Run { key: resolved.key, reason }
        })?;
        let unknown = || EngineError::UnknownStage { name: name.to_owned(), known: Vec::new() };
        let planned = planned.into_iter().find(|planned| planned.name.as_str() == name).ok_or_else(unknown)?;
        let stage = self.plan.stages().find(|stage| stage.name == planned.name).ok_or_else(unknown)?;
        let present = match (&planned.state, resolved_leaves.into_inner()) {
            (PlanState::Hit { record, .. }, _) => Present::Whole(record.leaves.clone()),
            (_, Some(leaves)) => Present::Whole(leaves),
            (_, None) => Present::Own(key::own_leaves(stage, &self.plan.pipeline().sources, self.numerics)),
        };
        Ok((planned, present))
    }
}

/// Rows of the stages that make them one by one.
pub(crate) type Counts = HashMap<StageName, RowCount>;

/// What enters the key of a stage.
enum Present {
    /// Everything.
    Whole(Vec<Leaf>),
    /// What does not wait for an input.
    Own(Vec<Leaf>),
}

/// What a run does with damage that one stage found in the result of another: it makes the result again.
fn mend_plan(planned: &mut [PlannedStage], reader: &StageName, source: &StageName, reason: Reason) {
    for stage in planned {
        if stage.name == *reader {
            stage.state = PlanState::Pending { upstream: vec![source.clone()], never_ran: false, changes: Vec::new() };
        } else if stage.name == *source
            && let PlanState::Hit { key, .. } = &stage.state
        {
            stage.state = PlanState::Run { key: *key, reason: reason.clone() };
        }
    }
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

pub(crate) fn names(stages: &[StageName]) -> Vec<String> {
    stages.iter().map(|name| format!("`{name}`")).collect()
}

pub(crate) fn as_texts<S: serde::Serializer>(stages: &[StageName], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(stages.iter().map(StageName::as_str))
}
