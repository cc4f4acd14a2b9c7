//! Events for programs: JSON lines on stdout, or structured logs on stderr. A running stage is told of once a second.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sluice_engine::Event;
use sluice_spec::StageName;
use sluice_store::{Notice, NoticeLevel};

use crate::progress::Watch;

/// `run --json`: one event a line, and the report as the last of them.
pub struct JsonLines {
    told: Told,
}

/// `--log-format json`.
pub struct Logged {
    told: Told,
}

/// When each stage was last told of.
#[derive(Default)]
struct Told(Mutex<BTreeMap<StageName, Instant>>);

impl Told {
    const EVERY: Duration = Duration::from_secs(1);

    /// Whether an event is to be passed on.
    fn pass(&self, event: &Event) -> bool {
        let Event::StageProgress { stage, .. } = event else { return true };
        let now = Instant::now();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told.get(stage).is_none_or(|at| now.duration_since(*at) >= Self::EVERY);
        if due {
            told.insert(stage.clone(), now);
        }
        due
    }
}

impl JsonLines {
    pub fn new() -> JsonLines {
        JsonLines { told: Told::default() }
    }
}

impl Watch for JsonLines {
    fn event(&self, event: &Event) {
        if !self.told.pass(event) {
            return;
        }
        match serde_json::to_string(event) {
            // Whoever closed the pipe wants no more of it.
            Ok(line) => drop(writeln!(std::io::stdout(), "{line}")),
            Err(error) => tracing::error!(%error, ?event, "an event has no JSON form"),
        }
    }

    fn interrupted(&self, message: &str) {
        let _ = writeln!(std::io::stderr(), "{message}");
    }
}

impl Logged {
    pub fn new() -> Logged {
        Logged { told: Told::default() }
    }
}

impl Watch for Logged {
    fn event(&self, event: &Event) {
        if self.told.pass(event) {
            log(event);
        }
    }

    fn interrupted(&self, message: &str) {
        tracing::warn!("{message}");
    }
}

fn log(event: &Event) {
    match event {
        Event::RunStarted { run, pipeline, stages } => {
            let run = run.map(|run| run.to_string());
            tracing::info!(run, pipeline, n_stages = stages.len(), "run starts");
        }
        Event::StageHit { stage, key, rows, digest, saved_seconds } => {
            tracing::info!(%stage, %key, rows, digest, saved_seconds, "stage is up to date");
        }
        Event::StageStarted { stage, key, reason } => tracing::info!(%stage, %key, reason, "stage starts"),
        Event::StageWaiting { stage, key } => tracing::info!(%stage, %key, "stage waits for another run"),
        Event::StageProgress { stage, progress } => {
            let sluice_engine::Progress { done, total, unit, n_tokens, loss } = progress;
            tracing::info!(%stage, done, total, unit, n_tokens, loss, "stage runs");
        }
        Event::StageNotice { stage, notice: Notice { level: NoticeLevel::Note, text } } => {
            tracing::info!(%stage, "{text}")
        }
        Event::StageNotice { stage, notice: Notice { level: NoticeLevel::Warning, text } } => {
            tracing::warn!(%stage, "{text}");
        }
        Event::StageFinished { stage, key, rows, rows_reused, seconds, digest, metrics } => {
            let metrics = serde_json::to_string(metrics).unwrap_or_default();
            tracing::info!(%stage, %key, rows, rows_reused, seconds, digest, metrics, "stage is done");
        }
        Event::StageTested { stage, tests } => {
            let tests = serde_json::to_string(tests).unwrap_or_default();
            tracing::info!(%stage, tests, "stage is tested");
        }
        Event::StageFailed { stage, error, causes } => {
            tracing::error!(%stage, error, causes = causes.join(": "), "stage failed");
        }
        Event::StageInterrupted { stage } => tracing::warn!(%stage, "stage is interrupted"),
        Event::StageBlocked { stage, by } => tracing::warn!(%stage, %by, "stage is not run"),
        Event::Damaged { stage, output, file } => {
            tracing::warn!(%stage, output, file, "output is damaged and is made again");
        }
        Event::Diverged { stage, key, evidence } => {
            tracing::warn!(%stage, %key, evidence = %evidence.display(), "stage gave another result than before");
        }
        Event::RunFinished(report) => {
            let run = report.run.map(|run| run.to_string());
            tracing::info!(run, outcome = ?report.outcome, seconds = report.seconds, "run is over");
        }
    }
}
