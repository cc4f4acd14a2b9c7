//! `just gpu-rehearsal`: the work of `bench-gpu` on a driver without a GPU. Kernels are compiled for one, launches are checked
//! against its limits, and memory is asked for as on one, so that the peak can be read; nothing is computed. The seconds are
//! the host's, which a GPU has to wait for: with one, a run takes no less on such a host.
//!
//! Owns which work is rehearsed, and the tables and the JSON that come out.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Value, json};
use sluice_gpu::bench::shape::{Load, Shape};
use sluice_gpu::bench::side::Side;
use sluice_gpu::bench::{Request, Work, synthetic, work};
use sluice_gpu::device::{Form, Held, Place};
use sluice_gpu::machine::commit;
use sluice_gpu::rehearsal::{Asked, Assembled, Resources, Stage, assemble};
use sluice_lm::config::Config;
use sluice_lm::precision::Precision;
use sluice_train::optimizer::Keeping;

#[derive(Parser)]
struct Arguments {
    /// The library that crate `sluice-driver` builds
    #[arg(long, value_name = "FILE")]
    driver: PathBuf,
    /// The program that does the work: `bench_gpu`, built for GPUs
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// The sizes that are rehearsed
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Shape::Gemma2_9b, Shape::ArmoRmLlama3_8b])]
    shape: Vec<Shape>,
    /// How trained weights keep what bf16 cannot hold
    #[arg(long, value_enum, default_value_t = Form::Stochastic)]
    master: Form,
    /// What the moments of AdamW are kept in
    #[arg(long, value_enum, default_value_t = Held::Bf16)]
    moments: Held,
    /// The assembler of the CUDA toolkit, which says what each kernel takes of the chip
    #[arg(long, value_name = "PROGRAM")]
    ptxas: Option<PathBuf>,
    /// Where checkpoints are written for the while
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Where all figures are written
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut rehearsal = Rehearsal::new(&arguments)?;
    println!("| work | asked for, GB | predicted, GB | ratio | launches of a run | host seconds of a run | kernels |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for shape in &arguments.shape {
        rehearsal.shape(*shape)?;
    }
    rehearsal.finish(&arguments)
}

/// A piece of work that was rehearsed.
struct Row {
    what: String,
    /// The first time, when kernels are compiled and chosen.
    asked: Asked,
    /// Launches of one run more, and the seconds in which the host brought them about.
    n_launches: u64,
    host_seconds: f64,
    predicted_bytes: Option<usize>,
}

struct Rehearsal {
    stage: Stage,
    side: Side,
    scratch: PathBuf,
    keeping: Keeping,
    /// Kernels and choices are kept for the while.
    kernels: tempfile::TempDir,
    rows: Vec<Row>,
    n_failed: usize,
}

/// What is rehearsed: the first GPU, as the published run uses it.
const PLACE: Place = Place::Cuda(0);
const PRECISION: Precision = Precision::Bf16;

impl Rehearsal {
    fn new(arguments: &Arguments) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            stage: Stage::new(&arguments.driver)?,
            side: Side { program: arguments.program.clone().into(), arguments: vec!["--answer".into()] },
            scratch: arguments.scratch.clone().unwrap_or_else(std::env::temp_dir),
            keeping: Keeping { master: arguments.master.into(), moments: arguments.moments.into() },
            kernels: tempfile::tempdir()?,
            rows: Vec::new(),
            n_failed: 0,
        })
    }

    fn shape(&mut self, shape: Shape) -> Result<(), Box<dyn Error>> {
        let load = shape.load();
        if let Some(config) = shape.policy() {
            let folder = self.written(&config)?;
            self.train(shape, &config, &load, &folder);
            self.sample(shape, &config, &load, &folder);
        }
        if let Some(config) = shape.reward() {
            let folder = self.written(&config)?;
            self.work(format!("{}, scoring", shape.name()), &folder, work::score(&config, &load), None);
        }
        Ok(())
    }

    fn written(&self, config: &Config) -> Result<tempfile::TempDir, Box<dyn Error>> {
        let folder = tempfile::tempdir_in(&self.scratch)?;
        synthetic::write(folder.path(), config)?;
        Ok(folder)
    }

    fn train(&mut self, shape: Shape, config: &Config, load: &Load, folder: &tempfile::TempDir) {
        let predicted = work::training_bytes(PLACE, config, load, PRECISION, self.keeping);
        let train = work::train(config, load, self.keeping);
        let what = format!("{}, SimPO steps, {}", shape.name(), train.form);
        self.work(what, folder, Work::Train(train), Some(predicted));
    }

    fn sample(&mut self, shape: Shape, config: &Config, load: &Load, folder: &tempfile::TempDir) {
        // One process a batch: what a larger one has taken would stay with a smaller one.
        for n in load.batches {
            let predicted = work::sampling_bytes(PLACE, config, load, PRECISION, n);
            let sample = work::sample(config, load, &[n]);
            self.work(format!("{}, sampling {n}", shape.name()), folder, sample, Some(predicted));
        }
    }

    /// Does the work three times: until all kernels are compiled and chosen, then with one run and with two, which differ by
    /// what a run launches.
    fn work(&mut self, what: String, folder: &tempfile::TempDir, work: Work, predicted_bytes: Option<usize>) {
        let ask = |n_runs: usize| {
            let request = Request {
                device: PLACE.to_string(),
                precision: PRECISION.name().to_owned(),
                n_threads: std::thread::available_parallelism().map_or(1, usize::from),
                n_runs,
                folder: folder.path().to_owned(),
                kernels: self.kernels.path().to_owned(),
                work: work.clone(),
            };
            self.stage.ask(&self.side, &request)
        };
        match ask(1).and_then(|cold| Ok((cold, ask(1)?, ask(2)?))) {
            Ok(((_, asked), (_, first), (answer, second))) => {
                let n_launches = second.n_launches.saturating_sub(first.n_launches);
                let host_seconds = answer.measured.iter().map(|measured| measured.median_seconds()).sum();
                let row = Row { what, asked, n_launches, host_seconds, predicted_bytes };
                println!("{}", row.line());
                self.rows.push(row);
            }
            Err(error) => {
                self.n_failed += 1;
                eprintln!("{what}: {error}");
            }
        }
    }

    fn finish(self, arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
        let Self { stage, rows, mut n_failed, .. } = self;
        let assembled = match &arguments.ptxas {
            Some(ptxas) => assemble(ptxas, &stage.kernels())?,
            None => Vec::new(),
        };
        n_failed += assembled.iter().filter(|kernel| kernel.made.is_err()).count();
        show_kernels(&assembled);
        let commit = commit(&PathBuf::from("."));
        println!("\nno GPU: nothing was computed, and the seconds are those of the host alone; commit {commit}");
        if let Some(file) = &arguments.json {
            let rows: Vec<Value> = rows.iter().map(Row::json).collect();
            let report = json!({"commit": commit, "n_failed": n_failed, "rows": rows, "kernels": assembled});
            fs::write(file, format!("{report:#}\n"))?;
        }
        Ok(if n_failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Row {
    fn line(&self) -> String {
        let Self { what, asked, n_launches, host_seconds, predicted_bytes } = self;
        let gigabytes = |n_bytes: f64| format!("{:.1}", n_bytes / 1e9);
        let (predicted, ratio) = match predicted_bytes {
            Some(n_bytes) => (gigabytes(*n_bytes as f64), format!("{:.2}", *n_bytes as f64 / asked.peak_bytes as f64)),
            None => ("-".to_owned(), String::new()),
        };
        let peak = gigabytes(asked.peak_bytes as f64);
        let n_kernels = asked.n_modules;
        format!("| {what} | {peak} | {predicted} | {ratio} | {n_launches} | {host_seconds:.3} | {n_kernels} |")
    }

    fn json(&self) -> Value {
        let Self { what, asked, n_launches, host_seconds, predicted_bytes } = self;
        json!({
            "what": what, "asked": asked, "n_launches_of_a_run": n_launches, "host_seconds_of_a_run": host_seconds,
            "predicted_bytes": predicted_bytes,
        })
    }
}

/// A line for each function; its variants differ in settings, of which a name has a digest.
fn show_kernels(assembled: &[Assembled]) {
    if assembled.is_empty() {
        return;
    }
    let mut functions: BTreeMap<&str, Vec<&Assembled>> = BTreeMap::new();
    for kernel in assembled {
        let function = kernel.name.rsplit_once('_').map_or(&*kernel.name, |(function, _digest)| function);
        functions.entry(function).or_default().push(kernel);
    }
    println!("\n| kernel | variants | registers, most | spilled bytes, most | refused |");
    println!("| --- | --- | --- | --- | --- |");
    for (function, variants) in functions {
        let made = || variants.iter().filter_map(|kernel| kernel.made.as_ref().ok());
        let most = |count: fn(&Resources) -> u32| made().map(count).max().unwrap_or_default();
        let (n_registers, n_spilled) = (most(|made| made.n_registers), most(|made| made.spilled_bytes));
        let refused = variants.iter().filter_map(|kernel| kernel.made.as_ref().err()).collect::<Vec<_>>();
        let n_refused = refused.len();
        println!("| {function} | {} | {n_registers} | {n_spilled} | {n_refused} |", variants.len());
        refused.iter().for_each(|said| eprintln!("{function}: {said}"));
    }
}
