//! How fast a stage is and when it will be done, from the progress it tells. Owns the arithmetic over a short window
//! of time, so that a slow start or a pause is soon forgotten.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sluice_engine::Progress;

use crate::render::quantity::{count, rate, seconds};

/// Rates are those of this much of the past.
const WINDOW: Duration = Duration::from_secs(15);
/// Before this much has been seen, a rate says little.
const LEAST: Duration = Duration::from_millis(500);

/// The recent progress of one stage.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    samples: VecDeque<(Instant, Progress)>,
}

/// What a meter shows at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub progress: Progress,
    /// Units a second.
    pub rate: Option<f64>,
    pub tokens_per_second: Option<f64>,
    pub eta_seconds: Option<f64>,
}

impl Meter {
    /// Takes what the stage tells.
    pub fn record(&mut self, now: Instant, progress: Progress) {
        // Before its steps a training may count other things.
        if self.samples.back().is_some_and(|(_, last)| last.unit != progress.unit) {
            self.samples.clear();
        }
        // The oldest sample outside of the window is kept: it is where the window begins.
        while self.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.samples.pop_front();
        }
        // A stage may tell of every batch; a few samples a second are enough to measure with.
        let close = |(at, _): &(Instant, Progress)| now.duration_since(*at) < Duration::from_millis(100);
        if self.samples.len() > 1 && self.samples.iter().rev().nth(1).is_some_and(close) {
            self.samples.pop_back();
        }
        self.samples.push_back((now, progress));
    }

    /// What it comes to; none before the stage has told anything.
    pub fn read(&self, now: Instant) -> Option<Reading> {
        let (_, last) = self.samples.back()?;
        let (first_at, first) = self.samples.front()?;
        let seen = now.duration_since(*first_at);
        let per_second =
            |from: u64, to: u64| (seen >= LEAST && to > from).then(|| (to - from) as f64 / seen.as_secs_f64());
        let rate = per_second(first.done, last.done);
        let tokens_per_second = per_second(first.n_tokens.unwrap_or(0), last.n_tokens.unwrap_or(0));
        let left = last.total.and_then(|total| total.checked_sub(last.done));
        let eta_seconds = left.zip(rate).map(|(left, rate)| left as f64 / rate);
        Some(Reading { progress: *last, rate, tokens_per_second, eta_seconds })
    }
}

impl Reading {
    /// `1,200/4,800 rows  310 rows/s  12.4 k tokens/s  loss 0.693  12 s left`.
    pub fn text(&self) -> String {
        let Progress { done, total, unit, n_tokens: _, loss } = self.progress;
        let mut parts = vec![match total {
            Some(total) => format!("{}/{} {unit}", count(done), count(total)),
            None => format!("{} {unit}", count(done)),
        }];
        parts.extend(self.rate.map(|value| format!("{} {unit}/s", rate(value))));
        parts.extend(self.tokens_per_second.map(|value| format!("{} tokens/s", rate(value))));
        parts.extend(loss.map(|loss| format!("loss {loss:.4}")));
        parts.extend(self.eta_seconds.filter(|left| *left >= 0.5).map(|left| format!("{} left", seconds(left))));
        parts.join("  ")
    }

    /// The share that is done.
    pub fn share(&self) -> Option<f64> {
        let total = self.progress.total.filter(|total| *total > 0)?;
        Some((self.progress.done as f64 / total as f64).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn rows(done: u64, total: Option<u64>, n_tokens: Option<u64>) -> Progress {
        Progress { done, total, unit: "rows", n_tokens, loss: None }
    }

    #[track_caller]
    fn check(told: &[(u64, Progress)], at: u64, expected: Expect) {
        let start = Instant::now();
        let ms = |ms: u64| start + Duration::from_millis(ms);
        let mut meter = Meter::default();
        for (when, progress) in told {
            meter.record(ms(*when), *progress);
        }
        expected.assert_eq(&meter.read(ms(at)).map_or("nothing".to_owned(), |reading| reading.text()));
    }

    #[test]
    fn rates_are_of_the_recent_past() {
        check(&[], 100, expect!["nothing"]);
        check(&[(0, rows(0, None, None))], 5000, expect!["0 rows"]);
        // 600 rows in 2 s are 300 a second; 600 are left.
        let even = [
            (0, rows(0, Some(1200), Some(0))),
            (1000, rows(300, Some(1200), Some(9000))),
            (2000, rows(600, Some(1200), Some(18_000))),
        ];
        check(&even, 2000, expect!["600/1,200 rows  300 rows/s  9000 tokens/s  2.0 s left"]);
        // What was counted before is no step.
        let steps = |done| Progress { done, total: Some(20), unit: "steps", n_tokens: None, loss: None };
        check(
            &[(0, rows(0, Some(9000), None)), (1000, rows(9000, Some(9000), None)), (2000, steps(0)), (4000, steps(8))],
            4000,
            expect!["8/20 steps  4.0 steps/s  3.0 s left"],
        );
        // A first minute of loading does not count once it is out of the window.
        let late = [
            (0, rows(0, Some(100), None)),
            (60_000, rows(0, Some(100), None)),
            (70_000, rows(50, Some(100), None)),
            (80_000, rows(90, Some(100), None)),
        ];
        check(&late, 80_000, expect!["90/100 rows  4.5 rows/s  2.2 s left"]);
    }
}
