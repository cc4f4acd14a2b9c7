//! `plan`: what a run would do with each stage, and why. Nothing is run and nothing written.

use sluice_engine::{PlanState, PlannedStage};

use crate::args::Plan;
use crate::exit::{Exit, Outcome};
use crate::output::out;
use crate::render::plan::{PlanRow, PlanWord, plan};
use crate::session::{Session, engine_failure};

pub fn run(session: &Session, args: &Plan) -> Outcome {
    let (project, targets) = session.project(&args.words)?;
    let targets = project.targets(targets)?;
    let planned = session.engine(&project).plan_states(&targets).map_err(engine_failure)?;
    let n_pending = planned.iter().filter(|stage| !matches!(stage.state, PlanState::Hit { .. })).count();
    if session.global.json {
        for stage in &planned {
            out(format!("{}\n", serde_json::to_string(stage).unwrap_or_default()));
        }
    } else {
        let rows: Vec<PlanRow> = planned.iter().map(row).collect();
        out(plan(&rows, session.world.out));
    }
    Ok(if args.exit_code && n_pending > 0 { Exit::Pending } else { Exit::Ok })
}

fn row(stage: &PlannedStage) -> PlanRow {
    let PlannedStage { name, kind, state } = stage;
    let (word, record) = match state {
        PlanState::Hit { record, .. } => (PlanWord::Hit, Some(record)),
        PlanState::Run { .. } => (PlanWord::Run, None),
        PlanState::Pending { .. } => (PlanWord::Pending, None),
        PlanState::Fail { .. } => (PlanWord::Fail, None),
    };
    PlanRow {
        stage: name.to_string(),
        kind,
        state: word,
        rows: record.and_then(|record| record.outputs.iter().find_map(|output| output.n_rows())),
        seconds: record.map_or(0.0, |record| record.seconds),
        why: state.to_string(),
    }
}
