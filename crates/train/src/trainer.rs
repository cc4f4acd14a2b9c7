//! The training loop.
//!
//! Owns the order of things within a step: cut the batch, add up gradients, clip, update. Knows nothing of what is
//! trained on, of files or of time: the clock, the cancel flag and the sink of metrics come in.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{DType, Device};
use sluice_lm::device::has_bit_kernels;
use sluice_lm::params::{ParamMut, Parameters, held};
use sluice_lm::precision::Precision;
use sluice_lm::stack::Stack;
use thiserror::Error;

use crate::backward::{Kept, add_gradients};
use crate::metrics::{PairTally, StepMetrics};
use crate::optimizer::{AdamW, GradientSum, Keeping, Master, Optimizer, clip_factor};
use crate::order::{Order, micro_batches};
use crate::schedule::Schedule;
use crate::task::Task;

/// How a model is trained on a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    pub order: Order,
    pub schedule: Schedule,
    pub adamw: AdamW,
    /// Norm that the whole gradient is clipped to; `None` leaves it.
    pub max_grad_norm: Option<f64>,
    /// Tokens of a micro-batch. Changes rounding, not meaning.
    pub micro_batch_tokens: usize,
    /// What a step computes in. The weights themselves, their gradients' sums and the moments are in f32 whatever it is.
    pub precision: Precision,
    /// What a backward pass finds of its forward pass. Changes memory and time, not the result.
    pub kept: Kept,
}

/// A model in training, between two steps.
#[derive(Clone, Debug)]
pub struct Trainer<M> {
    pub model: M,
    pub optimizer: Optimizer,
    /// Finished steps.
    pub n_done: usize,
}

/// What the loop is given from outside.
pub struct Hooks<'a, M> {
    /// Looked at between micro-batches.
    pub cancel: &'a AtomicBool,
    /// Seconds since some fixed moment.
    pub clock: &'a dyn Fn() -> f64,
    /// Called after each step; `Break` ends the run as a cancel does.
    pub on_step: &'a mut dyn FnMut(&StepMetrics, &Trainer<M>) -> ControlFlow<()>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// Stopped from outside; the trainer stands after its last whole step.
    Cancelled,
}

/// Why a run cannot go on. The trainer stands as it was before the step.
#[derive(Debug, Error, PartialEq)]
pub enum TrainError {
    #[error(
        "step {step}: the loss is {value}; the weights were not changed; \
         a lower learning rate, or another look at this step's rows, may help"
    )]
    LossNotFinite { step: usize, value: f64 },
    #[error("step {step}: the norm of the gradient is {value} at a loss of {loss}; the weights were not changed")]
    GradientNotFinite { step: usize, value: f64, loss: f64 },
    #[error("parameter {name} is {dtype}; training needs weights in f32")]
    NotF32 { name: String, dtype: String },
    #[error("{what} kept as `{form}` need kernels that this device has none of; `f32` works on any device")]
    Form { what: &'static str, form: &'static str },
}

impl<M: Stack> Trainer<M> {
    /// A trainer before its first step.
    pub fn new(mut model: M, settings: AdamW) -> Result<Self, TrainError> {
        let mut fault = None;
        model.walk(&mut |name, param| {
            let dtype = match param {
                ParamMut::Vector(weight) => weight.dtype(),
                ParamMut::Matrix(weight) | ParamMut::Linear(weight) => weight.dtype(),
            };
            if dtype != DType::F32 && fault.is_none() {
                fault = Some(TrainError::NotF32 { name: name.to_owned(), dtype: dtype.name().to_owned() });
            }
        });
        match fault {
            Some(fault) => Err(fault),
            None => Ok(Self { model, optimizer: Optimizer::new(settings), n_done: 0 }),
        }
    }

    /// The same trainer before its first step with its weights, which are in f32, put into another form. With another than
    /// f32 a step computes in bf16.
    pub fn keeping(mut self, keeping: Keeping) -> Result<Self, TrainError> {
        let has_kernels = parameter_device(&mut self.model).is_none_or(|device| has_bit_kernels(&device));
        let Keeping { master, moments } = keeping;
        if master != Master::F32 && !has_kernels {
            return Err(TrainError::Form { what: "weights", form: master.name() });
        }
        if moments != Precision::F32 && !has_kernels {
            return Err(TrainError::Form { what: "moments", form: moments.name() });
        }
        self.optimizer.keep(&mut self.model, keeping);
        Ok(self)
    }

    /// The model with its weights in f32, to the bit.
    pub fn exact(&self) -> M {
        self.optimizer.exact(&self.model)
    }

    /// Trains until the recipe's last step.
    pub fn run<T: Task<M>>(&mut self, task: &T, recipe: &Recipe, hooks: Hooks<'_, M>) -> Result<Outcome, TrainError> {
        let Hooks { cancel, clock, on_step } = hooks;
        while self.n_done < recipe.schedule.n_steps {
            let start = clock();
            let Some(mut metrics) = self.step(task, recipe, cancel)? else {
                return Ok(Outcome::Cancelled);
            };
            metrics.seconds = clock() - start;
            if on_step(&metrics, self).is_break() {
                return Ok(Outcome::Cancelled);
            }
        }
        Ok(Outcome::Finished)
    }

    /// One optimiser step; `None` when it was cancelled, which leaves the trainer as it was. Its time is not filled in.
    pub fn step<T: Task<M>>(
        &mut self,
        task: &T,
        recipe: &Recipe,
        cancel: &AtomicBool,
    ) -> Result<Option<StepMetrics>, TrainError> {
        let step = self.n_done + 1;
        let batches = step_batches(task, recipe, self.n_done);
        let rows = batches.concat();
        let computed = match self.optimizer.keeping().master {
            Master::F32 => held(&self.model, recipe.precision),
            Master::Split | Master::Stochastic => self.model.clone(),
        };
        let totals = task.totals(&computed, &rows);
        let (mut gradients, mut loss, mut tally) = (GradientSum::default(), 0.0, PairTally::default());
        for batch in &batches {
            if cancel.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let (share, counted) = add_gradients(&computed, task, batch, &totals, recipe.kept, &mut gradients);
            loss += share;
            tally += counted;
            if !loss.is_finite() {
                return Err(TrainError::LossNotFinite { step, value: loss });
            }
        }
        // The optimiser writes where the weights lie, if nobody else holds them.
        drop(computed);
        let grad_norm = gradients.norm();
        if !grad_norm.is_finite() {
            return Err(TrainError::GradientNotFinite { step, value: grad_norm, loss });
        }
        let learning_rate = recipe.schedule.rate(self.n_done);
        let grad_scale = clip_factor(grad_norm, recipe.max_grad_norm);
        self.optimizer.step(&mut self.model, gradients, learning_rate, grad_scale);
        self.n_done = step;
        Ok(Some(StepMetrics {
            step,
            epoch: recipe.order.epochs_after(step),
            loss,
            pairs: tally.means(),
            grad_norm,
            learning_rate,
            n_tokens: rows.iter().map(|&row| task.n_tokens(row)).sum(),
            seconds: 0.0,
        }))
    }
}

/// Where a model's first parameter lies.
fn parameter_device<M: Parameters>(model: &mut M) -> Option<Device> {
    let mut device = None;
    model.walk(&mut |_, param| {
        let found = match param {
            ParamMut::Vector(weight) => weight.device(),
            ParamMut::Matrix(weight) | ParamMut::Linear(weight) => weight.device(),
        };
        device.get_or_insert(found);
    });
    device
}

/// The micro-batches of the step that follows `n_done` finished steps.
fn step_batches<M, T: Task<M>>(task: &T, recipe: &Recipe, n_done: usize) -> Vec<Vec<usize>> {
    match &recipe.order {
        Order::Shuffled(shuffle) => {
            micro_batches(&shuffle.rows(n_done), &|row| task.n_tokens(row), recipe.micro_batch_tokens)
        }
        Order::Given(steps) => steps.get(n_done).cloned().unwrap_or_default(),
    }
}
