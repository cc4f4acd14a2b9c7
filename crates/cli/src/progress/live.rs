//! The terminal's screen: one line a stage, redrawn as it changes and gone when the run is over.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use sluice_engine::{Event, StageInfo};
use sluice_spec::StageName;

use crate::output::err;
use crate::progress::Watch;
use crate::progress::meter::{Meter, Reading};
use crate::render::quantity::{count, counted, seconds};
use crate::render::{Ink, Paint};

/// Characters of a bar.
const BAR: usize = 24;
/// Stages above which only those that run have a line, under one that counts the others.
const TALL: usize = 24;
/// Time between two drawings of a line, at least.
const REDRAW: Duration = Duration::from_millis(100);

/// A stage that runs, and one that does not.
const TURNING: &str = "{prefix} {spinner} {wide_msg}";
const STILL: &str = "{prefix}   {wide_msg}";

/// Watches on a terminal.
pub struct Live {
    paint: Paint,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The stages of the run. Their lines are drawn when the first one has something to do: a run with nothing to do
    /// leaves the screen alone.
    stages: Vec<StageInfo>,
    hits: Vec<(StageName, Option<u64>)>,
    screen: Option<Screen>,
}

struct Screen {
    lines: BTreeMap<StageName, Line>,
    all: MultiProgress,
    /// Characters of the longest name.
    width: usize,
    /// Where there are too many stages for a line each.
    tally: Option<Tally>,
}

/// Counts the stages that are done.
struct Tally {
    bar: ProgressBar,
    n_done: usize,
    n_stages: usize,
}

impl Tally {
    fn show(&self) {
        let Tally { bar, n_done, n_stages } = self;
        bar.set_message(format!("{} of {} done", count(*n_done as u64), counted(*n_stages as u64, "stage")));
    }
}

struct Line {
    bar: ProgressBar,
    meter: Option<Meter>,
    drawn: Instant,
}

impl Live {
    pub fn new(paint: Paint) -> Live {
        Live { paint, state: Mutex::default() }
    }

    fn begin(&self, state: &mut State) {
        let width = state.stages.iter().map(|stage| stage.name.as_str().len()).max().unwrap_or(0);
        let all = MultiProgress::new();
        let n_stages = state.stages.len();
        let tally = (n_stages > TALL).then(|| Tally { bar: all.add(ProgressBar::new_spinner()), n_done: 0, n_stages });
        let mut screen = Screen { lines: BTreeMap::new(), all, width, tally };
        match &screen.tally {
            Some(tally) => {
                tally.bar.set_style(style("{wide_msg}"));
                tally.show();
            }
            None => {
                for StageInfo { name, .. } in &state.stages {
                    let line = screen.line(name);
                    line.bar.set_style(style(STILL));
                    line.bar.set_message(self.paint.ink(Ink::Dim, "waits"));
                }
            }
        }
        for (stage, rows) in &state.hits {
            screen.end(stage, &self.hit(*rows, state.noun(stage)));
        }
        state.screen = Some(screen);
    }

    fn hit(&self, rows: Option<u64>, noun: &str) -> String {
        let rows = rows.map(|n| format!("{}, ", counted(n, noun))).unwrap_or_default();
        self.paint.ink(Ink::Dim, format!("{rows}reused"))
    }

    fn update(&self, state: &mut State, event: &Event) {
        if let (Event::StageStarted { .. } | Event::StageWaiting { .. }, None) = (event, &state.screen) {
            self.begin(state);
        }
        match event {
            Event::RunStarted { run: _, pipeline: _, stages } => state.stages = stages.clone(),
            Event::StageHit { stage, rows, .. } => {
                state.hits.push((stage.clone(), *rows));
                let text = self.hit(*rows, state.noun(stage));
                state.end(stage, &text);
            }
            Event::StageStarted { stage, .. } => state.start(stage),
            Event::StageWaiting { stage, .. } => state.note(stage, "another run is computing this; waits for it"),
            Event::StageProgress { stage, progress } => {
                let now = Instant::now();
                let Some(line) = state.screen.as_mut().and_then(|screen| screen.lines.get_mut(stage)) else { return };
                let meter = line.meter.get_or_insert_with(Meter::default);
                meter.record(now, *progress);
                if now.duration_since(line.drawn) >= REDRAW {
                    line.drawn = now;
                    line.bar.set_message(meter.read(now).map_or_else(String::new, |reading| self.measure(&reading)));
                }
            }
            // The summary has it again: this line is gone when the stage goes on.
            Event::StageNotice { stage, notice } => state.note(stage, &notice.text),
            Event::StageFinished { stage, rows, seconds: took, .. } => {
                let rows = rows.map(|n| format!("{}, ", counted(n, state.noun(stage)))).unwrap_or_default();
                state.end(stage, &self.paint.ink(Ink::Good, format!("{rows}{}", seconds(*took))));
            }
            // The line says what the stage came to; a test that failed follows as a failure, and the summary tells the others.
            Event::StageTested { .. } => {}
            Event::StageFailed { stage, error, .. } => {
                let error = error.lines().next().unwrap_or_default();
                state.end(stage, &self.paint.ink(Ink::Bad, format!("failed: {error}")));
            }
            Event::StageInterrupted { stage } => state.end(stage, &self.paint.ink(Ink::Active, "interrupted")),
            Event::StageBlocked { stage, by } => {
                state.end(stage, &self.paint.ink(Ink::Dim, format!("needs `{by}`, which failed")));
            }
            Event::Damaged { stage, output, file } => {
                if let Some(line) = state.screen.as_ref().and_then(|screen| screen.lines.get(stage)) {
                    line.bar.reset();
                }
                state.note(stage, &format!("its output `{output}` is damaged, and is made again: {file}"));
            }
            Event::Diverged { stage, .. } => state.note(stage, "gave another result than before; the first one stays"),
            Event::RunFinished(_) => {
                if let Some(screen) = state.screen.take() {
                    screen.lines.values().for_each(|line| line.bar.finish_and_clear());
                    // A terminal that went away has nothing to be cleared.
                    let _ = screen.all.clear();
                }
            }
        }
    }

    fn measure(&self, reading: &Reading) -> String {
        match reading.share() {
            Some(share) => format!("{} {}", bar(share, self.paint), reading.text()),
            None => reading.text(),
        }
    }
}

impl Watch for Live {
    fn event(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.update(&mut state, event);
    }

    fn interrupted(&self, message: &str) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(screen) = &state.screen {
            // The cursor rests at the right edge, so the terminal wrote its `^C` on a line of its own: up again, or the
            // lines that are cleared are not those that were drawn.
            err("\u{1b}[2K\u{1b}[1A");
            let _ = screen.all.clear();
            screen.all.set_draw_target(ProgressDrawTarget::hidden());
        }
        err(format!("{message}\n"));
    }
}

impl State {
    fn start(&mut self, stage: &StageName) {
        if let Some(screen) = &mut self.screen {
            let line = screen.line(stage);
            line.bar.set_style(style(TURNING));
            line.bar.set_message("starts");
            line.bar.enable_steady_tick(REDRAW);
        }
    }

    /// What the rows of a stage's first table are.
    fn noun(&self, stage: &StageName) -> &'static str {
        let trains = self.stages.iter().any(|known| known.name == *stage && known.kind == "train");
        if trains { "step" } else { "row" }
    }

    fn note(&self, stage: &StageName, text: &str) {
        if let Some(line) = self.screen.as_ref().and_then(|screen| screen.lines.get(stage)) {
            line.bar.set_message(text.to_owned());
        }
    }

    fn end(&mut self, stage: &StageName, text: &str) {
        if let Some(screen) = &mut self.screen {
            screen.end(stage, text);
        }
    }
}

impl Screen {
    /// The line of a stage, drawn from now on.
    fn line(&mut self, stage: &StageName) -> &mut Line {
        self.lines.entry(stage.clone()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new_spinner());
            bar.set_prefix(format!("{:width$}", stage.as_str(), width = self.width));
            Line { bar, meter: None, drawn: Instant::now() }
        })
    }

    fn end(&mut self, stage: &StageName, text: &str) {
        if let Some(tally) = &mut self.tally {
            tally.n_done += 1;
            tally.show();
            if let Some(Line { bar, .. }) = self.lines.remove(stage) {
                bar.finish_and_clear();
                self.all.remove(&bar);
            }
            return;
        }
        if let Some(line) = self.lines.get(stage) {
            line.bar.disable_steady_tick();
            line.bar.set_style(style(STILL));
            line.bar.finish_with_message(text.to_owned());
        }
    }
}

/// The style of a line.
fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file, so they parse.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}

/// `━━━━━━━━────────────`.
pub(super) fn bar(share: f64, paint: Paint) -> String {
    // The share is between 0 and 1.
    let full = (share * BAR as f64) as usize;
    let rest = BAR.saturating_sub(full);
    format!("{}{}", paint.ink(Ink::Good, "━".repeat(full)), paint.ink(Ink::Dim, "─".repeat(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_keeps_its_length() {
        for (share, expected) in [(0.0, 0), (0.5, 12), (0.999, 23), (1.0, 24)] {
            let text = bar(share, Paint::OFF);
            assert_eq!(text.chars().count(), BAR);
            assert_eq!(text.matches('━').count(), expected);
        }
    }
}
