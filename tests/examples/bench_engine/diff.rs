//! What differs between two runs whose tables are those of a large sampling stage: the table of answers is read twice, and
//! every row found again. Whole processes.

use std::error::Error;
use std::fmt::Write as _;
use std::process::Command;

use sluice_tests::bench::{Spread, Timings};
use sluice_tests::{Project, binary};

use crate::table::{Figure, Unit};
use crate::{Ask, timed, watched};

const N_PROMPTS: usize = 60_000;
/// Answers of a prompt.
const N_EACH: usize = 5;
const GOAL_SECONDS: f64 = 2.0;

/// In each run the answers to other prompts end with a word more: one prompt in ten. Two columns are texts of hundreds of
/// characters, as in a table of scores.
const PIPELINE: &str = "\
version: 1
params: { tenth: 0 }
stages:
  prompts: { ingest: { from: prompts.jsonl, split: { heldout: 0 } } }
  scores:
    sql:
      from: [prompts]
      query: >-
        select prompt_id, prompt, reference, \"group\", split, source_row, i as sample_index,
          concat(repeat(prompt, 2), ' answer ', i, case when source_row % 10 = ${params.tenth} then ' indeed' else '' end)
            as response,
          50 as n_prompt_tokens, 100 + i as n_tokens, cast(source_row as double) / (i + 1) as logp_sum, 'stop' as finish_reason,
          source_row * 7 + i as seed, 'policy' as policy_digest, cast(source_row % 97 as double) + i as score,
          'reward' as reward_model_digest
        from prompts cross join (values (0), (1), (2), (3), (4)) as samples(i)
        order by source_row, i
";

pub fn measure(ask: &Ask) -> Result<Vec<Figure>, Box<dyn Error>> {
    let project = Project::new();
    project.write("pipeline.yaml", PIPELINE);
    project.write("prompts.jsonl", &prompts()?);
    let here = |words: &[&str]| {
        let mut command = Command::new(binary());
        command.args(words).current_dir(project.path());
        command
    };
    timed(&mut here(&["run", "pipeline.yaml", "--quiet"]))?;
    timed(&mut here(&["run", "pipeline.yaml", "--quiet", "--set", "params.tenth=1"]))?;
    let (mut timings, mut peaks) = (Timings::default(), Vec::new());
    for _ in 0..ask.n_runs {
        let (seconds, peak) = watched(&mut here(&["diff", "r1", "r2", "--json"]))?;
        timings.push(seconds);
        peaks.push(peak);
    }
    let size = format!("{} rows of 16 columns", N_PROMPTS * N_EACH);
    let mut figures = Vec::new();
    if let Some(spread) = timings.spread() {
        let note = "whole process; each row is found again, and one in five differs";
        figures.push(
            Figure::new(format!("diff of two runs, {size}"), Unit::Seconds, spread).goal(GOAL_SECONDS).note(note),
        );
    }
    if let Some(spread) = Spread::of(&peaks) {
        let note = "the most that the process had; 8 bytes of each cell of the first table stay";
        figures.push(Figure::new(format!("memory of it, {size}"), Unit::Bytes, spread).note(note));
    }
    Ok(figures)
}

/// Prompts of 200 characters.
fn prompts() -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    for number in 0..N_PROMPTS {
        let prompt = format!("Tell me of number {number} what you know of {}. ", number * 7919).repeat(4);
        writeln!(text, "{{\"prompt\": \"{prompt}\"}}")?;
    }
    Ok(text)
}
