//! `just bench-engine`: what a run costs that has nothing to do, beside `dvc repro` on stages of the same shape.
//!
//! Owns the generated pipelines and the order of measurements: whole processes, the two programs in turn. Knows the
//! programs by their command lines alone.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Parser;
use sluice_tests::bench::{Machine, Spread, Timings, seconds};
use sluice_tests::{Project, binary};

/// Stages of the two pipelines.
const SIZES: [usize; 2] = [6, 200];

/// Stages of a lane: each reads the one before it, and the first of them the source.
const LANE: usize = 5;

/// Rows of the source.
const N_ROWS: usize = 20;

#[derive(Parser)]
struct Arguments {
    /// The `dvc` to compare with
    #[arg(long, value_name = "PROGRAM")]
    dvc: Option<PathBuf>,
    /// Timed runs of each program and size
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// Stages of the pipelines
    #[arg(long, value_delimiter = ',', default_values_t = SIZES)]
    sizes: Vec<usize>,
}

/// A project of one program, brought up to date once.
struct Prepared {
    project: Project,
    program: PathBuf,
    arguments: &'static [&'static str],
    first_seconds: f64,
}

/// What was measured at one size.
struct Row {
    n_stages: usize,
    first_seconds: Vec<f64>,
    spreads: Vec<Spread>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { dvc, runs, sizes } = Arguments::parse();
    let machine = Machine::look();
    let dvc = dvc.map(|program| Ok::<_, std::io::Error>((version(&program)?, program.canonicalize()?))).transpose()?;
    let mut rows = Vec::new();
    for n_stages in sizes {
        eprintln!("{n_stages} stages: first run");
        let mut programs = vec![sluice(n_stages)?];
        if let Some((_, program)) = &dvc {
            programs.push(with_dvc(n_stages, program)?);
        }
        eprintln!("{n_stages} stages: {runs} runs with nothing to do");
        let mut timings = vec![Timings::default(); programs.len()];
        for _ in 0..runs {
            for (program, timings) in programs.iter().zip(&mut timings) {
                timings.push(program.run()?);
            }
        }
        let first_seconds = programs.iter().map(|program| program.first_seconds).collect();
        rows.push(Row { n_stages, first_seconds, spreads: timings.iter().filter_map(Timings::spread).collect() });
    }
    print!("{}", report(&rows, runs, dvc.as_ref().map(|(version, _)| version.as_str())));
    println!("{machine}");
    Ok(())
}

/// A pipeline of `sql` stages that copy a table, after one `ingest`.
fn sluice(n_stages: usize) -> Result<Prepared, Box<dyn Error>> {
    let project = Project::new();
    project.write("rows.jsonl", &source());
    let mut text = "version: 1\nstages:\n  source: { ingest: { from: rows.jsonl } }\n".to_owned();
    for stage in 1..n_stages {
        let (name, from) = (name(stage), read_by(stage));
        let query = format!("select * from {from} order by prompt_id");
        writeln!(text, "  {name}: {{ sql: {{ from: [{from}], query: {query} }} }}")?;
    }
    project.write("pipeline.yaml", &text);
    Prepared::new(project, binary(), &["run", "pipeline.yaml"])
}

/// The same shape with `cp` as the work.
fn with_dvc(n_stages: usize, program: &Path) -> Result<Prepared, Box<dyn Error>> {
    let project = Project::new();
    project.write("rows.jsonl", &source());
    for arguments in [&["init", "--no-scm", "--quiet"][..], &["config", "core.analytics", "false"]] {
        run(Command::new(program).args(arguments).current_dir(project.path()))?;
    }
    let mut text = "stages:\n".to_owned();
    for stage in 0..n_stages {
        let (to, from) = (name(stage), if stage == 0 { "rows.jsonl".to_owned() } else { read_by(stage) });
        writeln!(text, "  {to}:\n    cmd: cp {from} {to}\n    deps: [{from}]\n    outs: [{to}]")?;
    }
    project.write("dvc.yaml", &text);
    Prepared::new(project, program.to_owned(), &["repro", "--quiet"])
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
        let started = Instant::now();
        run(Command::new(&self.program).args(self.arguments).current_dir(self.project.path()))?;
        Ok(started.elapsed().as_secs_f64())
    }
}

fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} ended with {}:\n{said}", output.status).into())
}

fn version(program: &Path) -> Result<String, std::io::Error> {
    let output = Command::new(program).arg("--version").output()?;
    Ok(format!("dvc {}", String::from_utf8_lossy(&output.stdout).trim()))
}

fn report(rows: &[Row], runs: usize, dvc: Option<&str>) -> String {
    let mut text =
        format!("\nNothing to do: seconds of a whole process, median of {runs} (lowest to highest), in turn.\n\n");
    let cell = |spread: &Spread| {
        let Spread { median, min, max } = *spread;
        format!("{} ({} to {})", seconds(median), seconds(min), seconds(max))
    };
    let mut heads = vec!["stages".to_owned(), "sluice run".to_owned()];
    heads.extend(dvc.map(|version| format!("{version} repro")));
    heads.extend(dvc.map(|_| "ratio".to_owned()));
    heads.push("first run, once".to_owned());
    text += &line(&heads);
    text += &line(&vec!["---".to_owned(); heads.len()]);
    for Row { n_stages, first_seconds, spreads } in rows {
        let mut cells = vec![n_stages.to_string()];
        cells.extend(spreads.iter().map(cell));
        if let [ours, theirs] = spreads.as_slice() {
            cells.push(format!("{:.0}", theirs.median / ours.median));
        }
        cells.push(first_seconds.iter().map(|value| seconds(*value)).collect::<Vec<_>>().join(", "));
        text += &line(&cells);
    }
    text.push('\n');
    text
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}
