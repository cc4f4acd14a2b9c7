//! What is run: a pipeline in a project folder, into a store that is named at each call. Owns the command lines and how an
//! answer is read. Knows nothing of faults.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use serde_json::Value;
use sluice_tests::running::{Ended, Running};
use sluice_tests::{binary, workspace};

/// How large the job of the rounds is.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// The tiny job with few prompts and a short training: every stage takes a moment, none takes most of the time
    TinySmall,
    /// The tiny job as it is
    Tiny,
}

/// What makes the tiny job small. Each stage still has rows or steps enough to be killed between two of them.
const SMALL: [&str; 8] = [
    "stages.responses.sample.limit=80",
    "stages.responses.sample.max_batch=4",
    "stages.scores.score.max_batch_tokens=256",
    "stages.tuned.train.epochs=2",
    "stages.tuned.train.batch_size=4",
    "stages.tuned.train.checkpoint={every_steps: 4}",
    "stages.report.evaluate.limit=60",
    "stages.report.evaluate.max_batch=4",
];

/// Digest of each stage's first output, by stage.
pub type Digests = BTreeMap<String, String>;

/// A pipeline with what is set from outside.
#[derive(Clone)]
pub struct Job {
    project: PathBuf,
    pipeline: String,
    words: Vec<String>,
}

impl Job {
    /// The tiny job of this repository.
    pub fn tiny(size: Size) -> Job {
        let mut job = Job {
            project: workspace().to_owned(),
            pipeline: "pipelines/simpo-gemma.yaml".to_owned(),
            words: Vec::new(),
        };
        if size == Size::TinySmall {
            job = job.set(&SMALL);
        }
        job
    }

    /// A pipeline file of a project folder.
    pub fn of(project: &Path, pipeline: &str) -> Job {
        Job { project: project.to_owned(), pipeline: pipeline.to_owned(), words: Vec::new() }
    }

    /// The same with more values set.
    pub fn set<S: AsRef<str>>(&self, values: &[S]) -> Job {
        let mut job = self.clone();
        job.words.extend(values.iter().flat_map(|value| ["--set".to_owned(), value.as_ref().to_owned()]));
        job
    }

    /// A call of the program: a verb, further words, and the store.
    pub fn command<S: AsRef<OsStr>>(&self, store: &Path, verb: &str, words: &[S]) -> Command {
        let mut command = Command::new(binary());
        self.complete(&mut command, store, verb, words);
        command
    }

    /// The same through another program, whose last word the binary becomes.
    pub fn through<S: AsRef<OsStr>>(&self, mut other: Command, store: &Path, verb: &str, words: &[S]) -> Command {
        other.arg(binary());
        self.complete(&mut other, store, verb, words);
        other
    }

    /// A call of a verb that knows no pipeline.
    pub fn bare<S: AsRef<OsStr>>(&self, store: &Path, verb: &str, words: &[S]) -> Command {
        let mut command = Command::new(binary());
        command.arg(verb).args(words).arg("--store").arg(store);
        self.surround(&mut command);
        command
    }

    fn complete<S: AsRef<OsStr>>(&self, command: &mut Command, store: &Path, verb: &str, words: &[S]) {
        command.arg(verb).arg(&self.pipeline).args(words).args(&self.words).arg("--store").arg(store);
        self.surround(command);
    }

    fn surround(&self, command: &mut Command) {
        command.current_dir(&self.project).env("SLUICE_COMMAND", "sluice");
        for name in ["SLUICE_LOG", "NO_COLOR", "COLUMNS"] {
            command.env_remove(name);
        }
    }

    /// Starts `run --json`.
    pub fn start(&self, store: &Path) -> Running {
        Running::start(self.command(store, "run", &["--json"]))
    }

    /// Does `run --json` to its end.
    pub fn run(&self, store: &Path) -> Ended {
        self.start(store).wait()
    }

    /// A run that is expected to end well, and the digests it ends with.
    pub fn digests(&self, store: &Path) -> Result<Digests, Box<dyn Error>> {
        let ended = self.run(store);
        digests(&ended)
    }

    /// What a run would do with each stage, in plan order: its name and its state.
    pub fn plan(&self, store: &Path) -> Result<Vec<(String, String)>, Box<dyn Error>> {
        let ended = Running::start(self.command(store, "plan", &["--json"])).wait();
        if ended.code != Some(0) {
            return Err(format!("plan ended with {:?}: {}{}", ended.code, text(&ended), ended.err.trim_end()).into());
        }
        let entry = |event: Value| Some((event["name"].as_str()?.to_owned(), event["state"].as_str()?.to_owned()));
        Ok(ended.lines.iter().filter_map(|line| entry(line.event())).collect())
    }
}

/// What an ended call printed.
pub fn text(ended: &Ended) -> String {
    ended.lines.iter().map(|line| format!("{}\n", line.text)).collect()
}

/// The digests of a run that has ended well.
pub fn digests(ended: &Ended) -> Result<Digests, Box<dyn Error>> {
    let report = ended.report();
    let stages = report["stages"].as_array().filter(|_| ended.code == Some(0));
    let Some(stages) = stages else {
        let last = ended.lines.last().map_or("", |line| line.text.as_str());
        return Err(format!("a run ended with {:?}: {last} {}", ended.code, ended.err.trim_end()).into());
    };
    let entry = |stage: &Value| Some((stage["name"].as_str()?.to_owned(), stage["digest"].as_str()?.to_owned()));
    Ok(stages.iter().filter_map(entry).collect())
}

/// The stages of a report that are in one of these states.
pub fn in_state(report: &Value, states: &[&str]) -> Vec<String> {
    let stages = report["stages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let wanted = stages.iter().filter(|stage| states.iter().any(|state| stage["state"] == *state));
    wanted.filter_map(|stage| stage["name"].as_str().map(str::to_owned)).collect()
}
