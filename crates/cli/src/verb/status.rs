//! `status`: which results are there, one line a stage.

use serde_json::json;
use sluice_engine::{PlanState, PlannedStage, Reason};
use sluice_store::{Outcome as Ended, RunManifest};

use crate::args::Only;
use crate::exit::{Exit, Outcome};
use crate::output::out;
use crate::render::plan::{StatusResult, StatusRow, StatusWord, status};
use crate::session::{Session, engine_failure, store_failure};
use crate::tables::n_rows;
use crate::world::now_unix_ms;

pub fn run(session: &Session, args: &Only) -> Outcome {
    let (project, _) = session.project(&args.words)?;
    let planned = session.engine(&project).plan_states(&[]).map_err(engine_failure)?;
    let last = session.last_run(&project.name).map_err(store_failure)?;
    let rows: Vec<StatusRow> = planned.iter().map(|stage| row(stage, last.as_ref())).collect();
    if session.global.json {
        rows.iter().for_each(|row| out(format!("{}\n", object(row))));
    } else {
        out(status(&rows, session.world.out));
    }
    Ok(Exit::Ok)
}

fn row(stage: &PlannedStage, last: Option<&RunManifest>) -> StatusRow {
    let failed = last.is_some_and(|run| {
        run.stages.iter().any(|entry| entry.name == stage.name.as_str() && entry.outcome == Ended::Failed)
    });
    let state = match &stage.state {
        PlanState::Hit { .. } => StatusWord::Fresh,
        PlanState::Fail { .. } => StatusWord::Failed,
        _ if failed => StatusWord::Failed,
        PlanState::Run { reason, .. } | PlanState::Partial { reason, .. } => match reason {
            Reason::NeverRan => StatusWord::Missing,
            Reason::Changed(_) => StatusWord::Stale,
            Reason::OutputGone { .. } | Reason::OutputDamaged { .. } | Reason::RecordDamaged => StatusWord::Damaged,
        },
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
    StatusRow { stage: stage.name.to_string(), state, result, why: stage.state.to_string() }
}

fn object(row: &StatusRow) -> serde_json::Value {
    let StatusRow { stage, state, result, why } = row;
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
