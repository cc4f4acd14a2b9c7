//! `why STAGE [--vs RUN]`: what changed since its last result, or since any other.

use sluice_engine::{PlanState, Why};
use sluice_spec::{Source, StageName};

use crate::args;
use crate::exit::{Exit, Failure, Outcome};
use crate::history::RunWord;
use crate::output::out;
use crate::render::why::{Case, Explained, why};
use crate::selection::select;
use crate::session::{Project, Session, engine_failure, quoted};

pub fn run(session: &Session, args: &args::Why) -> Outcome {
    let (project, words) = session.project(&args.words)?;
    if words.is_empty() {
        return Err(Failure::usage("a stage is to be named").help("as in `why pairs`"));
    }
    let vs = args.vs.as_deref().map(|word| word.parse().map_err(Failure::usage)).transpose()?;
    for stage in select(session, &project, words, &[])? {
        explain(session, &project, &stage.name, vs.as_ref())?;
    }
    Ok(Exit::Ok)
}

fn explain(session: &Session, project: &Project, stage: &StageName, vs: Option<&RunWord>) -> Result<(), Failure> {
    let engine = session.engine(project);
    let answer = match vs {
        // The present is held against what was before it in any case.
        None | Some(RunWord::Prev) => engine.why(stage.as_str()),
        Some(word) => {
            let earlier = session.earlier(word, &project.name, stage.as_str(), None)?;
            engine.why_against(stage.as_str(), earlier.run, &earlier.record)
        }
    };
    let answer = answer.map_err(engine_failure)?;
    if session.global.json {
        out(format!("{}\n", serde_json::to_string(&answer).unwrap_or_default()));
        return Ok(());
    }
    // Where the root is known, nobody has to be sent after it.
    let follow = if answer.causes.is_empty() { follow(session, project, stage, &answer) } else { Vec::new() };
    let Why { stage, against, changes, causes } = answer;
    let case = match &stage.state {
        PlanState::Hit { .. } => Case::Hit,
        PlanState::Run { reason, .. } | PlanState::Partial { reason, .. } => Case::Run { reason: reason.to_string() },
        PlanState::Pending { upstream, .. } => {
            Case::Pending { upstream: upstream.iter().map(ToString::to_string).collect() }
        }
        PlanState::Fetch { what, .. } => Case::Run { reason: what.clone() },
        PlanState::Fail { failure } => Case::Fail { failure: failure.to_string() },
    };
    let explained = Explained {
        stage: stage.name.to_string(),
        case,
        against: against.map(|run| run.to_string()),
        is_chosen: !matches!(vs, None | Some(RunWord::Prev)),
        changes,
        causes,
        follow,
    };
    out(why(&explained, session.world.out));
    Ok(())
}

/// The commands that explain inputs which changed or are waited for.
fn follow(session: &Session, project: &Project, stage: &StageName, answer: &Why) -> Vec<String> {
    let Some(stage) = project.plan.pipeline().stage(stage) else { return Vec::new() };
    let mut commands = Vec::new();
    for input in stage.kind.inputs() {
        let Source::Stage(read) = input.source else { continue };
        let changed = answer.changes.iter().any(|change| change.path == format!("input.{}", input.role));
        let awaited =
            matches!(&answer.stage.state, PlanState::Pending { upstream, .. } if upstream.contains(&read.stage));
        let command = session.command(&format!("why {}", quoted(read.stage.as_str())), project.named.as_deref());
        if (changed || awaited) && !commands.contains(&command) {
            commands.push(command);
        }
    }
    commands
}
