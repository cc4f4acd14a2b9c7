//! What the engine adds to the work of a stage that runs: key, lock, attempt, one table of one row, commit, events and
//! manifest. In this process, with a runner that computes nothing; the queries of a real run would be most of the time.
//! The calls that wait for the disk are counted by `strace` on the program itself.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use sluice_engine::{
    Engine, Job, JobInput, Numerics, Produced, Recheck, Rechecked, RowCount, RunOptions, StageFailure, StageRunner,
    TestJob, Verdict,
};
use sluice_spec::{Location, Options, Stage};
use sluice_store::{Artifact, ContentHash, ModelDigest, Outcome, Output, Store};
use sluice_tests::bench::{Spread, Timings, seconds};
use sluice_tests::binary;
use tempfile::TempDir;

use crate::table::{Figure, Unit};
use crate::{Ask, nothing, timed};

const N_STAGES: usize = 200;
const GOAL_SECONDS: f64 = 0.005;
const GOAL_SYNCS: f64 = 2.0;
/// Files that are synced to learn how long that takes here.
const N_SYNCED: usize = 64;
/// Stages of the two runs whose difference is that of the stages alone.
const COUNTED: [usize; 2] = [6, 46];

pub fn measure(ask: &Ask) -> Result<Vec<Figure>, Box<dyn Error>> {
    let mut overhead = Timings::default();
    let mut sync = Timings::default();
    for _ in 0..ask.n_runs {
        let folder = TempDir::new()?;
        overhead.push(run(folder.path())? / N_STAGES as f64);
        sync.push(sync_seconds(folder.path())?);
    }
    let (Some(overhead), Some(sync)) = (overhead.spread(), sync.spread()) else { return Ok(Vec::new()) };
    let goal = GOAL_SECONDS + GOAL_SYNCS * sync.median;
    let note =
        format!("mean of {N_STAGES} stages that compute nothing; goal 5 ms + 2 fsync of {} each", seconds(sync.median));
    let mut figures = vec![
        Figure::new("first run, engine alone, a stage", Unit::Seconds, overhead).goal(goal).note(note),
        whole(ask)?,
    ];
    match n_syncs() {
        Ok(n) => figures.push(
            Figure::once("calls of fsync and fdatasync, a stage", Unit::Count, n)
                .goal(GOAL_SYNCS)
                .note("counted by strace; `sql` stages with one table"),
        ),
        Err(reason) => eprintln!("the calls of fsync are not counted: {reason}"),
    }
    Ok(figures)
}

/// The same stages as whole processes, queries and all.
fn whole(ask: &Ask) -> Result<Figure, Box<dyn Error>> {
    let mut timings = Timings::default();
    for _ in 0..ask.n_long_runs {
        let project = nothing::project(N_STAGES)?;
        let command = &mut Command::new(binary());
        timings.push(timed(command.args(["run", "pipeline.yaml", "--quiet"]).current_dir(project.path()))?);
    }
    let spread = timings.spread().unwrap_or(Spread { median: 0.0, min: 0.0, max: 0.0 });
    let each = |seconds: f64| seconds / N_STAGES as f64;
    let spread = Spread { median: each(spread.median), min: each(spread.min), max: each(spread.max) };
    Ok(Figure::new("first run, a `sql` stage", Unit::Seconds, spread)
        .note("whole process: planning the query, reading and writing 20 rows"))
}

/// Seconds of a run of the engine over an empty store.
fn run(folder: &Path) -> Result<f64, Box<dyn Error>> {
    let pipeline = sluice_spec::parse("pipeline.yaml", &nothing::pipeline(N_STAGES)?, &Options::default())
        .map_err(|faults| format!("{faults:?}"))?;
    let plan = sluice_plan::plan(pipeline).map_err(|faults| format!("{faults:?}"))?;
    let store = Store::open(folder.join("store"))?;
    let numerics = Numerics::new("none");
    let engine =
        Engine { plan: &plan, store: &store, runner: &Nothing, numerics: &numerics, pipeline: "p", clock: || 0 };
    let started = Instant::now();
    let report = engine.run(&RunOptions::default(), &AtomicBool::new(false), &|_| {})?;
    let seconds = started.elapsed().as_secs_f64();
    let n_ran = report.stages.iter().filter(|stage| stage.state == Outcome::Ran).count();
    if n_ran == N_STAGES { Ok(seconds) } else { Err(format!("{n_ran} of {N_STAGES} stages ran").into()) }
}

/// Seconds that a sync of a new file of 4 KiB takes: the median of some.
fn sync_seconds(folder: &Path) -> Result<f64, Box<dyn Error>> {
    let mut timings = Timings::default();
    for number in 0..N_SYNCED {
        let mut file = File::create(folder.join(number.to_string()))?;
        file.write_all(&[7; 4096])?;
        let started = Instant::now();
        file.sync_all()?;
        timings.push(started.elapsed().as_secs_f64());
    }
    Ok(timings.spread().map_or(0.0, |spread| spread.median))
}

/// What one more stage costs in syncs.
fn n_syncs() -> Result<f64, Box<dyn Error>> {
    let mut counts = Vec::new();
    for n_stages in COUNTED {
        let project = nothing::project(n_stages)?;
        let log = project.path().join("strace.log");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-o"]).arg(&log).arg(binary());
        timed(strace.args(["run", "pipeline.yaml", "--quiet"]).current_dir(project.path()))?;
        counts.push(fs::read_to_string(log)?.lines().filter(|line| line.contains("sync(")).count() as f64);
    }
    Ok((counts[1] - counts[0]) / (COUNTED[1] - COUNTED[0]) as f64)
}

/// Runs stages by writing their names.
struct Nothing;

impl StageRunner for Nothing {
    fn files_digest(&self, _: &[String]) -> Result<ContentHash, StageFailure> {
        Ok(ContentHash::from_bytes([1; 32]))
    }

    fn config_digest(&self, _: &str) -> Result<ContentHash, StageFailure> {
        Ok(ContentHash::from_bytes([2; 32]))
    }

    fn model_digest(&self, _: &Location) -> Result<ModelDigest, StageFailure> {
        Ok(ModelDigest::from_bytes([3; 32]))
    }

    fn files_bytes(&self, _: &[String]) -> Result<u64, StageFailure> {
        Ok(0)
    }

    fn count_rows(&self, _: &Stage, _: &[JobInput]) -> Result<Option<RowCount>, StageFailure> {
        Ok(None)
    }

    fn test(&self, _: &TestJob<'_>) -> Result<Vec<Result<Verdict, StageFailure>>, StageFailure> {
        Ok(Vec::new())
    }

    fn run(&self, job: &Job<'_>) -> Result<Produced, StageFailure> {
        let mut produced = Produced::default();
        let name = Arc::new(StringArray::from(vec![job.stage.name.to_string()])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("name", name)]).map_err(StageFailure::of)?;
        for product in job.stage.kind.products() {
            let mut writer = job.attempt.write_table(product.name(), batch.schema())?;
            writer.write(&batch)?;
            let artifact = Artifact::Table(writer.finish()?);
            produced.outputs.push(Output { name: product.name().to_owned(), artifact });
        }
        Ok(produced)
    }

    fn verify(&self, _: &Recheck<'_>) -> Result<Rechecked, StageFailure> {
        Ok(Rechecked::default())
    }
}
