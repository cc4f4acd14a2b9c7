//! Training a reward model of the ArmoRM architecture: from scratch, on the body of a causal language model, or further,
//! with or without fresh layers on top.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type};
use sluice_lm::checkpoint::Checkpoint;
use sluice_lm::config::{Config, Head, LlamaConfig, ModelConfig};
use sluice_lm::model::armorm_from;
use sluice_lm::reward::ArmoRm;
use sluice_lm::weights::WeightSource;
use sluice_spec::stage::sample::Bos;
use sluice_spec::stage::train::objective::Reward;
use sluice_spec::stage::train::{Examples, Train};
use sluice_table::Prompts;
use sluice_train::batch::Sequence;
use sluice_train::task::{RewardRow, RewardTask, RewardWeights};

use super::TrainStageError;
use super::examples::{TrainRow, train_rows};
use super::fit::{Fitted, Run};
use super::grown::Grown;
use super::policy::described;
use super::start::{Start, loading};
use crate::chat::{conversation_ids, prompt_ids};
use crate::prompts::views;
use crate::{StageContext, StageError};

/// A fresh gate: as the published one, a quarter of the body wide, and its temperature.
const GATE_SHARE: usize = 4;
const GATE_WIDTH: std::ops::RangeInclusive<usize> = 64..=1024;
const GATE_LAYERS: usize = 2;
const GATE_TEMPERATURE: f64 = 10.0;

pub fn train(
    objective: &Reward,
    params: &Train,
    start: &Start,
    context: &StageContext<'_>,
) -> Result<Fitted, StageError> {
    let Reward { objectives, correctness_weight, objectives_weight, lm_weight, preference_weight, grow_layers } =
        objective;
    let Examples::Rows(table) = &params.examples else {
        return Err(StageError::WrongInput { role: "rows".to_owned(), expected: "what this objective learns from" });
    };
    let batches = context.table("rows")?;
    let tables = views("rows", &batches, Prompts::view)?;
    let (config, model) = model(objectives, grow_layers.get() as usize, start)?;
    let max_length = params.tokens.max_length.get() as usize;
    let rows = rows(objectives, max_length, &start.checkpoint, &tables, &batches)?;
    let weights = RewardWeights {
        correctness: correctness_weight.get(),
        objectives: objectives_weight.get(),
        preference: preference_weight.get(),
        lm: lm_weight.get(),
    };
    let task = RewardTask::new(weights, &rows, &model).map_err(|source| TrainStageError::Task { source })?;
    let examples = described(table, context.output("rows")?);
    Run { params, start, config: &config, context, examples }.fit(model, &task)
}

/// The model to train and its configuration.
fn model(objectives: &[String], n_fresh: usize, start: &Start) -> Result<(Config, ArmoRm), StageError> {
    if objectives.is_empty() {
        return Err(TrainStageError::NoObjectives.into());
    }
    let checkpoint = &start.checkpoint;
    let ModelConfig::Llama(body) = &checkpoint.config.model else { return Err(unfit(checkpoint).into()) };
    let config = grown(objectives, n_fresh, body, checkpoint)?;
    let mut fresh = start.fresh_weights();
    let mut over_stored;
    let source: &mut dyn WeightSource = if start.is_fresh {
        &mut fresh
    } else {
        over_stored = Grown::new(checkpoint, body.n_layers, n_fresh, fresh);
        &mut over_stored
    };
    let model = armorm_from(&config, checkpoint, source, &start.placement).map_err(loading)?;
    Ok((config, model))
}

/// The configuration of the starting model with the fresh layers and the reward head.
fn grown(
    objectives: &[String],
    n_fresh: usize,
    body: &LlamaConfig,
    checkpoint: &Checkpoint,
) -> Result<Config, TrainStageError> {
    let head = match &checkpoint.config.head {
        head @ Head::ArmoRm { .. } => {
            if checkpoint.config.labels != objectives {
                let (found, wanted) = (checkpoint.config.labels.clone(), objectives.to_vec());
                return Err(TrainStageError::OtherObjectives { found, wanted });
            }
            head.clone()
        }
        Head::CausalLm => Head::ArmoRm {
            num_objectives: objectives.len(),
            gating_hidden_dim: (body.hidden_size / GATE_SHARE).clamp(*GATE_WIDTH.start(), *GATE_WIDTH.end()),
            gating_n_hidden: GATE_LAYERS,
            gating_temperature: GATE_TEMPERATURE,
        },
        Head::SequenceClassification { .. } => return Err(unfit(checkpoint)),
    };
    let body = LlamaConfig { n_layers: body.n_layers + n_fresh, ..body.clone() };
    Ok(Config { model: ModelConfig::Llama(body), head, labels: objectives.to_vec(), ..checkpoint.config.clone() })
}

fn unfit(checkpoint: &Checkpoint) -> TrainStageError {
    TrainStageError::NoArmoRm { folder: checkpoint.folder.clone(), architecture: checkpoint.config.architecture() }
}

/// Answers with what the model should say of them; answers to one prompt share a number.
fn rows(
    objectives: &[String],
    max_length: usize,
    checkpoint: &Checkpoint,
    tables: &[Prompts],
    batches: &[RecordBatch],
) -> Result<Vec<RewardRow>, TrainStageError> {
    let columns = Columns::read(objectives, batches)?;
    let mut prompts: HashMap<&str, usize> = HashMap::new();
    let mut out = Vec::new();
    for row in train_rows(tables)? {
        let n_prompts = prompts.len();
        let prompt = *prompts.entry(row.prompt_id).or_insert(n_prompts);
        let (label, targets) = columns.targets(&row)?;
        let missing = || TrainStageError::Missing { row: row.name(), what: "response".to_owned() };
        let sequence = sequence(checkpoint, &row, row.response.ok_or_else(missing)?)?;
        if sequence.n_tokens() > max_length {
            let (row, n_tokens) = (row.name(), sequence.n_tokens());
            return Err(TrainStageError::TooLong { row, n_tokens, max: max_length, what: "tokens of `max_length`" });
        }
        out.push(RewardRow { prompt, sequence, label, targets });
    }
    Ok(out)
}

/// A whole conversation as the reward model will score it, parted after the header of the answer. It is never cut: the
/// score is read at its last token.
fn sequence(checkpoint: &Checkpoint, row: &TrainRow<'_>, response: &str) -> Result<Sequence, TrainStageError> {
    let failed = |source| TrainStageError::Encode { row: row.name(), source };
    let prompt = prompt_ids(checkpoint, row.prompt, Bos::Single).map_err(failed)?;
    let whole = conversation_ids(checkpoint, row.prompt, response).map_err(failed)?;
    // Where the header does not reappear as it was, tokens have merged across it; the border stays at its length.
    let (prompt, response) = whole.split_at(prompt.len().min(whole.len()));
    Ok(Sequence::new(prompt, response))
}

/// The values of every objective, by batch and row: the column that bears its name, and for the first objective the
/// label where there is no such column.
struct Columns<'a> {
    objectives: &'a [String],
    by_batch: Vec<Vec<Option<Values>>>,
}

type Values = Vec<Option<f32>>;

impl<'a> Columns<'a> {
    fn read(objectives: &'a [String], batches: &[RecordBatch]) -> Result<Self, TrainStageError> {
        let by_batch = batches.iter().map(|batch| {
            let columns = objectives.iter().enumerate();
            columns
                .map(|(place, name)| match batch.column_by_name(name) {
                    Some(column) => numbers(name, column).map(Some),
                    None if place == 0 => Ok(None),
                    None => {
                        let found = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
                        Err(TrainStageError::NoObjective { objective: name.clone(), found })
                    }
                })
                .collect()
        });
        Ok(Self { objectives, by_batch: by_batch.collect::<Result<_, _>>()? })
    }

    /// The first objective, and the others.
    fn targets(&self, row: &TrainRow<'_>) -> Result<(f32, Vec<f32>), TrainStageError> {
        let (batch, at) = row.place;
        let values = self.objectives.iter().zip(&self.by_batch[batch]).map(|(name, column)| {
            let value = column.as_ref().map_or(row.label, |column| column[at]);
            value.ok_or_else(|| TrainStageError::Missing { row: row.name(), what: format!("value for `{name}`") })
        });
        let mut values: Vec<f32> = values.collect::<Result<_, _>>()?;
        let label = values.remove(0);
        Ok((label, values))
    }
}

fn numbers(name: &str, column: &dyn Array) -> Result<Values, TrainStageError> {
    let floats = cast(column, &DataType::Float32)
        .map_err(|source| TrainStageError::Objective { objective: name.to_owned(), source })?;
    Ok(floats.as_primitive::<Float32Type>().iter().collect())
}
