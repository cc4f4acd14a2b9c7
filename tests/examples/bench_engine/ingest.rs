//! A large file of prompts: hashing it, which is all that a plan and another program's `add` do with its content, and making
//! a table of it. Whole processes; the file is in the page cache for all of them.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use sluice_tests::bench::{Spread, Timings};
use sluice_tests::{Project, binary};

use crate::table::{Figure, Unit};
use crate::{Ask, nothing, timed, watched};

const FILE: &str = "prompts.jsonl";
/// Words of a prompt, and of the language they are from.
const N_WORDS: usize = 150;
const N_KNOWN_WORDS: usize = 20_000;

pub fn measure(ask: &Ask) -> Result<Vec<Figure>, Box<dyn Error>> {
    let project = Project::new();
    project.write("pipeline.yaml", &format!("version: 1\nstages:\n  prompts: {{ ingest: {{ from: {FILE} }} }}\n"));
    let n_rows = write(&project.path().join(FILE), (ask.gib * (1 << 30) as f64) as u64)?;
    if let Some(dvc) = &ask.dvc {
        nothing::init_dvc(&project, &dvc.program)?;
    }
    let here = |program: &Path| {
        let mut command = Command::new(program);
        command.current_dir(project.path());
        command
    };
    let gone = |name: &str| -> Result<(), Box<dyn Error>> {
        let path = project.path().join(name);
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else if path.is_file() {
            fs::remove_file(path)?;
        }
        Ok(())
    };
    let (mut hash, mut table, mut peaks) = (Timings::default(), Timings::default(), Vec::new());
    let (mut b3sum, mut add) = (Timings::default(), Timings::default());
    for _ in 0..ask.n_long_runs {
        // Without a store nothing is known of the file.
        gone(".sluice")?;
        hash.push(timed(here(&binary()).args(["plan", "pipeline.yaml", "--quiet"]))?);
        if let Some(peer) = &ask.b3sum {
            b3sum.push(timed(here(&peer.program).arg(FILE))?);
        }
        gone(".sluice")?;
        let (seconds, peak) = watched(here(&binary()).args(["run", "pipeline.yaml", "--quiet"]))?;
        table.push(seconds);
        peaks.push(peak);
        if let Some(peer) = &ask.dvc {
            for name in [".dvc/cache", ".dvc/tmp", "prompts.jsonl.dvc"] {
                gone(name)?;
            }
            add.push(timed(here(&peer.program).args(["add", "--quiet", FILE]))?);
        }
    }
    let size = format!("{} GiB of JSONL, {:.1} M rows", ask.gib, n_rows as f64 / 1e6);
    let beside = |mut figure: Figure| {
        for (peer, timings, verb) in [(&ask.b3sum, &b3sum, ""), (&ask.dvc, &add, " add")] {
            if let Some(peer) = peer {
                figure = figure.beside(format!("{}{verb}", peer.name), timings.spread());
            }
        }
        figure
    };
    const NONE: Spread = Spread { median: 0.0, min: 0.0, max: 0.0 };
    let spread = |timings: &Timings| timings.spread().unwrap_or(NONE);
    Ok(vec![
        beside(Figure::new(format!("hash {size}"), Unit::Seconds, spread(&hash)))
            .note("`plan` of a file never seen; dvc hashes and copies it"),
        beside(Figure::new(format!("ingest {size}"), Unit::Seconds, spread(&table)))
            .note("hash, read, judge every row, write a Parquet table with both digests; the others do not read rows"),
        Figure::new(format!("memory of it, {size}"), Unit::Bytes, Spread::of(&peaks).unwrap_or(NONE))
            .note("the most that the process had; 16 bytes of each prompt stay, and no row"),
    ])
}

/// Writes prompts of made-up words up to a size; how many there are.
fn write(path: &Path, n_bytes: u64) -> Result<u64, Box<dyn Error>> {
    let mut state = 1_u64;
    let mut next = |below: usize| {
        // Knuth's multiplier; only the high bits are used.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut word = || -> String { (0..2 + next(9)).map(|_| char::from(b'a' + next(26) as u8)).collect() };
    let words: Vec<String> = (0..N_KNOWN_WORDS).map(|_| word()).collect();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut n_written, mut n_rows) = (0, 0);
    let mut line = String::new();
    while n_written < n_bytes {
        line.clear();
        line.push_str("{\"prompt\": \"");
        for at in 0..N_WORDS {
            line.push_str(if at == 0 { "" } else { " " });
            line.push_str(&words[next(N_KNOWN_WORDS)]);
        }
        line.push_str("\"}\n");
        file.write_all(line.as_bytes())?;
        (n_written, n_rows) = (n_written + line.len() as u64, n_rows + 1);
    }
    file.flush()?;
    Ok(n_rows)
}
