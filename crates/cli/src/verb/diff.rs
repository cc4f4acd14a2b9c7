//! `diff A B [STAGE]`: what differs between two runs, from the records they left.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use serde_json::{Value, json};
use sluice_engine::{LeafChange, PlanState, compare_leaves};
use sluice_spec::did_you_mean;
use sluice_sql::Format;
use sluice_store::{
    Artifact, ColumnChange, Comparison, Matching, Output, Record, RunId, RunManifest, RunStage, StageKey,
};
use sluice_table::{DERIVED, IDENTITIES};

use crate::args::Diff;
use crate::exit::{Exit, Failure, Outcome};
use crate::history::RunWord;
use crate::output::out;
use crate::pipeline_file;
use crate::render::diff::{Differs, Metric, OutputDiff, SideShown, StageDiff, Unequal, diff};
use crate::session::{Session, engine_failure, store_failure};
use crate::tables::named;
use crate::world::now_unix_ms;

/// A run, or the pipeline as it is.
struct Side {
    /// None for the pipeline as it is.
    run: Option<RunId>,
    pipeline: String,
    stages: Vec<RunStage>,
    shown: SideShown,
}

pub fn run(session: &Session, args: &Diff) -> Outcome {
    let (file, words) = pipeline_file::split(&args.words);
    let (old, new, stage) = operands(words)?;
    let named = file.or_else(|| session.global.pipeline.clone());
    let pipeline = named.map(|file| session.world.in_project(&file).display().to_string());
    let (old, new) = sides(session, args, pipeline.as_deref(), old, new, stage)?;
    let known: Vec<&str> = names(&old, &new);
    if let Some(stage) = stage.filter(|stage| !known.contains(stage)) {
        let help =
            did_you_mean(stage, known.iter().copied()).unwrap_or_else(|| format!("there is {}", known.join(", ")));
        return Err(Failure::usage(format!("neither run had a stage `{stage}`")).help(help));
    }
    let wanted = known.into_iter().filter(|name| stage.is_none_or(|stage| stage == *name));
    let diffs = wanted.map(|name| stage_diff(session, &old, &new, name, args.rows)).collect::<Result<Vec<_>, _>>()?;
    if session.global.json {
        let stages: Vec<Value> = diffs.iter().map(object).collect::<Result<_, _>>()?;
        let name = |side: &Side| side.run.map_or_else(|| "now".to_owned(), |run| run.to_string());
        out(format!("{}\n", json!({"old": name(&old), "new": name(&new), "stages": stages})));
    } else {
        let shown = diff(&old.shown, &new.shown, &diffs, session.world.columns, session.world.out);
        out(shown.map_err(|error| Failure::new(Exit::Failed, error))?);
    }
    Ok(Exit::Ok)
}

/// The runs and the stage that words name: `prev last` where they name no run, and `last` for the second.
fn operands(words: &[String]) -> Result<(RunWord, RunWord, Option<&str>), Failure> {
    let runs: Vec<RunWord> = words.iter().map_while(|word| word.parse().ok()).collect();
    let stage = match &words[runs.len().min(2)..] {
        [] => None,
        [stage] => Some(stage.as_str()),
        [first, ..] => {
            // Whatever is no run is taken for the stage, and there is one at most.
            let error = first.parse::<RunWord>().err().unwrap_or_else(|| "two runs and one stage at most".to_owned());
            return Err(Failure::usage(error).help("as in `diff r3 r7`, `diff tag:gold last pairs`, `diff prev now`"));
        }
    };
    let mut runs = runs.into_iter();
    match (runs.next(), runs.next()) {
        (None, _) => Ok((RunWord::Prev, RunWord::Last, stage)),
        (Some(old), None) => Ok((old, RunWord::Last, stage)),
        (Some(old), Some(new)) => Ok((old, new, stage)),
    }
}

fn sides(
    session: &Session,
    args: &Diff,
    pipeline: Option<&str>,
    old: RunWord,
    new: RunWord,
    stage: Option<&str>,
) -> Result<(Side, Side), Failure> {
    let side = |word: &RunWord| match word {
        RunWord::Now => now(session, args),
        word => Ok(of_run(session, word, session.manifest(word, pipeline)?)),
    };
    // `prev` is earlier than the other, and differs from it.
    let before = |other: &Side| {
        let manifest = session.previous_run(&other.pipeline, other.run, &other.stages, stage)?;
        Ok::<Side, Failure>(of_run(session, &RunWord::Prev, manifest))
    };
    match (old, new) {
        (RunWord::Prev, RunWord::Prev) => Err(Failure::usage("`prev` is the run before another: name that one")),
        (RunWord::Prev, new) => {
            let new = side(&new)?;
            Ok((before(&new)?, new))
        }
        (old, RunWord::Prev) => {
            let old = side(&old)?;
            let new = before(&old)?;
            Ok((old, new))
        }
        (old, new) => Ok((side(&old)?, side(&new)?)),
    }
}

fn of_run(session: &Session, word: &RunWord, manifest: RunManifest) -> Side {
    let RunManifest { run, pipeline, profile, set, started_unix_ms, stages, .. } = manifest;
    let name = match word {
        RunWord::Number(_) => run.to_string(),
        word => format!("{run} ({word})"),
    };
    let shown = SideShown {
        name,
        age_seconds: Some(now_unix_ms().saturating_sub(started_unix_ms) / 1000),
        pipeline: pipeline.clone(),
        profile,
        set,
        is_alive: session.store.is_alive(run),
    };
    Side { run: Some(run), pipeline, stages, shown }
}

/// The pipeline as it is: the keys of the stages that have a result.
fn now(session: &Session, args: &Diff) -> Result<Side, Failure> {
    let (project, _) = session.project(&args.words)?;
    let planned = session.engine(&project).plan_states(&[]).map_err(engine_failure)?;
    let stage = |stage: &sluice_engine::PlannedStage| RunStage {
        name: stage.name.to_string(),
        kind: stage.kind.to_owned(),
        outcome: sluice_store::Outcome::Hit,
        key: match &stage.state {
            PlanState::Hit { key, .. } | PlanState::Run { key, .. } | PlanState::Partial { key, .. } => Some(*key),
            PlanState::Pending { .. } | PlanState::Fetch { .. } | PlanState::Fail { .. } => None,
        },
        tests: Vec::new(),
    };
    let shown = SideShown {
        name: "now".to_owned(),
        age_seconds: None,
        pipeline: project.name.clone(),
        profile: project.plan.pipeline().profile.as_ref().map(ToString::to_string),
        set: session.global.set.clone(),
        is_alive: false,
    };
    Ok(Side { run: None, pipeline: project.name.clone(), stages: planned.iter().map(stage).collect(), shown })
}

/// The stages of both, in the order of the new one; those it has no more come last.
fn names<'a>(old: &'a Side, new: &'a Side) -> Vec<&'a str> {
    let mut names: Vec<&str> = new.stages.iter().map(|stage| stage.name.as_str()).collect();
    let gone = old.stages.iter().map(|stage| stage.name.as_str()).filter(|name| !names.contains(name));
    let gone: Vec<&str> = gone.collect();
    names.extend(gone);
    names
}

fn stage_diff(session: &Session, old: &Side, new: &Side, name: &str, n_rows: usize) -> Result<StageDiff, Failure> {
    let entry = |side: &Side| side.stages.iter().find(|stage| stage.name == name).cloned();
    let (before, after) = (entry(old), entry(new));
    let kind = after.as_ref().or(before.as_ref()).map_or_else(String::new, |stage| stage.kind.clone());
    let differs = match (before, after) {
        (None, _) => Differs::OnlyNew,
        (_, None) => Differs::OnlyOld,
        (Some(before), Some(after)) if before.key.is_some() && before.key == after.key => Differs::Same,
        (Some(before), Some(after)) => match (record(session, before.key)?, record(session, after.key)?) {
            (Some(before), Some(after)) => Differs::Unequal(Box::new(unequal(session, name, &before, &after, n_rows)?)),
            (before, _) => Differs::NoResult { in_old: before.is_none() },
        },
    };
    Ok(StageDiff { name: name.to_owned(), kind, differs })
}

/// A record, whether or not its outputs are still there.
fn record(session: &Session, key: Option<StageKey>) -> Result<Option<Record>, Failure> {
    key.map_or(Ok(None), |key| session.store.record(key).map_err(store_failure))
}

fn unequal(session: &Session, name: &str, old: &Record, new: &Record, n_rows: usize) -> Result<Unequal, Failure> {
    let changes: Vec<LeafChange> = compare_leaves(&old.leaves, &new.leaves);
    let metrics: BTreeMap<&String, (Option<f64>, Option<f64>)> = old
        .metrics
        .keys()
        .chain(new.metrics.keys())
        .map(|name| (name, (old.metrics.get(name).copied(), new.metrics.get(name).copied())))
        .filter(|(_, (before, after))| before != after)
        .collect();
    let metrics = metrics.into_iter().map(|(name, (old, new))| Metric { name: name.clone(), old, new }).collect();
    let (before, after) = (named(name, old), named(name, new));
    let find = |outputs: &[crate::tables::NamedOutput<'_>], name: &str| {
        outputs.iter().find(|output| output.name == name).map(|output| output.output.clone())
    };
    let mut names: Vec<String> = after.iter().map(|output| output.name.clone()).collect();
    names.extend(before.iter().map(|output| output.name.clone()).filter(|name| find(&after, name).is_none()));
    let mut outputs = Vec::new();
    for name in names {
        let differs = output_diff(session, find(&before, &name), find(&after, &name), n_rows)?;
        outputs.push((name, differs));
    }
    Ok(Unequal { changes, metrics, outputs })
}

fn output_diff(
    session: &Session,
    old: Option<Output>,
    new: Option<Output>,
    n_rows: usize,
) -> Result<OutputDiff, Failure> {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (None, _) => return Ok(OutputDiff::OnlyNew),
        (_, None) => return Ok(OutputDiff::OnlyOld),
    };
    if old.digest() == new.digest() {
        return Ok(OutputDiff::Same { n_rows: new.n_rows() });
    }
    let (Artifact::Table(before), Artifact::Table(after)) = (&old.artifact, &new.artifact) else {
        return Ok(OutputDiff::Digests { old: old.digest(), new: new.digest() });
    };
    let matching = Matching { ids: IDENTITIES, left_out: DERIVED };
    match session.store.compare_tables(&old, &new, matching, n_rows) {
        Ok(comparison) => Ok(OutputDiff::Table(Box::new(comparison))),
        Err(error) if error.is_damage() => {
            let why = error.to_string();
            Ok(OutputDiff::Unreadable { n_old: before.n_rows, n_new: after.n_rows, why })
        }
        Err(error) => Err(store_failure(error)),
    }
}

fn object(stage: &StageDiff) -> Result<Value, Failure> {
    let StageDiff { name, kind, differs } = stage;
    let (state, details) = match differs {
        Differs::Same => ("same", None),
        Differs::OnlyOld => ("removed", None),
        Differs::OnlyNew => ("added", None),
        Differs::NoResult { in_old: true } => ("no_result_in_old", None),
        Differs::NoResult { in_old: false } => ("no_result_in_new", None),
        Differs::Unequal(unequal) => ("changed", Some(unequal)),
    };
    let mut object = json!({"name": name, "kind": kind, "state": state});
    if let Some(unequal) = details {
        let Unequal { changes, metrics, outputs } = unequal.as_ref();
        let metric = |metric: &Metric| json!({"name": metric.name, "old": metric.old, "new": metric.new});
        object["changes"] = json!(changes);
        object["metrics"] = metrics.iter().map(metric).collect();
        object["outputs"] =
            outputs.iter().map(|(name, output)| output_object(name, output)).collect::<Result<Vec<_>, _>>()?.into();
    }
    Ok(object)
}

fn output_object(name: &str, output: &OutputDiff) -> Result<Value, Failure> {
    Ok(match output {
        OutputDiff::OnlyOld => json!({"name": name, "state": "removed"}),
        OutputDiff::OnlyNew => json!({"name": name, "state": "added"}),
        OutputDiff::Same { n_rows } => json!({"name": name, "state": "same", "rows": n_rows}),
        OutputDiff::Digests { old, new } => json!({"name": name, "state": "changed", "old": old, "new": new}),
        OutputDiff::Unreadable { n_old, n_new, why } => {
            json!({"name": name, "state": "unreadable", "rows_old": n_old, "rows_new": n_new, "why": why})
        }
        OutputDiff::Table(table) => {
            let Comparison { columns, matched_by, n_old, n_new, n_same, n_changed, n_added, n_removed, .. } =
                table.as_ref();
            let column = |change: &ColumnChange| match change {
                ColumnChange::Added { name, to } => json!({"name": name, "old": null, "new": to}),
                ColumnChange::Removed { name, from } => json!({"name": name, "old": from, "new": null}),
                ColumnChange::Retyped { name, from, to } => json!({"name": name, "old": from, "new": to}),
            };
            let columns: Vec<Value> = columns.iter().map(column).collect();
            let (was, is) = (rows(&table.changed.0)?, rows(&table.changed.1)?);
            let changed: Vec<Value> = was.into_iter().zip(is).map(|(was, is)| json!({"old": was, "new": is})).collect();
            json!({
                "name": name, "state": "changed", "rows_old": n_old, "rows_new": n_new, "columns": columns,
                "matched_by": matched_by, "n_same": n_same, "n_changed": n_changed, "n_added": n_added,
                "n_removed": n_removed, "changed_columns": table.changed_columns.iter().cloned().collect::<BTreeMap<_, _>>(),
                "added": rows(&table.added)?, "removed": rows(&table.removed)?, "changed": changed,
            })
        }
    })
}

/// Rows as objects.
fn rows(batch: &RecordBatch) -> Result<Vec<Value>, Failure> {
    let failed = |error: sluice_sql::SqlError| Failure::new(Exit::Failed, error);
    let text = sluice_sql::render(std::slice::from_ref(batch), Format::Json).map_err(failed)?;
    serde_json::from_str(&text).map_err(|error| Failure::new(Exit::Failed, error))
}
