//! The words of a verb that select stages. Owns the way from words to stages of a plan; the grammar is crate `plan`'s.

use std::collections::BTreeSet;

use sluice_engine::PlanState;
use sluice_plan::{SelectError, Selector};
use sluice_spec::{Stage, StageName};

use crate::exit::Failure;
use crate::session::{Project, Session, engine_failure};

/// The stages that words select and `excluded` does not, in plan order; all where there are no words.
///
/// # Errors
/// `Exit::Usage` for a selector of a wrong form, and for a name, a tag or a value that nothing has.
pub fn select<'p>(
    session: &Session,
    project: &'p Project,
    words: &[String],
    excluded: &[String],
) -> Result<Vec<&'p Stage>, Failure> {
    let parse = |word: &String| Selector::parse(word).map_err(failure);
    let everything = [String::from("*")];
    let words = if words.is_empty() { &everything } else { words };
    let selectors = words.iter().map(parse).collect::<Result<Vec<Selector>, Failure>>()?;
    let excluded = excluded.iter().map(parse).collect::<Result<Vec<Selector>, Failure>>()?;
    let asks_for_state = selectors.iter().chain(&excluded).any(Selector::asks_for_state);
    let changed = if asks_for_state { changed(session, project)? } else { BTreeSet::new() };
    project.plan.select(&selectors, &excluded, &changed).map_err(failure)
}

/// The names of the stages that are wanted of a run. An empty list of targets means all of them to the engine, so a
/// selection of nothing is told apart here.
pub enum Wanted {
    Nothing,
    /// Empty for all.
    Stages(Vec<String>),
}

impl Wanted {
    pub fn of(session: &Session, project: &Project, words: &[String], excluded: &[String]) -> Result<Wanted, Failure> {
        if words.is_empty() && excluded.is_empty() {
            return Ok(Wanted::Stages(Vec::new()));
        }
        let stages = select(session, project, words, excluded)?;
        Ok(match stages.is_empty() {
            true => Wanted::Nothing,
            false => Wanted::Stages(stages.iter().map(|stage| stage.name.to_string()).collect()),
        })
    }
}

/// Whatever a run would not find up to date.
fn changed(session: &Session, project: &Project) -> Result<BTreeSet<StageName>, Failure> {
    let planned = session.engine(project).plan_states(&[]).map_err(engine_failure)?;
    let changed = planned.into_iter().filter(|stage| !matches!(stage.state, PlanState::Hit { .. }));
    Ok(changed.map(|stage| stage.name).collect())
}

fn failure(error: SelectError) -> Failure {
    let help = error.help().map(str::to_owned);
    let failure = Failure::usage(error.to_string());
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}
