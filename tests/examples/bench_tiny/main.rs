//! `just bench-tiny`: sampling beside Hugging Face `generate` and a SimPO step beside PyTorch, on the same checkpoints.
//!
//! Owns the sizes, the settings and the order: each case is run on both sides in turn. Both sides start from the same
//! files and read the same tokens, and whether they computed the same is printed with the figures.

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use sluice_tests::bench::{Machine, Spread, Timings};

mod five_million;
mod ours;
mod peer;

use ours::Ours;
use peer::Peer;

const PROMPT_TOKENS: usize = 32;
const NEW_TOKENS: usize = 64;
const TEMPERATURE: f64 = 0.8;
const TOP_P: f64 = 0.95;
const PAIRS: usize = 8;
const ROW_TOKENS: usize = 256;
const ROW_PROMPT_TOKENS: usize = 64;
const BETA: f64 = 10.0;
const GAMMA_BETA_RATIO: f64 = 0.3;
const LEARNING_RATE: f64 = 1e-4;
const MAX_GRAD_NORM: f64 = 1.0;

/// The allocator of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    /// The `python` of an environment with transformers and torch
    #[arg(long, value_name = "PROGRAM")]
    peer: Option<PathBuf>,
    /// The small checkpoint
    #[arg(long, value_name = "DIR", default_value = "data/tiny/policy")]
    policy: PathBuf,
    /// Timed runs of each case and side, after one that is not counted
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only the small checkpoint
    #[arg(long)]
    only_policy: bool,
}

/// One thing that is timed.
#[derive(Clone, Copy)]
enum Case {
    Sample { batch: usize, sampled: bool },
    Step,
}

const CASES: [Case; 5] = [
    Case::Sample { batch: 32, sampled: true },
    Case::Sample { batch: 128, sampled: true },
    Case::Sample { batch: 32, sampled: false },
    Case::Sample { batch: 128, sampled: false },
    Case::Step,
];

/// What a side says of one run of a case.
struct Ran {
    seconds: f64,
    token_ids: Vec<Vec<u32>>,
    loss: f64,
}

/// A side of the comparison, with a checkpoint loaded.
trait Side {
    fn run(&mut self, case: Case) -> Result<Ran, Box<dyn Error>>;
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { peer, policy, runs, only_policy } = Arguments::parse();
    let machine = Machine::look();
    let mut peer = peer.map(|python| Peer::start(&python, machine.n_cores())).transpose()?;
    let made = five_million::write()?;
    let mut models = vec![(policy.display().to_string(), policy)];
    if !only_policy {
        models.push(("fresh weights".to_owned(), made.path().to_owned()));
    }
    println!("\nTokens a second, median of {runs} (lowest to highest), the two sides in turn.\n");
    let theirs = peer.as_ref().map_or("", |peer| peer.name.as_str());
    println!("| case | sluice | {theirs} | ratio | same result |\n| --- | --- | --- | --- | --- |");
    for (name, folder) in &models {
        let mut ours = Ours::load(folder)?;
        println!("| **{name}, {:.2} M parameters** | | | | |", ours.n_parameters as f64 / 1e6);
        if let Some(peer) = &mut peer {
            peer.load(folder, ours.vocab_size)?;
        }
        for case in CASES {
            println!("{}", measure(case, runs, &mut ours, peer.as_mut().map(|peer| peer as &mut dyn Side))?);
        }
    }
    println!(
        "\nSampling: prompts of {PROMPT_TOKENS} tokens, {NEW_TOKENS} new ones each, no stop; temperature {TEMPERATURE}, \
              top-p {TOP_P}, or greedy.\nSimPO step: {PAIRS} pairs, {} rows of {ROW_TOKENS} tokens, AdamW, f32.",
        2 * PAIRS
    );
    let peak = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    print!("Peak memory of the process over all cases: sluice {}", peak(own_peak_bytes()));
    match &mut peer {
        Some(peer) => println!(", peer {}.", peak(peer.peak_bytes()?)),
        None => println!("."),
    }
    println!("{machine}");
    Ok(())
}

/// A line of the table: both sides warm, then each once a round.
fn measure(case: Case, runs: usize, ours: &mut Ours, peer: Option<&mut dyn Side>) -> Result<String, Box<dyn Error>> {
    let mut sides: Vec<&mut dyn Side> = vec![ours];
    sides.extend(peer);
    let first = sides.iter_mut().map(|side| side.run(case)).collect::<Result<Vec<_>, _>>()?;
    let mut timings = vec![Timings::default(); sides.len()];
    for _ in 0..runs {
        for (side, timings) in sides.iter_mut().zip(&mut timings) {
            timings.push(side.run(case)?.seconds);
        }
    }
    let rates: Vec<Spread> =
        timings.iter().filter_map(Timings::spread).map(|spread| spread.rate(case.n_tokens() as f64)).collect();
    let cell = |rate: &Spread| format!("{:.0} ({:.0} to {:.0})", rate.median, rate.min, rate.max);
    let (theirs, ratio, same) = match (rates.as_slice(), first.as_slice()) {
        ([ours, theirs], [our_first, their_first]) => {
            (cell(theirs), format!("{:.2}", ours.median / theirs.median), case.agreement(our_first, their_first))
        }
        _ => (String::new(), String::new(), String::new()),
    };
    let ours = rates.first().map(cell).unwrap_or_default();
    Ok(format!("| {} | {ours} | {theirs} | {ratio} | {same} |", case.name()))
}

impl Case {
    fn name(self) -> String {
        match self {
            Self::Sample { batch, sampled: true } => format!("sampling, batch {batch}"),
            Self::Sample { batch, sampled: false } => format!("greedy, batch {batch}"),
            Self::Step => "SimPO step".to_owned(),
        }
    }

    /// Tokens that a run makes, or reads.
    fn n_tokens(self) -> usize {
        match self {
            Self::Sample { batch, .. } => batch * NEW_TOKENS,
            Self::Step => 2 * PAIRS * ROW_TOKENS,
        }
    }

    /// Whether the sides computed the same, as far as that can be seen.
    fn agreement(self, ours: &Ran, theirs: &Ran) -> String {
        match self {
            // The random numbers differ, and so do the answers.
            Self::Sample { sampled: true, .. } => "-".to_owned(),
            Self::Sample { sampled: false, .. } => {
                let rows = ours.token_ids.iter().zip(&theirs.token_ids);
                let n_same = rows.filter(|(ours, theirs)| ours == theirs).count();
                format!("{n_same} of {} answers", ours.token_ids.len())
            }
            Self::Step => format!("loss {:.5}, {:.5}", ours.loss, theirs.loss),
        }
    }
}

fn prompts(batch: usize, vocab_size: usize) -> Vec<Vec<u32>> {
    let token = |row: usize, position: usize| ((row * 17 + position * 5) % vocab_size) as u32;
    (0..batch).map(|row| (0..PROMPT_TOKENS).map(|position| token(row, position)).collect()).collect()
}

fn training_rows(vocab_size: usize) -> Vec<Vec<u32>> {
    // The rows of a pair share their prompt; responses differ from row to row.
    let token = |row: usize, position: usize| {
        let row = if position < ROW_PROMPT_TOKENS { row % PAIRS } else { row };
        ((row * 31 + position * 7) % vocab_size) as u32
    };
    (0..2 * PAIRS).map(|row| (0..ROW_TOKENS).map(|position| token(row, position)).collect()).collect()
}

/// The most memory this process has had resident.
fn own_peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
