//! `ingest`: the user's files become prompts. It owns the order in which rows are judged: condition, empty text,
//! contamination, duplicates, split, limit. It refuses to know what the prompts are for.
//!
//! Files are read one after another, sorted by path, each in file order, so equal files give an equal table.

mod columns;
mod kept;
mod limited;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use sluice_spec::stage::ingest::{Format, Ingest, Split as SplitParams};
use sluice_sql::{Condition, DataFile, DataFormat, Session, SqlError, matching};
use sluice_table::{PromptId, PromptRow, Prompts, PromptsBuilder, Split, Vocabulary};

use crate::{Produced, Progress, StageContext, StageError};
use columns::{Columns, Values};
use kept::KeptValues;

/// Rows that a batch of the output has at least, but for the last.
const BATCH_ROWS: usize = 8192;

/// Files that give no prompts.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("{file} has no rows")]
    EmptyFile { file: String },
    #[error("the extension of {file} is none of parquet, jsonl, ndjson and csv; say what it is, as in `format: jsonl`")]
    UnknownFormat { file: String },
    #[error(
        "{file} has no column `{column}` to read `{role}` from; it has {}{}",
        present.join(", "),
        suggestion.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
    )]
    MissingColumn { file: String, column: String, role: &'static str, present: Vec<String>, suggestion: Option<String> },
    #[error("column `{column}` of {file} is {found}, but `{role}` is read from {expected}")]
    ColumnType { file: String, column: String, role: &'static str, found: DataType, expected: &'static str },
    #[error(
        "`keep` names column `{column}`, which is {first_type} in {first} and {second_type} in {second}; it must have one \
         type in all files"
    )]
    KeptTypes { column: String, first: String, first_type: DataType, second: String, second_type: DataType },
    #[error("take over the columns that `keep` names")]
    Keep { source: ArrowError },
    #[error("take {limit} prompts of each split")]
    Limit { limit: u32, source: ArrowError },
    #[error("apply the condition `{text}` to {file}")]
    Condition { text: String, file: String, source: SqlError },
    #[error("row {row} of {file} has the split `{found}`, expected {}", expected.join(" or "))]
    UnknownSplit { file: String, row: u64, found: String, expected: Vec<String> },
    #[error("the files have no rows")]
    NoRows,
    #[error("none of {n_read} rows gives a prompt: {}", reasons.join(", "))]
    NothingLeft { n_read: u64, reasons: Vec<String> },
}

pub fn run(params: &Ingest, context: &StageContext<'_>) -> Result<Produced, StageError> {
    let Ingested { schema, batches, counts } = ingest(params, context.project, &|n_read| {
        context.report(Progress::rows(n_read, None));
        context.stop_if_cancelled()
    })?;
    let output = context.write_table(Prompts::NAME, schema, batches.into_iter().map(Ok))?;
    Ok(Produced::new(vec![output]).with_metrics(counts.metrics()))
}

/// The prompts of some files.
#[derive(Debug)]
pub struct Ingested {
    /// The columns of a `prompts` table, and behind them the kept ones.
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    pub counts: Counts,
}

/// What became of the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub n_read: u64,
    /// The condition was not true.
    pub n_filtered: u64,
    /// The prompt was absent or had only blanks.
    pub n_empty: u64,
    /// The prompt was met before.
    pub n_duplicates: u64,
    /// The prompt is also in the held-out files.
    pub n_contaminated: u64,
    /// The prompt is not among the first of its split.
    pub n_past_limit: u64,
    pub n_train: u64,
    pub n_heldout: u64,
}

/// Reads the files of a stage. `after_batch` is told how many rows were read so far, and may stop the reading.
pub fn ingest(
    params: &Ingest,
    project: &Path,
    after_batch: &dyn Fn(u64) -> Result<(), StageError>,
) -> Result<Ingested, StageError> {
    let Ingest { from, heldout_from, format, map, keep, filter, dedup, limit, split } = params;
    let reading = Reading {
        session: Session::new(Vec::new())?,
        project,
        format: format.value,
        columns: Columns::of(map, split, keep),
        filter: filter.value.as_deref(),
        after_batch,
    };

    let train_files = reading.open_all(&from.value)?;
    let heldout_files = heldout_from.as_ref().map(|patterns| reading.open_all(&patterns.value)).transpose()?;
    let heldout_files = heldout_files.unwrap_or_default();
    let schemas = train_files.iter().chain(&heldout_files).map(|(path, file)| (reading.shown(path), file.schema()));
    let schema = kept::schema(keep.names(), &schemas.collect::<Vec<_>>())?;

    // Held-out files come first although their rows stand last: a prompt in both must not be trained on.
    let mut heldout = Gathered::new(dedup.value, HashSet::new(), &schema);
    heldout.read(&reading, &heldout_files, &|_, _| Split::Heldout)?;
    let mut train = Gathered::new(dedup.value, std::mem::take(&mut heldout.seen), &schema);
    train.counts.n_read = heldout.counts.n_read;
    train.read(&reading, &train_files, &|id, written| written.unwrap_or_else(|| split_by_digest(id, split)))?;

    let counts = train.counts.and(heldout.counts);
    if counts.n_train + counts.n_heldout == 0 {
        return Err(counts.nothing_left().into());
    }
    let batches = train.finish()?.into_iter().chain(heldout.finish()?).collect();
    let ingested = Ingested { schema, batches, counts };
    match limit.value {
        Some(limit) => limited::limited(ingested, limit.get()),
        None => Ok(ingested),
    }
}

/// Which split a prompt falls into: its digest, salted with the seed, as a number from 0 to 1, is below the share.
fn split_by_digest(id: PromptId, split: &SplitParams) -> Split {
    let SplitParams { column: _, heldout, seed } = split;
    let mut hasher = blake3::Hasher::new_derive_key("sluice split v1");
    hasher.update(&seed.value.get().to_le_bytes());
    hasher.update(id.as_bytes());
    let mut head = [0; 8];
    hasher.finalize_xof().fill(&mut head);
    // The upper 53 bits are exactly a double.
    let position = (u64::from_le_bytes(head) >> 11) as f64 / (1_u64 << 53) as f64;
    if position < heldout.value.get() { Split::Heldout } else { Split::Train }
}

/// How files are read, the same for all of them.
struct Reading<'a> {
    session: Session,
    project: &'a Path,
    format: Option<Format>,
    columns: Columns<'a>,
    filter: Option<&'a str>,
    after_batch: &'a dyn Fn(u64) -> Result<(), StageError>,
}

impl Reading<'_> {
    /// The files of some patterns, sorted by path. That they have what is asked of them shows before a row is read.
    fn open_all(&self, patterns: &[String]) -> Result<Vec<(PathBuf, DataFile<'_>)>, StageError> {
        let paths = matching(self.project, patterns)?;
        paths.into_iter().map(|path| self.open(&path).map(|file| (path, file))).collect()
    }

    fn open(&self, path: &Path) -> Result<DataFile<'_>, StageError> {
        let format = match self.format {
            Some(Format::Parquet) => DataFormat::Parquet,
            Some(Format::Jsonl) => DataFormat::Jsonl,
            Some(Format::Csv) => DataFormat::Csv,
            None => {
                DataFormat::of_extension(path).map_err(|_| IngestError::UnknownFormat { file: self.shown(path) })?
            }
        };
        let file = DataFile::open(&self.session, path, format, &self.columns.text_names())?;
        self.columns.check(&self.shown(path), &file.schema())?;
        Ok(file)
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
    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(self.project).unwrap_or(path).display().to_string()
    }
}

/// Decides the split of a row from its prompt and from what the file says, if it says anything.
type SplitRule<'r> = dyn Fn(PromptId, Option<Split>) -> Split + 'r;

/// Rows that were kept so far, and what the next ones are judged by.
struct Gathered {
    dedup: bool,
    seen: HashSet<PromptId>,
    /// Prompts of the held-out files.
    reserved: HashSet<PromptId>,
    builder: PromptsBuilder,
    kept: KeptValues,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    counts: Counts,
}

impl Gathered {
    fn new(dedup: bool, reserved: HashSet<PromptId>, schema: &SchemaRef) -> Self {
        Self {
            dedup,
            seen: HashSet::new(),
            reserved,
            builder: PromptsBuilder::new(),
            kept: KeptValues::new(schema.fields().len() - Prompts::schema().fields().len()),
            schema: schema.clone(),
            batches: Vec::new(),
            counts: Counts::default(),
        }
    }

    fn read(
        &mut self,
        reading: &Reading<'_>,
        files: &[(PathBuf, DataFile<'_>)],
        rule: &SplitRule<'_>,
    ) -> Result<(), StageError> {
        files.iter().try_for_each(|(path, file)| self.read_file(reading, path, file, rule))
    }

    fn read_file(
        &mut self,
        reading: &Reading<'_>,
        path: &Path,
        file: &DataFile<'_>,
        rule: &SplitRule<'_>,
    ) -> Result<(), StageError> {
        let source = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let mut source_row = 0;
        let condition = reading.condition(file, path)?;
        for batch in file.scan(&reading.columns.names(), condition)? {
            let values = reading.columns.values(&reading.shown(path), &batch?)?;
            let mut taken = Vec::new();
            for row in 0..values.len() {
                let written = values
                    .split(row)
                    .map(|word| {
                        word.parse::<Split>().map_err(|_| IngestError::UnknownSplit {
                            file: reading.shown(path),
                            row: source_row,
                            found: word.to_owned(),
                            expected: Split::ALL.iter().map(|split| format!("`{split}`")).collect(),
                        })
                    })
                    .transpose();
                if self.judge(&values, row, &source, source_row, |id| Ok(rule(id, written?)))? {
                    taken.push(row as u64);
                }
                source_row += 1;
            }
            self.kept.push(values.kept(), taken).map_err(|source| IngestError::Keep { source })?;
            if self.builder.len() >= BATCH_ROWS {
                self.close_batch()?;
            }
            (reading.after_batch)(self.counts.n_read)?;
        }
        Ok(())
    }

    /// Takes a row up if nothing speaks against it, and says whether it did.
    fn judge(
        &mut self,
        values: &Values,
        row: usize,
        source: &str,
        source_row: u64,
        split: impl FnOnce(PromptId) -> Result<Split, IngestError>,
    ) -> Result<bool, IngestError> {
        self.counts.n_read += 1;
        if !values.keep(row) {
            self.counts.n_filtered += 1;
            return Ok(false);
        }
        let Some(prompt) = values.prompt(row).filter(|prompt| !prompt.trim().is_empty()) else {
            self.counts.n_empty += 1;
            return Ok(false);
        };
        let id = PromptId::of(prompt);
        if self.reserved.contains(&id) {
            self.counts.n_contaminated += 1;
            return Ok(false);
        }
        if !self.seen.insert(id) && self.dedup {
            self.counts.n_duplicates += 1;
            return Ok(false);
        }
        let split = split(id)?;
        match split {
            Split::Train => self.counts.n_train += 1,
            Split::Heldout => self.counts.n_heldout += 1,
        }
        self.builder.push(PromptRow {
            prompt_id: &id.to_string(),
            prompt,
            reference: values.reference(row),
            group: values.group(row),
            split,
            source,
            source_row,
            response: values.response(row),
            label: values.label(row),
        });
        Ok(true)
    }

    fn close_batch(&mut self) -> Result<(), IngestError> {
        let batch = self.kept.append_to(&self.builder.finish(), &self.schema);
        self.batches.push(batch.map_err(|source| IngestError::Keep { source })?);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<RecordBatch>, IngestError> {
        if !self.builder.is_empty() {
            self.close_batch()?;
        }
        Ok(self.batches)
    }
}

impl Counts {
    /// Of two readings, the first of which went on counting `n_read` where the other stopped.
    fn and(self, other: Counts) -> Self {
        Self {
            n_read: self.n_read,
            n_filtered: self.n_filtered + other.n_filtered,
            n_empty: self.n_empty + other.n_empty,
            n_duplicates: self.n_duplicates + other.n_duplicates,
            n_contaminated: self.n_contaminated + other.n_contaminated,
            n_past_limit: self.n_past_limit + other.n_past_limit,
            n_train: self.n_train + other.n_train,
            n_heldout: self.n_heldout + other.n_heldout,
        }
    }

    /// By the names the record has them under.
    pub fn metrics(self) -> [(&'static str, f64); 8] {
        let Counts { n_read, n_filtered, n_empty, n_duplicates, n_contaminated, n_past_limit, n_train, n_heldout } =
            self;
        [
            ("rows_read", n_read as f64),
            ("dropped_where", n_filtered as f64),
            ("dropped_empty", n_empty as f64),
            ("dropped_duplicate", n_duplicates as f64),
            ("dropped_contaminated", n_contaminated as f64),
            ("dropped_limit", n_past_limit as f64),
            ("train", n_train as f64),
            ("heldout", n_heldout as f64),
        ]
    }

    fn nothing_left(self) -> IngestError {
        let Counts { n_read, n_filtered, n_empty, n_contaminated, .. } = self;
        if n_read == 0 {
            return IngestError::NoRows;
        }
        let reasons = [
            (n_filtered, "do not meet `where`"),
            (n_empty, "have no text in the prompt column"),
            (n_contaminated, "are in the held-out files too"),
        ];
        let reasons = reasons.iter().filter(|(n, _)| *n > 0).map(|(n, reason)| format!("{n} {reason}"));
        IngestError::NothingLeft { n_read, reasons: reasons.collect() }
    }
}
