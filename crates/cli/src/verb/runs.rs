//! `runs`: what has been run in this store, when, and how it ended.

use std::collections::BTreeMap;

use serde_json::json;
use sluice_store::{Outcome as Ended, RunId, RunManifest, StoreError};

use crate::args::Runs;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{err, out};
use crate::pipeline_file;
use crate::render::runs::{RunEnd, RunRow, runs};
use crate::session::{Session, store_failure};
use crate::world::now_unix_ms;

pub fn run(session: &Session, args: &Runs) -> Outcome {
    let pipeline = match pipeline_file::split(&args.words) {
        (Some(file), []) => Some(session.world.in_project(&file).display().to_string()),
        (None, []) => session.global.pipeline.as_ref().map(|file| session.world.in_project(file).display().to_string()),
        (_, [word, ..]) => {
            return Err(Failure::usage(format!("`{word}` is no pipeline file")).help("as in `runs pipelines/p.yaml`"));
        }
    };
    let mut tags: BTreeMap<RunId, Vec<String>> = BTreeMap::new();
    for tag in session.store.tags().map_err(store_failure)? {
        tags.entry(tag.run()).or_default().push(tag.name.to_string());
    }
    let mut found = Vec::new();
    for run in session.store.runs().map_err(store_failure)? {
        match session.store.run(run) {
            Ok(Some(manifest)) if pipeline.as_ref().is_none_or(|name| manifest.pipeline == *name) => {
                found.push(manifest);
            }
            // Of another pipeline, or just taken away.
            Ok(_) => {}
            Err(error @ StoreError::Io { .. }) => return Err(store_failure(error)),
            Err(error) => err(format!("note: run {run} is left out: {error}\n")),
        }
    }
    let n_left_out = args.last.map_or(0, |last| found.len().saturating_sub(last));
    let rows = found.iter().skip(n_left_out).map(|manifest| row(session, manifest, &tags));
    if session.global.json {
        for (row, manifest) in rows.zip(found.iter().skip(n_left_out)) {
            out(format!("{}\n", object(&row, manifest)));
        }
    } else {
        out(runs(&rows.collect::<Vec<_>>(), session.world.out));
    }
    Ok(Exit::Ok)
}

fn row(session: &Session, manifest: &RunManifest, tags: &BTreeMap<RunId, Vec<String>>) -> RunRow {
    let n = |counts: &[Ended]| manifest.stages.iter().filter(|stage| counts.contains(&stage.outcome)).count() as u64;
    RunRow {
        run: manifest.run.to_string(),
        age_seconds: now_unix_ms().saturating_sub(manifest.started_unix_ms) / 1000,
        pipeline: manifest.pipeline.clone(),
        profile: manifest.profile.clone(),
        end: end(session, manifest),
        seconds: manifest.seconds,
        n_stages: manifest.stages.len() as u64,
        n_ran: n(&[Ended::Ran, Ended::Partial]),
        n_hit: n(&[Ended::Hit]),
        tags: tags.get(&manifest.run).cloned().unwrap_or_default(),
    }
}

/// A run that does not say how it ended goes on, or was killed.
fn end(session: &Session, manifest: &RunManifest) -> RunEnd {
    match manifest.outcome {
        Ended::Running if session.store.is_alive(manifest.run) => RunEnd::Running,
        Ended::Running => RunEnd::Died,
        Ended::Hit => RunEnd::Hit,
        Ended::Ran | Ended::Partial => RunEnd::Ran,
        Ended::Failed | Ended::Blocked => RunEnd::Failed,
        Ended::Interrupted => RunEnd::Interrupted,
    }
}

fn object(row: &RunRow, manifest: &RunManifest) -> serde_json::Value {
    json!({
        "run": manifest.run,
        "started_unix_ms": manifest.started_unix_ms,
        "pipeline": manifest.pipeline,
        "profile": manifest.profile,
        "program": manifest.program,
        "set": manifest.set,
        "targets": manifest.targets,
        "outcome": row.end.name(),
        "seconds": manifest.seconds,
        "stages": manifest.stages,
        "tags": row.tags,
    })
}
