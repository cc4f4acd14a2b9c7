//! Before a run: whether the files and models that its stages name are there, and whether the models open and are what
//! the stages need. A missing or broken reward model is told now, at its place in the file, and not after an hour of
//! sampling.
//!
//! Models of a hub that are not in the local cache are fetched here, before anything runs. Reads no rows; what is wrong with
//! those is found by the stage that uses them. Weights are read where the run needs their digest in any case, once for each
//! change of a folder.

use std::collections::{HashMap, HashSet};

use sluice_engine::{StageFailure, StageRunner};
use sluice_lm::checkpoint::{CheckpointError, HubError, WeightsError};
use sluice_lm::config::{Config, Head};
use sluice_lm::model::LoadError;
use sluice_spec::stage::{Input, Kind};
use sluice_spec::{Code, Diagnostic, Diagnostics, Model, Pipeline, Source, Span, Stage};

use crate::exit::{Exit, Failure};
use crate::hub;
use crate::progress::Transfer;
use crate::secret;
use crate::session::{Project, Session};
use crate::wire::OutsideError;

/// How far models are looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Their descriptions: configuration, tokenizer, template, and that the tensors are those of the configuration, by name
    /// and shape.
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
    // Cells of a matrix read much the same, so each thing is looked at once.
    let mut seen: HashMap<Source, Seen> = HashMap::new();
    for stage in wanted(project, targets) {
        for input in stage.kind.inputs() {
            let seen = seen.entry(input.source.clone()).or_insert_with(|| look(project, &input.source, depth));
            let place = model(pipeline, &input.source).map(|model| model.place);
            match seen {
                Seen::Usable(None) => {}
                Seen::Usable(Some(config)) => {
                    faults.extend(unfit(project, stage, &input, config).inspect(|_| exit = Exit::Usage));
                }
                Seen::Missing { message, is_remote } => {
                    if !*is_remote {
                        exit = Exit::Usage;
                    }
                    faults.push(fault(place.or(input.place), message.clone()));
                }
                Seen::Broken { message, remedy } => {
                    exit = Exit::Usage;
                    let fault = fault(place, message.clone());
                    faults.push(match remedy {
                        Some(remedy) => fault.help(*remedy),
                        None => fault,
                    });
                }
            }
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(Failure::new(exit, Diagnostics::new(pipeline.sources.clone(), faults)))
}

/// Fetches the models of a hub that the wanted stages read and that are not in the local cache.
///
/// # Errors
/// `Exit::Usage` with a fault of the file for every token that cannot be looked up; `Exit::Remote` for the first model that
/// cannot be fetched.
pub fn fetch(session: &Session, project: &Project, targets: &[String]) -> Result<(), Failure> {
    let Session { global, world, .. } = session;
    let mut faults = Vec::new();
    let mut orders = Vec::new();
    for model in to_fetch(project, targets) {
        let Some(from) = hub::model(&model.location) else { continue };
        match model.token.as_ref().map(|token| secret::look_up(token, &world.project)) {
            None => orders.push((from, None)),
            Some(Ok(found)) => orders.push((from, Some(found))),
            Some(Err(error)) => {
                let message = format!("`models.{}.token` is needed to fetch {from}, and {error}", model.name);
                faults.push(fault(model.token.as_ref().and_then(|token| token.place), message));
            }
        }
    }
    if !faults.is_empty() {
        let sources = project.plan.pipeline().sources.clone();
        return Err(Failure::new(Exit::Usage, Diagnostics::new(sources, faults)));
    }
    let transfer = Transfer::of_run(global, world);
    for (model, token) in orders {
        world.hub.obtain(&model, token, &|step| transfer.step(step))?;
    }
    Ok(())
}

/// The models that are still to be fetched, each once.
fn to_fetch<'p>(project: &'p Project, targets: &[String]) -> Vec<&'p Model> {
    let pipeline = project.plan.pipeline();
    let mut models: Vec<&Model> = Vec::new();
    for input in wanted(project, targets).into_iter().flat_map(|stage| stage.kind.inputs()) {
        let Some(model) = model(pipeline, &input.source) else { continue };
        let absent = matches!(project.wire.find(pipeline, &input.source), Err(StageFailure::NotFetched { .. }));
        if absent && !models.iter().any(|known| known.name == model.name) {
            models.push(model);
        }
    }
    models
}

/// What was found of something outside of the store.
enum Seen {
    /// It is there; a model opens, and has this configuration.
    Usable(Option<Box<Config>>),
    Missing {
        message: String,
        is_remote: bool,
    },
    /// A model that is there and does not open, or whose weights cannot be used.
    Broken {
        message: String,
        remedy: Option<&'static str>,
    },
}

fn look(project: &Project, source: &Source, depth: Depth) -> Seen {
    let pipeline = project.plan.pipeline();
    match project.wire.find(pipeline, source) {
        Ok(()) => {}
        // It is fetched before a run, and then looked at.
        Err(StageFailure::NotFetched { .. }) => return Seen::Usable(None),
        Err(failure) => return Seen::Missing { message: failure.to_string(), is_remote: is_remote(&failure) },
    }
    let Some(model) = model(pipeline, source) else { return Seen::Usable(None) };
    let opened = project.wire.open_model(&model.location).and_then(|config| {
        match depth {
            Depth::Headers => {}
            Depth::Weights => drop(project.wire.model_digest(&model.location)?),
        }
        Ok(config)
    });
    match opened {
        Ok(config) => Seen::Usable(Some(Box::new(config))),
        // The outermost message only says what was attempted.
        Err(failure) => {
            let causes = failure.causes();
            let message = if causes.is_empty() { failure.to_string() } else { causes.join(": ") };
            Seen::Broken { message, remedy: remedy(&failure) }
        }
    }
}

/// What to do about weights that are not those of the configuration beside them.
fn remedy(failure: &StageFailure) -> Option<&'static str> {
    let StageFailure::Stage(error) = failure else { return None };
    let OutsideError::Unfit { source: LoadError::Checkpoint(CheckpointError::Weights(fault)), .. } =
        error.downcast_ref::<OutsideError>()?
    else {
        return None;
    };
    match fault {
        WeightsError::Missing { .. } | WeightsError::Shape { .. } => {
            Some("config.json in that folder describes another model; take it and the weights from one place")
        }
        WeightsError::Extra { .. } => Some(
            "config.json in that folder describes a model without them; take both from one place, or let its \
             `architectures` name the model that has them",
        ),
        _ => None,
    }
}

/// What is wrong with a model that opens, where it is read.
fn unfit(project: &Project, stage: &Stage, input: &Input, config: &Config) -> Option<Diagnostic> {
    let model = model(project.plan.pipeline(), &input.source)?;
    let (found, needed) = misfit(config, &stage.kind, &input.role)?;
    let (name, architecture) = (&model.name, config.architecture());
    let message = format!(
        "stage `{}`: `{}.{}` is `{name}`, {found} ({architecture}); {needed} is needed",
        stage.base(),
        stage.kind.name().name(),
        input.role
    );
    Some(fault(input.place, message))
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
    if targets.is_empty() {
        return project.plan.stages().collect();
    }
    let names: HashSet<&str> = targets.iter().map(String::as_str).collect();
    let named = project.plan.stages().map(|stage| &stage.name).filter(|name| names.contains(name.as_str()));
    project.plan.with_needs(named)
}
