//! Writes one table of an attempt: Arrow batches in, a Parquet file and its two digests out, all in one
//! pass. It refuses to know what the columns mean.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::attempt::Attempt;
use crate::disk::HashingWriter;
use crate::divided::divided;
use crate::error::StoreError;
use crate::logical::LogicalHasher;
use crate::record::{Artifact, TableArtifact};

/// Rows of a row group. Small enough that a scan can be divided and that texts of a few kilobytes each stay
/// well below a gigabyte of buffer; large enough that the footer is nothing.
const ROW_GROUP_ROWS: usize = 1 << 17;
const ROW_GROUP_BYTES: usize = 128 << 20;

/// Bytes of a batch from which on hashing it and writing it are worth two threads.
const DIVIDED_BYTES: usize = 1 << 20;

/// An open table of an attempt. Dropping it without `finish` leaves nothing behind.
pub struct TableWriter<'a> {
    attempt: &'a Attempt,
    name: String,
    path: PathBuf,
    schema: SchemaRef,
    parquet: ArrowWriter<HashingWriter<File>>,
    logical: LogicalHasher,
    n_rows: u64,
}

impl<'a> TableWriter<'a> {
    pub(crate) fn create(attempt: &'a Attempt, name: &str, schema: SchemaRef) -> Result<Self, StoreError> {
        let path = attempt.path().join(format!("{name}.parquet"));
        let file = File::create_new(&path).map_err(|error| StoreError::io("create table", &path, error))?;
        let logical = LogicalHasher::new(&schema)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .build();
        let parquet = ArrowWriter::try_new(HashingWriter::new(file), schema.clone(), Some(properties))
            .map_err(|source| StoreError::Parquet { operation: "open", table: name.to_owned(), source })?;
        Ok(Self { attempt, name: name.to_owned(), path, schema, parquet, logical, n_rows: 0 })
    }

    /// The schema the table was opened with.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Add rows. A column may come in another encoding of its type (dictionary, view, other offsets).
    ///
    /// # Errors
    /// `BatchSchema` when names or types are not those of the table, `NoSpace` and others from writing.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        let conformed;
        let batch = if batch.schema_ref() == &self.schema {
            batch
        } else {
            conformed = self.conform(batch)?;
            &conformed
        };
        let (logical, parquet) = (&mut self.logical, &mut self.parquet);
        let (hashed, written) = if batch.get_array_memory_size() < DIVIDED_BYTES {
            (logical.update(batch), parquet.write(batch))
        } else {
            divided(|| rayon::join(|| logical.update(batch), || parquet.write(batch)))
        };
        hashed?;
        written.map_err(|source| self.parquet_error("write", source))?;
        self.n_rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Close, and hand the file to the attempt, which publishes and syncs it when it commits.
    pub fn finish(self) -> Result<TableArtifact, StoreError> {
        let Self { attempt, name, path, schema: _, mut parquet, logical, n_rows } = self;
        // Not `into_inner`, whose error has lost what the system answered: a full disk must not lose its advice.
        parquet.finish().map_err(|source| parquet_error("finish", &name, &path, source))?;
        parquet.sync().map_err(|error| StoreError::io("write", &path, error))?;
        let (blob, bytes) = parquet.inner().written();
        let file = parquet.inner().inner().try_clone().map_err(|error| StoreError::io("keep open", &path, error))?;
        let table = TableArtifact { digest: logical.finish(), blob, n_rows, bytes };
        attempt.keep(&name, path, Artifact::Table(table.clone()), Some(file));
        Ok(table)
    }

    fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch, StoreError> {
        let mismatch = || StoreError::BatchSchema {
            table: self.name.clone(),
            expected: columns_text(&self.schema),
            found: columns_text(batch.schema_ref()),
        };
        let names = |schema: &Schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let same_digest_type = |schema: &Schema| LogicalHasher::new(schema).map(|hasher| hasher.types_text());
        if names(&self.schema) != names(batch.schema_ref())
            || same_digest_type(&self.schema)? != same_digest_type(batch.schema_ref())?
        {
            return Err(mismatch());
        }
        let columns: Result<Vec<ArrayRef>, _> = batch
            .columns()
            .iter()
            .zip(self.schema.fields())
            .map(|(column, field)| {
                if column.data_type() == field.data_type() {
                    Ok(column.clone())
                } else {
                    cast(column, field.data_type())
                }
            })
            .collect();
        columns
            .and_then(|columns| RecordBatch::try_new(Arc::clone(&self.schema), columns))
            .map_err(|source| StoreError::Arrow { operation: "write", table: self.name.clone(), source })
    }

    fn parquet_error(&self, operation: &'static str, source: parquet::errors::ParquetError) -> StoreError {
        parquet_error(operation, &self.name, &self.path, source)
    }
}

/// The error for a failed Parquet write. A full disk comes wrapped, and must not lose its advice.
fn parquet_error(
    operation: &'static str,
    table: &str,
    path: &std::path::Path,
    source: parquet::errors::ParquetError,
) -> StoreError {
    use parquet::errors::ParquetError;
    match source {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(error) => StoreError::io(operation, path, *error),
            Err(cause) => {
                StoreError::Parquet { operation, table: table.to_owned(), source: ParquetError::External(cause) }
            }
        },
        source => StoreError::Parquet { operation, table: table.to_owned(), source },
    }
}

fn columns_text(schema: &Schema) -> String {
    let columns: Vec<String> =
        schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    columns.join(", ")
}
