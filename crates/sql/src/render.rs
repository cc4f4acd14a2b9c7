//! Answers as text: a table for people, CSV and JSON for programs. It knows nothing of queries.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;
use arrow::{csv, json};

use crate::error::SqlError;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Columns with borders; a cell shows one line of at most [`CELL_CHARS`] characters.
    Table,
    /// With a header line. Lists and maps are written as one text.
    Csv,
    /// One array of objects.
    Json,
    /// One object per line.
    Jsonl,
}

/// Longest cell of a [`Format::Table`], in characters; what is cut off is marked by an ellipsis.
pub const CELL_CHARS: usize = 72;

/// The batches, which are of one schema, as text that ends with a newline.
pub fn render(batches: &[RecordBatch], format: Format) -> Result<String, SqlError> {
    let (name, rendered) = match format {
        Format::Table => ("a table", table(batches)),
        Format::Csv => ("CSV", csv(batches)),
        Format::Json => ("JSON", json_array(batches)),
        Format::Jsonl => ("JSONL", json_lines(batches)),
    };
    rendered.map_err(|source| SqlError::Render { format: name, source })
}

fn table(batches: &[RecordBatch]) -> Result<String, ArrowError> {
    let cut: Vec<RecordBatch> =
        batches.iter().map(|batch| with_texts(batch, |_| true, one_line)).collect::<Result<_, _>>()?;
    Ok(format!("{}\n", pretty_format_batches(&cut)?))
}

fn csv(batches: &[RecordBatch]) -> Result<String, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = csv::WriterBuilder::new().with_header(true).build(&mut bytes);
    for batch in batches {
        writer.write(&with_texts(batch, DataType::is_nested, |text| text)?)?;
    }
    drop(writer);
    text(bytes)
}

fn json_array(batches: &[RecordBatch]) -> Result<String, ArrowError> {
    let mut writer =
        json::WriterBuilder::new().with_explicit_nulls(true).build::<_, json::writer::JsonArray>(Vec::new());
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    text(writer.into_inner()).map(|text| if text.is_empty() { "[]\n".to_owned() } else { text + "\n" })
}

fn json_lines(batches: &[RecordBatch]) -> Result<String, ArrowError> {
    let mut writer =
        json::WriterBuilder::new().with_explicit_nulls(true).build::<_, json::writer::LineDelimited>(Vec::new());
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    text(writer.into_inner())
}

fn text(bytes: Vec<u8>) -> Result<String, ArrowError> {
    String::from_utf8(bytes).map_err(|error| ArrowError::ExternalError(Box::new(error)))
}

/// The batch with each column of a chosen type written out as text, each cell passed through `shape`.
fn with_texts(
    batch: &RecordBatch,
    chosen: impl Fn(&DataType) -> bool,
    shape: impl Fn(String) -> String,
) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if chosen(field.data_type()) {
            fields.push(Field::new(field.name(), DataType::Utf8, true));
            columns.push(written_out(column, &shape)?);
        } else {
            fields.push(field.as_ref().clone());
            columns.push(column.clone());
        }
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

fn written_out(column: &ArrayRef, shape: &impl Fn(String) -> String) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let text = |row: usize| -> Result<Option<String>, ArrowError> {
        if column.is_null(row) {
            return Ok(None);
        }
        // Text is taken as it is; the formatter would do the same, more slowly.
        let text = match column.data_type() {
            DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
            _ => formatter.value(row).try_to_string()?,
        };
        Ok(Some(shape(text)))
    };
    let cells = (0..column.len()).map(text).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(StringArray::from(cells)))
}

fn one_line(text: String) -> String {
    let text = text.replace('\n', "\\n").replace(['\r', '\t'], " ");
    match text.char_indices().nth(CELL_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
