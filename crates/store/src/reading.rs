//! Reading artifacts back. Bytes are checked against their digest the first time a process reads them, so that
//! damage is an error here and never a wrong row later.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::attempt::hash_folder;
use crate::digest::ContentHash;
use crate::disk;
use crate::error::StoreError;
use crate::layout::Layout;
use crate::record::{Artifact, Output, Record};
use crate::stat_cache::FolderDigestError;
use crate::store::Store;

impl Store {
    /// All rows of a table output, in order, as batches with the schema the table was written with.
    ///
    /// # Errors
    /// `OutputKind` for a checkpoint, `Corrupt` when the bytes are not those that were written, `Io` when the
    /// file is gone.
    pub fn read_table(&self, output: &Output) -> Result<Vec<RecordBatch>, StoreError> {
        let path = self.table_path(output)?;
        let reader = open_parquet(&path)?.build().map_err(|source| parquet_error(&path, source))?;
        reader.collect::<Result<_, _>>().map_err(|source| StoreError::Arrow {
            operation: "read",
            table: path.display().to_string(),
            source,
        })
    }

    /// The Arrow schema of a table output, from the file's footer.
    pub fn table_schema(&self, output: &Output) -> Result<SchemaRef, StoreError> {
        let path = self.table_path(output)?;
        Ok(open_parquet(&path)?.schema().clone())
    }

    /// The Parquet file of a table output, checked.
    pub fn table_path(&self, output: &Output) -> Result<PathBuf, StoreError> {
        let table = output.table()?;
        let path = self.layout().object(table.blob);
        self.verify_once(table.blob, || {
            let found = disk::hash_file(&path)?;
            check(&path, table.blob, found)
        })?;
        Ok(path)
    }

    /// The folder of a checkpoint output. It is hashed once, and again only if a file's size, time or inode
    /// changed: a checkpoint may be tens of gigabytes.
    pub fn checkpoint_path(&self, output: &Output) -> Result<PathBuf, StoreError> {
        let checkpoint = output.checkpoint()?;
        let path = self.layout().checkpoint(checkpoint.folder);
        self.verify_once(checkpoint.folder, || {
            let found = self
                .folder_digest(&path, "sealed folder v1", |path| hash_folder(path).map(|hash| *hash.as_bytes()))
                .map_err(|error| match error {
                    FolderDigestError::Store(error) | FolderDigestError::Compute(error) => error,
                })?;
            check(&path, checkpoint.folder, ContentHash::from_bytes(found))
        })?;
        Ok(path)
    }

    fn verify_once(
        &self,
        hash: ContentHash,
        verify: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if self.verified().lock().unwrap_or_else(PoisonError::into_inner).contains(&hash) {
            return Ok(());
        }
        verify()?;
        self.verified().lock().unwrap_or_else(PoisonError::into_inner).insert(hash);
        Ok(())
    }
}

fn check(path: &Path, expected: ContentHash, found: ContentHash) -> Result<(), StoreError> {
    if expected == found { Ok(()) } else { Err(StoreError::Corrupt { path: path.to_owned(), expected, found }) }
}

fn open_parquet(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, StoreError> {
    let file = File::open(path).map_err(|error| StoreError::read("open table", path, error))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|source| parquet_error(path, source))
}

fn parquet_error(path: &Path, source: parquet::errors::ParquetError) -> StoreError {
    StoreError::Parquet { operation: "read", table: path.display().to_string(), source }
}

/// The first output of a record whose artifact is not there, or has another size than it was written with.
/// Costs a stat an output.
pub(crate) fn missing_output<'r>(layout: &Layout, record: &'r Record) -> Option<&'r Output> {
    record.outputs.iter().find(|output| match &output.artifact {
        Artifact::Table(table) => !fs::metadata(layout.object(table.blob)).is_ok_and(|file| file.len() == table.bytes),
        Artifact::Checkpoint(checkpoint) => !layout.checkpoint(checkpoint.folder).is_dir(),
    })
}
