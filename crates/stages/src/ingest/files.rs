//! The files that prompts are read from, and their rows in file order. It owns how a file is found, opened and told of; it
//! refuses to judge rows.

use std::path::{Path, PathBuf};

use sluice_spec::stage::ingest::{Format, Ingest};
use sluice_sql::{Condition, DataFile, DataFormat, Session, matching};

use super::IngestError;
use super::columns::{Columns, Values};
use crate::StageError;

/// Files with their paths, sorted by these.
pub(super) type Files<'a> = Vec<(PathBuf, DataFile<'a>)>;

/// How files are read, the same for all of them.
pub(super) struct Reading<'a> {
    session: &'a Session,
    project: &'a Path,
    format: Option<Format>,
    columns: Columns<'a>,
    filter: Option<&'a str>,
}

/// Some rows of a file, one after another.
pub(super) struct Rows {
    /// The path as the user would write it.
    pub file: String,
    /// The number in the file of the first of them.
    pub start: u64,
    pub values: Values,
}

impl<'a> Reading<'a> {
    pub(super) fn new(session: &'a Session, params: &'a Ingest, project: &'a Path) -> Self {
        let Ingest { from: _, heldout_from: _, format, map, keep, filter, dedup: _, limit: _, split } = params;
        let columns = Columns::of(map, split, keep);
        Self { session, project, format: format.value, columns, filter: filter.value.as_deref() }
    }

    /// The files of some patterns. That they have what is asked of them shows before a row is read.
    pub(super) fn open_all(&self, patterns: &[String]) -> Result<Files<'a>, StageError> {
        let paths = matching(self.project, patterns)?;
        paths.into_iter().map(|path| self.open(&path).map(|file| (path, file))).collect()
    }

    fn open(&self, path: &Path) -> Result<DataFile<'a>, StageError> {
        let format = match self.format {
            Some(Format::Parquet) => DataFormat::Parquet,
            Some(Format::Jsonl) => DataFormat::Jsonl,
            Some(Format::Csv) => DataFormat::Csv,
            None => {
                DataFormat::of_extension(path).map_err(|_| IngestError::UnknownFormat { file: self.shown(path) })?
            }
        };
        let file = DataFile::open(self.session, path, format, &self.columns.text_names())?;
        self.columns.check(&self.shown(path), &file.schema())?;
        Ok(file)
    }

    /// All rows of a file.
    pub(super) fn rows(
        &self,
        path: &Path,
        file: &DataFile<'_>,
    ) -> Result<impl Iterator<Item = Result<Rows, StageError>>, StageError> {
        let condition = self.condition(file, path)?;
        let batches = file.scan(&self.columns.names(), condition)?;
        let mut n_before = 0;
        Ok(batches.map(move |batch| {
            let file = self.shown(path);
            let values = self.columns.values(&file, &batch?)?;
            let start = n_before;
            n_before += values.len() as u64;
            Ok(Rows { file, start, values })
        }))
    }

    fn condition(&self, file: &DataFile<'_>, path: &Path) -> Result<Option<Condition>, IngestError> {
        let asked = self.filter.map(|text| (text, file.condition(text)));
        asked
            .map(|(text, condition)| {
                let failed = |source| IngestError::Condition { text: text.to_owned(), file: self.shown(path), source };
                condition.map_err(failed)
            })
            .transpose()
    }

    /// The path as the user would write it.
    pub(super) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(self.project).unwrap_or(path).display().to_string()
    }
}

impl Rows {
    /// The name of the file, without folders.
    pub(super) fn source(&self) -> &str {
        Path::new(&self.file).file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}
