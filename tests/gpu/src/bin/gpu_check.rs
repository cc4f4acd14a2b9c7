//! `just gpu-check`: what has to be seen on a GPU before its results are believed.
//!
//! Owns the order of the checks and their output: a table as they are made, and all of it as JSON. Ends with 0 when
//! everything passes, with 1 when something does not, and says why it does nothing where there is no GPU.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use sluice_gpu::device::{Held, Place, PlaceError, Subject, build};
use sluice_gpu::fixture::Fixtures;
use sluice_gpu::machine::{commit, folder_bytes, process_bytes};
use sluice_gpu::soak::Series;
use sluice_gpu::verdict::{Finding, attempt, n_failed, table};
use sluice_gpu::{CheckError, attention, fidelity, job, kernels, objectives, soak, training};
use sluice_lm::device::{keep_kernels, memory_use};

/// The allocator of the program whose memory is looked at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    /// What is checked: cuda:N, cube-cpu (the GPU's backend on the CPU) or cpu
    #[arg(long, default_value = "cuda:0")]
    device: Place,
    /// A folder with tests/fixtures and data/tiny
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
    /// Where compiled kernels and measured choices are kept
    #[arg(long, value_name = "DIR", default_value = ".sluice/kernels")]
    kernels: PathBuf,
    /// Which checks are made [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Precisions that are checked
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Held::F32, Held::Bf16])]
    precision: Vec<Held>,
    /// Training steps with memory measured
    #[arg(long, default_value_t = 500)]
    steps: usize,
    /// Small shapes and a part of the job, for slow devices
    #[arg(long)]
    small: bool,
    /// Where all findings are written
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Time to the first training step, which a kept folder of kernels shortens
    Start,
    /// Single operations at real shapes
    Kernels,
    /// Models against the reference
    Fidelity,
    /// Every objective against the CPU
    Objectives,
    /// Training against the reference
    Training,
    /// Prompts to a tuned policy
    Job,
    /// Memory over many steps
    Soak,
}

impl Part {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// A part in one precision.
struct Made {
    part: Part,
    arithmetic: &'static str,
    seconds: f64,
    findings: Vec<Finding>,
    /// Whatever else it measured.
    measured: Value,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::parse();
    let place = arguments.device;
    let kept_before = folder_bytes(&arguments.kernels);
    keep_kernels(&arguments.kernels);
    let started = Instant::now();
    let (device, name) = match place.open() {
        Ok(opened) => opened,
        Err(error @ (PlaceError::Gpu(_) | PlaceError::NoCubeCpu)) => {
            println!("gpu-check is skipped: {error}");
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(error.into()),
    };
    let build = build();
    let open_seconds = started.elapsed().as_secs_f64();
    println!("{place}: {name}, open after {open_seconds:.2} s; {build}");
    println!("kernels in {}: {} KiB before", arguments.kernels.display(), kept_before >> 10);
    let mut all = Vec::new();
    for held in &arguments.precision {
        let subject = Subject::new(place, &device, (*held).into());
        for part in Part::value_variants() {
            if arguments.only.is_empty() || arguments.only.contains(part) {
                let made = make(*part, &subject, &arguments);
                println!("{}, {} ({:.1} s)", part.name(), made.arithmetic, made.seconds);
                print!("{}", table(&made.findings));
                all.push(made);
            }
        }
    }
    let n_failed = all.iter().map(|made| n_failed(&made.findings)).sum::<usize>();
    let n_passed = all.iter().map(|made| made.findings.len()).sum::<usize>() - n_failed;
    let kept_after = folder_bytes(&arguments.kernels);
    println!("{n_passed} passed, {n_failed} failed; kernels: {} KiB", kept_after >> 10);
    if let Some(file) = &arguments.json {
        let report = json!({
            "device": place.to_string(),
            "device_name": name,
            "build": build,
            "open_seconds": open_seconds,
            "commit": commit(&arguments.root),
            "is_small": arguments.small,
            "kernels_bytes": {"before": kept_before, "after": kept_after},
            "n_passed": n_passed,
            "n_failed": n_failed,
            "parts": all.iter().map(Made::json).collect::<Vec<_>>(),
        });
        fs::write(file, format!("{report:#}\n"))?;
    }
    Ok(if n_failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Made {
    fn json(&self) -> Value {
        let Self { part, arithmetic, seconds, findings, measured } = self;
        let findings: Vec<Value> = findings.iter().map(Finding::json).collect();
        json!({
            "part": part.name(), "arithmetic": arithmetic, "seconds": seconds, "findings": findings, "measured": measured,
        })
    }
}

fn make(part: Part, subject: &Subject, arguments: &Arguments) -> Made {
    let Arguments { device: _, root, kernels: _, only: _, precision: _, steps, small, json: _ } = arguments;
    let fixtures = Fixtures::under(root);
    let began = Instant::now();
    let mut measured = Value::Null;
    let name = part.name();
    let findings = match part {
        Part::Start => attempt(&name, || start(subject, &fixtures, &mut measured)),
        Part::Kernels => {
            let shapes = if *small { kernels::Shapes::SMALL } else { kernels::Shapes::REAL };
            let attention = attempt("flash attention", || Ok(attention::findings(subject, *small)));
            [kernels::findings(subject, shapes), attention].concat()
        }
        Part::Fidelity => fidelity::findings(subject, &fixtures),
        Part::Objectives => attempt(&name, || objectives::findings(subject, &fixtures)),
        Part::Training => training::findings(subject, &fixtures),
        Part::Job => attempt(&name, || {
            let size = if *small { job::Size::PART } else { job::Size::WHOLE };
            Ok(job::run(subject, &fixtures, size)?.findings())
        }),
        Part::Soak => attempt(&name, || soaked(subject, &fixtures, *steps, &mut measured)),
    };
    let (arithmetic, seconds) = (subject.arithmetic.name(), began.elapsed().as_secs_f64());
    Made { part, arithmetic, seconds, findings, measured }
}

/// One training step, with whatever has to be compiled for it, and the same again. What it takes is not judged.
fn start(subject: &Subject, fixtures: &Fixtures, measured: &mut Value) -> Result<Vec<Finding>, CheckError> {
    let step = || -> Result<f64, CheckError> {
        let began = Instant::now();
        soak::soak(subject, fixtures, 1, &mut |_, _| Vec::new())?;
        Ok(began.elapsed().as_secs_f64())
    };
    let (first, second) = (step()?, step()?);
    println!("  a model loaded and one training step made: {first:.2} s; once more: {second:.2} s");
    *measured = json!({"first_step_seconds": first, "second_step_seconds": second});
    Ok(Vec::new())
}

fn soaked(
    subject: &Subject,
    fixtures: &Fixtures,
    n_steps: usize,
    measured: &mut Value,
) -> Result<Vec<Finding>, CheckError> {
    let device = subject.placement.device.clone();
    let mut measure = |step: usize, loss: f64| {
        let memory = memory(&device);
        if step == 1 || step.is_multiple_of(50) {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let told: Vec<String> =
                memory.iter().map(|(what, bytes)| format!("{what} {:.1} MiB", mib(*bytes))).collect();
            println!("  step {step:4}  loss {loss:.4}  {}", told.join(", "));
        }
        memory
    };
    let series = soak::soak(subject, fixtures, n_steps, &mut measure)?;
    let bytes_by_step = series.iter().map(|Series { what, bytes }| (what.clone(), json!(bytes)));
    *measured = json!({"bytes_by_step": bytes_by_step.collect::<serde_json::Map<_, _>>()});
    Ok(series.iter().map(Series::finding).collect())
}

/// What the device's allocator and the process hold.
fn memory(device: &Device) -> Vec<(String, u64)> {
    let mut memory = Vec::new();
    if let Some(held) = memory_use(device) {
        memory.push(("device memory in use".to_owned(), held.used_bytes));
        memory.push(("device memory reserved".to_owned(), held.reserved_bytes));
    }
    memory.extend(process_bytes().map(|bytes| ("memory of the process".to_owned(), bytes.now)));
    memory
}
