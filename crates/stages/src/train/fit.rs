//! The run itself: a model, a task and a recipe in, a checkpoint and its steps out. The same for every objective.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use arrow::array::RecordBatch;
use sluice_lm::config::Config;
use sluice_lm::stack::Stack;
use sluice_spec::stage::train::Train;
use sluice_store::Output;
use sluice_table::{StepRow, StepsBuilder};
use sluice_train::metrics::StepMetrics;
use sluice_train::task::Task;
use sluice_train::trainer::{Hooks, Outcome, TrainError, Trainer};

use super::TrainStageError;
use super::card::Lineage;
use super::examples::Cuts;
use super::live::LiveSteps;
use super::recipe::{keeping, recipe};
use super::save::save;
use super::saves::{Saves, take_up};
use super::start::Start;
use crate::{Done, Progress, StageContext, StageError, Unit};

/// Steps that the first and the last figures of a run are averaged over.
const N_AVERAGED: usize = 10;

/// What a run has made.
pub struct Fitted {
    pub checkpoint: Output,
    pub steps: RecordBatch,
    pub metrics: BTreeMap<String, f64>,
    /// Steps that an earlier run took.
    pub n_resumed: usize,
    /// Reference log-probs that earlier runs computed.
    pub n_reused: u64,
    /// All steps together, those of earlier runs as well: each of them knows what it took.
    pub done: Done,
}

impl Fitted {
    /// The same with what the examples lost.
    pub fn with(mut self, cuts: Cuts) -> Self {
        self.metrics.extend(cuts.metrics());
        self
    }
}

/// A model about to be trained.
pub struct Run<'a> {
    pub params: &'a Train,
    pub start: &'a Start,
    /// Of the trained model.
    pub config: &'a Config,
    pub context: &'a StageContext<'a>,
    /// What the examples are, for the model card.
    pub examples: String,
}

impl Run<'_> {
    /// Trains to the last step of the recipe, from where an earlier run stopped if one did, and writes the checkpoint.
    pub fn fit<M: Stack, T: Task<M>>(&self, mut model: M, task: &T) -> Result<Fitted, StageError> {
        let precision = self.context.device.precision;
        let recipe = recipe(self.params, task.n_rows(), model.n_parameters(), precision);
        let n_steps = recipe.schedule.n_steps;
        let fresh = Trainer::new(model, recipe.adamw).and_then(|fresh| fresh.keeping(keeping(self.params, precision)));
        let fresh = fresh.map_err(failed)?;
        let saved = if self.context.fresh { None } else { take_up(self.context, self.start, &fresh, n_steps) };
        let (mut trainer, mut steps) = match saved {
            Some(saved) => {
                // The optimiser writes where the weights lie, if nobody else holds them.
                drop(fresh);
                saved
            }
            None => (fresh, Vec::new()),
        };
        let n_resumed = steps.len();
        let mut live = LiveSteps::new(self.context, &steps);
        let mut saves = Saves::new(self.context, self.params.checkpoint.value, n_steps, &trainer);
        let mut progress = Progress {
            unit: Unit::Steps,
            done: n_resumed as u64,
            total: Some(n_steps as u64),
            n_tokens: steps.iter().map(|step| step.n_tokens as u64).sum(),
            loss: None,
        };
        self.context.report(progress);
        let mut on_step = |step: &StepMetrics, trainer: &Trainer<M>| {
            progress.done = step.step as u64;
            progress.n_tokens += step.n_tokens as u64;
            progress.loss = Some(step.loss as f32);
            live.tell(std::slice::from_ref(step));
            self.context.report(progress);
            steps.push(step.clone());
            saves.after_step(trainer, &steps);
            ControlFlow::Continue(())
        };
        let hooks = Hooks { cancel: self.context.cancel, clock: self.context.clock, on_step: &mut on_step };
        match trainer.run(task, &recipe, hooks).map_err(failed)? {
            Outcome::Cancelled => {
                saves.at_stop(&trainer, &steps);
                return Err(StageError::Cancelled);
            }
            Outcome::Finished => {}
        }
        let lineage = Lineage {
            params: self.params,
            base: &self.start.name,
            base_digest: self.start.digest,
            examples: &self.examples,
            n_examples: task.n_rows(),
            n_steps: steps.len(),
        };
        let checkpoint = save(&mut trainer.exact(), self.config, &self.start.checkpoint, &lineage, self.context)?;
        let metrics = metrics(&steps, task.n_rows());
        let done = done(&steps, task.n_rows());
        Ok(Fitted { checkpoint, steps: table(&steps), metrics, n_resumed, n_reused: 0, done })
    }
}

fn failed(source: TrainError) -> TrainStageError {
    TrainStageError::Step { source }
}

/// Examples are counted as often as they were read.
fn done(steps: &[StepMetrics], n_examples: usize) -> Done {
    let epochs = steps.last().map_or(0.0, |step| step.epoch);
    Done {
        n: (epochs * n_examples as f64).round() as u64,
        n_tokens: steps.iter().map(|step| step.n_tokens as u64).sum(),
        seconds: steps.iter().map(|step| step.seconds).sum(),
    }
}

/// The table of some steps.
pub fn table(steps: &[StepMetrics]) -> RecordBatch {
    let mut builder = StepsBuilder::new();
    for StepMetrics { step, epoch, loss, pairs, grad_norm, learning_rate, n_tokens, seconds } in steps {
        let narrow = |value: f64| value as f32;
        builder.push(StepRow {
            step: *step as u32,
            epoch: narrow(*epoch),
            loss: narrow(*loss),
            margin: pairs.map(|pairs| narrow(pairs.margin)),
            accuracy: pairs.map(|pairs| narrow(pairs.accuracy)),
            chosen_logp: pairs.and_then(|pairs| pairs.chosen_logp).map(narrow),
            rejected_logp: pairs.and_then(|pairs| pairs.rejected_logp).map(narrow),
            grad_norm: narrow(*grad_norm),
            learning_rate: *learning_rate,
            n_tokens: *n_tokens as u64,
            tokens_per_second: if *seconds > 0.0 { narrow(*n_tokens as f64 / seconds) } else { 0.0 },
            seconds: narrow(*seconds),
        });
    }
    builder.finish()
}

fn metrics(steps: &[StepMetrics], n_examples: usize) -> BTreeMap<String, f64> {
    let mut metrics: BTreeMap<String, f64> = [
        ("examples".to_owned(), n_examples as f64),
        ("steps".to_owned(), steps.len() as f64),
        ("tokens".to_owned(), steps.iter().map(|step| step.n_tokens as f64).sum()),
    ]
    .into();
    let first = &steps[..steps.len().min(N_AVERAGED)];
    let last = &steps[steps.len().saturating_sub(N_AVERAGED)..];
    for (when, part) in [("first", first), ("last", last)] {
        let mut put = |name: &str, value: &dyn Fn(&StepMetrics) -> Option<f64>| {
            let values: Vec<f64> = part.iter().filter_map(value).collect();
            if !values.is_empty() {
                metrics.insert(format!("{name}_{when}"), values.iter().sum::<f64>() / values.len() as f64);
            }
        };
        put("loss", &|step| Some(step.loss));
        put("margin", &|step| step.pairs.map(|pairs| pairs.margin));
        put("accuracy", &|step| step.pairs.map(|pairs| pairs.accuracy));
        put("chosen_logp", &|step| step.pairs.and_then(|pairs| pairs.chosen_logp));
        put("rejected_logp", &|step| step.pairs.and_then(|pairs| pairs.rejected_logp));
    }
    metrics
}
