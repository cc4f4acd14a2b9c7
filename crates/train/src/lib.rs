//! Preference objectives, batches, optimiser, schedule, the training loop and its resumption.
//!
//! Owns how a model of crate `lm` is trained: the losses, the order of rows, the steps. Knows nothing of Arrow, of
//! pipeline files or of the store; the caller brings texts and settings, and takes metrics and weights.
//!
//! ```text
//! texts --batch--> token pairs --task--> shares of a batch's loss --trainer--> steps --resume--> a folder
//!                                 objective            optimizer, schedule, order
//! ```

pub mod backward;
pub mod batch;
pub mod logps;
pub mod memory;
pub mod metrics;
pub mod objective;
pub mod optimizer;
pub mod order;
pub mod resume;
pub mod schedule;
pub mod task;
pub mod trainer;
