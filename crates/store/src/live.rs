//! What an attempt tells while it works: the rows so far of a table that is not finished. It owns where they lie and that
//! none is read half-written, and refuses to know what they say.
//!
//! They are lines of JSON in `tmp/KEY.PID.N/NAME.live` and go with the attempt. No result comes of them, so they are not
//! synced, and nobody reads those that a dead attempt left.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use arrow::json::{LineDelimitedWriter, ReaderBuilder};

use crate::attempt::Attempt;
use crate::digest::StageKey;
use crate::error::StoreError;
use crate::lock;
use crate::store::Store;

/// Rows that are shown before their table is finished.
pub struct LiveRows {
    name: String,
    path: PathBuf,
    file: File,
}

impl Attempt {
    /// Begins to tell the rows of the table `name`, once for each name.
    ///
    /// # Errors
    /// `ReadOnly`, `NoSpace`, `Io`.
    pub fn live_rows(&self, name: &str) -> Result<LiveRows, StoreError> {
        let path = self.path().join(file_name(name));
        let file = File::create_new(&path).map_err(|error| StoreError::io("create", &path, error))?;
        Ok(LiveRows { name: name.to_owned(), path, file })
    }
}

impl LiveRows {
    /// Tells further rows; who asks from now on sees them. A number that is not finite has no form here and reads as null.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub fn append(&mut self, rows: &RecordBatch) -> Result<(), StoreError> {
        let mut lines = Vec::new();
        let mut writer = LineDelimitedWriter::new(&mut lines);
        let written = writer.write(rows).and_then(|()| writer.finish());
        written.map_err(|source| failed("tell rows of", &self.name, source))?;
        self.file.write_all(&lines).map_err(|error| StoreError::io("append to", &self.path, error))
    }
}

impl Store {
    /// The rows so far of a table that somebody is making for a key: none if nobody is, or does not tell.
    ///
    /// # Errors
    /// `Io`; `Arrow` for rows that are not of this schema.
    pub fn live_rows(
        &self,
        key: StageKey,
        name: &str,
        schema: &Schema,
    ) -> Result<Option<Vec<RecordBatch>>, StoreError> {
        if !lock::is_held(&self.layout().lock(key)) {
            return Ok(None);
        }
        for (_, folder) in self.layout().attempts()?.into_iter().filter(|(other, _)| *other == key) {
            let path = folder.join(file_name(name));
            match fs::read(&path) {
                Ok(lines) => {
                    return read(&lines, schema).map(Some).map_err(|source| failed("read rows of", name, source));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::read("read", &path, error)),
            }
        }
        Ok(None)
    }
}

fn file_name(table: &str) -> String {
    format!("{table}.live")
}

/// The rows of all whole lines.
fn read(lines: &[u8], schema: &Schema) -> Result<Vec<RecordBatch>, ArrowError> {
    let n_whole = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let nullable = |field: &Arc<Field>| field.as_ref().clone().with_nullable(true);
    let schema = Schema::new(schema.fields().iter().map(nullable).collect::<Vec<_>>());
    ReaderBuilder::new(Arc::new(schema)).build(&lines[..n_whole])?.collect()
}

fn failed(operation: &'static str, table: &str, source: ArrowError) -> StoreError {
    StoreError::Arrow { operation, table: table.to_owned(), source }
}
