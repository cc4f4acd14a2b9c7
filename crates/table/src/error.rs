//! What can be wrong with a table: a column that is absent, of another type, null, or outside its range. The caller adds
//! which stage or file the table came from; this crate does not know.

use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// A record batch that is not the table it should be.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A column that may not be absent is absent.
    #[error("table `{table}` lacks the column `{column}` ({expected}); it has {}", listed(found))]
    MissingColumn { table: &'static str, column: &'static str, expected: DataType, found: Vec<String> },
    /// A column of a type that has no lossless reading as the expected one.
    #[error("column `{column}` of table `{table}` is {found}, expected {expected}")]
    WrongType { table: &'static str, column: &'static str, expected: DataType, found: DataType },
    /// A null where the column has none. `row` counts from 0 within the batch.
    #[error("column `{column}` of table `{table}` is null in row {row}, expected {expected}")]
    Null { table: &'static str, column: &'static str, expected: DataType, row: usize },
    /// A value outside a closed list of words. `row` counts from 0 within the batch.
    #[error("column `{column}` of table `{table}` is `{found}` in row {row}, expected {}", listed(expected))]
    UnknownWord { table: &'static str, column: &'static str, expected: Vec<String>, found: String, row: usize },
    /// A value that does not fit the expected type, such as a negative count.
    #[error("convert column `{column}` of table `{table}` from {found} to {expected}")]
    Convert { table: &'static str, column: &'static str, expected: DataType, found: DataType, source: ArrowError },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "no columns".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
