//! `plan`: what a run would do with each stage, why, and what that would take. Nothing is run and nothing written.

use sluice_engine::{PlanState, PlannedStage, Price, PricedPlan, PricedStage, Reason};

use crate::args::Plan;
use crate::exit::{Exit, Outcome};
use crate::memory::Models;
use crate::output::out;
use crate::preflight::{self, Depth};
use crate::render::plan::{Cost, PlanRow, PlanWord, limits, plan};
use crate::render::quantity::counted;
use crate::selection::Wanted;
use crate::session::{Session, engine_failure};
use crate::tables::n_rows;

pub fn run(session: &Session, args: &Plan) -> Outcome {
    let (project, words) = session.project(&args.words)?;
    let wanted = Wanted::of(session, &project, words, &args.exclude)?;
    let PricedPlan { stages, total } = match &wanted {
        Wanted::Nothing => PricedPlan::default(),
        Wanted::Stages(targets) => session.engine(&project).plan_priced(targets).map_err(engine_failure)?,
    };
    let is_pending = |PricedStage { planned, .. }: &&PricedStage| {
        !matches!(planned.state, PlanState::Hit { .. }) || planned.tests_to_run > 0
    };
    let n_pending = stages.iter().filter(is_pending).count();
    let mut models = Models::of(&project);
    if session.global.json {
        for stage in &stages {
            let mut object = serde_json::json!(stage);
            object["memory_bytes"] = memory(stage, &mut models).into();
            out(format!("{object}\n"));
        }
        out(format!("{}\n", serde_json::json!({ "total": total })));
    } else {
        let rows: Vec<PlanRow> = stages.iter().map(|stage| row(stage, memory(stage, &mut models))).collect();
        out(plan(&rows, session.world.out));
        out(limits(project.plan.pipeline()).iter().map(|line| format!("{line}\n")).collect::<String>());
    }
    // A stage that waits has not looked at its models: they are to be right before the first stage runs.
    if let Wanted::Stages(targets) = &wanted {
        preflight::check(&project, targets, Depth::Headers)?;
    }
    Ok(if args.exit_code && n_pending > 0 { Exit::Pending } else { Exit::Ok })
}

/// What a training that would run holds of memory.
fn memory(stage: &PricedStage, models: &mut Models<'_>) -> Option<u64> {
    stage.price.as_ref().and_then(|_| models.training_bytes(&stage.planned.name))
}

fn row(stage: &PricedStage, memory: Option<u64>) -> PlanRow {
    let PricedStage { planned: PlannedStage { name, kind, cell, state, tests_to_run }, price } = stage;
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
    let price = price.as_ref();
    // Of units that are partly known, both are told; what they are is told by the kind.
    let (rows, known, is_estimate) = match (state, price) {
        (PlanState::Partial { count, .. }, _) => (Some(count.rows), Some(count.rows_known), false),
        (_, Some(price)) if price.units_known > 0 => (price.units, Some(price.units_known), !price.rows_exact),
        (_, Some(price)) => (price.rows, None, !price.rows_exact),
        (_, None) => (record.and_then(|record| n_rows(record)), None, false),
    };
    PlanRow {
        stage: name.to_string(),
        base: cell.as_ref().map(|cell| cell.stage.to_string()),
        kind,
        state: word,
        rows,
        known,
        is_estimate,
        seconds: record.map_or(0.0, |record| record.seconds),
        tests: *tests_to_run,
        cost: price.and_then(cost),
        memory,
        why: match state {
            PlanState::Pending { never_ran: true, .. } => Reason::NeverRan.to_string(),
            PlanState::Hit { .. } if *tests_to_run > 0 => {
                format!("{} to make", counted(*tests_to_run as u64, "test"))
            }
            _ => state.to_string(),
        },
    }
}

fn cost(price: &Price) -> Option<Cost> {
    let Price { seconds, tokens, bytes, evidence, .. } = price;
    let evidence = evidence.as_ref()?;
    Some(Cost {
        seconds: (*seconds)?,
        tokens: tokens.unwrap_or(0),
        bytes: bytes.unwrap_or(0),
        run: evidence.run.to_string(),
        age_seconds: evidence.age_seconds,
        basis: evidence.basis,
    })
}
