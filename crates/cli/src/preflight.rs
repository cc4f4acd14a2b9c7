//! Before a run: whether the files and models that its stages name are there, and whether the models open and are what
//! the stages need. A missing or broken reward model is told now, at its place in the file, and not after an hour of
//! sampling.
//!
//! Reads no rows; what is wrong with those is found by the stage that uses them. Weights are read where the run needs
//! their digest in any case, once for each change of a folder.

use std::collections::HashSet;

use sluice_engine::{StageFailure, StageRunner};
use sluice_lm::checkpoint::HubError;
use sluice_lm::config::{Config, Head};
use sluice_spec::stage::{Input, Kind};
use sluice_spec::{Code, Diagnostic, Diagnostics, Model, Pipeline, Source, Span, Stage};

use crate::exit::{Exit, Failure};
use crate::session::Project;

/// How far models are looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Their descriptions: configuration, tokenizer, template, and which tensors there are.
    Headers,
    /// Their weights, too, which have to be finite.
    Weights,
}

/// Looks for everything outside of the store that the wanted stages read, with all they need; all stages if none is
/// named.
///
/// # Errors
/// Everything that is not there or not usable, as faults of the file; `Exit::Remote` if only models of a hub are missing.
pub fn check(project: &Project, targets: &[String], depth: Depth) -> Result<(), Failure> {
    let pipeline = project.plan.pipeline();
    let mut faults = Vec::new();
    let mut exit = Exit::Remote;
    let mut weighed = HashSet::new();
    for stage in wanted(project, targets) {
        for input in stage.kind.inputs() {
            match project.wire.find(pipeline, &input.source) {
                Err(failure) => {
                    if !is_remote(&failure) {
                        exit = Exit::Usage;
                    }
                    let place = model(pipeline, &input.source).map(|model| model.place).or(input.place);
                    faults.push(fault(place, failure.to_string()));
                }
                Ok(()) => {
                    // Weights are looked into once, however many stages read them.
                    let is_new = model(pipeline, &input.source).is_some_and(|model| weighed.insert(&model.name));
                    let depth = if is_new { depth } else { Depth::Headers };
                    let fault = unusable(project, stage, &input, depth).inspect(|_| exit = Exit::Usage);
                    faults.extend(fault.filter(|fault| !faults.contains(fault)));
                }
            }
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(Failure::new(exit, Diagnostics::new(pipeline.sources.clone(), faults)))
}

/// What is wrong with a model that is there.
fn unusable(project: &Project, stage: &Stage, input: &Input, depth: Depth) -> Option<Diagnostic> {
    let model = model(project.plan.pipeline(), &input.source)?;
    // The outermost message only says what was attempted.
    let broken = |failure: StageFailure| {
        let causes = failure.causes();
        let message = if causes.is_empty() { failure.to_string() } else { causes.join(": ") };
        Some(fault(Some(model.place), message))
    };
    match project.wire.open_model(&model.location) {
        Err(failure) => broken(failure),
        Ok(config) => {
            let Some((found, needed)) = misfit(&config, &stage.kind, &input.role) else {
                return match depth {
                    Depth::Headers => None,
                    Depth::Weights => project.wire.model_digest(&model.location).err().and_then(broken),
                };
            };
            let (name, architecture) = (&model.name, config.architecture());
            let message = format!(
                "stage `{}`: `{}.{}` is `{name}`, {found} ({architecture}); {needed} is needed",
                stage.name,
                stage.kind.name().name(),
                input.role
            );
            Some(fault(input.place, message))
        }
    }
}

/// What a model is and what a role needs, if these differ. Training may start from either.
fn misfit(config: &Config, kind: &Kind, role: &str) -> Option<(&'static str, &'static str)> {
    const CAUSAL: &str = "a causal language model";
    const REWARD: &str = "a reward model";
    let needs_reward = match kind {
        Kind::Sample(_) => false,
        Kind::Score(_) => true,
        Kind::Evaluate(_) => role == "judge",
        Kind::Train(_) | Kind::Ingest(_) | Kind::Pair(_) | Kind::Sql(_) => return None,
    };
    match (config.head == Head::CausalLm, needs_reward) {
        (true, true) => Some((CAUSAL, REWARD)),
        (false, false) => Some((REWARD, CAUSAL)),
        (true, false) | (false, true) => None,
    }
}

fn fault(place: Option<Span>, message: String) -> Diagnostic {
    Diagnostic::new(Code::UnknownName, place.unwrap_or(Span::START), message)
}

/// The declaration of a model that a stage reads.
fn model<'p>(pipeline: &'p Pipeline, source: &Source) -> Option<&'p Model> {
    match source {
        Source::Model(name) => pipeline.model(name),
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
