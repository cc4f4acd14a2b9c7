//! The steps of every stage, one by one: each call by which a run changes the disk is the last one of a killed process, or
//! fails for want of space. `strace` stops the program there; without it the scenes are skipped.
//!
//! Owns how a step is named: the stage, the call, and its number among those of its thread. The store of a stage begins
//! with all stages before it done, so that only its own steps are taken.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sluice_tests::running::Running;
use sluice_tests::six_stages::STAGES;

use crate::dice::Dice;
use crate::findings::{Findings, Stop};
use crate::look::look;
use crate::scene::{Ask, Scene, Stage, copy_folder, line_with, said, shortened, works};

pub const KILLED: Scene = Scene {
    name: "every-step",
    what: "killed at a call that changes the disk; nothing is half-made and the next run goes on",
    play: |ask| play(ask, &CHANGES, "signal=KILL", killed),
};

pub const NO_SPACE: Scene = Scene {
    name: "no-space",
    what: "a call that changes the disk finds no space; that is told, and the next run goes on",
    play: |ask| play(ask, &TAKES_SPACE, "error=ENOSPC", refused),
};

/// Calls that change what is on the disk. Not every machine has all of them.
const CHANGES: [&str; 15] = [
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "ftruncate",
    "chmod",
];

/// Those that may find no space.
const TAKES_SPACE: [&str; 11] = [
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "mkdir",
    "mkdirat",
];

/// A call of a stage.
struct Step {
    stage: &'static str,
    call: String,
    number: usize,
    /// With everything before the stage.
    base: PathBuf,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} {}", self.stage, self.call, self.number)
    }
}

type Look = fn(&Stage, &Step, &Path, &sluice_tests::running::Ended, &mut Findings) -> Result<bool, Box<dyn Error>>;

fn play(ask: Ask, calls: &[&str], injected: &str, look_at: Look) -> Result<Findings, Stop> {
    works("strace", &["-f", "-o", "/dev/null", "true"]).map_err(Stop::Skipped)?;
    let mut findings = Findings::default();
    let stage = Stage::set(&[])?;
    let mut steps = steps(&stage, calls)?;
    let n_all = steps.len();
    let mut dice = Dice::new(ask.seed, 2);
    while steps.len() > ask.steps {
        steps.swap_remove(dice.below(steps.len()));
    }
    let mut n_hit: BTreeMap<String, usize> = BTreeMap::new();
    for step in &steps {
        let store = stage.store("struck");
        copy_folder(&step.base, &store)?;
        let inject = format!("inject={}:{injected}:when={}", step.call, step.number);
        let ended =
            strace(&stage, &store, step.stage, &["-e", &format!("trace={}", step.call), "-e", &inject], "/dev/null");
        if look_at(&stage, step, &store, &ended, &mut findings)? {
            *n_hit.entry(step.call.clone()).or_default() += 1;
        }
        let seen = look(&store)?;
        findings.take(step, seen.lost_since(&look(&step.base)?));
        findings.take(step, seen.faults);
        stage.goes_on(&step.to_string(), &store, &mut findings)?;
        fs::remove_dir_all(&store)?;
    }
    let hit: Vec<String> = n_hit.iter().map(|(call, n)| format!("{call} {n}")).collect();
    findings.saw(format!("{} of {n_all} steps of six stages; struck: {}", steps.len(), hit.join(", ")));
    Ok(findings)
}

/// Whether the kill came. It may not: threads share the work in another way each time.
fn killed(
    _: &Stage,
    step: &Step,
    _: &Path,
    ended: &sluice_tests::running::Ended,
    findings: &mut Findings,
) -> Result<bool, Box<dyn Error>> {
    match ended.code {
        None | Some(137) => Ok(true),
        Some(0) => Ok(false),
        Some(code) => {
            findings.fault(format!("{step}: ended with {code}: {}", shortened(said(ended).trim())));
            Ok(false)
        }
    }
}

/// A call that is refused is told, or did not matter; it never ends in something else.
fn refused(
    _: &Stage,
    step: &Step,
    store: &Path,
    ended: &sluice_tests::running::Ended,
    findings: &mut Findings,
) -> Result<bool, Box<dyn Error>> {
    let text = said(ended);
    match ended.code {
        Some(0) => Ok(false),
        Some(1) => {
            let line = line_with(&text, "no space left");
            let names = line.contains(&store.display().to_string()) || line.contains("tmp/") || line.contains("struck");
            if !names {
                findings.fault(format!("{step}: the full disk is not told with its place: {}", shortened(text.trim())));
            }
            Ok(true)
        }
        code => {
            findings.fault(format!("{step}: ended with {code:?}: {}", shortened(text.trim())));
            Ok(true)
        }
    }
}

/// All steps of all stages.
fn steps(stage: &Stage, calls: &[&str]) -> Result<Vec<Step>, Box<dyn Error>> {
    let mut steps = Vec::new();
    let mut base = stage.store("base-0");
    fs::create_dir(&base)?;
    for (number, name) in STAGES.into_iter().enumerate() {
        let next = stage.store(&format!("base-{}", number + 1));
        copy_folder(&base, &next)?;
        let log = stage.store("strace.log");
        let traced: Vec<String> = calls.iter().map(|call| format!("?{call}")).collect();
        let ended =
            strace(stage, &next, name, &["-e", &format!("trace={}", traced.join(","))], &log.display().to_string());
        if ended.code != Some(0) {
            return Err(format!("{name} under strace ended with {:?}: {}", ended.code, said(&ended)).into());
        }
        for (call, most) in counts(&fs::read_to_string(&log)?) {
            let step = |number| Step { stage: name, call: call.clone(), number, base: base.clone() };
            steps.extend((1..=most).map(step));
        }
        base = next;
    }
    Ok(steps)
}

/// Runs one stage under strace.
fn strace(stage: &Stage, store: &Path, target: &str, words: &[&str], log: &str) -> sluice_tests::running::Ended {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", log]).args(words);
    Running::start(stage.job.through(strace, store, "run", &[target, "--json"])).wait()
}

/// By call, the most a single thread made. `strace` counts each thread for itself, and strikes the first that gets there.
/// A line is `THREAD CALL(...) = ...`.
fn counts(log: &str) -> BTreeMap<String, usize> {
    let mut by_thread: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in log.lines() {
        let mut words = line.split_whitespace();
        let (Some(thread), Some(rest)) = (words.next(), words.next()) else { continue };
        if let Some((call, _)) = rest.split_once('(') {
            *by_thread.entry((thread, call)).or_default() += 1;
        }
    }
    let mut most: BTreeMap<String, usize> = BTreeMap::new();
    for ((_, call), n) in by_thread {
        let entry = most.entry(call.to_owned()).or_default();
        *entry = (*entry).max(n);
    }
    most
}
