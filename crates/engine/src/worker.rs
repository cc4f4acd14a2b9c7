//! One stage on one thread: take the key's lock, look again, compute, commit. It refuses to know of any other
//! stage.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sluice_spec::{Pipeline, Stage, StageName};
use sluice_store::{Committed, KeyLock, Notice, Record, RecordDraft, StageKey, Store, Work};

use crate::event::Event;
use crate::price::unit;
use crate::reason::Reason;
use crate::report::{Recomputed, Reused};
use crate::resolve::Resolved;
use crate::runner::{Done, Given, Job, JobInput, Produced, StageFailure, StageRunner};

/// How often a stage that waits for another process looks whether it is done, or the user wants to stop.
const POLL: Duration = Duration::from_millis(20);

/// What every worker of a run shares.
#[derive(Clone, Copy)]
pub(crate) struct Shop<'a> {
    pub store: &'a Store,
    pub pipeline: &'a Pipeline,
    pub runner: &'a dyn StageRunner,
    pub clock: fn() -> u64,
    /// Whether a stage that another run computes fails instead of waiting.
    pub no_wait: bool,
    pub cancel: &'a AtomicBool,
    pub events: &'a (dyn Fn(Event) + Sync),
}

/// The result of a stage.
#[derive(Debug)]
pub(crate) enum Worked {
    /// Another run computed it while this one waited.
    Shared(Arc<Record>),
    /// Computed here.
    Computed {
        record: Arc<Record>,
        seconds: f64,
        /// What was taken over from before.
        reused: Reused,
        /// How the result compares with the one the key had.
        recomputed: Option<Recomputed>,
    },
}

impl Shop<'_> {
    /// Compute a stage, or wait for whoever computes it; and what the stage had to say, also when it failed. One that is
    /// `forced` is computed here whatever there is; others who want it meanwhile have the result that is there, since
    /// that stays.
    pub fn work(
        &self,
        stage: &Stage,
        resolved: &Resolved,
        reason: &Reason,
        forced: bool,
    ) -> (Result<Worked, StageFailure>, Vec<Notice>) {
        let notices = Mutex::new(Vec::new());
        let worked = self.compute(stage, resolved, reason, forced, &notices);
        (worked, notices.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn compute(
        &self,
        stage: &Stage,
        resolved: &Resolved,
        reason: &Reason,
        forced: bool,
        notices: &Mutex<Vec<Notice>>,
    ) -> Result<Worked, StageFailure> {
        let lock = self.lock_key(&stage.name, resolved.key)?;
        // Whoever had the lock before us may have finished it, or mended it.
        if let Some(record) = self.store.lookup(resolved.key)?
            && !(matches!(reason, Reason::OutputDamaged { .. }) && self.is_damaged(&record))
            && !forced
        {
            return Ok(Worked::Shared(Arc::new(record)));
        }
        let attempt = self.store.begin_locked(lock)?;
        let started = Instant::now();
        let progress = |progress| (self.events)(Event::StageProgress { stage: stage.name.clone(), progress });
        let notify = |notice: Notice| {
            let mut told = notices.lock().unwrap_or_else(PoisonError::into_inner);
            if !told.contains(&notice) {
                (self.events)(Event::StageNotice { stage: stage.name.clone(), notice: notice.clone() });
                told.push(notice);
            }
        };
        let job = Job {
            stage,
            pipeline: self.pipeline,
            key: resolved.key,
            inputs: &resolved.inputs,
            store: self.store,
            attempt: &attempt,
            fresh: forced,
            cancel: self.cancel,
            progress: &progress,
            notify: &notify,
        };
        let Produced { outputs, metrics, facts, n_rows_reused, n_steps_resumed, done } = self.run(&job)?;
        let seconds = started.elapsed().as_secs_f64();
        let draft = RecordDraft {
            kind: stage.kind.name().name().to_owned(),
            stage_version: stage.kind.version(),
            leaves: resolved.leaves.clone(),
            outputs,
            metrics,
            facts,
            n_rows_reused,
            n_steps_resumed,
            notices: notices.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            about: None,
            work: Some(self.work_done(stage, &resolved.inputs, done, seconds)),
            seconds,
            created_unix_ms: (self.clock)(),
        };
        let reused = Reused { n_rows: n_rows_reused, n_steps: n_steps_resumed };
        let committed = attempt.commit(draft)?;
        let recomputed = match &committed {
            Committed::Diverged { evidence, .. } => Some(Recomputed::Differs { evidence: evidence.clone() }),
            Committed::Same(_) => Some(Recomputed::Same),
            Committed::Stored(_) => None,
        };
        let record = Arc::new(committed.record().clone());
        Ok(Worked::Computed { record, seconds: started.elapsed().as_secs_f64(), reused, recomputed })
    }

    /// What the stage worked through: by itself, or what it read if it was made as a whole.
    fn work_done(&self, stage: &Stage, inputs: &[JobInput], done: Option<Done>, seconds: f64) -> Work {
        let rows = inputs.iter().filter_map(|input| match &input.given {
            Given::Output { output, .. } => output.n_rows(),
            Given::Model { .. } | Given::Files { .. } | Given::Config { .. } => None,
        });
        let n_rows_read = rows.sum();
        let bytes = inputs.iter().filter_map(|input| match &input.given {
            Given::Files { patterns, .. } => self.runner.files_bytes(patterns).ok(),
            Given::Output { .. } | Given::Model { .. } | Given::Config { .. } => None,
        });
        let unit = unit(stage);
        let as_a_whole = || Done { n: if unit == "bytes" { bytes.sum() } else { n_rows_read }, n_tokens: 0, seconds };
        let Done { n, n_tokens, seconds } = done.unwrap_or_else(as_a_whole);
        Work { unit: unit.to_owned(), n_done: n, n_tokens, seconds, n_rows_read }
    }

    fn is_damaged(&self, record: &Record) -> bool {
        record.outputs.iter().any(|output| self.store.verify(output).is_err())
    }

    /// The key's lock. Waiting for it is not blind, so that a user can stop a run that waits for another.
    pub fn lock_key(&self, stage: &StageName, key: StageKey) -> Result<KeyLock, StageFailure> {
        let mut told = false;
        loop {
            if let Some(lock) = self.store.try_lock(key)? {
                return Ok(lock);
            }
            if self.cancel.load(Ordering::Relaxed) {
                return Err(StageFailure::Interrupted);
            }
            if self.no_wait {
                return Err(StageFailure::Locked);
            }
            if !told {
                (self.events)(Event::StageWaiting { stage: stage.clone(), key });
                told = true;
            }
            thread::sleep(POLL);
        }
    }

    /// Run the stage's code. A panic in it is that stage's failure, not the end of the stages beside it.
    fn run(&self, job: &Job<'_>) -> Result<Produced, StageFailure> {
        catch_unwind(AssertUnwindSafe(|| self.runner.run(job)))
            .unwrap_or_else(|panic| Err(StageFailure::Panicked { message: panic_text(panic.as_ref()) }))
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
