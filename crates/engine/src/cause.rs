//! The root of a change: from a stage that runs, along what it reads, to the parameters, files and models that are not as
//! they were. It owns the way back and its text, and refuses to know what a value means.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;

use serde::Serialize;
use sluice_spec::{Source, Stage, StageName};
use sluice_store::{Leaf, Record, RunId, RunManifest, StoreError};

use crate::event::as_text;
use crate::explain::{PlanState, PlannedStage, as_texts, names};
use crate::history::History;
use crate::key::INPUT;
use crate::reason::{LeafChange, Reason, compare_leaves, write_changes};
use crate::run::{Engine, EngineError};

/// A stage in which something changed that made others run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cause {
    /// The stage.
    #[serde(serialize_with = "as_text")]
    pub stage: StageName,
    /// What changed in it: parameters, files, models; never a table or checkpoint of another stage.
    pub changes: Vec<LeafChange>,
    /// Why it runs where nothing changed: it never ran, its output is gone.
    pub reason: Option<String>,
    /// The stages between this one and the one that was asked about, in that order.
    #[serde(serialize_with = "as_texts")]
    pub through: Vec<StageName>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ", self.stage)?;
        match &self.reason {
            Some(reason) => f.write_str(reason)?,
            None => write_changes(f, &self.changes)?,
        }
        if self.through.is_empty() { Ok(()) } else { write!(f, ", through {}", names(&self.through).join(", ")) }
    }
}

impl Engine<'_> {
    /// The stages before `stage` in which something changed since the run `since`, and which it depends on through what
    /// they changed: the nearest first. None if nothing did, or if there is nothing to compare with.
    ///
    /// # Errors
    /// `UnknownStage`; `Store` when the store does not read.
    pub fn causes(&self, stage: &str, since: Option<RunId>) -> Result<Vec<Cause>, EngineError> {
        let Some(since) = since else { return Ok(Vec::new()) };
        let leaves = RefCell::new(HashMap::new());
        let planned = self.states(&[stage.to_owned()], &|stage, resolved, reason| {
            leaves.borrow_mut().insert(stage.name.clone(), resolved.leaves.clone());
            PlanState::Run { key: resolved.key, reason }
        })?;
        let history = History::new(self.store, self.pipeline);
        // A manifest that does not read has no keys to compare with; the last records stand in for it.
        let manifest = self.store.run(since).ok().flatten();
        let trace = Trace { engine: self, planned: &planned, leaves: leaves.into_inner(), manifest, history };
        Ok(trace.causes(stage)?)
    }
}

struct Trace<'a> {
    engine: &'a Engine<'a>,
    planned: &'a [PlannedStage],
    /// Of the stages that would run.
    leaves: HashMap<StageName, Vec<Leaf>>,
    manifest: Option<RunManifest>,
    history: History<'a>,
}

impl Trace<'_> {
    /// Breadth first, so that a stage is told with its shortest way.
    fn causes(&self, asked: &str) -> Result<Vec<Cause>, StoreError> {
        let (mut causes, mut seen) = (Vec::new(), HashSet::new());
        let mut waiting: VecDeque<(&Stage, Vec<StageName>)> = VecDeque::new();
        waiting.extend(
            self.engine.plan.stages().find(|stage| stage.name.as_str() == asked).map(|stage| (stage, Vec::new())),
        );
        while let Some((stage, through)) = waiting.pop_front() {
            let Some(state) = self.state(&stage.name) else { continue };
            if !seen.insert(&stage.name) {
                continue;
            }
            let old = self.old(&stage.name)?;
            let new = self.new_leaves(stage, state)?;
            let is_asked = stage.name.as_str() == asked;
            if !is_asked {
                causes.extend(cause(stage, state, old.as_ref(), &new, &through));
            }
            // What never ran reads nothing that changed.
            let Some(old) = old else { continue };
            let mut through = through;
            if !is_asked {
                through.insert(0, stage.name.clone());
            }
            for input in stage.kind.inputs() {
                let Source::Stage(read) = &input.source else { continue };
                let path = format!("{INPUT}{}", input.role);
                let value =
                    |leaves: &[Leaf]| leaves.iter().find(|leaf| leaf.path == path).map(|leaf| leaf.value.clone());
                let is_there = matches!(self.state(&read.stage), Some(PlanState::Hit { .. }));
                if !is_there || value(&old.leaves) != value(&new) {
                    let next = self.engine.plan.stages().find(|stage| stage.name == read.stage);
                    waiting.extend(next.map(|next| (next, through.clone())));
                }
            }
        }
        Ok(causes)
    }

    fn state(&self, name: &StageName) -> Option<&PlanState> {
        self.planned.iter().find(|planned| planned.name == *name).map(|planned| &planned.state)
    }

    /// What the stage was in the run that is compared with, or else the last time it was anything.
    fn old(&self, name: &StageName) -> Result<Option<Record>, StoreError> {
        let then = self.manifest.as_ref().and_then(|manifest| manifest.key_of(name.as_str()));
        // A damaged record explains nothing.
        if let Some(record) = then.and_then(|key| self.engine.store.record(key).ok().flatten()) {
            return Ok(Some(record));
        }
        Ok(self.history.last(name, None)?.map(|earlier| earlier.record))
    }

    /// What enters the key, as far as it is known.
    fn new_leaves(&self, stage: &Stage, state: &PlanState) -> Result<Vec<Leaf>, StoreError> {
        if let PlanState::Hit { record, .. } = state {
            return Ok(record.leaves.clone());
        }
        if let Some(leaves) = self.leaves.get(&stage.name) {
            return Ok(leaves.clone());
        }
        let record_of = |name: &StageName| match self.state(name) {
            Some(PlanState::Hit { record, .. }) => Some(record.clone()),
            _ => None,
        };
        Ok(self.engine.resolver().known(stage, record_of).leaves)
    }
}

/// What a stage itself has to do with the change, if anything.
fn cause(stage: &Stage, state: &PlanState, old: Option<&Record>, new: &[Leaf], through: &[StageName]) -> Option<Cause> {
    let reason = match (state, old) {
        (PlanState::Run { reason: Reason::Changed(_), .. } | PlanState::Hit { .. }, _) => None,
        (PlanState::Run { reason, .. } | PlanState::Partial { reason, .. }, _) => Some(reason.to_string()),
        (PlanState::Fail { failure }, _) => Some(format!("would fail: {failure}")),
        (PlanState::Pending { .. } | PlanState::Fetch { .. }, None) => Some(Reason::NeverRan.to_string()),
        (PlanState::Fetch { what, .. }, Some(_)) => Some(what.clone()),
        (PlanState::Pending { .. }, Some(_)) => None,
    };
    let from_stages: HashSet<String> = stage
        .kind
        .inputs()
        .into_iter()
        .filter(|input| matches!(input.source, Source::Stage(_)))
        .map(|input| format!("{INPUT}{}", input.role))
        .collect();
    let mut changes = old.map_or(Vec::new(), |old| compare_leaves(&old.leaves, new));
    changes.retain(|change| !from_stages.contains(&change.path));
    if changes.is_empty() && reason.is_none() {
        return None;
    }
    Some(Cause { stage: stage.name.clone(), changes, reason, through: through.to_vec() })
}
