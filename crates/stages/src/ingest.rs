//! `ingest`: the user's files become prompts. It owns the order of the table: files sorted by path, each in file order, the
//! held-out ones last, so that equal files give an equal table. It refuses to know what the prompts are for.
//!
//! Rows pass through: of those that were read only ids stay, 16 bytes for each text. What must be known of all of them
//! before the first can be written is found by reading once more beforehand: the prompts of the held-out files, which
//! must not be trained on, and under a limit the ids that come first.

mod columns;
mod files;
mod judge;
mod kept;
mod limited;
mod table;

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use sluice_spec::stage::ingest::Ingest;
use sluice_sql::{Session, SqlError};
use sluice_table::{Prompts, Split};

use crate::{Produced, Progress, StageContext, StageError};
use files::{Files, Reading, Rows};
pub use judge::Counts;
use judge::{Accepted, Judge, Rules};
use limited::FirstIds;
use table::Table;

/// Steps that reading may be ahead of writing.
const N_AHEAD: usize = 2;

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
    let session = Session::new(Vec::new())?;
    let files = PromptFiles::open(&session, params, context.project)?;
    let schema = files.schema().clone();
    // Reading and writing take about as long as each other, so each has a thread.
    let (send, steps) = sync_channel(N_AHEAD);
    let (written, read) = thread::scope(|scope| {
        // When nobody takes steps any more, writing has failed, and that is told.
        let mut pass_on = move |step| send.send(step).map_err(|_| StageError::Cancelled);
        let reader = scope.spawn(move || files.read(&mut pass_on));
        let batches = steps.into_iter().filter_map(|Step { n_read, prompts }| {
            context.report(Progress::rows(n_read, None));
            context.stop_if_cancelled().map(|()| prompts).transpose()
        });
        let written = context.write_table(Prompts::NAME, schema, batches);
        (written, reader.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let (output, counts) = (written?, read?);
    Ok(Produced::new(vec![output]).with_metrics(counts.metrics()))
}

/// A part of the reading.
pub struct Step {
    /// Rows read so far; from 0 again when the files are read once more.
    pub n_read: u64,
    /// The next rows of the table, when enough have come together.
    pub prompts: Option<RecordBatch>,
}

/// Takes the steps in order. An error ends the reading.
type Take<'t> = dyn FnMut(Step) -> Result<(), StageError> + 't;

/// Takes some rows, the prompts among them, and how many rows were read so far.
type TakeJudged<'t> = dyn FnMut(&Rows, &[Accepted], u64) -> Result<(), StageError> + 't;

/// The files of a stage, opened, each with all that is asked of it.
pub struct PromptFiles<'a> {
    params: &'a Ingest,
    reading: Reading<'a>,
    train: Files<'a>,
    heldout: Files<'a>,
    schema: SchemaRef,
}

impl<'a> PromptFiles<'a> {
    /// Learns the columns of the files, for which those of JSONL and CSV are read; no row is judged yet.
    pub fn open(session: &'a Session, params: &'a Ingest, project: &'a Path) -> Result<Self, StageError> {
        let reading = Reading::new(session, params, project);
        let train = reading.open_all(&params.from.value)?;
        let heldout = params.heldout_from.as_ref().map(|patterns| reading.open_all(&patterns.value)).transpose()?;
        let heldout = heldout.unwrap_or_default();
        let schemas = train.iter().chain(&heldout).map(|(path, file)| (reading.shown(path), file.schema()));
        let schema = kept::schema(params.keep.names(), &schemas.collect::<Vec<_>>())?;
        Ok(Self { params, reading, train, heldout, schema })
    }

    /// The columns of a `prompts` table, and behind them the kept ones.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Reads the table, and tells what became of the rows.
    pub fn read(&self, take: &mut Take<'_>) -> Result<Counts, StageError> {
        let mut rules = Rules::of(self.params);
        if !self.heldout.is_empty() {
            let mut judge = Judge::new(&rules);
            self.judge(&mut judge, &[(&self.heldout, Split::Heldout)], &mut |_, _, n_read| {
                take(Step { n_read, prompts: None })
            })?;
            rules.reserved = judge.into_ids();
        }
        let all = [(&self.train, Split::Train), (&self.heldout, Split::Heldout)];
        if let Some(limit) = self.params.limit.value {
            let mut first = FirstIds::new(limit.get());
            self.judge(&mut Judge::new(&rules), &all, &mut |_, accepted, n_read| {
                accepted.iter().for_each(|prompt| first.offer(prompt.id, prompt.split));
                take(Step { n_read, prompts: None })
            })?;
            rules.first = Some(first);
        }

        let mut judge = Judge::new(&rules);
        let mut table = Table::new(&self.schema);
        self.judge(&mut judge, &all, &mut |rows, accepted, n_read| {
            table.push(rows, accepted)?;
            take(Step { n_read, prompts: table.filled()? })
        })?;
        let counts = judge.counts();
        if counts.n_train + counts.n_heldout == 0 {
            return Err(counts.nothing_left().into());
        }
        take(Step { n_read: counts.n_read, prompts: table.rest()? })?;
        Ok(counts)
    }

    /// Judges all rows of files, which are meant for a split each.
    fn judge(
        &self,
        judge: &mut Judge<'_>,
        files: &[(&Files<'_>, Split)],
        take: &mut TakeJudged<'_>,
    ) -> Result<(), StageError> {
        for (files, meant_for) in files {
            for (path, file) in files.iter() {
                for rows in self.reading.rows(path, file)? {
                    let rows = rows?;
                    let accepted = judge.accept(&rows, *meant_for)?;
                    take(&rows, &accepted, judge.counts().n_read)?;
                }
            }
        }
        Ok(())
    }
}
