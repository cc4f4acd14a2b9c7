//! A run with nothing to do, beside `dvc repro` on stages of the same shape: whole processes, the two programs in turn.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sluice_tests::bench::{Spread, Timings, seconds};
use sluice_tests::{Project, binary};

use crate::table::{Figure, Unit};
use crate::{Ask, timed};

/// Stages of the two pipelines, and the seconds that are allowed.
const SIZES: [(usize, f64); 2] = [(6, 0.020), (200, 0.060)];

/// Stages of a lane: each reads the one before it, and the first of them the source.
const LANE: usize = 5;

/// Rows of the source.
const N_ROWS: usize = 20;

/// A project of one program, brought up to date once.
struct Prepared {
    project: Project,
    program: PathBuf,
    arguments: &'static [&'static str],
    first_seconds: f64,
}

pub fn measure(ask: &Ask) -> Result<Vec<Figure>, Box<dyn Error>> {
    let mut figures = Vec::new();
    for (n_stages, goal) in SIZES {
        let mut programs = vec![Prepared::new(project(n_stages)?, binary(), &["run", "pipeline.yaml"])?];
        if let Some(dvc) = &ask.dvc {
            programs.push(with_dvc(n_stages, &dvc.program)?);
        }
        let mut timings = vec![Timings::default(); programs.len()];
        for _ in 0..ask.n_runs {
            for (program, timings) in programs.iter().zip(&mut timings) {
                timings.push(program.run()?);
            }
        }
        let spreads: Vec<Spread> = timings.iter().filter_map(Timings::spread).collect();
        let [ours, others @ ..] = spreads.as_slice() else { continue };
        let first: Vec<String> = programs.iter().map(|program| seconds(program.first_seconds)).collect();
        let mut figure = Figure::new(format!("nothing to do, {n_stages} stages"), Unit::Seconds, *ours).goal(goal);
        if let Some(dvc) = &ask.dvc {
            figure = figure.beside(format!("{} repro", dvc.name), others.first().copied());
        }
        figures.push(figure.note(format!("whole process; the first run, once: {}", first.join(", "))));
    }
    Ok(figures)
}

/// A pipeline of `sql` stages that pass a small table on, after one `ingest`.
pub fn project(n_stages: usize) -> Result<Project, Box<dyn Error>> {
    let project = Project::new();
    project.write("rows.jsonl", &source());
    project.write("pipeline.yaml", &pipeline(n_stages)?);
    Ok(project)
}

/// The text of that pipeline.
pub fn pipeline(n_stages: usize) -> Result<String, Box<dyn Error>> {
    let mut text = "version: 1\nstages:\n  source: { ingest: { from: rows.jsonl } }\n".to_owned();
    for stage in 1..n_stages {
        let (name, from) = (name(stage), read_by(stage));
        // A column that tells stages apart: stages that say the same are computed once.
        let query = format!("select prompt_id, prompt, {stage} as stage from {from} order by prompt_id");
        writeln!(text, "  {name}: {{ sql: {{ from: [{from}], query: '{query}' }} }}")?;
    }
    Ok(text)
}

/// The same shape with `cp` as the work.
fn with_dvc(n_stages: usize, program: &Path) -> Result<Prepared, Box<dyn Error>> {
    let project = Project::new();
    project.write("rows.jsonl", &source());
    init_dvc(&project, program)?;
    let mut text = "stages:\n".to_owned();
    for stage in 0..n_stages {
        let (to, from) = (name(stage), if stage == 0 { "rows.jsonl".to_owned() } else { read_by(stage) });
        writeln!(text, "  {to}:\n    cmd: cp {from} {to}\n    deps: [{from}]\n    outs: [{to}]")?;
    }
    project.write("dvc.yaml", &text);
    Prepared::new(project, program.to_owned(), &["repro", "--quiet"])
}

/// Makes a folder a project of DVC.
pub fn init_dvc(project: &Project, program: &Path) -> Result<(), Box<dyn Error>> {
    for arguments in [&["init", "--no-scm", "--quiet"][..], &["config", "core.analytics", "false"]] {
        timed(Command::new(program).args(arguments).current_dir(project.path()))?;
    }
    Ok(())
}

fn source() -> String {
    (0..N_ROWS).map(|row| format!("{{\"prompt\": \"Say the number {row}.\"}}\n")).collect()
}

fn name(stage: usize) -> String {
    if stage == 0 { "source".to_owned() } else { format!("stage_{stage:03}") }
}

/// The stage that a later one reads.
fn read_by(stage: usize) -> String {
    if (stage - 1).is_multiple_of(LANE) { name(0) } else { name(stage - 1) }
}

impl Prepared {
    fn new(project: Project, program: PathBuf, arguments: &'static [&'static str]) -> Result<Self, Box<dyn Error>> {
        let mut prepared = Self { project, program, arguments, first_seconds: 0.0 };
        prepared.first_seconds = prepared.run()?;
        Ok(prepared)
    }

    /// Seconds of a whole process.
    fn run(&self) -> Result<f64, Box<dyn Error>> {
        timed(Command::new(&self.program).args(self.arguments).current_dir(self.project.path()))
    }
}
