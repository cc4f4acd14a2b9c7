//! The row journal: how soon a run goes on that finds a million rows of its answers there, and what keeping a row costs
//! beside making it.

use std::error::Error;
use std::fs;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;
use sluice_store::{RowKey, RowScope, Store};
use sluice_tests::bench::{Spread, Timings};
use sluice_tests::running::{Running, Signal};
use sluice_tests::{Project, binary, fixture, workspace};
use tempfile::TempDir;

use crate::table::{Figure, Unit};
use crate::{Ask, timed};

/// Prompts that the rows are answers to.
const N_PROMPTS: usize = 10_000;
const GOAL_SECONDS: f64 = 2.0;
const GOAL_SHARE: f64 = 0.01;
/// Rows that are appended to learn what one costs.
const N_APPENDED: u32 = 200_000;

pub fn measure(ask: &Ask) -> Result<Vec<Figure>, Box<dyn Error>> {
    Ok(vec![restart(ask)?, share(ask)?])
}

/// From the start of the process to the event that tells how many rows are known; then the model is loaded and the first new
/// row is made. The rows are answers of one token, made by a first run.
fn restart(ask: &Ask) -> Result<Figure, Box<dyn Error>> {
    let n_each = (ask.n_rows / N_PROMPTS).max(1);
    let project = Project::new();
    let rows: String = (0..N_PROMPTS).map(|row| format!("{{\"prompt\": \"Say {row}.\"}}\n")).collect();
    project.write("prompts.jsonl", &rows);
    let policy = fixture("gemma2-tiny").display().to_string();
    let pipeline = format!(
        "version: 1\nmodels: {{ policy: {policy} }}\nstages:\n  prompts: {{ ingest: {{ from: prompts.jsonl, split: {{ \
         heldout: 0 }} }} }}\n  responses: {{ sample: {{ prompts: prompts, model: policy, max_new_tokens: 1, n: {n_each} }} \
         }}\n"
    );
    project.write("pipeline.yaml", &pipeline);
    timed(Command::new(binary()).args(["run", "pipeline.yaml", "--quiet"]).current_dir(project.path()))?;
    // One answer more to each prompt: what is known is all but these.
    let more = format!("stages.responses.sample.n={}", n_each + 1);
    let mut timings = Timings::default();
    let mut n_known = 0;
    for _ in 0..ask.n_runs {
        let mut command = Command::new(binary());
        command.args(["run", "pipeline.yaml", "--json", "--set", &more]).current_dir(project.path());
        let mut run = Running::start(command);
        let told = run.find(|line| line.is("stage_progress", "responses")).ok_or("the run tells no progress")?;
        run.signal(Signal::Kill);
        run.wait();
        n_known = told.event()["done"].as_u64().unwrap_or(0);
        timings.push(told.at.as_secs_f64());
    }
    let spread = timings.spread().unwrap_or(Spread { median: 0.0, min: 0.0, max: 0.0 });
    let figure = Figure::new(format!("go on from {n_known} journaled rows"), Unit::Seconds, spread).goal(GOAL_SECONDS);
    Ok(figure.note("from the start of the process to the first progress; the load of the model comes after it"))
}

/// What an append takes, syncs included, as a share of what an answer of the tiny job takes: a row is as long as those
/// answers are on average.
fn share(ask: &Ask) -> Result<Figure, Box<dyn Error>> {
    let (mut shares, mut appends, mut answers, mut n_bytes) = (Vec::new(), Timings::default(), Timings::default(), 0);
    for _ in 0..ask.n_runs {
        let answer = Answer::of_tiny_job()?;
        let append = append_seconds(answer.n_bytes)?;
        shares.push(append / answer.seconds);
        appends.push(append);
        answers.push(answer.seconds);
        n_bytes = answer.n_bytes;
    }
    let spread = Spread::of(&shares).unwrap_or(Spread { median: 0.0, min: 0.0, max: 0.0 });
    let median = |timings: &Timings| timings.spread().map_or(0.0, |spread| spread.median * 1e6);
    let note = format!(
        "{:.2} µs a row of {n_bytes} bytes with its syncs, beside {:.0} µs an answer of the tiny job, which is as short as \
         answers get",
        median(&appends),
        median(&answers)
    );
    Ok(Figure::new("row journal, of sampling", Unit::Share, spread).goal(GOAL_SHARE).note(note))
}

fn append_seconds(n_bytes: usize) -> Result<f64, Box<dyn Error>> {
    let folder = TempDir::new()?;
    let store = Store::open(folder.path().join("store"))?;
    let row = vec![7; n_bytes];
    let started = Instant::now();
    let now_s = || started.elapsed().as_secs_f64();
    let mut writer = store.rows(RowScope::from_bytes([9; 32]))?.writer(now_s())?;
    for number in 0..N_APPENDED {
        let mut key = [0; 32];
        // Keys are hashes; these differ where tables of hashes look.
        key[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_le_bytes());
        writer.append(RowKey::from_bytes(key), &row, now_s())?;
    }
    writer.sync(now_s())?;
    Ok(now_s() / f64::from(N_APPENDED))
}

/// An answer of the tiny job: the mean of its sampling stage.
struct Answer {
    seconds: f64,
    /// In the journal.
    n_bytes: usize,
}

impl Answer {
    fn of_tiny_job() -> Result<Self, Box<dyn Error>> {
        let store = TempDir::new()?;
        let mut command = Command::new(binary());
        command.args(["run", "pipelines/simpo-gemma.yaml", "responses", "--json", "--store"]).arg(store.path());
        command.current_dir(workspace());
        let ended = Running::start(command).wait();
        let report = ended.report();
        let stages = report["stages"].as_array();
        let stage = stages.and_then(|stages| stages.iter().find(|stage| stage["name"] == "responses"));
        let stage = stage.unwrap_or(&Value::Null);
        let (Some(seconds), Some(n_rows)) = (stage["seconds"].as_f64(), stage["rows"].as_f64()) else {
            return Err(format!("no answers: {}", ended.err).into());
        };
        let mut n_bytes = 0;
        for scope in fs::read_dir(store.path().join("rows"))? {
            for file in fs::read_dir(scope?.path())? {
                let file = file?;
                n_bytes +=
                    if file.path().extension().is_some_and(|end| end == "rows") { file.metadata()?.len() } else { 0 };
            }
        }
        Ok(Self { seconds: seconds / n_rows, n_bytes: (n_bytes as f64 / n_rows) as usize })
    }
}
