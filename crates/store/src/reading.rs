//! Reading artifacts back. Bytes are checked against their digest the first time a process reads them, so that
//! damage is an error here and never a wrong row later. That holds for checkpoints, too: who reads one reads all of it,
//! and a bit that flips on the disk changes neither size nor time of a file.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rayon::prelude::*;

use crate::attempt::hash_folder;
use crate::digest::ContentHash;
use crate::disk;
use crate::divided::divided;
use crate::error::StoreError;
use crate::layout::Layout;
use crate::record::{Artifact, Output, Record};
use crate::store::Store;

/// Rows of a batch that is read.
const BATCH_ROWS: usize = 8192;

impl Store {
    /// All rows of a table output, in order, as batches with the schema the table was written with.
    ///
    /// # Errors
    /// `OutputKind` for a checkpoint, `Corrupt` when the bytes are not those that were written, `Gone` when there are
    /// none.
    pub fn read_table(&self, output: &Output) -> Result<Vec<RecordBatch>, StoreError> {
        read_parquet(&self.table_path(output)?)
    }

    /// The Arrow schema of a table output, from the file's footer.
    pub fn table_schema(&self, output: &Output) -> Result<SchemaRef, StoreError> {
        let path = self.table_path(output)?;
        Ok(open_parquet(&path)?.schema().clone())
    }

    /// The Parquet file of a table output, checked.
    pub fn table_path(&self, output: &Output) -> Result<PathBuf, StoreError> {
        output.table()?;
        self.verified_path(output)
    }

    /// The folder of a checkpoint output, checked.
    pub fn checkpoint_path(&self, output: &Output) -> Result<PathBuf, StoreError> {
        output.checkpoint()?;
        self.verified_path(output)
    }

    /// Where a checkpoint output is; nothing is read.
    pub fn checkpoint_place(&self, output: &Output) -> Result<PathBuf, StoreError> {
        Ok(self.layout().checkpoint(output.checkpoint()?.folder))
    }

    /// Reads an artifact whole, whether or not this process has checked it before.
    ///
    /// # Errors
    /// `Corrupt` when the bytes are not those that were written, `Gone` when there are none, `Io`.
    pub fn verify(&self, output: &Output) -> Result<(), StoreError> {
        verify(self.layout(), &output.artifact).map(drop)
    }

    fn verified_path(&self, output: &Output) -> Result<PathBuf, StoreError> {
        let (path, hash) = address(self.layout(), &output.artifact);
        self.verify_once(hash, || self.verify(output))?;
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

/// Where an artifact is, and the digest of its bytes.
pub(crate) fn address(layout: &Layout, artifact: &Artifact) -> (PathBuf, ContentHash) {
    let hash = artifact.content();
    match artifact {
        Artifact::Table(_) => (layout.object(hash), hash),
        Artifact::Checkpoint(_) => (layout.checkpoint(hash), hash),
    }
}

/// Reads an artifact whole.
///
/// # Errors
/// `Corrupt` when the bytes are not those that were written, `Gone` when there are none, `Io`.
pub(crate) fn verify(layout: &Layout, artifact: &Artifact) -> Result<(), StoreError> {
    let (path, expected) = address(layout, artifact);
    let found = match artifact {
        Artifact::Table(_) => disk::hash_file(&path),
        Artifact::Checkpoint(_) => hash_folder(&path),
    };
    match found {
        Ok(found) if found == expected => Ok(()),
        Ok(found) => Err(StoreError::Corrupt { path, expected, found }),
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::Gone { path, expected })
        }
        Err(error) => Err(error),
    }
}

/// All rows of a Parquet file, in order.
pub(crate) fn read_parquet(path: &Path) -> Result<Vec<RecordBatch>, StoreError> {
    let n_groups = open_parquet(path)?.metadata().num_row_groups();
    if n_groups <= 1 {
        return if n_groups == 0 { Ok(Vec::new()) } else { read_group(path, 0) };
    }
    // Each processor decodes a row group of its own.
    let read = || (0..n_groups).into_par_iter().map(|group| read_group(path, group)).collect::<Result<Vec<_>, _>>();
    Ok(divided(read)?.into_iter().flatten().collect())
}

fn open_parquet(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, StoreError> {
    let file = File::open(path).map_err(|error| StoreError::read("open table", path, error))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|source| parquet_error(path, source))
}

/// The rows of one row group.
fn read_group(path: &Path, group: usize) -> Result<Vec<RecordBatch>, StoreError> {
    let reader = open_parquet(path)?.with_batch_size(BATCH_ROWS).with_row_groups(vec![group]).build();
    let reader = reader.map_err(|source| parquet_error(path, source))?;
    reader.collect::<Result<_, _>>().map_err(|source| StoreError::Arrow {
        operation: "read",
        table: path.display().to_string(),
        source,
    })
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
