//! `steps`: how a training run went, one row per optimiser step. Made by `train`.

use crate::column::{Float32, Float64, Measured, UInt32, UInt64};
use crate::declare::table;

table! {
    /// Optimiser steps. A measured column is not part of the result: see [`crate::MEASURED`].
    ///
    /// | column            | type    | null | meaning                                                               |
    /// |-------------------|---------|------|-----------------------------------------------------------------------|
    /// | step              | UInt32  | no   | optimiser step, from 1                                                |
    /// | epoch             | Float32 | no   | passes over the rows so far                                           |
    /// | loss              | Float32 | no   | mean loss of the step's rows                                          |
    /// | margin            | Float32 | yes  | mean reward margin of chosen over rejected; pairs only                |
    /// | accuracy          | Float32 | yes  | share of pairs with a margin above 0; pairs only                      |
    /// | chosen_logp       | Float32 | yes  | mean log-probability of the chosen answers, nats; pairs only          |
    /// | rejected_logp     | Float32 | yes  | mean log-probability of the rejected answers, nats; pairs only        |
    /// | grad_norm         | Float32 | no   | global gradient norm before clipping                                  |
    /// | learning_rate     | Float64 | no   | learning rate of this step                                            |
    /// | n_tokens          | UInt64  | no   | tokens of this step, prompts included                                 |
    /// | tokens_per_second | Float32 | no   | measured: tokens of this step over its time                           |
    /// | seconds           | Float32 | no   | measured: wall time of this step                                      |
    Steps, StepRow, StepsBuilder, "steps" {
        step: UInt32,
        epoch: Float32,
        loss: Float32,
        margin: Option<Float32>,
        accuracy: Option<Float32>,
        chosen_logp: Option<Float32>,
        rejected_logp: Option<Float32>,
        grad_norm: Float32,
        learning_rate: Float64,
        n_tokens: UInt64,
        tokens_per_second: Measured<Float32>,
        seconds: Measured<Float32>,
    }
}
