//! Fidelity to the reference: objectives, batches and training runs against outputs of the original Python libraries.
//!
//! Each fixture's README under `tests/fixtures` says how it was made and where the tolerances come from.

mod batch;
mod fixture;
mod objectives;
mod resume;
mod trajectory;
