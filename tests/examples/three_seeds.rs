//! `just three-seeds`: the same job with several seeds, and the middle and the ends of what came out.
//!
//! Owns the table. Knows the program by its command line and the last line of `run --json`.

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Parser;
use serde_json::Value;
use sluice_tests::bench::{Machine, Spread};
use sluice_tests::{binary, workspace};

#[derive(Parser)]
struct Arguments {
    /// Seeds, one run each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3])]
    seeds: Vec<u64>,
    /// The pipeline; its seed is `params.seed`
    #[arg(long, default_value = "pipelines/simpo-gemma.yaml")]
    pipeline: PathBuf,
    /// Further words for `sluice run`
    #[arg(last = true)]
    words: Vec<String>,
}

/// How a figure is written.
#[derive(Clone, Copy)]
enum Unit {
    /// A share of 1, as percent.
    Percent,
    /// A difference of shares, in points.
    Points,
    Tokens,
}

/// The figures of the table by the names `evaluate` gives them, `DECODING` standing for `sampled` and `greedy`.
const FIGURES: [(&str, &str, Unit); 8] = [
    ("right answers before", "exact_accuracy_DECODING_before", Unit::Percent),
    ("right answers after", "exact_accuracy_DECODING_after", Unit::Percent),
    ("gain", "exact_accuracy_DECODING_gain", Unit::Points),
    ("plain, short and ended, before", "format_adherence_DECODING_before", Unit::Percent),
    ("plain, short and ended, after", "format_adherence_DECODING_after", Unit::Percent),
    ("tokens an answer before", "mean_tokens_DECODING_before", Unit::Tokens),
    ("tokens an answer after", "mean_tokens_DECODING_after", Unit::Tokens),
    ("judge prefers the new answer", "win_rate_DECODING", Unit::Percent),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let machine = Machine::look();
    let mut reports = Vec::new();
    for &seed in &arguments.seeds {
        let report = run(&arguments, seed)?;
        eprintln!("seed {seed}: {:.0} s", report["seconds"].as_f64().unwrap_or(f64::NAN));
        reports.push(report);
    }
    let stage = evaluation(&reports).ok_or("the pipeline has no `evaluate` stage")?;
    let seeds: Vec<String> = arguments.seeds.iter().map(|seed| format!("seed {seed}")).collect();
    println!("\n| {stage} | {} | median | lowest to highest |", seeds.join(" | "));
    println!("| --- |{}", " --- |".repeat(seeds.len() + 2));
    for decoding in ["sampled", "greedy"] {
        for (words, name, unit) in FIGURES {
            let name = format!("{stage}.{}", name.replace("DECODING", decoding));
            let values: Vec<f64> = reports.iter().filter_map(|report| report["metrics"][&name].as_f64()).collect();
            if values.len() == reports.len() {
                println!("{}", line(&format!("{words}, {decoding}"), &values, unit));
            }
        }
    }
    println!("\n{machine}");
    Ok(())
}

/// The last line of a run: its report.
fn run(arguments: &Arguments, seed: u64) -> Result<Value, Box<dyn Error>> {
    let mut command = Command::new(binary());
    command.arg("run").arg(&arguments.pipeline).args(["--json", "--set", &format!("params.seed={seed}")]);
    let output = command.args(&arguments.words).current_dir(workspace()).stderr(Stdio::inherit()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("seed {seed}: the run ended with {}\n{}", output.status, said.trim_end()).into());
    }
    Ok(serde_json::from_str(said.lines().last().unwrap_or_default())?)
}

/// The name of the evaluation.
fn evaluation(reports: &[Value]) -> Option<String> {
    let stages = reports.first()?["stages"].as_array()?;
    let stage = stages.iter().find(|stage| stage["kind"] == "evaluate")?;
    stage["name"].as_str().map(str::to_owned)
}

fn line(words: &str, values: &[f64], unit: Unit) -> String {
    let shown: Vec<String> = values.iter().map(|value| unit.show(*value)).collect();
    let (median, ends) = match Spread::of(values) {
        Some(Spread { median, min, max }) => (unit.show(median), format!("{} to {}", unit.show(min), unit.show(max))),
        None => (String::new(), String::new()),
    };
    format!("| {words} | {} | **{median}** | {ends} |", shown.join(" | "))
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Percent => format!("{:.1} %", value * 100.0),
            Self::Points => format!("{:+.1}", value * 100.0),
            Self::Tokens => format!("{value:.1}"),
        }
    }
}
