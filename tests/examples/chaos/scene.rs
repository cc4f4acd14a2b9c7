//! Every other fault, a scene each: what is done to a store or a run, and what must be seen. Owns the list and what the
//! scenes share.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sluice_tests::Project;
use sluice_tests::running::Ended;
use sluice_tests::six_stages::six_stages;

use crate::findings::{Findings, Stop};
use crate::job::{Digests, Job, text};
use crate::look::look;

mod clock;
mod device;
mod every_step;
mod flip;
mod full;
mod orphans;
mod signals;
mod together;
mod versions;

/// A fault with a name.
pub struct Scene {
    pub name: &'static str,
    pub what: &'static str,
    pub play: fn(Ask) -> Result<Findings, Stop>,
}

/// What a scene is asked for.
#[derive(Clone, Copy)]
pub struct Ask {
    /// Decides what is left to chance.
    pub seed: u64,
    /// How many of many steps a scene takes.
    pub steps: usize,
    /// Whether this process may mount: it has a namespace of its own.
    pub inside: bool,
}

pub const SCENES: [Scene; 13] = [
    flip::SCENE,
    every_step::KILLED,
    every_step::NO_SPACE,
    full::DISK,
    full::FILES,
    device::READ_ONLY,
    device::ELSEWHERE,
    clock::SCENE,
    versions::SCENE,
    signals::SCENE,
    orphans::SCENE,
    together::TOGETHER,
    together::SHARED,
];

/// The six stages over tiny models, and what a run of them comes to that nobody disturbs.
pub struct Stage {
    pub project: Project,
    pub job: Job,
    pub digests: Digests,
}

/// What makes the answers of the six stages take seconds.
pub const LONG: [&str; 2] = ["stages.responses.sample.n=400", "stages.responses.sample.max_new_tokens=64"];

impl Stage {
    pub fn set(values: &[&str]) -> Result<Stage, Box<dyn Error>> {
        let project = six_stages("p.yaml");
        let job = Job::of(project.path(), "p.yaml").set(values);
        let digests = job.digests(&project.path().join("calm"))?;
        Ok(Stage { project, job, digests })
    }

    /// A store of this name, which is not there yet.
    pub fn store(&self, name: &str) -> PathBuf {
        self.project.path().join(name)
    }

    /// The run that goes on after a fault ends well, with the digests of the run nobody disturbed.
    pub fn ends_equal(&self, place: &str, store: &Path, findings: &mut Findings) {
        match self.job.digests(store) {
            Ok(found) => findings.equal(format!("{place}: digests"), &found, &self.digests),
            Err(error) => findings.fault(format!("{place}: {error}")),
        }
    }

    /// So does the run that goes on, and it leaves a store without a fault.
    pub fn goes_on(&self, place: &str, store: &Path, findings: &mut Findings) -> Result<(), Box<dyn Error>> {
        self.ends_equal(place, store, findings);
        findings.take(place, look(store)?.faults);
        Ok(())
    }
}

/// Everything a call said.
pub fn said(ended: &Ended) -> String {
    format!("{}{}", text(ended), ended.err)
}

/// The first line that has this piece in lowercase.
pub fn line_with<'t>(text: &'t str, piece: &str) -> &'t str {
    text.lines().find(|line| line.to_lowercase().contains(piece)).unwrap_or("").trim()
}

/// A text that fits a line of the log.
pub fn shortened(line: &str) -> String {
    const N_CHARACTERS: usize = 220;
    match line.char_indices().nth(N_CHARACTERS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

/// Copies a folder to a place where nothing is.
pub fn copy_folder(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_folder(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

/// Whether a program is there and does this.
pub fn works(program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    match command.args(arguments).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(format!("`{program}` ends with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
        }
        Err(error) => Err(format!("`{program}`: {error}")),
    }
}

/// A program that runs another in a namespace of its own, where it may mount and what it mounts is gone with it.
pub const UNSHARE: [&str; 3] = ["unshare", "--map-root-user", "--mount"];

/// Whether that is allowed here.
pub fn may_mount() -> Result<(), Stop> {
    let script = "mount -t tmpfs -o size=64k tmpfs /tmp";
    works(UNSHARE[0], &[UNSHARE[1], UNSHARE[2], "sh", "-c", script])
        .map_err(|reason| Stop::Skipped(format!("mounting is not allowed: {reason}")))
}

/// Plays a scene of this program in a process that may mount.
pub fn play_inside(name: &str, ask: Ask) -> Result<Findings, Stop> {
    may_mount()?;
    let mut command = Command::new(UNSHARE[0]);
    command.args(&UNSHARE[1..]).arg(std::env::current_exe()?).args(["--inside", "--only", name]);
    let status = command.arg("--seed").arg(ask.seed.to_string()).arg("--steps").arg(ask.steps.to_string()).status()?;
    let mut findings = Findings::default();
    if !status.success() {
        findings.fault(format!("the process inside ended with {status}"));
    }
    Ok(findings)
}
