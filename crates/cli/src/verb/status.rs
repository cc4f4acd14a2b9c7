//! `status`: which results are there, one line a stage.

use std::collections::HashSet;

use serde_json::json;
use sluice_engine::{PlanState, PlannedStage, Reason};
use sluice_spec::StageName;
use sluice_store::Outcome as Ended;

use crate::args::Status;
use crate::exit::{Exit, Outcome};
use crate::output::out;
use crate::render::plan::{StatusResult, StatusRow, StatusWord, status};
use crate::selection::select;
use crate::session::{Session, engine_failure, store_failure};
use crate::tables::n_rows;
use crate::world::now_unix_ms;

pub fn run(session: &Session, args: &Status) -> Outcome {
    let (project, words) = session.project(&args.words)?;
    let selected = select(session, &project, words, &args.exclude)?;
    let selected: HashSet<&StageName> = selected.iter().map(|stage| &stage.name).collect();
    let mut planned = session.engine(&project).plan_tests(&[]).map_err(engine_failure)?;
    planned.retain(|stage| selected.contains(&stage.name));
    let last = session.last_run(&project.name).map_err(store_failure)?;
    let failed: HashSet<&str> = last
        .iter()
        .flat_map(|run| &run.stages)
        .filter(|entry| entry.outcome == Ended::Failed)
        .map(|entry| entry.name.as_str())
        .collect();
    let rows: Vec<StatusRow> = planned.iter().map(|stage| row(stage, &failed)).collect();
    if session.global.json {
        rows.iter().for_each(|row| out(format!("{}\n", object(row))));
    } else {
        out(status(&rows, session.world.out));
    }
    Ok(Exit::Ok)
}

/// `failed` are the stages that failed in the last run.
fn row(stage: &PlannedStage, failed: &HashSet<&str>) -> StatusRow {
    let failed = failed.contains(stage.name.as_str());
    let state = match &stage.state {
        PlanState::Hit { .. } => StatusWord::Fresh,
        PlanState::Fail { .. } => StatusWord::Failed,
        _ if failed => StatusWord::Failed,
        PlanState::Run { reason, .. } | PlanState::Partial { reason, .. } => match reason {
            Reason::NeverRan => StatusWord::Missing,
            Reason::Changed(_) | Reason::Forced => StatusWord::Stale,
            Reason::OutputGone { .. } | Reason::OutputDamaged { .. } | Reason::RecordDamaged => StatusWord::Damaged,
        },
        PlanState::Fetch { .. } => StatusWord::Waits,
        PlanState::Pending { changes, .. } if changes.is_empty() => StatusWord::Waits,
        PlanState::Pending { .. } => StatusWord::Stale,
    };
    let result = match &stage.state {
        PlanState::Hit { record, .. } => Some(StatusResult {
            rows: n_rows(record),
            seconds: record.seconds,
            age_seconds: now_unix_ms().saturating_sub(record.created_unix_ms) / 1000,
            digest: record.outputs.first().map(|output| output.digest()).unwrap_or_default(),
        }),
        _ => None,
    };
    let base = stage.cell.as_ref().map(|cell| cell.stage.to_string());
    StatusRow { stage: stage.name.to_string(), base, state, result, why: stage.state.to_string() }
}

fn object(row: &StatusRow) -> serde_json::Value {
    let StatusRow { stage, base: _, state, result, why } = row;
    let result = result.as_ref();
    json!({
        "name": stage,
        "state": state.name(),
        "rows": result.and_then(|result| result.rows),
        "seconds": result.map(|result| result.seconds),
        "digest": result.map(|result| &result.digest),
        "why": why,
    })
}
