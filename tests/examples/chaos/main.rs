//! `just chaos`: what a user's machine does to a run, done on purpose, and whether anything was lost.
//!
//! Owns the order and the verdict. The rounds of `kill -9` are in `kill`, every other fault is a scene of its own in
//! `scene`, and what a store must look like afterwards is in `look`. The program is known by its command line; the store is
//! read with the crate that owns it. A seed gives the same choices again; what a process was doing at that moment is the
//! machine's to decide.

mod dice;
mod findings;
mod job;
mod kill;
mod look;
mod scene;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use sluice_tests::bench::Machine;

use crate::findings::{Findings, Stop};
use crate::job::Size;
use crate::scene::{Ask, SCENES};

#[derive(Parser)]
#[command(about = "Kills, damages and starves runs, and looks whether anything was lost.")]
struct Arguments {
    /// Rounds of `kill -9`
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// Of the moments, the bytes and the order [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// What the rounds run
    #[arg(long, value_enum, default_value_t = Size::TinySmall)]
    profile: Size,
    /// Only these scenes; the rounds are one of them, `kill`
    #[arg(long, value_delimiter = ',', value_name = "SCENE")]
    only: Vec<String>,
    /// Steps that the scenes take which go through a stage step by step
    #[arg(long, default_value_t = 100)]
    steps: usize,
    /// Name the scenes and end
    #[arg(long)]
    list: bool,
    /// One scene alone, in a process that may mount
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { rounds, seed, profile, only, steps, list, inside } = Arguments::parse();
    let names = || std::iter::once(("kill", kill::WHAT)).chain(SCENES.iter().map(|scene| (scene.name, scene.what)));
    if list {
        names().for_each(|(name, what)| println!("{name:<14} {what}"));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(word) = only.iter().find(|word| names().all(|(name, _)| name != *word)) {
        let known: Vec<&str> = names().map(|(name, _)| name).collect();
        return Err(format!("there is no scene `{word}`; there is {}", known.join(", ")).into());
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|word| word == name);
    let machine = Machine::look();
    let seed = match seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    let ask = Ask { seed, steps, inside };
    if inside {
        return alone(&only, ask);
    }
    println!("seed {seed}");
    let mut told = Vec::new();
    if wanted("kill") && rounds > 0 {
        told.push(tell("kill", kill::WHAT, || kill::rounds(profile, rounds, seed)));
    }
    for scene in SCENES.iter().filter(|scene| wanted(scene.name)) {
        told.push(tell(scene.name, scene.what, || (scene.play)(ask)));
    }
    let n = |word: &str| told.iter().filter(|told| **told == word).count();
    println!("\n{} scenes: {} passed, {} skipped, {} failed", told.len(), n(PASSED), n(SKIPPED), n(FAILED));
    println!("{machine}");
    Ok(if n(FAILED) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A scene whose verdict is told by whoever started this process.
fn alone(only: &[String], ask: Ask) -> Result<ExitCode, Box<dyn Error>> {
    let scene =
        SCENES.iter().find(|scene| only.iter().any(|word| word == scene.name)).ok_or("`--only` names no scene")?;
    match (scene.play)(ask) {
        Ok(findings) if findings.faults().is_empty() => Ok(ExitCode::SUCCESS),
        Ok(_) => Ok(ExitCode::FAILURE),
        Err(Stop::Skipped(reason)) => Err(reason.into()),
        Err(Stop::Broken(error)) => Err(error),
    }
}

const PASSED: &str = "passed";
const SKIPPED: &str = "skipped";
const FAILED: &str = "FAILED";

/// Plays one scene and prints what was seen and the verdict.
fn tell(name: &str, what: &str, play: impl FnOnce() -> Result<Findings, Stop>) -> &'static str {
    println!("\n{name}: {what}");
    let started = Instant::now();
    let (verdict, reason) = match play() {
        Ok(findings) => {
            findings.faults().iter().for_each(|fault| println!("  VIOLATION {fault}"));
            if findings.faults().is_empty() { (PASSED, String::new()) } else { (FAILED, String::new()) }
        }
        Err(Stop::Skipped(reason)) => (SKIPPED, format!(": {reason}")),
        Err(Stop::Broken(error)) => (FAILED, format!(": {error}")),
    };
    println!("{name}: {verdict}{reason} in {:.1} s", started.elapsed().as_secs_f64());
    verdict
}
