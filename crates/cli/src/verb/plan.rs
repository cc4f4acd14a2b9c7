//! `plan`: what a run would do with each stage, why, and what that would take. Nothing is run and nothing written.

use sluice_engine::{PlanState, PlannedStage, Price, PricedPlan, PricedStage, Reason};

use crate::args::Plan;
use crate::exit::{Exit, Outcome};
use crate::output::out;
use crate::preflight::{self, Depth};
use crate::render::plan::{Cost, PlanRow, PlanWord, plan};
use crate::session::{Session, engine_failure};
use crate::tables::n_rows;

pub fn run(session: &Session, args: &Plan) -> Outcome {
    let (project, targets) = session.project(&args.words)?;
    let targets = project.targets(targets)?;
    let plan_of = session.engine(&project).plan_priced(&targets).map_err(engine_failure)?;
    let PricedPlan { stages, total } = &plan_of;
    let n_pending = stages.iter().filter(|stage| !matches!(stage.planned.state, PlanState::Hit { .. })).count();
    if session.global.json {
        for stage in stages {
            out(format!("{}\n", serde_json::to_string(stage).unwrap_or_default()));
        }
        out(format!("{}\n", serde_json::json!({ "total": total })));
    } else {
        out(plan(&stages.iter().map(row).collect::<Vec<_>>(), session.world.out));
    }
    // A stage that waits has not looked at its models: they are to be right before the first stage runs.
    preflight::check(&project, &targets, Depth::Headers)?;
    Ok(if args.exit_code && n_pending > 0 { Exit::Pending } else { Exit::Ok })
}

fn row(stage: &PricedStage) -> PlanRow {
    let PricedStage { planned: PlannedStage { name, kind, state }, has_run, price } = stage;
    let (word, record) = match state {
        PlanState::Hit { record, .. } => (PlanWord::Hit, Some(record)),
        PlanState::Run { .. } => (PlanWord::Run, None),
        PlanState::Partial { .. } => (PlanWord::Partial, None),
        // What never had a result runs in any case; what had one may turn out to need no run.
        PlanState::Pending { .. } if !has_run => (PlanWord::Run, None),
        PlanState::Pending { .. } => (PlanWord::Pending, None),
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
        kind,
        state: word,
        rows,
        known,
        is_estimate,
        seconds: record.map_or(0.0, |record| record.seconds),
        cost: price.and_then(cost),
        why: match state {
            PlanState::Pending { .. } if !has_run => Reason::NeverRan.to_string(),
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
