//! Whether there are prompts in the split that a stage reads.
//! Owns what can be told before a file is opened; which prompts a share holds out is known when they are ingested.

use sluice_spec::stage::Ingest;
use sluice_spec::stage::sample::{Selection, SplitName};
use sluice_spec::{Code, Diagnostic, Kind, Pipeline, Source, Stage};

pub(crate) fn faults(pipeline: &Pipeline) -> Vec<Diagnostic> {
    pipeline.stages.iter().filter_map(|stage| nothing_held_out(pipeline, stage)).collect()
}

/// A fault if a stage answers held-out prompts, and the prompts it reads are all for training.
fn nothing_held_out(pipeline: &Pipeline, stage: &Stage) -> Option<Diagnostic> {
    let selection = selection(&stage.kind).filter(|selection| selection.split.value == SplitName::Heldout)?;
    let input = stage.kind.inputs().into_iter().find(|input| input.role == "prompts")?;
    let Source::Stage(read) = &input.source else { return None };
    let Kind::Ingest(ingest) = &pipeline.stage(&read.stage)?.kind else { return None };
    let Ingest { heldout_from, split, .. } = ingest;
    if heldout_from.is_some() || split.column.is_some() || split.heldout.value.get() > 0.0 {
        return None;
    }
    let place = selection.split.place.or(input.place).unwrap_or(stage.name_span);
    let message =
        format!("stage `{}` answers the prompts of `{}` that are held out, and none is", stage.base(), read.stage);
    let fault = Diagnostic::new(Code::Contradiction, place, message);
    let fault = match split.heldout.place {
        Some(place) => fault.related(place, "the share that is held out"),
        None => fault,
    };
    Some(
        fault.help("raise `split.heldout`, name files in `heldout_from`, or write `split: all` to answer every prompt"),
    )
}

fn selection(kind: &Kind) -> Option<&Selection> {
    match kind {
        Kind::Sample(params) => Some(&params.selection),
        Kind::Evaluate(params) => Some(&params.selection),
        Kind::Ingest(_) | Kind::Score(_) | Kind::Pair(_) | Kind::Train(_) | Kind::Sql(_) => None,
    }
}
