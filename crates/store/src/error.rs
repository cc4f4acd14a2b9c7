//! What can go wrong in the store, sorted by what the caller may do about it: choose another folder
//! (`ReadOnly`), another program (`NewerFormat`), recompute (`Corrupt`), or free the disk (`Io`).

use std::io;
use std::path::{Path, PathBuf};

use arrow::error::ArrowError;
use parquet::errors::ParquetError;

use crate::digest::{ContentHash, StageKey};
use crate::runs::RunId;
use crate::tags::TagName;

/// An operation of the store that did not happen. Nothing half-written is ever left in its place.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder was written by a newer program.
    #[error(
        "store `{}` has format {found}, this program reads up to {supported}; use the newer program, or another store folder",
        root.display()
    )]
    NewerFormat {
        /// The store's folder.
        root: PathBuf,
        /// The version in its `format` file.
        found: u32,
        /// The newest version this program knows.
        supported: u32,
    },
    /// The `format` file holds something else.
    #[error("`{}` should say `sluice-store N`, and does not; is this the store? choose another folder if not", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// The folder holds other things than a store, or is no folder.
    #[error("`{}` is {what}, not a store; name a folder that is empty or not there yet", root.display())]
    Taken {
        /// The path that was to be the store's folder.
        root: PathBuf,
        /// What is there instead.
        what: &'static str,
    },
    /// The folder cannot be written to. Reading goes on working.
    #[error("{operation} `{}`: the store is read-only; make the folder writable, or choose another store", path.display())]
    ReadOnly {
        /// What was attempted, e.g. `create folder`.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk is full. What was there before is untouched.
    #[error("{operation} `{}`: no space left; free some, then run again: finished stages are kept", path.display())]
    NoSpace {
        /// What was attempted.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Any other answer of the operating system.
    #[error("{operation} `{}`", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Stored bytes are not the bytes that were written.
    #[error(
        "`{}` is damaged: its content has digest {found}, not {expected}; `fsck --repair` takes it away, and the next run makes it again",
        path.display()
    )]
    Corrupt {
        /// The damaged file or folder.
        path: PathBuf,
        /// The digest it was stored under.
        expected: ContentHash,
        /// The digest it has now.
        found: ContentHash,
    },
    /// A JSON file of the store does not parse.
    #[error("read `{}`: it is not what this program writes; delete it, it will be recomputed", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where the text stops making sense.
        source: serde_json::Error,
    },
    /// A value has no JSON form. Only a non-finite number can cause this.
    #[error("encode `{}`", path.display())]
    Encode {
        /// The file that was to be written.
        path: PathBuf,
        /// Which value.
        source: serde_json::Error,
    },
    /// A record was written by a newer program.
    #[error("record `{}` has version {found}, this program reads up to {supported}; use the newer program", path.display())]
    NewerRecord {
        /// The record's file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version this program knows.
        supported: u32,
    },
    /// A file was written by a newer program.
    #[error("{what} `{}` has version {found}, this program reads up to {supported}; use the newer program", path.display())]
    NewerFile {
        /// What the file is, such as `run manifest`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version this program knows.
        supported: u32,
    },
    /// A file that should end with the digest of its text does not.
    #[error("`{}` is damaged: it does not end with the digest of its text", path.display())]
    Unsealed {
        /// The file.
        path: PathBuf,
    },
    /// A stored artifact is not there any more.
    #[error("`{}` is gone from the store; run again, it will be recomputed", path.display())]
    Gone {
        /// Where it should be.
        path: PathBuf,
        /// Its digest.
        expected: ContentHash,
    },
    /// A tag names another run.
    #[error("tag `{name}` names run {from}; `--force` makes it name {to}")]
    TagTaken {
        /// The tag.
        name: TagName,
        /// The run it names.
        from: RunId,
        /// The run it should name.
        to: RunId,
    },
    /// Rows could not be encoded as, or read from, Parquet.
    #[error("{operation} table `{table}`")]
    Parquet {
        /// What was attempted.
        operation: &'static str,
        /// The table's output name, or its path when reading.
        table: String,
        /// The codec's answer.
        source: ParquetError,
    },
    /// Rows could not be brought into canonical form.
    #[error("{operation} table `{table}`")]
    Arrow {
        /// What was attempted.
        operation: &'static str,
        /// The table's output name, or its path when reading.
        table: String,
        /// Arrow's answer.
        source: ArrowError,
    },
    /// A column has a type no logical digest is defined for.
    #[error(
        "column `{column}` has type {data_type}, which a stored table cannot hold; cast it to text, a number or a list first"
    )]
    ColumnType {
        /// The column, with the path into nested fields.
        column: String,
        /// Its Arrow type.
        data_type: String,
    },
    /// A batch does not have the columns its table was opened with.
    #[error("table `{table}` was opened with columns ({expected}), and got a batch with ({found})")]
    BatchSchema {
        /// The table's output name.
        table: String,
        /// The columns of the writer.
        expected: String,
        /// The columns of the batch.
        found: String,
    },
    /// A commit names an output this attempt did not write.
    #[error("commit {key}: output `{output}` was not written by this attempt")]
    UnwrittenOutput {
        /// The key that was to be committed.
        key: StageKey,
        /// The output's name.
        output: String,
    },
    /// An output is not of the kind the caller asked for.
    #[error("output `{output}` is a {found}, not a {wanted}")]
    OutputKind {
        /// The output's name.
        output: String,
        /// What it is: `table` or `checkpoint`.
        found: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
}

impl StoreError {
    /// Whether stored bytes are not those that were written, or are gone: making them again mends it.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Json { .. } | Self::Unsealed { .. } | Self::Gone { .. })
    }

    /// The stored file that is damaged or gone.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Corrupt { path, .. }
            | Self::Json { path, .. }
            | Self::Unsealed { path }
            | Self::Gone { path, .. }
            | Self::NewerRecord { path, .. }
            | Self::NewerFile { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The digest of the artifact that is damaged or gone.
    pub fn damaged_artifact(&self) -> Option<ContentHash> {
        match self {
            Self::Corrupt { expected, .. } | Self::Gone { expected, .. } => Some(*expected),
            _ => None,
        }
    }

    /// The error for an answer of the operating system, sorted by what helps against it.
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::ReadOnly { operation, path, source }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { operation, path, source },
            _ => Self::Io { operation, path, source },
        }
    }

    /// The error for a failed read, where a refusal is about reading and not about the store being read-only.
    pub(crate) fn read(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }
}
