//! `plan`: what a run would do with each stage, and why. Nothing is run and nothing written.

use sluice_engine::{PlanState, PlannedStage, Reason};

use crate::args::Plan;
use crate::exit::{Exit, Outcome};
use crate::output::out;
use crate::preflight::{self, Depth};
use crate::render::plan::{PlanRow, PlanWord, limits, plan};
use crate::render::quantity::counted;
use crate::selection::Wanted;
use crate::session::{Session, engine_failure};
use crate::tables::n_rows;

pub fn run(session: &Session, args: &Plan) -> Outcome {
    let (project, words) = session.project(&args.words)?;
    let wanted = Wanted::of(session, &project, words, &args.exclude)?;
    let planned = match &wanted {
        Wanted::Nothing => Vec::new(),
        Wanted::Stages(targets) => session.engine(&project).plan_rows(targets).map_err(engine_failure)?,
    };
    let is_pending = |stage: &&PlannedStage| !matches!(stage.state, PlanState::Hit { .. }) || stage.tests_to_run > 0;
    let n_pending = planned.iter().filter(is_pending).count();
    if session.global.json {
        for stage in &planned {
            out(format!("{}\n", serde_json::to_string(stage).unwrap_or_default()));
        }
    } else {
        let rows: Vec<PlanRow> = planned.iter().map(row).collect();
        out(plan(&rows, session.world.out));
        out(limits(project.plan.pipeline()).iter().map(|line| format!("{line}\n")).collect::<String>());
    }
    // A stage that waits has not looked at its models: they are to be right before the first stage runs.
    if let Wanted::Stages(targets) = &wanted {
        preflight::check(&project, targets, Depth::Headers)?;
    }
    Ok(if args.exit_code && n_pending > 0 { Exit::Pending } else { Exit::Ok })
}

fn row(stage: &PlannedStage) -> PlanRow {
    let PlannedStage { name, kind, cell, state, tests_to_run } = stage;
    let (word, record) = match state {
        PlanState::Hit { record, .. } => (PlanWord::Hit, Some(record)),
        // What never had a result runs in any case; what had one may turn out to need no run.
        PlanState::Run { .. }
        | PlanState::Pending { never_ran: true, .. }
        | PlanState::Fetch { never_ran: true, .. } => (PlanWord::Run, None),
        PlanState::Partial { .. } => (PlanWord::Partial, None),
        PlanState::Pending { .. } | PlanState::Fetch { .. } => (PlanWord::Pending, None),
        PlanState::Fail { .. } => (PlanWord::Fail, None),
    };
    PlanRow {
        stage: name.to_string(),
        base: cell.as_ref().map(|cell| cell.stage.to_string()),
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
        tests: *tests_to_run,
        why: match state {
            PlanState::Pending { never_ran: true, .. } => Reason::NeverRan.to_string(),
            PlanState::Hit { .. } if *tests_to_run > 0 => {
                format!("{} to make", counted(*tests_to_run as u64, "test"))
            }
            _ => state.to_string(),
        },
    }
}
