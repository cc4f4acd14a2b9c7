//! Queries over tables: DataFusion sessions, the user's files as rows, and the rendering of answers. It owns everything
//! asynchronous behind a blocking interface, and refuses to know what a stage is or which columns a table should have.
//!
//! * [`Session`] answers queries over named tables, each an output in the store, Parquet files or batches in memory.
//! * [`DataFile`] is one Parquet, JSONL or CSV file, read in file order.
//! * [`table_names`] are the tables a query asks for, those of earlier runs among them: `pairs@r17`.
//! * [`matching`] turns paths and globs into files.
//! * [`render`] prints an answer.
//!
//! Equal tables and an equal query give equal rows in equal order: a session runs one partition, so nothing depends on
//! the number of threads.

mod blame;
mod error;
mod files;
mod names;
mod parquet_table;
mod place;
mod render;
mod repeatable;
mod rows;
mod session;
mod union;

pub use error::{Cause, SqlError};
pub use files::{DataFormat, matching};
pub use names::table_names;
pub use place::Place;
pub use render::{Format, render};
pub use rows::{Condition, DataFile};
pub use session::{Batches, NamedTable, Session, TableData};
pub use union::{Constant, UnionPart};
