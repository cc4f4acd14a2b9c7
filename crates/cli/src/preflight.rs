//! Before a run: whether the files and models that its stages name are there. A missing reward model is told now, at its
//! place in the file, and not after an hour of sampling.
//!
//! Looks at names only; whether a file reads and a model fits is found by the stage that uses it.

use sluice_engine::StageFailure;
use sluice_lm::checkpoint::HubError;
use sluice_spec::{Code, Diagnostic, Diagnostics, Pipeline, Source, Span, Stage};

use crate::exit::{Exit, Failure};
use crate::session::Project;

/// Looks for everything outside of the store that the wanted stages read, with all they need; all stages if none is
/// named.
///
/// # Errors
/// Everything that is not there, as faults of the file; `Exit::Remote` if only models of a hub are missing.
pub fn check(project: &Project, targets: &[String]) -> Result<(), Failure> {
    let pipeline = project.plan.pipeline();
    let mut faults = Vec::new();
    let mut exit = Exit::Remote;
    for stage in wanted(project, targets) {
        for input in stage.kind.inputs() {
            let Err(failure) = project.wire.find(pipeline, &input.source) else { continue };
            if !is_remote(&failure) {
                exit = Exit::Usage;
            }
            let place = place(pipeline, &input.source).or(input.place).unwrap_or(Span::START);
            faults.push(Diagnostic::new(Code::UnknownName, place, failure.to_string()));
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(Failure::new(exit, Diagnostics::new(pipeline.sources.clone(), faults)))
}

/// A model is missing where it is declared, whoever uses it.
fn place(pipeline: &Pipeline, source: &Source) -> Option<Span> {
    match source {
        Source::Model(name) => pipeline.model(name).map(|model| model.place),
        Source::Stage(_) | Source::Files(_) | Source::Folder(_) => None,
    }
}

fn is_remote(failure: &StageFailure) -> bool {
    matches!(failure, StageFailure::Stage(error) if error.is::<HubError>())
}

/// The named stages and what they need.
fn wanted<'p>(project: &'p Project, targets: &[String]) -> Vec<&'p Stage> {
    let mut stages: Vec<&Stage> = project.plan.stages().collect();
    if targets.is_empty() {
        return stages;
    }
    let mut names = targets.to_vec();
    // From the end: whoever reads a stage comes after it.
    stages.reverse();
    stages.retain(|stage| {
        let is_wanted = names.iter().any(|name| name == stage.name.as_str());
        if is_wanted {
            names.extend(stage.kind.inputs().into_iter().filter_map(|input| match input.source {
                Source::Stage(read) => Some(read.stage.to_string()),
                Source::Model(_) | Source::Files(_) | Source::Folder(_) => None,
            }));
        }
        is_wanted
    });
    stages
}
