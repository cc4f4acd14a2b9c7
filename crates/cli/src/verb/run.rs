//! `run`: brings a pipeline up to date, shown while it happens and summed up at the end.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;

use sluice_engine::{Called, Recomputed, RunOptions, RunReport, StageReport};
use sluice_spec::StageName;
use sluice_spec::stage::Kind;
use sluice_store::{NoticeLevel, Outcome as Ended};

use crate::args::{Global, Run};
use crate::device;
use crate::exit::{Exit, Failure, Outcome};
use crate::interrupt;
use crate::output::{err, out};
use crate::pipeline_file::is_file_name;
use crate::preflight::{self, Depth};
use crate::progress::{Watch, watcher};
use crate::render::Ink;
use crate::render::failure;
use crate::render::plan::limits;
use crate::render::quantity::{count, counted};
use crate::render::summary::{End, StageLine, Summary, summary};
use crate::render::tested::{Came, counts};
use crate::selection::{Wanted, select};
use crate::session::{Project, Session, engine_failure, quoted};
use crate::tables::n_rows;
use crate::tested::{came, told};
use crate::wire::exit_of;

const STOPPING: &str =
    "stopping; what is finished is kept, and a run will go on from there. Ctrl-C again to end at once";

pub fn run(session: &Session, args: &Run) -> Outcome {
    let Run { words, exclude, force, no_wait } = args;
    // `--force` takes the words behind it; one that is a file is the pipeline file all the same.
    let forced_words = force.as_deref().unwrap_or(&[]);
    let (words, forced_words) = match forced_words.split_first() {
        Some((file, rest)) if words.is_empty() && is_file_name(file) => (std::slice::from_ref(file), rest),
        _ => (words.as_slice(), forced_words),
    };
    let (project, words) = session.project(words)?;
    let Wanted::Stages(mut targets) = Wanted::of(session, &project, words, exclude)? else {
        if !session.global.quiet && !session.global.json {
            out("nothing to do: no stage is selected\n");
        }
        return Ok(Exit::Ok);
    };
    let forced: HashSet<StageName> = match force {
        None => HashSet::new(),
        Some(_) => {
            let words = if forced_words.is_empty() { words } else { forced_words };
            select(session, &project, words, exclude)?.into_iter().map(|stage| stage.name.clone()).collect()
        }
    };
    if !targets.is_empty() {
        targets.extend(forced.iter().map(ToString::to_string));
    }
    preflight::fetch(session, &project, &targets)?;
    preflight::check(&project, &targets, Depth::Weights)?;
    device::found(project.wire.device, &session.world)?;
    tell_device(session, &project);
    let watch: Arc<dyn Watch> = Arc::from(watcher(&session.global, &session.world));
    let announcer = watch.clone();
    let cancel = interrupt::flag(move || announcer.interrupted(STOPPING));
    let cpu_slots = thread::available_parallelism().map_or(1, usize::from);
    let called = Called { program: Some(env!("CARGO_PKG_VERSION").to_owned()), set: session.global.set.clone() };
    let options = RunOptions { targets, forced, cpu_slots, no_wait: *no_wait, called };
    let report =
        session.engine(&project).run(&options, &cancel, &|event| watch.event(&event)).map_err(engine_failure)?;
    if !session.global.json && !session.global.quiet {
        out(summary(&summed_up(session, &project, words, &report), session.world.out));
    }
    let exit = exit(&report);
    if !session.global.json {
        tell_tests(session, &project, &report)?;
        tell_failures(session, &report);
    }
    Ok(exit)
}

/// Where there is a choice, what was chosen.
fn tell_device(session: &Session, project: &Project) {
    let Global { json, quiet, device: choice, .. } = &session.global;
    if let Some(told) = device::told(project.wire.device, *choice).filter(|_| !json && !quiet) {
        err(format!("{told}\n"));
    }
}

/// The exit of the first failure, in plan order.
fn exit(report: &RunReport) -> Exit {
    match report.outcome {
        Ended::Failed => {
            let failures = report.stages.iter().filter_map(|stage| stage.failure.as_ref());
            failures.map(|failure| exit_of(failure)).next().unwrap_or(Exit::Failed)
        }
        Ended::Interrupted => Exit::Interrupted,
        _ => Exit::Ok,
    }
}

/// Each test that did not pass, with the first rows at fault; a warning that is known is only named.
fn tell_tests(session: &Session, project: &Project, report: &RunReport) -> Result<(), Failure> {
    for stage in &report.stages {
        for test in stage.tests.iter().filter(|test| [Came::Warned, Came::Failed].contains(&came(test))) {
            let warns = came(test) == Came::Warned;
            if !(warns && session.global.quiet) {
                err(told(session, project, &stage.name, test, warns && test.known)?);
            }
        }
    }
    Ok(())
}

/// Each failure with its causes, after the summary, where it is the last thing read.
fn tell_failures(session: &Session, report: &RunReport) {
    for stage in &report.stages {
        let Some(failed) = &stage.failure else { continue };
        if let sluice_engine::StageFailure::FailedTests { .. } = failed.as_ref() {
            // The tests themselves are told already.
            let message = format!("what reads `{}` does not run until its tests pass; its result is kept", stage.name);
            err(format!("{} {message}\n", session.world.err.ink(Ink::Name, "help:")));
            continue;
        }
        let cause = StageError { stage: stage.name.to_string(), cause: failed.clone() };
        let told = Failure::new(exit_of(failed), cause).help("mend it and run again; finished stages are kept");
        err(failure::text(&told, session.world.err));
    }
}

/// A failure with the stage it is of.
#[derive(Debug, thiserror::Error)]
#[error("stage `{stage}` failed")]
struct StageError {
    stage: String,
    #[source]
    cause: Arc<sluice_engine::StageFailure>,
}

fn summed_up(session: &Session, project: &Project, words: &[String], report: &RunReport) -> Summary {
    let pipeline = project.plan.pipeline();
    // What is compared is not told one by one.
    let is_compared = |stage: &StageReport| {
        let cell = stage.cell.as_ref();
        cell.is_some_and(|cell| report.comparisons.iter().any(|comparison| comparison.stage == cell.stage))
    };
    let evaluations = report.stages.iter().filter(|stage| stage.kind == "evaluate" && !is_compared(stage));
    let evaluations =
        evaluations.filter_map(|stage| Some((stage.name.to_string(), stage.record.as_ref()?.metrics.clone())));
    Summary {
        run: report.run.map(|run| run.to_string()),
        pipeline: project.name.clone(),
        profile: pipeline.profile.as_ref().map(ToString::to_string),
        stages: report.stages.iter().map(line).collect(),
        seconds: report.seconds,
        warnings: warnings(report),
        tests: tests(report),
        evaluations: evaluations.collect(),
        comparisons: report.comparisons.clone(),
        columns: session.world.columns,
        limits: limits(pipeline),
        next: next(session, project, words, report),
    }
}

/// What the stages warned of; several stages may warn of one model.
fn warnings(report: &RunReport) -> Vec<String> {
    let mut warnings: Vec<String> = Vec::new();
    for notice in report.stages.iter().flat_map(|stage| &stage.notices) {
        if notice.level == NoticeLevel::Warning && !warnings.contains(&notice.text) {
            warnings.push(notice.text.clone());
        }
    }
    warnings
}

/// What the tests came to, if any was made or did not pass.
fn tests(report: &RunReport) -> Option<String> {
    let tests = || report.stages.iter().flat_map(|stage| &stage.tests);
    let is_news = tests().any(|test| !test.known || came(test) != Came::Passed);
    is_news.then(|| counts(&tests().map(came).collect::<Vec<_>>()))
}

fn line(stage: &StageReport) -> StageLine {
    let end = match stage.state {
        Ended::Hit => End::Hit,
        Ended::Ran | Ended::Running => End::Ran,
        Ended::Partial => End::Partial,
        Ended::Failed => End::Failed,
        Ended::Blocked => End::Blocked,
        Ended::Interrupted => End::Interrupted,
    };
    let record = stage.record.as_ref();
    let seconds = if end == End::Hit { record.map_or(0.0, |record| record.seconds) } else { stage.seconds };
    let rows = record.and_then(|record| n_rows(record));
    let base = stage.cell.as_ref().map(|cell| cell.stage.to_string());
    let (stage, predicted, note) = (stage.name.to_string(), stage.predicted_seconds, note(stage, end));
    StageLine { stage, base, end, rows, seconds, predicted, note }
}

/// What one would ask next about a stage, if its numbers have it.
fn note(stage: &StageReport, end: End) -> String {
    let notes = stage.notices.iter().filter(|notice| notice.level == NoticeLevel::Note);
    let mut parts: Vec<String> = notes.map(|notice| notice.text.clone()).collect();
    let Some(record) = &stage.record else {
        match (end, &stage.error, &stage.progress) {
            (End::Blocked, Some(by), _) => parts.push(by.clone()),
            (End::Interrupted, _, Some(progress)) if ["sample", "score", "evaluate"].contains(&stage.kind) => {
                let total = progress.total.map_or_else(String::new, |total| format!(" of {}", count(total)));
                parts.push(format!("{}{total} rows kept", count(progress.done)));
            }
            _ => {}
        }
        return parts.join(", ");
    };
    match &stage.recomputed {
        Some(Recomputed::Same) => parts.push("computed again: the same result".to_owned()),
        Some(Recomputed::Differs { evidence }) => {
            parts.push(format!("computed again: differs, the other is kept as evidence at {}", evidence.display()));
        }
        None => {}
    }
    if stage.rows_reused > 0 && end == End::Partial {
        // An evaluation has a row for every two answers.
        let what = match stage.kind {
            "evaluate" => "answer",
            "train" => "reference row",
            _ => "row",
        };
        parts.push(format!("{} reused", counted(stage.rows_reused, what)));
    }
    let is_train = stage.kind == "train";
    let metric = |name: &str| record.metrics.get(name).copied();
    let first_last = |name: &str| metric(&format!("{name}_first")).zip(metric(&format!("{name}_last")));
    if let Some(n_steps) = metric("steps").filter(|_| is_train) {
        parts.push(counted(n_steps as u64, "step"));
    }
    if let Some((first, last)) = first_last("loss") {
        parts.push(format!("loss {first:.3} → {last:.3}"));
    }
    // Rules that dropped nothing are not told.
    for (name, value) in record.metrics.iter().filter(|(_, value)| **value > 0.0) {
        if let Some(rule) = name.strip_prefix("dropped_") {
            parts.push(format!("{} dropped: {rule}", count(*value as u64)));
        }
    }
    parts.join(", ")
}

/// Three things to try, of those that this pipeline has.
fn next(session: &Session, project: &Project, words: &[String], report: &RunReport) -> Vec<(String, &'static str)> {
    if report.outcome == Ended::Interrupted {
        let words = std::iter::once("run".to_owned()).chain(words.iter().map(|word| quoted(word)));
        return vec![(session.command(&words.collect::<Vec<_>>().join(" "), None), "go on from here")];
    }
    if report.outcome == Ended::Failed {
        return Vec::new();
    }
    let stages = || project.plan.pipeline().stages.iter();
    let pair = stages().find(|stage| matches!(stage.kind, Kind::Pair(_)));
    let table = stages().find(|stage| !matches!(stage.kind, Kind::Train(_)));
    let command = |rest: String| session.command(&rest, None);
    let mut next = Vec::new();
    if let Some(comparison) = report.comparisons.iter().find(|comparison| comparison.kind == "evaluate") {
        let query = format!("select * from {}.metrics", comparison.stage);
        next.push((command(format!("sql '{query}'")), "every figure of every cell"));
    }
    if let Some(pair) = pair {
        let query =
            format!("select margin, prompt, chosen, rejected from {} order by margin desc limit 5", pair.base());
        next.push((command(format!("sql '{query}'")), "the clearest pairs"));
    } else if let Some(table) = table {
        next.push((command(format!("sql 'select * from {} limit 5'", table.base())), "the first rows"));
    }
    let ran = report.stages.iter().find(|stage| matches!(stage.state, Ended::Ran | Ended::Partial));
    if let Some(name) = pair.map(|pair| &pair.name).or(ran.map(|stage| &stage.name)) {
        next.push((command(format!("why {}", quoted(name.as_str()))), "what made it run"));
    }
    next.push((command("plan".to_owned()), "what a changed line would run"));
    next
}
