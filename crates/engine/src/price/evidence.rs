//! What earlier runs say of the cost of a stage: the records that are like it, the newest first. It owns what likeness is,
//! and refuses to predict. Records are looked for once a plan, and read only when a stage asks for them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use sluice_spec::{Expects, KindName, Source, Stage};
use sluice_store::{Leaf, Outcome, Record, RunId, StageKey, Store, StoreError, Work};

use crate::event::as_text;
use crate::history::{History, Past};
use crate::key::{INPUT, runs_a_model};

/// Runs that are looked through. Costs of long ago are those of another program.
const DEPTH: usize = 32;
/// Records of a stage, or of a kind, that are looked at.
const RECORDS: usize = 12;
/// Of what is predicted, the share that the newest records must have worked through to speak alone.
const ENOUGH: f64 = 0.25;

/// What evidence is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Of this very stage, with the same models and the same arithmetic.
    Stage,
    /// Of another stage of the kind, with the same models and the same arithmetic.
    Model,
    /// Of another stage of the kind, which runs no model.
    Kind,
}

/// Where a prediction comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// How near it is.
    pub basis: Basis,
    /// The run that most of it is of.
    #[serde(serialize_with = "as_text")]
    pub run: RunId,
    /// How long ago its record was written.
    pub age_seconds: u64,
    /// Units worked through in the records it is taken from.
    pub n_done: u64,
    /// How many records these are.
    pub n_records: usize,
}

/// Records that are like a stage, the newest first; at least one.
pub(crate) struct Found {
    pub basis: Basis,
    records: Vec<(RunId, Arc<Record>)>,
}

/// What a unit costs, by some records.
pub(crate) struct Rate {
    pub seconds: f64,
    pub tokens: f64,
    /// Seconds that are spent whatever the number of units.
    pub overhead_s: f64,
    pub evidence: Evidence,
}

impl Found {
    /// The newest record.
    pub fn newest(&self) -> &Record {
        &self.records[0].1
    }

    /// What a unit costs, if any record has worked one through: by the newest records that have together done enough of
    /// them to speak about `n_units`. Each counts by its units, so that a run which had three rows left says little.
    pub fn rate(&self, n_units: u64, now_unix_ms: u64) -> Option<Rate> {
        let mut sum = Work::default();
        let mut overheads = Vec::new();
        let mut most: Option<(u64, RunId, u64)> = None;
        for (run, record) in &self.records {
            let Some(work) = record.work.as_ref().filter(|work| work.n_done > 0) else { continue };
            sum.n_done += work.n_done;
            sum.n_tokens += work.n_tokens;
            sum.seconds += work.seconds;
            overheads.push((record.seconds - work.seconds).max(0.0));
            if most.is_none_or(|(n_done, ..)| work.n_done > n_done) {
                most = Some((work.n_done, *run, record.created_unix_ms));
            }
            if sum.n_done as f64 >= ENOUGH * n_units as f64 {
                break;
            }
        }
        let (_, run, created_unix_ms) = most?;
        let n_done = sum.n_done as f64;
        Some(Rate {
            seconds: sum.seconds / n_done,
            tokens: sum.n_tokens as f64 / n_done,
            overhead_s: overheads.iter().sum::<f64>() / overheads.len() as f64,
            evidence: Evidence {
                basis: self.basis,
                run,
                age_seconds: now_unix_ms.saturating_sub(created_unix_ms) / 1000,
                n_done: sum.n_done,
                n_records: overheads.len(),
            },
        })
    }
}

/// The earlier runs of a store, as evidence.
pub(crate) struct Archive<'a> {
    store: &'a Store,
    history: &'a History<'a>,
    /// Of the pipeline that is planned.
    profile: Option<&'a str>,
    /// None for what does not read.
    records: RefCell<HashMap<StageKey, Option<Arc<Record>>>>,
    of_kinds: RefCell<HashMap<KindName, Arc<[Candidate]>>>,
}

/// A key that a stage had in some run.
#[derive(Clone, Copy)]
struct Candidate {
    key: StageKey,
    run: RunId,
    /// Whether that run is of the same pipeline and profile.
    is_own: bool,
}

impl<'a> Archive<'a> {
    pub fn new(store: &'a Store, history: &'a History<'a>, profile: Option<&'a str>) -> Self {
        Self { store, history, profile, records: RefCell::default(), of_kinds: RefCell::default() }
    }

    /// Records like a stage of which these leaves are known. None if there is none.
    pub fn like(&self, stage: &Stage, leaves: &[Leaf]) -> Result<Option<Found>, StoreError> {
        let kind = stage.kind.name();
        let own = self.candidates(stage.name.as_str())?;
        if let Some(found) = self.found(Basis::Stage, stage, leaves, &own) {
            return Ok(Some(found));
        }
        // A query costs what it asks for, and another query says nothing of it.
        if kind == KindName::Sql {
            return Ok(None);
        }
        let basis = if runs_a_model(kind) { Basis::Model } else { Basis::Kind };
        let of_kind = self.of_kind(kind)?;
        Ok(self.found(basis, stage, leaves, &of_kind))
    }

    fn found(&self, basis: Basis, stage: &Stage, leaves: &[Leaf], candidates: &[Candidate]) -> Option<Found> {
        let mut records = Vec::new();
        for candidate in candidates {
            let Some(record) = self.record(candidate.key) else { continue };
            if is_like(stage, leaves, &record, candidate.is_own) {
                records.push((candidate.run, record));
            }
        }
        if records.is_empty() { None } else { Some(Found { basis, records }) }
    }

    fn of_kind(&self, kind: KindName) -> Result<Arc<[Candidate]>, StoreError> {
        if let Some(known) = self.of_kinds.borrow().get(&kind) {
            return Ok(known.clone());
        }
        let mut seen = HashSet::new();
        let mut candidates = Vec::new();
        for past in self.history.runs().take(DEPTH) {
            let past = past?;
            let is_own = self.is_own(&past);
            let entries = past.manifest.stages.iter().filter(|entry| entry.kind == kind.name());
            for entry in entries.filter(|entry| made_something(entry.outcome)) {
                let Some(key) = entry.key.filter(|key| candidates.len() < RECORDS && seen.insert(*key)) else {
                    continue;
                };
                candidates.push(Candidate { key, run: past.manifest.run, is_own });
            }
        }
        let candidates: Arc<[Candidate]> = candidates.into();
        self.of_kinds.borrow_mut().insert(kind, candidates.clone());
        Ok(candidates)
    }

    /// The keys of a stage, the newest first, each with the run that computed it.
    fn candidates(&self, name: &str) -> Result<Vec<Candidate>, StoreError> {
        let mut candidates: Vec<Candidate> = Vec::new();
        for past in self.history.runs().take(DEPTH) {
            let past = past?;
            let Some(entry) = past.entry(name).filter(|_| self.is_own(&past)) else { continue };
            let Some(key) = entry.key else { continue };
            if let Some(known) = candidates.iter_mut().find(|candidate| candidate.key == key) {
                // A later run found the result; this one made it.
                if made_something(entry.outcome) {
                    known.run = past.manifest.run;
                }
            } else if candidates.len() < RECORDS {
                candidates.push(Candidate { key, run: past.manifest.run, is_own: true });
            }
        }
        Ok(candidates)
    }

    fn is_own(&self, past: &Past) -> bool {
        past.manifest.pipeline == self.history.pipeline() && past.manifest.profile.as_deref() == self.profile
    }

    fn record(&self, key: StageKey) -> Option<Arc<Record>> {
        let mut records = self.records.borrow_mut();
        // A record that does not read is no evidence, and somebody else's business.
        records.entry(key).or_insert_with(|| self.store.record(key).ok().flatten().map(Arc::new)).clone()
    }
}

fn made_something(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Ran | Outcome::Partial)
}

/// Whether a record tells what the stage costs. For one that runs a model it must have been the same arithmetic and the
/// same models. A checkpoint that a stage makes is another one each time: of the same pipeline and profile it has the same
/// shape, and so it has, likely, where the stage's other models are the same.
fn is_like(stage: &Stage, leaves: &[Leaf], record: &Record, is_own: bool) -> bool {
    let kind = stage.kind.name();
    if record.kind != kind.name() {
        return false;
    }
    if !runs_a_model(kind) {
        return true;
    }
    let value =
        |leaves: &[Leaf], path: &str| leaves.iter().find(|leaf| leaf.path == path).map(|leaf| leaf.value.clone());
    let same = |path: &str| value(leaves, path) == value(&record.leaves, path);
    let models: Vec<_> = stage
        .kind
        .inputs()
        .into_iter()
        .filter(|input| matches!(input.expects, Expects::Checkpoint | Expects::Config))
        .map(|input| (matches!(input.source, Source::Stage(_)), same(&format!("{INPUT}{}", input.role))))
        .collect();
    same("engine.numerics")
        && models.iter().all(|(is_made, is_same)| *is_made || *is_same)
        && (is_own || models.iter().any(|(_, is_same)| *is_same))
}
