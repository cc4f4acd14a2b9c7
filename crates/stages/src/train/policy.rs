//! Training a policy: on pairs under a preference objective, or on demonstrated responses.

use std::collections::BTreeSet;

use sluice_spec::stage::TableRef;
use sluice_spec::stage::train::{Examples, OffPolicy, Train};
use sluice_store::{ModelDigest, Output};
use sluice_table::{Pairs, Prompts};
use sluice_train::batch::{Sequence, TokenPair};
use sluice_train::task::{PairTask, SftTask};

use super::TrainStageError;
use super::examples::{Cuts, ExampleEncoder, train_rows};
use super::fit::{Fitted, Run};
use super::recipe::preference;
use super::reference::reference;
use super::start::Start;
use crate::prompts::views;
use crate::{StageContext, StageError};

pub fn train(params: &Train, start: &Start, context: &StageContext<'_>) -> Result<Fitted, StageError> {
    match &params.examples {
        Examples::Pairs(table) => on_pairs(params, start, &table.value, context),
        Examples::Rows(table) => on_rows(params, start, &table.value, context),
    }
}

fn on_pairs(params: &Train, start: &Start, table: &TableRef, context: &StageContext<'_>) -> Result<Fitted, StageError> {
    let batches = context.table("pairs")?;
    let tables = views("pairs", &batches, Pairs::view)?;
    guard(params.off_policy.value, start.digest, &tables)?;
    let model = start.causal()?;
    let (pairs, cuts) = pairs(params, start, &tables, context)?;
    // A pair table is read under a preference objective alone; the reader of the pipeline file sees to that.
    let objective = preference(&params.objective)
        .ok_or(StageError::WrongInput { role: "pairs".to_owned(), expected: "what this objective learns from" })?;
    let max_tokens = params.passes.micro_batch_tokens.get() as usize;
    let (reference, count) = reference(params, start, &model, &objective, &tables, &pairs, context)?;
    let task = PairTask::new(&objective, &pairs, &reference, max_tokens);
    let task = task.map_err(|source| TrainStageError::Task { source })?;
    let task = if params.passes.share_prompt.value { task.sharing_prompts() } else { task };
    let examples = described(table, context.output("pairs")?);
    let fitted = Run { params, start, config: &start.checkpoint.config, context, examples }.fit(model, &task)?;
    Ok(Fitted { n_reused: count.n_known, ..fitted.with(cuts) })
}

fn on_rows(params: &Train, start: &Start, table: &TableRef, context: &StageContext<'_>) -> Result<Fitted, StageError> {
    let batches = context.table("rows")?;
    let tables = views("rows", &batches, Prompts::view)?;
    let model = start.causal()?;
    let (sequences, cuts) = rows(params, start, &tables, context)?;
    let task = SftTask::new(&sequences).map_err(|source| TrainStageError::Task { source })?;
    let examples = described(table, context.output("rows")?);
    Ok(Run { params, start, config: &start.checkpoint.config, context, examples }.fit(model, &task)?.with(cuts))
}

/// `stage `pairs`, table digest `5c1e..``, for the model card.
pub fn described(table: &TableRef, output: &Output) -> String {
    format!("stage `{}`, table digest `{}`", table.name, output.digest())
}

/// Pairs must come from the model that is trained: the objective then reads the model's own answers, as it assumes.
fn guard(off_policy: OffPolicy, trained: ModelDigest, tables: &[Pairs]) -> Result<(), TrainStageError> {
    if off_policy == OffPolicy::Allow {
        return Ok(());
    }
    let trained = trained.to_string();
    let policies = || tables.iter().flat_map(|pairs| (0..pairs.len()).map(|row| pairs.policy_digest(row)));
    let others: BTreeSet<&str> = policies().filter(|digest| *digest != trained).collect();
    match others.first() {
        None => Ok(()),
        Some(other) => Err(TrainStageError::OffPolicy {
            n_other: policies().filter(|digest| *digest != trained).count(),
            n_pairs: tables.iter().map(Pairs::len).sum(),
            sampled_by: (*other).to_owned(),
            trained,
        }),
    }
}

fn pairs(
    params: &Train,
    start: &Start,
    tables: &[Pairs],
    context: &StageContext<'_>,
) -> Result<(Vec<TokenPair>, Cuts), TrainStageError> {
    let mut encoder = ExampleEncoder::new(&params.tokens, &start.checkpoint)?;
    let rows = tables.iter().flat_map(Pairs::rows);
    let pairs = rows.map(|row| encoder.pair(row.prompt_id, row.prompt, row.chosen, row.rejected));
    Ok((pairs.collect::<Result<_, _>>()?, encoder.cuts(context)))
}

fn rows(
    params: &Train,
    start: &Start,
    tables: &[Prompts],
    context: &StageContext<'_>,
) -> Result<(Vec<Sequence>, Cuts), TrainStageError> {
    let mut encoder = ExampleEncoder::new(&params.tokens, &start.checkpoint)?;
    let sequences = train_rows(tables)?.into_iter().map(|row| {
        let name = row.name();
        let response =
            row.response.ok_or(TrainStageError::Missing { row: name.clone(), what: "response".to_owned() })?;
        encoder.row(name, row.prompt, response)
    });
    Ok((sequences.collect::<Result<_, _>>()?, encoder.cuts(context)))
}
