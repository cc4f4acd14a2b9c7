//! The plan of a thousand stages, of which nothing has a result yet and of which everything has one. Whole processes.

use std::error::Error;
use std::process::Command;

use sluice_tests::bench::Timings;
use sluice_tests::binary;

use crate::table::{Figure, Unit};
use crate::{Ask, nothing, timed};

const N_STAGES: usize = 1000;
const GOAL_SECONDS: f64 = 0.3;

pub fn measure(ask: &Ask) -> Result<Vec<Figure>, Box<dyn Error>> {
    let project = nothing::project(N_STAGES)?;
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
        let figure = Figure::new(format!("plan of {N_STAGES} stages, {state}"), Unit::Seconds, spread);
        figures.push(figure.goal(GOAL_SECONDS).note("whole process"));
    }
    Ok(figures)
}
