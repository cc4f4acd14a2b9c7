//! Crate `engine`: the run loop. For each stage of a plan, in order: derive its key, find its record, or run it
//! and commit what it made.
//!
//! It owns keys, states, reasons and events. It knows nothing of tensors, of query plans and of YAML text: how a
//! stage runs is behind [`StageRunner`], and where a value was written is a text it passes on.

mod board;
mod cause;
mod cell;
mod compare;
mod event;
mod explain;
mod history;
mod key;
mod mend;
mod price;
mod reason;
mod report;
mod resolve;
mod run;
mod runner;
mod testing;
mod verify;
mod worker;

pub use cause::Cause;
pub use cell::{CellInfo, CellValues};
pub use compare::{ComparedCell, ComparedMetric, Comparison};
pub use event::{Event, StageInfo};
pub use explain::{PlanState, PlannedStage, Why};
pub use history::{Earlier, History};
pub use key::{KEY_SCHEMA, Numerics, derive_key};
pub use price::{Basis, Evidence, Price, PricedPlan, PricedStage, Total};
pub use reason::{LeafChange, Reason, compare_leaves};
pub use report::{Recomputed, RunReport, StageReport};
pub use run::{Called, Engine, EngineError, RunOptions};
pub use runner::{
    Done, Given, Job, JobInput, Produced, Progress, RowCount, StageFailure, StageRunner, TestJob, TestRun, Verdict,
};
pub use testing::{TestReport, TestedStage};
pub use verify::{Amount, Checked, Example, Likeness, Recheck, Rechecked, VerifiedStage, VerifyOptions, VerifyReport};
