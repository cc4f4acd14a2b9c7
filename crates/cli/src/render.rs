//! What the program says, as text: pure functions from values to strings, one file for each thing said.
//!
//! Nothing here prints, and nothing here looks at a terminal: whether there are colours comes in as [`Paint`].

pub mod columns;
pub mod diagnostics;
pub mod diff;
pub mod failure;
pub mod fold;
pub mod fsck;
pub mod gc;
pub mod model;
pub mod paint;
pub mod plan;
pub mod quantity;
pub mod report;
pub mod rows;
pub mod runs;
pub mod show;
pub mod summary;
pub mod sweep;
pub mod tested;
pub mod verify;
pub mod why;

pub use paint::{Ink, Paint};
