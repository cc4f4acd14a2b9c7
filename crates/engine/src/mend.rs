//! Damage that a stage finds in what it reads: the stage before is computed again, and the reader after it, in the same
//! run. Each result is made again once in a run, and each reader goes on once for each of them, so that a disk that
//! damages everything ends in a failure and not in a loop. Refuses to know how a stage is computed.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use sluice_spec::StageName;
use sluice_store::{Output, Record, StoreError};

use crate::board::{Board, StageState};
use crate::event::Event;
use crate::reason::Reason;
use crate::run::needs;
use crate::runner::{Given, StageFailure};

/// What a run has to make again, and what it has.
#[derive(Default)]
pub(crate) struct Mending {
    /// Stages to compute though they have a record.
    due: BTreeMap<usize, Reason>,
    /// Stages that are or were computed again, with the digests they had.
    begun: BTreeMap<usize, Vec<String>>,
    /// Readers that went on, with the stage they waited for.
    retried: BTreeSet<(usize, usize)>,
}

impl Mending {
    /// Why a stage has to be computed though it has a record.
    pub fn due(&self, index: usize) -> Option<Reason> {
        self.due.get(&index).cloned()
    }

    /// Puts a stage that failed, and the stage whose result was damaged, back to the beginning. Whether it did: any other
    /// failure stays one.
    pub fn take_up(
        &mut self,
        board: &mut Board<'_>,
        reader: usize,
        failure: &StageFailure,
    ) -> Result<bool, StoreError> {
        let Some(damage) = damage(failure) else { return Ok(false) };
        let Some((stage, output)) = damaged_input(board.state(reader), damage) else { return Ok(false) };
        let Some(source) = board.index_of(&stage) else { return Ok(false) };
        if !self.retried.insert((reader, source)) {
            return Ok(false);
        }
        if let StageState::Done { record, .. } = board.state(source)
            && !self.begun.contains_key(&source)
        {
            let file = damage.path().map(|path| path.display().to_string()).unwrap_or_default();
            self.begun.insert(source, digests(record));
            board.report(Event::Damaged { stage, output: output.clone(), file: file.clone() });
            self.due.insert(source, Reason::OutputDamaged { output, file });
            board.transition(source, StageState::Waiting)?;
        }
        board.transition(reader, StageState::Waiting)?;
        Ok(true)
    }

    /// Puts a stage back to the beginning whose tests found its own result damaged. Whether it did: any other failure stays
    /// one.
    pub fn take_up_tested(
        &mut self,
        board: &mut Board<'_>,
        index: usize,
        failure: &StageFailure,
    ) -> Result<bool, StoreError> {
        let Some(damage) = damage(failure).filter(|_| !self.begun.contains_key(&index)) else { return Ok(false) };
        let StageState::Testing { done, .. } = board.state(index) else { return Ok(false) };
        let StageState::Done { record, .. } = done.as_ref() else { return Ok(false) };
        let is_damaged = |output: &&Output| Some(output.artifact.content()) == damage.damaged_artifact();
        let Some(output) = record.outputs.iter().find(is_damaged).map(|output| output.name.clone()) else {
            return Ok(false);
        };
        let file = damage.path().map(|path| path.display().to_string()).unwrap_or_default();
        self.begun.insert(index, digests(record));
        let stage = board.stage(index).name.clone();
        board.report(Event::Damaged { stage, output: output.clone(), file: file.clone() });
        self.due.insert(index, Reason::OutputDamaged { output, file });
        board.keep_tests(index, Vec::new());
        board.transition(index, StageState::Waiting)?;
        Ok(true)
    }

    /// Looks at a stage that ended. One that came out otherwise than before makes what follows it look for its results
    /// again.
    pub fn ended(&mut self, board: &mut Board<'_>, index: usize) -> Result<(), StoreError> {
        let StageState::Done { record, .. } = board.state(index) else { return Ok(()) };
        self.due.remove(&index);
        if self.begun.get(&index).is_none_or(|before| *before == digests(record)) {
            return Ok(());
        }
        let mut changed = BTreeSet::from([board.stage(index).name.clone()]);
        // The stages are in plan order: what follows stands behind.
        for later in index + 1..board.len() {
            if needs(board.stage(later)).iter().any(|need| changed.contains(need)) {
                changed.insert(board.stage(later).name.clone());
                if matches!(board.state(later), StageState::Done { .. }) {
                    board.transition(later, StageState::Waiting)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a running stage reads what has come out otherwise since it started.
    pub fn is_outdated(&self, board: &Board<'_>, index: usize) -> bool {
        let StageState::Running { resolved, .. } = board.state(index) else { return false };
        !self.begun.is_empty()
            && resolved.inputs.iter().any(|input| match &input.given {
                Given::Output { stage, output, .. } => board
                    .record_of(stage)
                    .and_then(|record| record.output(&output.name).map(|now| now.digest() != output.digest()))
                    .unwrap_or(false),
                Given::Model { .. } | Given::Files { .. } | Given::Config { .. } => false,
            })
    }
}

/// What the store says of a damaged artifact, if that is what a stage failed of.
pub(crate) fn damage(failure: &StageFailure) -> Option<&StoreError> {
    let mut cause: Option<&(dyn Error + 'static)> = match failure {
        StageFailure::Store(error) => Some(error),
        StageFailure::Stage(error) => Some(error.as_ref()),
        StageFailure::Interrupted
        | StageFailure::Locked
        | StageFailure::Panicked { .. }
        | StageFailure::NoModel { .. }
        | StageFailure::NotFetched { .. }
        | StageFailure::FailedTests { .. }
        | StageFailure::NoOutput { .. } => None,
        StageFailure::BrokenTest { source, .. } => return damage(source),
    };
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<StoreError>() {
            return error.damaged_artifact().map(|_| error);
        }
        cause = error.source();
    }
    None
}

/// The stage whose output is damaged, and the output.
fn damaged_input(reader: &StageState, damage: &StoreError) -> Option<(StageName, String)> {
    let StageState::Running { resolved, .. } = reader else { return None };
    resolved.inputs.iter().find_map(|input| damaged_output(&input.given, damage))
}

/// The stage and the output that an input is, if that is what is damaged.
pub(crate) fn damaged_output(given: &Given, damage: &StoreError) -> Option<(StageName, String)> {
    match given {
        Given::Output { stage, output, .. } if Some(output.artifact.content()) == damage.damaged_artifact() => {
            Some((stage.clone(), output.name.clone()))
        }
        Given::Output { .. } | Given::Model { .. } | Given::Files { .. } | Given::Config { .. } => None,
    }
}

fn digests(record: &Record) -> Vec<String> {
    record.outputs.iter().map(|output| output.digest()).collect()
}
