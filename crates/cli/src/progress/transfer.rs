//! A model being fetched, as its user sees it: a line that is redrawn on a terminal, a few lines in a file, objects for a
//! program. Refuses to know how a model is fetched.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use sluice_engine::Progress;
use sluice_lm::checkpoint::HubModel;

use crate::args::Global;
use crate::hub::Step;
use crate::output::{err, out};
use crate::progress::live::bar;
use crate::progress::meter::Meter;
use crate::render::Paint;
use crate::render::quantity::{bytes, counted, seconds};
use crate::world::World;

/// Time between two lines of a file, and two drawings of a terminal's.
const EVERY: Duration = Duration::from_secs(10);
const REDRAW: Duration = Duration::from_millis(100);

/// Who is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Nobody: `--quiet`.
    Nobody,
    /// A person, on stderr.
    Person,
    /// A program that reads events from stdout: `run --json`.
    Program,
}

/// Watches fetches.
pub struct Transfer {
    audience: Audience,
    live: bool,
    paint: Paint,
    state: RefCell<State>,
}

struct State {
    whole: u64,
    meter: Meter,
    begun: Instant,
    told: Instant,
    file: String,
    bar: Option<ProgressBar>,
}

impl Transfer {
    /// For a verb whose stdout is its result.
    pub fn new(global: &Global, world: &World) -> Transfer {
        let audience = if global.quiet { Audience::Nobody } else { Audience::Person };
        Transfer::of(audience, world)
    }

    /// For `run`, whose stdout is events where `--json` is given.
    pub fn of_run(global: &Global, world: &World) -> Transfer {
        match global.json {
            true => Transfer::of(Audience::Program, world),
            false => Transfer::new(global, world),
        }
    }

    fn of(audience: Audience, world: &World) -> Transfer {
        let now = Instant::now();
        let state = State { whole: 0, meter: Meter::default(), begun: now, told: now, file: String::new(), bar: None };
        Transfer { audience, live: world.live, paint: world.err, state: RefCell::new(state) }
    }

    /// Something happened.
    pub fn step(&self, step: Step<'_>) {
        let state = &mut *self.state.borrow_mut();
        match self.audience {
            Audience::Nobody => {}
            Audience::Program => {
                state.object(&step, Instant::now()).iter().for_each(|object| out(format!("{object}\n")))
            }
            Audience::Person => {
                state.line(&step, Instant::now(), self.live).iter().for_each(|line| state.say(line));
                if self.live {
                    state.draw(&step, self.paint);
                }
            }
        }
    }
}

impl State {
    /// Takes up what is known from now on.
    fn take(&mut self, step: &Step<'_>, now: Instant) {
        match step {
            Step::Begin { bytes, bytes_there, .. } => {
                (self.whole, self.meter, self.begun, self.told) = (*bytes, Meter::default(), now, now);
                self.record(*bytes_there, now);
            }
            Step::File { name } => (*name).clone_into(&mut self.file),
            Step::Bytes { done } => self.record(*done, now),
            Step::Waits { .. } | Step::End => {}
        }
    }

    fn record(&mut self, done: u64, now: Instant) {
        self.meter.record(now, Progress { done, total: Some(self.whole), unit: "bytes", ..Progress::default() });
    }

    /// The line that a step is worth; one of a terminal's is drawn instead.
    fn line(&mut self, step: &Step<'_>, now: Instant, live: bool) -> Option<String> {
        self.take(step, now);
        match step {
            Step::Begin { model, commit, n_files, bytes: whole, bytes_there, folder } => {
                Some(begin(model, commit, *n_files, *whole, *bytes_there, &folder.display().to_string()))
            }
            Step::Waits { name } => Some(format!("another process is fetching {name}; waits for it")),
            Step::Bytes { .. } if !live && self.whole > 0 && now.duration_since(self.told) >= EVERY => {
                self.told = now;
                self.measure(now)
            }
            Step::File { .. } | Step::Bytes { .. } => None,
            Step::End => Some(format!("fetched in {}", seconds(now.duration_since(self.begun).as_secs_f64()))),
        }
    }

    /// `3.4 GB of 18.5 GB  85.2 MB/s  2 min 57 s left  model-00002-of-00004.safetensors`.
    fn measure(&self, now: Instant) -> Option<String> {
        let reading = self.meter.read(now)?;
        let mut parts = vec![format!("{} of {}", bytes(reading.progress.done), bytes(self.whole))];
        // A rate is a positive number of bytes that fits.
        parts.extend(reading.rate.map(|rate| format!("{}/s", bytes(rate as u64))));
        parts.extend(reading.eta_seconds.map(|left| format!("{} left", seconds(left))));
        parts.push(self.file.clone());
        Some(parts.join("  "))
    }

    /// Says a line above the one that is redrawn.
    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| err(format!("{line}\n"))),
            None => err(format!("{line}\n")),
        }
    }

    fn draw(&mut self, step: &Step<'_>, paint: Paint) {
        let now = Instant::now();
        match step {
            Step::Begin { .. } => {
                let bar = ProgressBar::new_spinner();
                // The template is a constant that parses.
                bar.set_style(
                    ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
                );
                self.bar = Some(bar);
            }
            Step::Bytes { .. } if now.duration_since(self.told) >= REDRAW => {
                self.told = now;
                let share = self.meter.read(now).and_then(|reading| reading.share()).unwrap_or(0.0);
                if let (Some(line), Some(text)) = (&self.bar, self.measure(now)) {
                    line.set_message(format!("{} {text}", bar(share, paint)));
                    line.tick();
                }
            }
            Step::End => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
            Step::File { .. } | Step::Waits { .. } | Step::Bytes { .. } => {}
        }
    }

    /// The event that a step is worth: `fetch_started`, `fetch_progress` once in ten seconds, `fetch_finished`.
    fn object(&mut self, step: &Step<'_>, now: Instant) -> Option<Value> {
        self.take(step, now);
        match step {
            Step::Begin { model, commit, n_files, bytes, bytes_there, folder } => Some(json!({
                "event": "fetch_started", "model": model.to_string(), "commit": commit, "files": n_files, "bytes": bytes,
                "bytes_there": bytes_there, "folder": folder.display().to_string(),
            })),
            Step::Bytes { done } if self.whole > 0 && now.duration_since(self.told) >= EVERY => {
                self.told = now;
                Some(json!({"event": "fetch_progress", "file": self.file, "done": done, "bytes": self.whole}))
            }
            Step::End => Some(json!({
                "event": "fetch_finished", "bytes": self.whole, "seconds": now.duration_since(self.begun).as_secs_f64(),
            })),
            Step::File { .. } | Step::Waits { .. } | Step::Bytes { .. } => None,
        }
    }
}

fn begin(model: &HubModel, commit: &str, n_files: usize, whole: u64, there: u64, folder: &str) -> String {
    let commit = commit.get(..12).unwrap_or(commit);
    let there = if there > 0 { format!(", {} of it there already", bytes(there)) } else { String::new() };
    let n_files = counted(n_files as u64, "file");
    format!("fetching {model} (commit {commit}): {n_files}, {}{there}, to {folder}", bytes(whole))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_fetch_is_told_in_few_lines() {
        let model = HubModel::parse("hf://google/gemma-2-9b-it").ok().flatten().expect("a reference");
        let start = Instant::now();
        let mut state =
            State { whole: 0, meter: Meter::default(), begun: start, told: start, file: String::new(), bar: None };
        let mut said = String::new();
        let mut step = |second: u64, step: Step<'_>| {
            let line = state.line(&step, start + Duration::from_secs(second), false);
            line.iter().for_each(|line| said.push_str(&format!("{line}\n")));
        };
        let begin = Step::Begin {
            model: &model,
            commit: "11c9b309abf73637e4b6f9a3fa1e92e615547819",
            n_files: 8,
            bytes: 18_500_000_000,
            bytes_there: 500_000_000,
            folder: "hub/models--google--gemma-2-9b-it".into(),
        };
        step(0, begin);
        step(0, Step::File { name: "model-00001-of-00004.safetensors" });
        step(4, Step::Bytes { done: 900_000_000 });
        step(10, Step::Bytes { done: 1_500_000_000 });
        step(11, Step::Waits { name: "model-00002-of-00004.safetensors" });
        step(185, Step::Bytes { done: 18_500_000_000 });
        step(185, Step::End);
        expect![[r#"
            fetching hf://google/gemma-2-9b-it (commit 11c9b309abf7): 8 files, 18.5 GB, 500.0 MB of it there already, to hub/models--google--gemma-2-9b-it
            1.5 GB of 18.5 GB  100.0 MB/s  2 min 50 s left  model-00001-of-00004.safetensors
            another process is fetching model-00002-of-00004.safetensors; waits for it
            18.5 GB of 18.5 GB  97.1 MB/s  0 ms left  model-00001-of-00004.safetensors
            fetched in 3 min 5 s
        "#]]
        .assert_eq(&said);
    }
}
