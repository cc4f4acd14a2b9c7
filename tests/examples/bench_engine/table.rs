//! A figure with its goal and what it is compared with, as a row of a table and as JSON. Knows nothing of what is measured.

use serde_json::{Value, json};
use sluice_tests::bench::{Machine, Spread, seconds};

/// What a figure counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Less is better.
    Seconds,
    /// Of something in a second; more is better.
    PerSecond,
    /// Of 1; less is better.
    Share,
    /// Less is better.
    Count,
    /// Of memory; less is better.
    Bytes,
}

/// One measurement.
pub struct Figure {
    pub what: String,
    pub unit: Unit,
    pub spread: Spread,
    /// What is to be reached, in the unit.
    pub goal: Option<f64>,
    /// The same work by others: their names and figures, of the same unit.
    pub peers: Vec<(String, Spread)>,
    /// What is included, and what one must know to read it.
    pub note: String,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::PerSecond => "per second",
            Self::Share => "share",
            Self::Count => "count",
            Self::Bytes => "bytes",
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::Seconds => seconds(value),
            Self::PerSecond if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Share => format!("{:.2} %", value * 100.0),
            Self::Count => format!("{value:.1}"),
            Self::Bytes => format!("{:.0} MB", value / 1e6),
        }
    }

    /// How often ours goes into theirs, by what is better.
    fn ratio(self, ours: f64, theirs: f64) -> f64 {
        if self == Self::PerSecond { ours / theirs } else { theirs / ours }
    }
}

impl Figure {
    pub fn new(what: impl Into<String>, unit: Unit, spread: Spread) -> Figure {
        Figure { what: what.into(), unit, spread, goal: None, peers: Vec::new(), note: String::new() }
    }

    /// A single value.
    pub fn once(what: impl Into<String>, unit: Unit, value: f64) -> Figure {
        Figure::new(what, unit, Spread { median: value, min: value, max: value })
    }

    pub fn goal(mut self, goal: f64) -> Figure {
        self.goal = Some(goal);
        self
    }

    pub fn beside(mut self, peer: impl Into<String>, spread: Option<Spread>) -> Figure {
        self.peers.extend(spread.map(|spread| (peer.into(), spread)));
        self
    }

    pub fn note(mut self, note: impl Into<String>) -> Figure {
        self.note = note.into();
        self
    }

    fn met(&self) -> Option<bool> {
        let goal = self.goal?;
        Some(if self.unit == Unit::PerSecond { self.spread.median >= goal } else { self.spread.median <= goal })
    }
}

/// The table: medians with their ends, and ratios to the others' medians.
pub fn text(figures: &[Figure]) -> String {
    let heads = ["what", "sluice", "goal", "beside", "ratio", "note"].map(str::to_owned);
    let mut text = line(&heads) + &line(&heads.clone().map(|_| "---".to_owned()));
    for figure in figures {
        let Figure { what, unit, spread, goal, peers, note } = figure;
        let shown = |spread: &Spread| {
            let Spread { median, min, max } = *spread;
            if min == max {
                unit.show(median)
            } else {
                format!("{} ({} to {})", unit.show(median), unit.show(min), unit.show(max))
            }
        };
        let bound = if *unit == Unit::PerSecond { "≥" } else { "≤" };
        let goal = goal.map_or_else(String::new, |goal| {
            let verdict = if figure.met() == Some(true) { "met" } else { "missed" };
            format!("{bound} {}: {verdict}", unit.show(goal))
        });
        let beside: Vec<String> = peers.iter().map(|(name, spread)| format!("{name} {}", shown(spread))).collect();
        let ratio = |(_, theirs): &(String, Spread)| format!("{:.1}", unit.ratio(spread.median, theirs.median));
        let ratios: Vec<String> = peers.iter().map(ratio).collect();
        text += &line(&[what.clone(), shown(spread), goal, beside.join("; "), ratios.join("; "), note.clone()]);
    }
    text + "\nMedians (lowest to highest). A ratio above 1 is in favour of sluice.\n"
}

/// `{"machine": ..., "figures": [{"what", "unit", "median", "min", "max", "goal", "met", "peers": [{"name", "median", "min",
/// "max", "ratio"}], "note"}]}`.
pub fn json(figures: &[Figure], machine: &Machine) -> Value {
    let figure = |figure: &Figure| {
        let Figure { what, unit, spread, goal, peers, note } = figure;
        let Spread { median, min, max } = spread;
        let peer = |(name, theirs): &(String, Spread)| {
            json!({"name": name, "median": theirs.median, "min": theirs.min, "max": theirs.max,
                "ratio": unit.ratio(*median, theirs.median)})
        };
        json!({"what": what, "unit": unit.name(), "median": median, "min": min, "max": max, "goal": goal,
            "met": figure.met(), "peers": peers.iter().map(peer).collect::<Vec<_>>(), "note": note})
    };
    json!({"machine": machine.to_string(), "figures": figures.iter().map(figure).collect::<Vec<_>>()})
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}
