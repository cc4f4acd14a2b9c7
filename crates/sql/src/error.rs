//! What can go wrong with a query or a file, and what would be right.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::parquet::errors::ParquetError;
use datafusion::sql::sqlparser::parser::ParserError;

use sluice_store::StoreError;

use crate::blame::{LineFault, first_fault};
use crate::files::DataFormat;
use crate::place::Place;

/// What a library below said. DataFusion nests errors that repeat each other; this is the innermost.
pub type Cause = Box<dyn Error + Send + Sync>;

/// A query or a file that gives no rows, and why.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    #[error("start the threads of a query session")]
    Runtime { source: io::Error },

    #[error("{}{message}", at(place))]
    Syntax { place: Option<Place>, message: String },
    #[error("{}there is no table `{table}`; there is {}", at(place), listed(known))]
    UnknownTable { place: Option<Place>, table: String, known: Vec<String> },
    #[error("{}there is no column `{column}`; there is {}", at(place), listed(known))]
    UnknownColumn { place: Option<Place>, column: String, known: Vec<String> },
    /// Every other fault found before a row is read: a function that does not exist, types that do not fit, ...
    #[error("{}{message}", at(place))]
    Plan { place: Option<Place>, message: String },
    #[error("only a query can be answered: SELECT, EXPLAIN or DESCRIBE")]
    NotAQuery,
    #[error("{}`{function}()` gives another value at each run, so its result cannot be kept", at(place))]
    NotRepeatable { place: Option<Place>, function: String },
    #[error("the condition is {found}, expected Boolean")]
    NotACondition { found: DataType },
    #[error("run the query")]
    Execute { source: Cause },

    #[error("no file matches `{pattern}` in {}{}", folder.display(), beside(present))]
    NoSuchFile { pattern: String, folder: PathBuf, present: Vec<String> },
    #[error("{} is a folder; name the files in it, for example `{pattern}/*.parquet`", path.display())]
    Folder { pattern: String, path: PathBuf },
    #[error("list the folder {}", path.display())]
    ListFolder { path: PathBuf, source: io::Error },
    #[error("the extension of {} is none of parquet, jsonl, ndjson and csv", path.display())]
    UnknownFormat { path: PathBuf },
    #[error("{}:{line}: {message}", path.display())]
    Line { path: PathBuf, line: u64, message: String },
    #[error("read {} as {format}", path.display())]
    ReadFile { path: PathBuf, format: &'static str, source: Cause },

    #[error("open the stored table `{table}`")]
    Stored { table: String, source: StoreError },

    #[error("render the rows as {format}")]
    Render { format: &'static str, source: ArrowError },
}

impl SqlError {
    /// What DataFusion says of a query before it runs.
    pub(crate) fn of_plan(query: &str, error: &DataFusionError) -> Self {
        let place = error.diagnostic().and_then(|diagnostic| diagnostic.span).map(Place::of_span);
        match error.find_root() {
            DataFusionError::SQL(parser, _) => {
                let (ParserError::ParserError(text) | ParserError::TokenizerError(text)) = parser.as_ref() else {
                    return Self::Syntax { place, message: "the query is nested too deeply".to_owned() };
                };
                let (text, found) = Place::cut_from(text);
                let at_end = text.ends_with("found: EOF").then(|| Place::end_of(query));
                Self::Syntax { place: found.or(place).or(at_end), message: lowercase_first(text) }
            }
            DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
                SchemaError::FieldNotFound { field, valid_fields } => Self::UnknownColumn {
                    place: place.or_else(|| Place::of_word(query, field.name())),
                    column: field.flat_name(),
                    known: valid_fields.iter().map(|known| known.name().to_owned()).collect(),
                },
                other => Self::Plan { place, message: lowercase_first(&other.to_string()) },
            },
            root => Self::Plan { place, message: lowercase_first(&first_lines(&root.message())) },
        }
    }
}

impl SqlError {
    pub(crate) fn read_file(path: &Path, format: DataFormat, error: DataFusionError) -> Self {
        if format == DataFormat::Jsonl
            && let Some(LineFault { line, message }) = first_fault(path)
        {
            return Self::Line { path: path.to_owned(), line, message };
        }
        Self::ReadFile { path: path.to_owned(), format: format.name(), source: cause_of(error) }
    }
}

/// The innermost cause of an error.
pub(crate) fn cause_of(error: DataFusionError) -> Cause {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => cause_of(*inner),
        DataFusionError::ArrowError(inner, _) => match *inner {
            ArrowError::ExternalError(inner) => inner,
            // The format is said by whoever reads the file.
            ArrowError::JsonError(text) | ArrowError::CsvError(text) | ArrowError::ParquetError(text) => {
                lowercase_first(&text).into()
            }
            inner => inner.into(),
        },
        DataFusionError::ParquetError(inner) => match *inner {
            ParquetError::General(text) | ParquetError::EOF(text) => lowercase_first(&text).into(),
            inner => inner.into(),
        },
        DataFusionError::ObjectStore(inner) => inner,
        DataFusionError::IoError(inner) => inner.into(),
        DataFusionError::External(inner) => inner,
        other => lowercase_first(&first_lines(&other.message())).into(),
    }
}

fn at(place: &Option<Place>) -> String {
    place.map(|place| format!("at {place}: ")).unwrap_or_default()
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn beside(present: &[String]) -> String {
    if present.is_empty() {
        return String::new();
    }
    format!("; beside it there is {}", listed(present))
}

/// The first line, and the suggestion that may stand in the second.
fn first_lines(text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().trim_end_matches('.');
    match lines.next().and_then(|line| line.strip_prefix("Did you mean ")) {
        Some(suggestion) => format!("{first}; did you mean {suggestion}"),
        None => first.to_owned(),
    }
}

/// Messages begin with a small letter, unless the first word is an abbreviation such as SQL.
fn lowercase_first(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
    .trim_end_matches('.')
    .to_owned()
}
