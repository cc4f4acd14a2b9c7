//! The tiny task set: short questions with exactly checkable answers, demonstrations for a policy, labelled answers
//! for a reward model, and the tokenizer and model configurations for both.
//!
//! Everything is made from word lists and templates written here, by a seed; nothing is downloaded. Knows nothing of
//! models' weights, stages, YAML or the store; the only crate of this workspace it reads is `sluice-eval`, whose
//! checker is the judge of what is right.
//!
//! The way of the data: [`facts`] (what can be asked) → [`questions`] (prompts, split, use) → [`answers`] (how an
//! answer is worded) → [`rows`] (demonstrations and labelled answers) → [`tables`] (Parquet). [`tokenizer`] trains on
//! the same rows and [`checkpoint_files`] writes the small JSON files of the three model folders.
//!
//! Two properties decide what the set is good for. The policy's demonstrators are **mixed**: one careful (right and
//! plain), one careless (hedging, right one time in five), so that preference training has a behaviour to choose and
//! not a skill to invent. And held-out prompts are new wordings and combinations of known facts and words, not new
//! facts: they show whether the careful behaviour spreads, not whether a model learned the capital of a new country.

pub mod answers;
pub mod checkpoint_files;
pub mod dice;
pub mod facts;
pub mod questions;
pub mod rows;
pub mod tables;
pub mod tokenizer;
pub mod words;

pub use facts::{Fact, Family};
pub use questions::{Question, Request, Use, questions};

/// What can go wrong while making the files.
#[derive(Debug, thiserror::Error)]
pub enum TasksError {
    /// A file or folder could not be written.
    #[error("write {path}")]
    Write {
        /// The file or folder.
        path: std::path::PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A table could not be put together.
    #[error("make table {table}")]
    Table {
        /// File name of the table.
        table: String,
        /// The cause.
        source: arrow::error::ArrowError,
    },
    /// A table could not be encoded.
    #[error("encode table {table}")]
    Encode {
        /// File name of the table.
        table: String,
        /// The cause.
        source: parquet::errors::ParquetError,
    },
    /// The tokenizer library refused.
    #[error("{operation}: {message}")]
    Tokenizer {
        /// What was being done.
        operation: &'static str,
        /// What the library says.
        message: String,
    },
    /// The vocabulary has too little text to learn from.
    #[error("the tokenizer has {found} entries, {wanted} were asked for; train on more text or ask for fewer")]
    Vocabulary {
        /// Entries reached.
        found: usize,
        /// Entries wanted.
        wanted: usize,
    },
    /// A JSON document could not be written.
    #[error("encode {file}")]
    Json {
        /// File name.
        file: &'static str,
        /// The cause.
        source: serde_json::Error,
    },
}
