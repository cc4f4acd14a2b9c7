//! What a training leaves behind while it runs, so that the next run goes on from there: when it is saved, how it is
//! taken up, and what a user hears of it.
//!
//! Owns the pace. Refuses to know the form of what is saved, which is crate `train`'s, and where and how safely it lies,
//! which is the store's. A save that fails costs the next run some steps; it never fails the training.

use sluice_lm::params::Parameters;
use sluice_spec::stage::train::Saving;
use sluice_store::{HowFar, StoreError};
use sluice_train::metrics::StepMetrics;
use sluice_train::resume;
use sluice_train::trainer::Trainer;

use super::start::Start;
use crate::StageContext;

/// Saving takes at most this share of the time, as far as the last save tells.
const SHARE: f64 = 0.02;
/// What a save is thought to take before there was one: this many bytes a second, and the disk's answer. A slow disk, so
/// that a large model begins with a long interval and not with a long pause.
const BYTES_PER_SECOND: f64 = 250e6;
const ANSWER_SECONDS: f64 = 0.02;

/// The saves of one training.
pub struct Saves<'a> {
    context: &'a StageContext<'a>,
    saving: Saving,
    n_steps: usize,
    /// Steps that are safe.
    n_saved: usize,
    /// When the last save was over, and what it took.
    saved_s: f64,
    cost_s: f64,
    /// That saving fails is told once.
    has_failed: bool,
}

impl<'a> Saves<'a> {
    /// Before the first step.
    pub fn new<M: Parameters + Clone>(
        context: &'a StageContext<'a>,
        saving: Saving,
        n_steps: usize,
        trainer: &Trainer<M>,
    ) -> Self {
        let cost_s = resume::n_bytes(trainer) as f64 / BYTES_PER_SECOND + ANSWER_SECONDS;
        let (n_saved, saved_s) = (trainer.n_done, (context.clock)());
        Self { context, saving, n_steps, n_saved, saved_s, cost_s, has_failed: false }
    }

    /// Saves if it is time to.
    pub fn after_step<M: Parameters + Clone>(&mut self, trainer: &Trainer<M>, steps: &[StepMetrics]) {
        let is_due = match self.saving {
            Saving::Never => false,
            Saving::EverySteps(every) => trainer.n_done.is_multiple_of(every.get() as usize),
            Saving::Auto => (self.context.clock)() - self.saved_s >= self.cost_s / SHARE,
        };
        // What follows the last step is the result itself.
        if is_due && trainer.n_done < self.n_steps {
            self.save(trainer, steps);
        }
    }

    /// Saves what a stop would lose, and says what is safe.
    pub fn at_stop<M: Parameters + Clone>(&mut self, trainer: &Trainer<M>, steps: &[StepMetrics]) {
        if self.saving != Saving::Never && trainer.n_done > self.n_saved {
            self.save(trainer, steps);
        }
        let (n_saved, n_steps) = (self.n_saved, self.n_steps);
        self.context.note(match n_saved {
            0 => "no step is saved: the next run begins with the first".to_owned(),
            _ => format!("saved at step {n_saved} of {n_steps}: the next run goes on from there"),
        });
    }

    fn save<M: Parameters + Clone>(&mut self, trainer: &Trainer<M>, steps: &[StepMetrics]) {
        let begun_s = (self.context.clock)();
        let form = form(self.context);
        let how_far = HowFar { form: &form, done: trainer.n_done as u64, total: self.n_steps as u64 };
        let saved = self.context.attempt.save_unfinished(how_far, |sink| resume::write(trainer, steps, sink));
        self.saved_s = (self.context.clock)();
        self.cost_s = self.saved_s - begun_s;
        match saved {
            Ok(_) => self.n_saved = trainer.n_done,
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                self.context.warn(format!(
                    "step {} could not be saved, and the training goes on: {}; a stop before the next save costs the \
                     steps since step {}",
                    trainer.n_done,
                    chain(&error),
                    self.n_saved
                ));
            }
            Err(_) => {}
        }
    }
}

/// The trainer that an earlier run saved, with the figures of its steps; none where there is none that is whole, which is
/// told. `fresh` is the one before the first step.
pub fn take_up<M: Parameters + Clone>(
    context: &StageContext<'_>,
    start: &Start,
    fresh: &Trainer<M>,
    n_steps: usize,
) -> Option<(Trainer<M>, Vec<StepMetrics>)> {
    let refused = |why: String| {
        // What cannot be removed now is replaced by the next save.
        let _ = context.attempt.forget();
        context.warn(format!("the training that an earlier run saved is not whole and begins anew: {why}"));
        None
    };
    let (head, mut file) = match context.attempt.unfinished() {
        Ok(None) => return None,
        Ok(Some(saved)) => saved,
        Err(StoreError::Corrupt { path, .. } | StoreError::Json { path, .. }) => {
            return refused(format!("`{}` is damaged", path.display()));
        }
        Err(error) => return refused(chain(&error)),
    };
    let form = form(context);
    if head.form != form {
        return refused(format!("it was saved as `{}`, and this program goes on from `{form}`", head.form));
    }
    match resume::read(&mut file, fresh.clone(), &start.placement.device) {
        Ok((trainer, steps)) if trainer.n_done <= n_steps => {
            context.note(format!("resumed at step {} of {n_steps}", trainer.n_done));
            Some((trainer, steps))
        }
        Ok((trainer, _)) => refused(format!("it has {} steps of {n_steps}", trainer.n_done)),
        Err(error) => refused(chain(&error)),
    }
}

/// The form of the bytes, and the arithmetic the steps were taken in: what is not exact in another one.
fn form(context: &StageContext<'_>) -> String {
    format!("{}, {}", resume::FORM, context.device.numerics())
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
