//! Results held against the same computation done again: which of them, which rows of each, and what is kept of one that
//! differs. It owns the choice and the bookkeeping, and refuses to know how rows are compared.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::Serialize;
use sluice_spec::{Stage, StageName};
use sluice_store::{Committed, LeafValue, Record, RecordDraft, StageKey};

use crate::event::as_text;
use crate::reason::compare_leaves;
use crate::resolve::{Answer, Resolved};
use crate::run::{Engine, EngineError, needs};
use crate::runner::{Job, Progress, StageFailure};

/// The leaf that says in which family of arithmetic a result was computed.
const NUMERICS: &str = "engine.numerics";

/// What is checked.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// The stages whose results are checked; all if empty.
    pub targets: Vec<String>,
    /// How much of each.
    pub amount: Amount,
    /// Whether trainings are done again, whatever the amount.
    pub train: bool,
    /// Draws the rows.
    pub seed: u64,
}

/// How many rows of a result are made again: at least one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// This share of them, above 0 and up to 1.
    Share(f64),
    /// So many, or all of them if there are fewer.
    Rows(u64),
}

/// How a thing that was made again compares with the stored one; the later, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Likeness {
    /// To the bit.
    Exact,
    /// Within the tolerance of the kind.
    Near,
    /// Neither.
    Different,
}

/// Rows of a result, to be made again by [`crate::StageRunner::verify`].
pub struct Recheck<'a> {
    /// The stage and what it reads. Its attempt remembers nothing of earlier runs, and nothing of it is kept.
    pub job: Job<'a>,
    /// The stored result.
    pub record: &'a Record,
    /// Rows of its first table, ascending. A stage that is made as a whole is made as a whole.
    pub rows: &'a [u64],
    /// Whether the result was computed in another family of arithmetic.
    pub is_foreign: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Rechecked {
    /// What was compared: `rows`, or `results` where a result is one thing.
    pub unit: &'static str,
    /// How many were the same to the bit.
    pub n_exact: u64,
    /// How many were within the tolerance.
    pub n_near: u64,
    /// How many were neither.
    pub n_different: u64,
    /// What is within the tolerance.
    pub tolerance: String,
    /// The worst, the worst first.
    pub worst: Vec<Example>,
    /// A result that came out different as a whole, written through the job's attempt.
    pub produced: Option<crate::runner::Produced>,
}

/// Something that is not exactly the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Example {
    /// How it compares.
    pub likeness: Likeness,
    /// Which row it is.
    pub row: String,
    /// What was stored and what it is now.
    pub what: String,
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    /// What the rows were drawn with.
    pub seed: u64,
    /// The checked stages, in plan order.
    pub stages: Vec<VerifiedStage>,
}

/// What a check found of one stage.
#[derive(Debug, Clone, Serialize)]
pub struct VerifiedStage {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub name: StageName,
    /// Its kind.
    pub kind: &'static str,
    /// What was found.
    #[serde(flatten)]
    pub state: Checked,
    /// Seconds it took.
    pub seconds: f64,
}

/// How the check of a stage ended.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "there is one for each stage, and most of them are done")]
pub enum Checked {
    /// Some of it was made again.
    Done {
        /// The result's key.
        key: StageKey,
        /// The worst that was found.
        verdict: Likeness,
        /// What was compared.
        unit: &'static str,
        /// How many were the same to the bit.
        exact: u64,
        /// How many were within the tolerance.
        near: u64,
        /// How many were neither.
        different: u64,
        /// Of how many in the result.
        of: u64,
        /// What is within the tolerance.
        tolerance: String,
        /// The rows that were drawn, by number; empty where all were made.
        rows: Vec<u64>,
        /// The family of arithmetic of the result, and that of the check, where these differ.
        numerics: Option<(String, String)>,
        /// The worst, the worst first.
        worst: Vec<Example>,
        /// The file that holds the record of a different result.
        evidence: Option<PathBuf>,
    },
    /// It was not made again.
    Skipped {
        /// Why, and what would make it be.
        reason: String,
    },
    /// It could not be made again.
    Failed {
        /// What is wrong.
        #[serde(serialize_with = "as_text")]
        failure: Arc<StageFailure>,
    },
}

/// A stored result, and whether it is of another family of arithmetic.
struct Stored {
    record: Arc<Record>,
    is_foreign: bool,
}

impl Engine<'_> {
    /// Make rows of results again and hold them against what is stored. The stored results stay as they are. A result that
    /// comes out different as a whole is kept beside the first, as evidence.
    ///
    /// # Errors
    /// `UnknownStage`; `Store` when the store does not read. A stage that cannot be made again is in the report.
    pub fn verify(
        &self,
        options: &VerifyOptions,
        cancel: &AtomicBool,
        progress: &(dyn Fn(&StageName, Progress) + Sync),
    ) -> Result<VerifyReport, EngineError> {
        let mut resolver = self.resolver();
        let mut results: HashMap<StageName, Stored> = HashMap::new();
        let mut stages = Vec::new();
        for stage in self.wanted(&options.targets)? {
            let is_asked = options.targets.is_empty() || options.targets.iter().any(|name| name == stage.name.as_str());
            let missing = needs(stage).into_iter().find(|need| !results.contains_key(need));
            let resolved = match missing {
                Some(need) => Err(Checked::Skipped { reason: format!("`{need}`, which it reads, has no result") }),
                None => resolver
                    .resolve(stage, |name| results.get(name).map(|stored| stored.record.clone()))
                    .map_err(|failure| Checked::Failed { failure: Arc::new(failure) }),
            };
            let started = Instant::now();
            let state = match resolved {
                Err(state) => state,
                Ok(resolved) => match self.stored(stage, &resolved, resolver.answer(stage, &resolved)?)? {
                    Err(reason) => Checked::Skipped { reason },
                    Ok(stored) => {
                        let state = if is_asked {
                            self.check(stage, &resolved, &stored, options, cancel, progress)
                        } else {
                            Checked::Skipped { reason: String::new() }
                        };
                        results.insert(stage.name.clone(), stored);
                        state
                    }
                },
            };
            if is_asked {
                let (name, kind) = (stage.name.clone(), stage.kind.name().name());
                stages.push(VerifiedStage { name, kind, state, seconds: started.elapsed().as_secs_f64() });
            }
        }
        let _ = self.store.save_stat_cache();
        Ok(VerifyReport { seed: options.seed, stages })
    }

    /// The result of a stage: that of its key, or the last one if nothing but the arithmetic is another.
    fn stored(
        &self,
        stage: &Stage,
        resolved: &Resolved,
        answer: Answer,
    ) -> Result<Result<Stored, String>, EngineError> {
        let reason = match answer {
            Answer::Hit(record) => return Ok(Ok(Stored { record, is_foreign: false })),
            Answer::Run(reason) => reason,
        };
        let earlier = self.resolver().history.last(&stage.name, None)?;
        let foreign = earlier.filter(|earlier| {
            let changes = compare_leaves(&earlier.record.leaves, &resolved.leaves);
            !changes.is_empty() && changes.iter().all(|change| change.path == NUMERICS)
        });
        // A record whose outputs are gone is nothing to compare with.
        match foreign.map(|earlier| self.store.lookup(earlier.record.key)).transpose()?.flatten() {
            Some(record) => Ok(Ok(Stored { record: Arc::new(record), is_foreign: true })),
            None => Ok(Err(format!("it has no result: {reason}"))),
        }
    }

    fn check(
        &self,
        stage: &Stage,
        resolved: &Resolved,
        stored: &Stored,
        options: &VerifyOptions,
        cancel: &AtomicBool,
        progress: &(dyn Fn(&StageName, Progress) + Sync),
    ) -> Checked {
        let is_all = matches!(options.amount, Amount::Share(share) if share >= 1.0);
        if matches!(stage.kind, sluice_spec::Kind::Train(_)) && !options.train && !is_all {
            let reason = "a training is done again as a whole, and only with --train or --recompute 100%".to_owned();
            return Checked::Skipped { reason };
        }
        if cancel.load(Ordering::Relaxed) {
            return Checked::Failed { failure: Arc::new(StageFailure::Interrupted) };
        }
        self.recheck(stage, resolved, stored, options, cancel, progress)
            .unwrap_or_else(|failure| Checked::Failed { failure: Arc::new(failure) })
    }

    fn recheck(
        &self,
        stage: &Stage,
        resolved: &Resolved,
        Stored { record, is_foreign }: &Stored,
        options: &VerifyOptions,
        cancel: &AtomicBool,
        progress: &(dyn Fn(&StageName, Progress) + Sync),
    ) -> Result<Checked, StageFailure> {
        let n_rows = record.outputs.first().and_then(|output| output.n_rows());
        let rows = n_rows.map_or(Vec::new(), |n_rows| drawn(record.key, n_rows, options));
        let attempt = self.store.begin_blind(record.key)?;
        let started = Instant::now();
        let job = Job {
            stage,
            pipeline: self.plan.pipeline(),
            key: record.key,
            inputs: &resolved.inputs,
            store: self.store,
            attempt: &attempt,
            fresh: true,
            cancel,
            progress: &|at| progress(&stage.name, at),
            notify: &|_| {},
        };
        let recheck = Recheck { job, record, rows: &rows, is_foreign: *is_foreign };
        let Rechecked { unit, n_exact, n_near, n_different, tolerance, worst, produced } =
            self.runner.verify(&recheck)?;
        let n_compared = n_exact + n_near + n_different;
        let is_partial = unit == "rows" && n_compared == rows.len() as u64;
        // Another arithmetic gives another result by right, and under another key.
        let evidence = match produced.filter(|_| !is_foreign) {
            Some(produced) => {
                let draft = RecordDraft {
                    kind: record.kind.clone(),
                    stage_version: record.stage_version,
                    leaves: record.leaves.clone(),
                    outputs: produced.outputs,
                    metrics: produced.metrics,
                    facts: produced.facts,
                    seconds: started.elapsed().as_secs_f64(),
                    created_unix_ms: (self.clock)(),
                    ..RecordDraft::default()
                };
                match attempt.commit(draft)? {
                    Committed::Diverged { evidence, .. } => Some(evidence),
                    Committed::Stored(_) | Committed::Same(_) => None,
                }
            }
            None => None,
        };
        Ok(Checked::Done {
            key: record.key,
            verdict: match (n_different, n_near) {
                (0, 0) => Likeness::Exact,
                (0, _) => Likeness::Near,
                _ => Likeness::Different,
            },
            unit,
            exact: n_exact,
            near: n_near,
            different: n_different,
            of: if is_partial { n_rows.unwrap_or(n_compared) } else { n_compared },
            tolerance,
            rows: if is_partial && n_rows != Some(n_compared) { rows } else { Vec::new() },
            numerics: is_foreign.then(|| (numerics_of(record), self.numerics.as_str().to_owned())),
            worst,
            evidence,
        })
    }
}

fn numerics_of(record: &Record) -> String {
    let leaf = record.leaves.iter().find(|leaf| leaf.path == NUMERICS);
    match leaf.map(|leaf| &leaf.value) {
        Some(LeafValue::Text(text)) => text.clone(),
        _ => "unknown".to_owned(),
    }
}

/// The rows that are made again, ascending: those whose hashes with seed and key are the lowest, so that another seed draws
/// others, and a larger amount adds to those of a smaller one.
fn drawn(key: StageKey, n_rows: u64, options: &VerifyOptions) -> Vec<u64> {
    let wanted = match options.amount {
        Amount::Share(share) => (share * n_rows as f64).ceil() as u64,
        Amount::Rows(rows) => rows,
    };
    let wanted = wanted.clamp(1, n_rows.max(1)).min(n_rows);
    if wanted == n_rows {
        return (0..n_rows).collect();
    }
    let rank = |row: &u64| {
        let mut hasher = blake3::Hasher::new_derive_key("sluice verify draw v1");
        hasher.update(&options.seed.to_le_bytes()).update(key.as_bytes()).update(&row.to_le_bytes());
        *hasher.finalize().as_bytes()
    };
    let mut ranked: Vec<([u8; 32], u64)> = (0..n_rows).map(|row| (rank(&row), row)).collect();
    ranked.select_nth_unstable(wanted as usize - 1);
    let mut rows: Vec<u64> = ranked[..wanted as usize].iter().map(|(_, row)| *row).collect();
    rows.sort_unstable();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_repeatable_and_grows() {
        let key = StageKey::from_bytes([7; 32]);
        let draw = |amount, seed, n_rows| {
            drawn(key, n_rows, &VerifyOptions { targets: Vec::new(), amount, train: false, seed })
        };
        let few = draw(Amount::Rows(10), 1, 1000);
        assert_eq!(few, draw(Amount::Share(0.01), 1, 1000));
        assert_ne!(few, draw(Amount::Rows(10), 2, 1000));
        let more = draw(Amount::Rows(50), 1, 1000);
        assert!(few.iter().all(|row| more.contains(row)) && more.is_sorted() && more.len() == 50);
        assert_eq!(draw(Amount::Share(0.01), 1, 7).len(), 1, "at least one");
        assert_eq!(draw(Amount::Rows(10), 1, 3), [0, 1, 2]);
        assert_eq!(draw(Amount::Share(1.0), 1, 3), [0, 1, 2]);
        assert!(draw(Amount::Rows(10), 1, 0).is_empty());
    }
}
