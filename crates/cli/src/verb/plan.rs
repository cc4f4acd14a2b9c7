//! `plan`: what a run would do with each stage, and why. Nothing is run and nothing written.

use sluice_engine::{PlanState, PlannedStage, Reason};

use crate::args::Plan;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::out;
use crate::preflight::{self, Depth};
use crate::render::plan::{PlanRow, PlanWord, plan};
use crate::session::{Project, Session, engine_failure, store_failure};
use crate::tables::n_rows;

pub fn run(session: &Session, args: &Plan) -> Outcome {
    let (project, targets) = session.project(&args.words)?;
    let targets = project.targets(targets)?;
    let planned = session.engine(&project).plan_rows(&targets).map_err(engine_failure)?;
    let n_pending = planned.iter().filter(|stage| !matches!(stage.state, PlanState::Hit { .. })).count();
    if session.global.json {
        for stage in &planned {
            out(format!("{}\n", serde_json::to_string(stage).unwrap_or_default()));
        }
    } else {
        let rows = planned.iter().map(|stage| row(stage, session, &project)).collect::<Result<Vec<PlanRow>, _>>()?;
        out(plan(&rows, session.world.out));
    }
    // A stage that waits has not looked at its models: they are to be right before the first stage runs.
    preflight::check(&project, &targets, Depth::Headers)?;
    Ok(if args.exit_code && n_pending > 0 { Exit::Pending } else { Exit::Ok })
}

fn row(stage: &PlannedStage, session: &Session, project: &Project) -> Result<PlanRow, Failure> {
    let PlannedStage { name, kind, state } = stage;
    let (word, record) = match state {
        PlanState::Hit { record, .. } => (PlanWord::Hit, Some(record)),
        PlanState::Run { .. } => (PlanWord::Run, None),
        PlanState::Partial { .. } => (PlanWord::Partial, None),
        // What never had a result runs in any case; what had one may turn out to need no run.
        PlanState::Pending { .. } if session.last_result(&project.name, name).map_err(store_failure)?.is_none() => {
            return Ok(PlanRow {
                stage: name.to_string(),
                kind,
                state: PlanWord::Run,
                rows: None,
                known: None,
                seconds: 0.0,
                why: Reason::NeverRan.to_string(),
            });
        }
        PlanState::Pending { .. } => (PlanWord::Pending, None),
        PlanState::Fail { .. } => (PlanWord::Fail, None),
    };
    Ok(PlanRow {
        stage: name.to_string(),
        kind,
        state: word,
        rows: match state {
            PlanState::Partial { count, .. } => Some(count.rows),
            _ => record.and_then(|record| n_rows(record)),
        },
        known: match state {
            PlanState::Partial { count, .. } => Some(count.rows_known),
            _ => None,
        },
        seconds: record.map_or(0.0, |record| record.seconds),
        why: state.to_string(),
    })
}
