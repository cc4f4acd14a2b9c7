//! The tables exchanged between stages: columns, types, units, typed views. Column names are spelled here and nowhere
//! else. This crate knows nothing of stages, YAML, files or digests of tables.
//!
//! Each table is declared once, as a list of columns, and gives four things:
//!
//! * a view (`Prompts::view(&batch)`), checked when it is made, with one accessor per column: `prompts.prompt(row)`;
//! * a row (`PromptRow`), the same columns as a struct of borrowed values: `prompts.row(row)`;
//! * a builder (`PromptsBuilder`), which takes rows and gives record batches;
//! * a schema (`Prompts::schema()`), in the order in which the columns are declared.
//!
//! A view looks columns up by name: their order is free and other columns may be present. Any encoding of text is
//! accepted, integers of another width are converted where every value fits, and numbers are converted to floats. A
//! nullable column may be absent, and then reads as null. So the result of a query is a table as soon as its columns
//! are named and typed like one.

mod column;
mod declare;
mod error;
mod evaluation;
mod identity;
mod kind;
mod pairs;
mod prompt_id;
mod prompts;
mod responses;
mod steps;
mod type_word;
mod words;

pub use column::{
    Boolean, Cell, Column, Float32, Float64, MEASURED, Measured, Named, Number, UInt32, UInt32List, UInt64, Utf8,
    Utf8Float32Map, Word,
};
pub use error::TableError;
pub use evaluation::{ComparisonRow, Comparisons, ComparisonsBuilder, MetricRow, Metrics, MetricsBuilder};
pub use identity::{DERIVED, IDENTITIES};
pub use kind::TableKind;
pub use pairs::{Dropped, DroppedBuilder, DroppedRow, PairRow, Pairs, PairsBuilder};
pub use prompt_id::PromptId;
pub use prompts::{PromptRow, Prompts, PromptsBuilder};
pub use responses::{ResponseRow, Responses, ResponsesBuilder, ScoreRow, Scores, ScoresBuilder};
pub use steps::{StepRow, Steps, StepsBuilder};
pub use type_word::type_word;
pub use words::{Decoding, DropRule, FinishReason, Split, UnknownWord, Vocabulary};
