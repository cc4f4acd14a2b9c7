//! What the benchmarks share: a median with its range, and the machine a figure was measured on.
//!
//! Owns how figures are summed up and shown. Knows nothing of what is measured.

use std::fmt;
use std::fs;
use std::process::Command;

use crate::workspace;

/// Repeated measurements of one thing, in seconds.
#[derive(Debug, Clone, Default)]
pub struct Timings(Vec<f64>);

/// The middle of some measurements and their ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Timings {
    /// Adds a measurement.
    pub fn push(&mut self, seconds: f64) {
        self.0.push(seconds);
    }

    /// `None` before the first measurement.
    pub fn spread(&self) -> Option<Spread> {
        Spread::of(&self.0)
    }
}

impl Spread {
    /// The spread of some values; of an even number of them the median is the mean of the middle two.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Spread { median, min, max })
    }

    /// The spread of `amount / value`: from seconds to a rate.
    pub fn rate(self, amount: f64) -> Spread {
        Spread { median: amount / self.median, min: amount / self.max, max: amount / self.min }
    }
}

/// Seconds with three digits, in the unit that suits them.
pub fn seconds(value: f64) -> String {
    if value < 1.0 { format!("{:.1} ms", value * 1000.0) } else { format!("{value:.2} s") }
}

/// The machine, the code and how busy the machine was when this program started.
#[derive(Debug, Clone)]
pub struct Machine {
    processor: String,
    n_cores: usize,
    load_before: String,
    commit: String,
}

impl Machine {
    /// Looks at the machine.
    pub fn look() -> Machine {
        let facts = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = facts.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
        Machine {
            processor: model.unwrap_or(std::env::consts::ARCH).trim().to_owned(),
            n_cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_before: load(),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    /// Cores this process may use.
    pub fn n_cores(&self) -> usize {
        self.n_cores
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, n_cores, load_before, commit } = self;
        let cores = if *n_cores == 1 { "core" } else { "cores" };
        write!(f, "{processor}, {n_cores} {cores}; load average {load_before} before, {} now; commit {commit}", load())
    }
}

/// Processes that ran or waited to run over the last minute.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().filter(|word| !word.is_empty()).unwrap_or("unknown").to_owned()
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(workspace()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let head = git(&["rev-parse", "--short=10", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { head } else { format!("{head} with changes") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_and_the_ends() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        // Half a second is the fastest: 100 tokens in it are the highest rate.
        let spread = Spread::of(&[0.5, 1.0, 2.0, 4.0]).map(|spread| spread.rate(100.0));
        assert_eq!(spread, Some(Spread { median: 100.0 / 1.5, min: 25.0, max: 200.0 }));
    }
}
