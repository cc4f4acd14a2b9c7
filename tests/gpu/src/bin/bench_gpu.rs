//! `just bench-gpu`: training, sampling and scoring at published sizes, beside transformers and PyTorch on the same device.
//!
//! Owns which work is put to which side, and the table and the JSON that come out. Each piece of work is a process of its
//! own: this program, started again with `--answer`, and the Python one.

use std::error::Error;
use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Value, json};
use sluice_gpu::bench::ours::{PRODUCTS, answer};
use sluice_gpu::bench::shape::{Load, Shape};
use sluice_gpu::bench::side::Side;
use sluice_gpu::bench::{Answer, Measured, Request, Work, flops, synthetic, work};
use sluice_gpu::device::{Form, Held, Place};
use sluice_gpu::machine::commit;
use sluice_gpu::training::{form_name, forms};
use sluice_gpu::verdict::told;
use sluice_lm::config::Config;
use sluice_lm::device::find_gpu;
use sluice_lm::memory::Sizes;
use sluice_lm::precision::Precision;
use sluice_train::optimizer::Keeping;

/// The allocator of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    /// cpu or cuda:N
    #[arg(long, default_value = "cuda:0")]
    device: Place,
    /// The sizes that are measured
    #[arg(long, value_enum, value_delimiter = ',',
          default_values_t = [Shape::Gemma2_2b, Shape::Gemma2_9b, Shape::ArmoRmLlama3_8b])]
    shape: Vec<Shape>,
    /// What models compute in [default: bf16 on a GPU, f32 on the CPU]
    #[arg(long, value_enum)]
    precision: Option<Held>,
    /// How trained weights keep what bf16 cannot hold; in f32, moments included, where the device has no other form
    #[arg(long, value_enum, default_value_t = Form::Stochastic)]
    master: Form,
    /// What the moments of AdamW are kept in
    #[arg(long, value_enum, default_value_t = Held::Bf16)]
    moments: Held,
    /// Timed runs of each piece of work, after one that is not counted
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The `python` of an environment with transformers and torch
    #[arg(long, value_name = "PROGRAM")]
    peer: Option<PathBuf>,
    /// A folder with tests/bench
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
    /// Where compiled kernels and measured choices are kept
    #[arg(long, value_name = "DIR", default_value = ".sluice/kernels")]
    kernels: PathBuf,
    /// Where checkpoints are written for the while
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Where all figures are written
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Answer the request on the standard input
    #[arg(long, hide = true)]
    answer: bool,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::parse();
    if arguments.answer {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        let request = serde_json::from_str(&line)?;
        println!("{}", serde_json::to_string(&told(|| answer(&request))?)?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Place::Cuda(index) = arguments.device
        && let Err(error) = find_gpu(index)
    {
        println!("bench-gpu is skipped: {error}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut bench = Bench::new(&arguments)?;
    println!("| what | unit | sluice | PyTorch | ratio | beside |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for shape in &arguments.shape {
        bench.shape(*shape)?;
    }
    bench.finish(&arguments)
}

/// A line of the table.
struct Row {
    what: String,
    unit: &'static str,
    ours: Option<f64>,
    theirs: Option<f64>,
    /// What our figure is to be read with.
    beside: String,
}

struct Bench {
    ours: Side,
    theirs: Option<Side>,
    /// Everything but folder and work.
    request: Request,
    place: Place,
    precision: Precision,
    keeping: Keeping,
    scratch: PathBuf,
    rows: Vec<Row>,
    libraries: [Option<String>; 2],
    device: String,
    /// Operations in a second of our product, once it has been measured at this size.
    ceiling: Option<(usize, f64)>,
    n_failed: usize,
}

impl Bench {
    fn new(arguments: &Arguments) -> Result<Self, Box<dyn Error>> {
        let precision = match (arguments.precision, arguments.device) {
            (Some(held), _) => held.into(),
            (None, Place::Cpu) => Precision::F32,
            (None, Place::Cuda(_) | Place::CubeCpu) => Precision::Bf16,
        };
        let theirs = arguments.peer.as_ref().map(|python| Side {
            program: python.into(),
            arguments: vec![arguments.root.join("tests/bench/gpu_peer.py").into()],
        });
        Ok(Self {
            ours: Side { program: std::env::current_exe()?.into(), arguments: vec!["--answer".into()] },
            theirs,
            request: Request {
                device: arguments.device.to_string(),
                precision: precision.name().to_owned(),
                n_threads: std::thread::available_parallelism().map_or(1, usize::from),
                n_runs: arguments.runs.max(1),
                folder: PathBuf::new(),
                kernels: arguments.kernels.clone(),
                work: Work::Ceilings { matmul_size: 0, copy_bytes: 0 },
            },
            place: arguments.device,
            precision,
            keeping: Keeping { master: arguments.master.into(), moments: arguments.moments.into() },
            scratch: arguments.scratch.clone().unwrap_or_else(std::env::temp_dir),
            rows: Vec::new(),
            libraries: [None, None],
            device: String::new(),
            ceiling: None,
            n_failed: 0,
        })
    }

    /// Everything that a shape is measured by.
    fn shape(&mut self, shape: Shape) -> Result<(), Box<dyn Error>> {
        let load = shape.load();
        self.ceilings(&load);
        self.attention(shape, &load);
        if let Some(config) = shape.policy() {
            let folder = self.written(&config)?;
            self.train(shape, &config, &load, folder.path());
            self.sample(shape, &config, &load, folder.path());
        }
        if let Some(config) = shape.reward() {
            let folder = self.written(&config)?;
            self.score(shape, &config, &load, folder.path());
        }
        Ok(())
    }

    fn written(&self, config: &Config) -> Result<tempfile::TempDir, Box<dyn Error>> {
        let folder = tempfile::tempdir_in(&self.scratch)?;
        synthetic::write(folder.path(), config)?;
        Ok(folder)
    }

    /// The answers of both sides; one that fails is told and counted.
    fn both(&mut self, what: &str, folder: &Path, work: Work) -> [Option<Answer>; 2] {
        let request = Request { folder: folder.to_owned(), work, ..self.request.clone() };
        let sides = [Some(self.ours.clone()), self.theirs.clone()];
        let mut answers = [None, None];
        for (at, side) in sides.into_iter().enumerate() {
            match side.map(|side| side.ask(&request)) {
                None => {}
                Some(Ok(answer)) => {
                    self.libraries[at] = Some(answer.library.clone());
                    self.device.clone_from(&answer.device);
                    answers[at] = Some(answer);
                }
                Some(Err(error)) => {
                    // Another library may not fit where we do; that is a figure, too.
                    self.n_failed += usize::from(at == 0);
                    eprintln!("{what}, {}: {error}", ["sluice", "PyTorch"][at]);
                }
            }
        }
        answers
    }

    fn ceilings(&mut self, load: &Load) {
        let Load { matmul_size: n, copy_bytes, .. } = *load;
        if self.ceiling.is_some_and(|(measured_at, _)| measured_at == n) {
            return;
        }
        let answers = self.both("ceilings", Path::new(""), Work::Ceilings { matmul_size: n, copy_bytes });
        let operations = PRODUCTS as f64 * 2.0 * (n as f64).powi(3);
        let rate = |measured: &Measured| operations / measured.median_seconds();
        self.ceiling = found(&answers[0], "product").map(|measured| (n, rate(measured)));
        let what = format!("product of {n} x {n} matrices");
        self.row(what, "TFLOP/s", per_side(&answers, "product", |measured| rate(measured) / 1e12), String::new());
        // Each byte is read once and written once.
        let copied = |measured: &Measured| 2.0 * copy_bytes as f64 / measured.median_seconds() / 1e9;
        let what = format!("a number added to {} MiB", copy_bytes >> 20);
        self.row(what, "GB/s", per_side(&answers, "copy", copied), String::new());
    }

    /// Attention alone, both ways; there is no other side.
    fn attention(&mut self, shape: Shape, load: &Load) {
        let Some(heads) = shape.heads() else { return };
        for (n_sequences, n_tokens) in load.attention {
            let name = format!("{}, attention over {n_sequences} sequences of {n_tokens} tokens", shape.name());
            let work = Work::Attention { heads, n_sequences, n_tokens };
            let request = Request { work, ..self.request.clone() };
            let answer = self.ours.ask(&request).map_err(|error| eprintln!("{name}, sluice: {error}")).ok();
            self.n_failed += usize::from(answer.is_none());
            let forward = heads.operations(n_sequences, n_tokens);
            for measured in answer.map(|answer| answer.measured).unwrap_or_default() {
                let operations = if measured.what.ends_with("backward") { 2.5 * forward } else { forward };
                let rate = operations / measured.median_seconds() / 1e12;
                let beside = self.of_ceiling(Some(rate));
                self.row(format!("{name}: {}", measured.what), "TFLOP/s", [Some(rate), None], beside);
            }
        }
    }

    fn train(&mut self, shape: Shape, config: &Config, load: &Load, folder: &Path) {
        let Load { n_pairs, row_tokens, row_prompt_tokens, .. } = *load;
        let work = Work::Train(work::train(config, load, self.keeping));
        let name = format!("{}, SimPO step of {n_pairs} pairs", shape.name());
        let answers = self.both(&name, folder, work);
        let sizes = Sizes::of(config);
        let (n_rows, n_predicted) = (2 * n_pairs, 2 * n_pairs * (row_tokens - row_prompt_tokens));
        let n_tokens = (n_rows * row_tokens) as f64;
        let operations = flops::training(&sizes, n_rows, row_tokens, n_predicted);
        let ours = answers[0].as_ref().and_then(|answer| answer.measured.first());
        let losses = per_side(&answers, "step", |measured| measured.check.unwrap_or(f64::NAN));
        for (what, suffix) in [("step", ""), ("step, prompts shared", ", prompts shared")] {
            // Theirs has no other way; what it is compared with is the same work.
            let theirs = answers[1].as_ref().and_then(|answer| answer.measured.first());
            let pair = [found(&answers[0], what), theirs];
            let speed = pair.map(|side| side.map(|measured| n_tokens / measured.median_seconds()));
            let how = pair[0].map(|measured| measured.how.clone()).unwrap_or_default();
            self.row(format!("{name}{suffix}"), "tokens/s", speed, how);
            let rate = pair.map(|side| side.map(|measured| operations / measured.median_seconds() / 1e12));
            let beside = self.of_ceiling(rate[0]);
            self.row(format!("{name}{suffix}"), "model TFLOP/s", rate, beside);
        }
        self.row(format!("{name}, loss of the first"), "nats", losses, String::new());
        let keeping = forms().find(|keeping| ours.is_some_and(|measured| measured.how.ends_with(&form_name(*keeping))));
        let predicted = work::training_bytes(self.place, config, load, self.precision, keeping.unwrap_or_default());
        let peaks = per_side(&answers, "step", |measured| measured.peak_bytes as f64);
        self.memory(format!("{name}, peak memory"), peaks, Some(predicted));
    }

    fn sample(&mut self, shape: Shape, config: &Config, load: &Load, folder: &Path) {
        let Load { batches, prompt_tokens, new_tokens, .. } = *load;
        let work = work::sample(config, load, &batches);
        let answers = self.both(&format!("{}, sampling", shape.name()), folder, work);
        for n in batches {
            let (what, name) = (format!("sample {n}"), format!("{}, sampling {n} answers", shape.name()));
            let speed = per_side(&answers, &what, |measured| (n * new_tokens) as f64 / measured.median_seconds());
            self.row(name.clone(), "tokens/s", speed, format!("{prompt_tokens} + {new_tokens} tokens"));
            let predicted = work::sampling_bytes(self.place, config, load, self.precision, n);
            let peaks = per_side(&answers, &what, |measured| measured.peak_bytes as f64);
            self.memory(format!("{name}, peak memory"), peaks, Some(predicted));
        }
    }

    fn score(&mut self, shape: Shape, config: &Config, load: &Load, folder: &Path) {
        let Load { n_conversations, conversation_tokens, .. } = *load;
        let work = work::score(config, load);
        let name = format!("{}, scoring {n_conversations} conversations of {conversation_tokens} tokens", shape.name());
        let answers = self.both(&name, folder, work);
        let n_tokens = (n_conversations * conversation_tokens) as f64;
        let operations = flops::forward(&Sizes::of(config), n_conversations, conversation_tokens, 0);
        let speed = per_side(&answers, "score", |measured| n_tokens / measured.median_seconds());
        self.row(name.clone(), "tokens/s", speed, String::new());
        let rate = per_side(&answers, "score", |measured| operations / measured.median_seconds() / 1e12);
        let beside = self.of_ceiling(rate[0]);
        self.row(name.clone(), "model TFLOP/s", rate, beside);
        let scores = per_side(&answers, "score", |measured| measured.check.unwrap_or(f64::NAN));
        self.row(format!("{name}, mean score"), "", scores, String::new());
        let peaks = per_side(&answers, "score", |measured| measured.peak_bytes as f64);
        self.memory(format!("{name}, peak memory"), peaks, None);
    }

    fn of_ceiling(&self, rate: Option<f64>) -> String {
        match (rate, self.ceiling) {
            (Some(rate), Some((_, ceiling))) => format!("{:.0} % of the product's", 100.0 * rate * 1e12 / ceiling),
            _ => String::new(),
        }
    }

    fn memory(&mut self, what: String, peaks: [Option<f64>; 2], predicted_bytes: Option<usize>) {
        let beside = predicted_bytes.map(|bytes| format!("predicted {:.3}", bytes as f64 / 1e9)).unwrap_or_default();
        self.row(what, "GB", peaks.map(|peak| peak.map(|bytes| bytes / 1e9)), beside);
    }

    fn row(&mut self, what: String, unit: &'static str, [ours, theirs]: [Option<f64>; 2], beside: String) {
        let row = Row { what, unit, ours, theirs, beside };
        println!("{}", row.line());
        self.rows.push(row);
    }

    fn finish(self, arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
        let Self { rows, libraries, device, n_failed, precision, .. } = self;
        let commit = commit(&arguments.root);
        let [ours, theirs] = libraries.map(|library| library.unwrap_or_else(|| "nothing".to_owned()));
        println!("\n{} ({device}), {}; {ours}; beside {theirs}; commit {commit}", arguments.device, precision.name());
        println!("model TFLOP/s count 2 operations a weight and token of the matrices, 4 · width of the queries a key");
        println!("that a token sees, three times as much for a step, and nothing for what is computed twice.");
        if let Some(file) = &arguments.json {
            let report = json!({
                "device": arguments.device.to_string(), "device_name": device, "precision": precision.name(),
                "commit": commit, "sluice": ours, "peer": theirs, "n_runs": arguments.runs, "n_failed": n_failed,
                "shapes": arguments.shape.iter().map(|shape| shape.name()).collect::<Vec<_>>(),
                "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
            });
            fs::write(file, format!("{report:#}\n"))?;
        }
        Ok(if n_failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Row {
    fn line(&self) -> String {
        let Self { what, unit, ours, theirs, beside } = self;
        let figure = |value: &Option<f64>| value.map(shown).unwrap_or_else(|| "-".to_owned());
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        format!("| {what} | {unit} | {} | {} | {ratio} | {beside} |", figure(ours), figure(theirs))
    }

    fn ratio(&self) -> Option<f64> {
        Some(self.ours? / self.theirs?)
    }

    fn json(&self) -> Value {
        let Self { what, unit, ours, theirs, beside } = self;
        json!({"what": what, "unit": unit, "sluice": ours, "peer": theirs, "ratio": self.ratio(), "beside": beside})
    }
}

/// Four digits that count.
fn shown(value: f64) -> String {
    let n_decimals = (3.0 - value.abs().max(1e-3).log10().floor()).clamp(0.0, 5.0) as usize;
    format!("{value:.n_decimals$}")
}

fn found<'a>(answer: &'a Option<Answer>, what: &str) -> Option<&'a Measured> {
    answer.as_ref()?.measured.iter().find(|measured| measured.what == what)
}

fn per_side(answers: &[Option<Answer>; 2], what: &str, figure: impl Fn(&Measured) -> f64) -> [Option<f64>; 2] {
    [0, 1].map(|side| found(&answers[side], what).map(&figure))
}
