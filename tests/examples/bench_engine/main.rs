//! `just bench-engine`: what the engine costs beside the work it orders, each figure with its goal and, where there is one,
//! the program one would use instead, on the same machine in the same run.
//!
//! Owns the order of the cases and the table. The cases know the programs by their command lines, and the crates where a
//! whole process would measure something else.

mod diff;
mod first;
mod ingest;
mod many;
mod nothing;
mod pairs;
mod rows;
mod table;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use sluice_tests::bench::Machine;

use crate::table::Figure;

/// How often a process's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The allocator of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    /// The `dvc` to compare with
    #[arg(long, value_name = "PROGRAM")]
    dvc: Option<PathBuf>,
    /// The `b3sum` to compare with
    #[arg(long, value_name = "PROGRAM", default_value = "b3sum")]
    b3sum: PathBuf,
    /// Timed runs of each program and size; a third of them where one takes seconds
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// Only these cases
    #[arg(long, value_delimiter = ',', value_name = "CASE")]
    only: Vec<String>,
    /// GiB of the file that is ingested
    #[arg(long, default_value_t = 2.0)]
    gib: f64,
    /// Rows in the journal that a run goes on from, and responses that are paired
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// Print one object instead of the table
    #[arg(long)]
    json: bool,
}

/// What the cases are measured with.
struct Ask {
    dvc: Option<Peer>,
    b3sum: Option<Peer>,
    n_runs: usize,
    /// Where one run takes seconds.
    n_long_runs: usize,
    gib: f64,
    n_rows: usize,
}

/// Another program.
#[derive(Clone)]
struct Peer {
    /// As in `dvc 3.67.1`.
    name: String,
    program: PathBuf,
}

/// A case by its name.
type Case = (&'static str, fn(&Ask) -> Result<Vec<Figure>, Box<dyn Error>>);

const CASES: [Case; 7] = [
    ("nothing", nothing::measure),
    ("plan", many::measure),
    ("first", first::measure),
    ("ingest", ingest::measure),
    ("rows", rows::measure),
    ("pairs", pairs::measure),
    ("diff", diff::measure),
];

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { dvc, b3sum, runs, only, gib, rows, json } = Arguments::parse();
    if let Some(word) = only.iter().find(|word| CASES.iter().all(|(name, _)| name != *word)) {
        return Err(format!("there is no case `{word}`; there is {}", CASES.map(|(name, _)| name).join(", ")).into());
    }
    let machine = Machine::look();
    let b3sum = Peer::find("b3sum", &b3sum).inspect_err(|reason| eprintln!("no comparison with b3sum: {reason}")).ok();
    let dvc = dvc.map(|program| Peer::find("dvc", &program)).transpose()?;
    let ask = Ask { dvc, b3sum, n_runs: runs, n_long_runs: runs.div_ceil(3), gib, n_rows: rows };
    let mut figures = Vec::new();
    for (name, measure) in CASES.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|word| word == name)) {
        eprintln!("{name} ...");
        let started = Instant::now();
        figures.extend(measure(&ask)?);
        eprintln!("{name}: {:.0} s", started.elapsed().as_secs_f64());
    }
    if json {
        println!("{}", table::json(&figures, &machine));
    } else {
        print!("{}", table::text(&figures));
        println!("{machine}");
    }
    Ok(())
}

impl Peer {
    /// The program, if it is there and tells its version.
    fn find(name: &str, program: &Path) -> Result<Peer, String> {
        let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("`{}`: {error}", program.display()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let version = said.split_whitespace().last().unwrap_or("of no version").to_owned();
        // A relative path would mean another file in a project folder.
        let program = if program.components().count() > 1 { program.canonicalize() } else { Ok(program.to_owned()) };
        let program = program.map_err(|error| format!("`{name}`: {error}"))?;
        Ok(Peer { name: format!("{name} {version}"), program })
    }
}

/// Seconds of a whole process that ends well.
fn timed(command: &mut Command) -> Result<f64, Box<dyn Error>> {
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let seconds = started.elapsed().as_secs_f64();
    if output.status.success() {
        return Ok(seconds);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} ended with {}:\n{said}", output.status).into())
}

/// As [`timed`], and how many bytes of memory the process had at most.
fn watched(command: &mut Command) -> Result<(f64, f64), Box<dyn Error>> {
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut n_kib = 0.0_f64;
    let ended = loop {
        // What the system remembers only grows, so that it is enough to look shortly before the end.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let told = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")?.trim().parse().ok());
        n_kib = n_kib.max(told.unwrap_or(0.0));
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        thread::sleep(LOOK_EVERY);
    };
    let seconds = started.elapsed().as_secs_f64();
    if ended.success() { Ok((seconds, n_kib * 1024.0)) } else { Err(format!("{command:?} ended with {ended}").into()) }
}
