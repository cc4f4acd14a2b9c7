//! The further columns that `ingest` takes over from the files: that the files agree on their types, and their values
//! in the rows that stay. It refuses to look at a value, so a column may be of any type.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use sluice_table::Prompts;

use super::IngestError;

/// The columns of the table: those of every `prompts` table, and behind them the kept ones.
///
/// A kept column is nullable where it is in one of the files. Metadata of a file's column is not taken over.
pub(super) fn schema(names: &[String], files: &[(String, SchemaRef)]) -> Result<SchemaRef, IngestError> {
    let mut fields = Prompts::schema().fields().to_vec();
    for name in names {
        let mut agreed: Option<(&str, Field)> = None;
        for (file, schema) in files {
            let Ok(found) = schema.field_with_name(name) else { continue };
            match &mut agreed {
                None => agreed = Some((file, Field::new(name, found.data_type().clone(), found.is_nullable()))),
                Some((_, field)) if field.data_type() == found.data_type() => {
                    field.set_nullable(field.is_nullable() || found.is_nullable());
                }
                Some((first, field)) => {
                    return Err(IngestError::KeptTypes {
                        column: name.clone(),
                        first: (*first).to_owned(),
                        first_type: field.data_type().clone(),
                        second: file.clone(),
                        second_type: found.data_type().clone(),
                    });
                }
            }
        }
        fields.extend(agreed.map(|(_, field)| Arc::new(field)));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The values of the kept columns in the rows gathered so far.
pub(super) struct KeptValues {
    /// For each column one array per scanned batch.
    columns: Vec<Vec<ArrayRef>>,
}

impl KeptValues {
    pub(super) fn new(n_columns: usize) -> Self {
        Self { columns: vec![Vec::new(); n_columns] }
    }

    /// Adds some rows of a scanned batch; how many bytes they take.
    pub(super) fn push(&mut self, scanned: &[ArrayRef], rows: Vec<u64>) -> Result<usize, ArrowError> {
        let rows = UInt64Array::from(rows);
        let mut n_bytes = 0;
        for (pieces, column) in self.columns.iter_mut().zip(scanned) {
            let piece = take(column, &rows, None)?;
            n_bytes += piece.get_buffer_memory_size();
            pieces.push(piece);
        }
        Ok(n_bytes)
    }

    /// Puts the columns behind those of `prompts`, which has the same rows; none are left.
    pub(super) fn append_to(&mut self, prompts: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        let mut columns = prompts.columns().to_vec();
        for pieces in &mut self.columns {
            let pieces = std::mem::take(pieces);
            let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
            columns.push(concat(&pieces)?);
        }
        RecordBatch::try_new(schema.clone(), columns)
    }
}
