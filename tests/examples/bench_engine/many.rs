//! The plan of a thousand stages, of which nothing has a result yet and of which everything has one: stages that are written
//! out, and the cells of a matrix. Whole processes.

use std::error::Error;
use std::process::Command;

use sluice_tests::bench::Timings;
use sluice_tests::{Project, binary};

use crate::table::{Figure, Unit};
use crate::{Ask, nothing, timed};

const N_STAGES: usize = 1000;
const GOAL_SECONDS: f64 = 0.3;

/// One stage of 1,000 cells.
const MATRIX: &str = "\
version: 1
stages:
  source: { ingest: { from: rows.jsonl } }
  cells:
    sql:
      from: [source]
      query: select prompt_id, prompt, ${matrix.a} as a, ${matrix.b} as b, ${matrix.c} as c from source order by prompt_id
    matrix:
      a: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
      b: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
      c: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
";

pub fn measure(ask: &Ask) -> Result<Vec<Figure>, Box<dyn Error>> {
    let mut figures = plans(ask, &nothing::project(N_STAGES)?, &format!("plan of {N_STAGES} stages"))?;
    let matrix = nothing::project(1)?;
    matrix.write("pipeline.yaml", MATRIX);
    figures.extend(plans(ask, &matrix, &format!("plan of a matrix of {N_STAGES} cells"))?);
    Ok(figures)
}

/// A plan before the first run and one after it.
fn plans(ask: &Ask, project: &Project, what: &str) -> Result<Vec<Figure>, Box<dyn Error>> {
    let call = |words: &[&str]| timed(Command::new(binary()).args(words).current_dir(project.path()));
    let plan = || -> Result<Timings, Box<dyn Error>> {
        let mut timings = Timings::default();
        for _ in 0..ask.n_runs {
            timings.push(call(&["plan", "pipeline.yaml", "--json"])?);
        }
        Ok(timings)
    };
    let before = plan()?;
    call(&["run", "pipeline.yaml", "--quiet"])?;
    let after = plan()?;
    let mut figures = Vec::new();
    for (timings, state) in [(before, "none has a result"), (after, "all have one")] {
        let Some(spread) = timings.spread() else { continue };
        let figure = Figure::new(format!("{what}, {state}"), Unit::Seconds, spread);
        figures.push(figure.goal(GOAL_SECONDS).note("whole process"));
    }
    Ok(figures)
}
