//! Lines for a file or a pipe: one when a stage starts, one when it ends, and between them one every ten seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sluice_engine::Event;
use sluice_spec::StageName;
use sluice_store::{Notice, NoticeLevel};

use crate::progress::Watch;
use crate::progress::meter::Meter;
use crate::render::quantity::{counted, seconds};
use crate::render::tested::{Came, counts};
use crate::render::{Ink, Paint};
use crate::tested::came;

/// Time between two lines of a running stage.
const EVERY: Duration = Duration::from_secs(10);

/// Watches for a file.
pub struct Plain {
    paint: Paint,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    width: usize,
    /// Stages whose rows are steps.
    trainers: Vec<StageName>,
    running: BTreeMap<StageName, (Meter, Instant)>,
    /// Warnings that were told: a model that several stages read has them several times.
    warnings: BTreeSet<String>,
}

impl Plain {
    pub fn new(paint: Paint) -> Plain {
        Plain { paint, state: Mutex::default() }
    }
}

impl Watch for Plain {
    fn event(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = state.line(event, Instant::now(), self.paint) {
            // Nobody reads a closed stderr.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    fn interrupted(&self, message: &str) {
        let _ = writeln!(std::io::stderr(), "{message}");
    }
}

impl State {
    /// The line an event is worth, if any.
    fn line(&mut self, event: &Event, now: Instant, paint: Paint) -> Option<String> {
        let (stage, text) = match event {
            Event::RunStarted { stages, .. } => {
                self.width = stages.iter().map(|stage| stage.name.as_str().len()).max().unwrap_or(0);
                let trainers = stages.iter().filter(|stage| stage.kind == "train");
                self.trainers = trainers.map(|stage| stage.name.clone()).collect();
                return None;
            }
            // The summary lists them; a line for each would be most of a run with nothing to do.
            Event::StageHit { .. } | Event::StageBlocked { .. } | Event::RunFinished(_) => return None,
            Event::StageStarted { stage, reason, .. } => {
                self.running.insert(stage.clone(), (Meter::default(), now));
                (stage, format!("starts: {reason}"))
            }
            Event::StageWaiting { stage, .. } => (stage, "waits: another run is computing this".to_owned()),
            Event::StageProgress { stage, progress } => {
                let (meter, told) = self.running.get_mut(stage)?;
                meter.record(now, *progress);
                if now.duration_since(*told) < EVERY {
                    return None;
                }
                *told = now;
                (stage, meter.read(now)?.text())
            }
            Event::StageNotice { stage, notice: Notice { level: NoticeLevel::Note, text } } => (stage, text.clone()),
            Event::StageNotice { stage, notice: Notice { level: NoticeLevel::Warning, text } } => {
                if !self.warnings.insert(text.clone()) {
                    return None;
                }
                (stage, paint.ink(Ink::Active, format!("warning: {text}")))
            }
            Event::StageFinished { stage, rows, rows_reused, seconds: took, .. } => {
                self.running.remove(stage);
                let noun = if self.trainers.contains(stage) { "step" } else { "row" };
                let rows = rows.map(|n| format!("{} in ", counted(n, noun))).unwrap_or_default();
                let what = if self.trainers.contains(stage) { "reference row" } else { "row" };
                let reused =
                    if *rows_reused > 0 { format!(", {} reused", counted(*rows_reused, what)) } else { String::new() };
                (stage, paint.ink(Ink::Good, format!("done: {rows}{}{reused}", seconds(*took))))
            }
            Event::StageTested { stage, tests } => {
                // What was known is in the summary.
                if tests.iter().all(|test| test.known) {
                    return None;
                }
                let came: Vec<Came> = tests.iter().map(came).collect();
                let ink = if came.iter().all(|came| *came == Came::Passed) { Ink::Good } else { Ink::Active };
                (stage, paint.ink(ink, counts(&came)))
            }
            Event::StageFailed { stage, error, causes } => {
                let causes: String = causes.iter().map(|cause| format!(": {cause}")).collect();
                (stage, paint.ink(Ink::Bad, format!("failed: {error}{causes}")))
            }
            Event::StageInterrupted { stage } => {
                // Of those that had not begun there is nothing to tell.
                self.running.remove(stage)?;
                (stage, paint.ink(Ink::Active, "interrupted"))
            }
            Event::Damaged { stage, output, file } => {
                let text = format!("its output `{output}` is damaged, and is made again: {file}");
                (stage, paint.ink(Ink::Active, text))
            }
            Event::Diverged { stage, evidence, .. } => {
                let text = format!(
                    "gave another result than before; the first one stays, the other is in {}",
                    evidence.display()
                );
                (stage, paint.ink(Ink::Active, text))
            }
        };
        Some(format!("{:width$}  {text}", stage.as_str(), width = self.width))
    }
}
