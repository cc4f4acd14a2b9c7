//! Several processes on one store: runs of one pipeline, of two that share stages, and questions while they run. Owns who
//! starts when.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use sluice_tests::running::{Ended, Running, Signal};

use crate::dice::Dice;
use crate::findings::{Findings, Stop};
use crate::job::{Job, digests, in_state};
use crate::look::look;
use crate::scene::{Ask, LONG, Scene, Stage, said, shortened};

pub const TOGETHER: Scene = Scene {
    name: "together",
    what: "three runs of one pipeline: one works, the others wait and share; of a killed one another takes over",
    play: together,
};

pub const SHARED: Scene = Scene {
    name: "shared",
    what: "two pipelines that share stages, and plan, sql, status and why while they run",
    play: shared,
};

const N_RUNS: usize = 3;

fn together(ask: Ask) -> Result<Findings, Stop> {
    let mut findings = Findings::default();
    let stage = Stage::set(&LONG)?;

    let store = stage.store("undisturbed");
    let runs: Vec<Running> = (0..N_RUNS).map(|_| stage.job.start(&store)).collect();
    let ended: Vec<Ended> = runs.into_iter().map(|mut run| run.wait()).collect();
    let mut n_computed: BTreeMap<String, usize> = BTreeMap::new();
    for ended in &ended {
        findings.equal("digests of one of three runs", &digests(ended)?, &stage.digests);
        for name in in_state(&ended.report(), &["ran", "partial"]) {
            *n_computed.entry(name).or_default() += 1;
        }
    }
    let once = n_computed.len() == stage.digests.len() && n_computed.values().all(|n| *n == 1);
    findings.expect(once, format!("{N_RUNS} runs end with 0 and computed each stage once: {n_computed:?}"));
    findings.expect(segments(&store)? == 1, "one of them wrote rows: no scope has a second segment");
    stage.goes_on("three runs", &store, &mut findings)?;

    // The one that works is killed, three times over.
    let store = stage.store("disturbed");
    let mut dice = Dice::new(ask.seed, 3);
    let mut waiting: Vec<Running> = Vec::new();
    let mut worker = stage.job.start(&store);
    worker.find(|line| line.is("stage_started", "responses"));
    let mut n_rows = 0;
    for round in 1..=3 {
        while waiting.len() < N_RUNS - 1 {
            let mut run = stage.job.start(&store);
            let waits = run.find(|line| line.is("stage_waiting", "responses"));
            findings.expect(waits.is_some(), format!("round {round}: another run waits"));
            waiting.push(run);
        }
        // A few batches later.
        let enough = n_rows + 1 + dice.below(200);
        worker.until(|| look(&store).is_ok_and(|seen| seen.n_rows() >= enough));
        worker.signal(Signal::Kill);
        let killed = Instant::now();
        worker.wait();
        let seen = look(&store)?;
        findings.expect(seen.n_rows() >= n_rows, format!("round {round}: killed with {} rows", seen.n_rows()));
        n_rows = seen.n_rows();
        let Some(next) = first_to_progress(&mut waiting) else {
            findings.fault(format!("round {round}: no waiting run took over"));
            break;
        };
        worker = waiting.swap_remove(next.run);
        findings.expect(
            next.done >= n_rows as u64,
            format!(
                "round {round}: {:.0} ms later another goes on from row {}",
                killed.elapsed().as_secs_f64() * 1e3,
                next.done
            ),
        );
    }
    for mut run in waiting.into_iter().chain([worker]) {
        findings.equal("digests of a run that is left", &digests(&run.wait())?, &stage.digests);
    }
    findings.expect(segments(&store)? == 1, "each took over the segment of the one before: no scope has a second one");
    stage.goes_on("after the kills", &store, &mut findings)?;
    Ok(findings)
}

/// The first of some waiting runs that tells how far it is.
struct TookOver {
    run: usize,
    done: u64,
}

fn first_to_progress(waiting: &mut [Running]) -> Option<TookOver> {
    let patience = Instant::now() + std::time::Duration::from_secs(60);
    while Instant::now() < patience {
        for (run, waiting) in waiting.iter_mut().enumerate() {
            let soon = Instant::now() + std::time::Duration::from_millis(2);
            if let sluice_tests::running::Next::Line(line) = waiting.next(soon)
                && line.is("stage_progress", "responses")
            {
                return Some(TookOver { run, done: line.event()["done"].as_u64().unwrap_or(0) });
            }
        }
    }
    None
}

/// The most segments that the journal of a scope has.
fn segments(store: &Path) -> std::io::Result<usize> {
    let mut most = 0;
    for scope in fs::read_dir(store.join("rows"))? {
        let names = fs::read_dir(scope?.path())?.flatten().map(|entry| entry.file_name());
        most = most.max(names.filter(|name| name.to_string_lossy().ends_with(".keys")).count());
    }
    Ok(most)
}

fn shared(_: Ask) -> Result<Findings, Stop> {
    let mut findings = Findings::default();
    let stage = Stage::set(&LONG)?;
    let folder = stage.project.path();
    // The other pipeline has another rule of pairing, so that four stages of six differ, and two are shared.
    fs::copy(folder.join("p.yaml"), folder.join("q.yaml"))?;
    stage.project.edit("q.yaml", "ties: drop", "ties: first, min_margin: 0.01");
    let other = Job::of(folder, "q.yaml").set(&LONG);
    let store = stage.store("both");
    let mut one = stage.job.start(&store);
    let mut two = other.start(&store);
    one.until(|| look(&store).is_ok_and(|seen| seen.n_rows() > 0));
    let questions: [(&str, &[&str]); 5] =
        [("plan", &[]), ("status", &[]), ("why", &["pairs"]), ("sql", &["select count(*) from prompts"]), ("dag", &[])];
    let mut n_asked = 0;
    for _ in 0..3 {
        for (verb, words) in questions {
            let answer = Running::start(stage.job.command(&store, verb, words)).wait();
            n_asked += 1;
            if answer.code != Some(0) {
                findings.fault(format!(
                    "`{verb}` beside two runs ended with {:?}: {}",
                    answer.code,
                    shortened(said(&answer).trim())
                ));
            }
        }
    }
    findings.saw(format!("{n_asked} questions beside two runs"));
    let (one, two) = (one.wait(), two.wait());
    findings.equal("digests of one pipeline", &digests(&one)?, &stage.digests);
    let (ours, theirs) = (digests(&one)?, digests(&two)?);
    for name in ["prompts", "responses", "scores"] {
        findings.equal(format!("digest of `{name}` in both"), ours.get(name), theirs.get(name));
        let ran =
            |ended: &Ended| usize::from(in_state(&ended.report(), &["ran", "partial"]).iter().any(|ran| ran == name));
        findings.equal(format!("times `{name}` was computed"), ran(&one) + ran(&two), 1);
    }
    findings.saw("prompts, responses and scores are shared, each computed once");
    findings.take("afterwards", look(&store)?.faults);
    stage.goes_on("afterwards", &store, &mut findings)?;
    Ok(findings)
}
