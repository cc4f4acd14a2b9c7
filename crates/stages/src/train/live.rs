//! The steps so far, for who asks while the training runs. Owns that telling them never fails the training; refuses to
//! know who asks.

use sluice_store::{LiveRows, StoreError};
use sluice_table::Steps;
use sluice_train::metrics::StepMetrics;

use super::fit::table;
use super::saves::chain;
use crate::StageContext;

/// The table `steps` of one training while it grows.
pub struct LiveSteps<'a> {
    context: &'a StageContext<'a>,
    /// None once it could not be written.
    rows: Option<LiveRows>,
}

impl<'a> LiveSteps<'a> {
    /// Begins with the steps of an earlier run.
    pub fn new(context: &'a StageContext<'a>, steps: &[StepMetrics]) -> Self {
        let mut live = Self { context, rows: None };
        match context.attempt.live_rows(Steps::NAME) {
            Ok(rows) => live.rows = Some(rows),
            Err(error) => live.give_up(&error),
        }
        live.tell(steps);
        live
    }

    /// Tells further steps.
    pub fn tell(&mut self, steps: &[StepMetrics]) {
        if let Some(Err(error)) = self.rows.as_mut().map(|rows| rows.append(&table(steps))) {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &StoreError) {
        self.rows = None;
        self.context.warn(format!("steps cannot be queried before the training ends: {}", chain(error)));
    }
}
