//! Training on tiny models: against outputs of the original Python libraries where there are any, against itself where
//! a run must not depend on how it is cut or interrupted.
//!
//! Each fixture's README under `tests/fixtures` says how it was made and where the tolerances come from.

mod batch;
mod fixture;
mod objectives;
mod precision;
mod resume;
mod reward;
mod tasks;
mod trajectory;
