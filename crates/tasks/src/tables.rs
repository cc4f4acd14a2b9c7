//! Writes the task set as Parquet files. Owns file names and columns; decides nothing about their content.
//!
//! | file | rows | columns |
//! |---|---|---|
//! | `prompts.parquet` | every prompt | prompt, reference, family, split, use |
//! | `preference.parquet`, `heldout_tune.parquet`, `heldout_final.parquet` | prompts of one use | the same |
//! | `sft_clean.parquet` | right, careful demonstrations | prompt, reference, family, response, style, label |
//! | `sft_mixed.parquet` | half careful, half careless | the same |
//! | `reward_rows.parquet` | right and wrong answers, `sft` prompts | the same and the five objectives |
//! | `reward_check.parquet` | right and wrong answers, `heldout_tune` prompts | the same |
//!
//! All texts are Utf8; `label` and the objectives are Float32 from 0 to 1, `label` being 1 for a right answer.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::answers::Targets;
use crate::rows::{self, Row};
use crate::{Question, TasksError, Use, questions};

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Where it is.
    pub path: PathBuf,
    /// Rows of the table.
    pub n_rows: usize,
    /// Size of the file.
    pub bytes: u64,
}

/// Makes the whole task set by a seed and writes it into a folder, which is made if need be.
///
/// # Errors
/// [`TasksError`] if the folder or a file cannot be written.
pub fn generate(folder: &Path, seed: u64) -> Result<Vec<Written>, TasksError> {
    std::fs::create_dir_all(folder).map_err(|source| TasksError::Write { path: folder.to_owned(), source })?;
    let all = questions(seed);
    let mut written = vec![write(folder, "prompts.parquet", prompts(all.iter()))?];
    for purpose in [Use::Preference, Use::HeldoutTune, Use::HeldoutFinal] {
        let part = prompts(all.iter().filter(|question| question.purpose == purpose));
        written.push(write(folder, &format!("{}.parquet", purpose.name()), part)?);
    }
    let answers = [
        ("sft_clean.parquet", demonstrations(&rows::clean(&all, seed))),
        ("sft_mixed.parquet", demonstrations(&rows::mixed(&all, seed))),
        ("reward_rows.parquet", labelled(&rows::labelled(&all, Use::Sft, seed))),
        ("reward_check.parquet", labelled(&rows::labelled(&all, Use::HeldoutTune, seed))),
    ];
    for (file, columns) in answers {
        written.push(write(folder, file, columns)?);
    }
    Ok(written)
}

type Columns = Vec<(&'static str, ArrayRef)>;

fn text<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn prompts<'a>(questions: impl Iterator<Item = &'a Question> + Clone) -> Columns {
    vec![
        ("prompt", text(questions.clone().map(|q| q.prompt.as_str()))),
        ("reference", text(questions.clone().map(|q| q.fact.answer.as_str()))),
        ("family", text(questions.clone().map(|q| q.family.name()))),
        ("split", text(questions.clone().map(|q| q.purpose.split()))),
        ("use", text(questions.map(|q| q.purpose.name()))),
    ]
}

fn demonstrations(rows: &[Row<'_>]) -> Columns {
    let label = Float32Array::from_iter_values(rows.iter().map(|row| row.targets.correctness));
    vec![
        ("prompt", text(rows.iter().map(|row| row.question.prompt.as_str()))),
        ("reference", text(rows.iter().map(|row| row.question.fact.answer.as_str()))),
        ("family", text(rows.iter().map(|row| row.question.family.name()))),
        ("response", text(rows.iter().map(|row| row.response.as_str()))),
        ("style", text(rows.iter().map(|row| row.style.name()))),
        ("label", Arc::new(label)),
    ]
}

fn labelled(rows: &[Row<'_>]) -> Columns {
    let mut columns = demonstrations(rows);
    for (place, name) in Targets::NAMES.into_iter().enumerate() {
        let values = rows.iter().map(|row| row.targets.values()[place]);
        columns.push((name, Arc::new(Float32Array::from_iter_values(values))));
    }
    columns
}

fn write(folder: &Path, file: &str, columns: Columns) -> Result<Written, TasksError> {
    let path = folder.join(file);
    let encode = |source| TasksError::Encode { table: file.to_owned(), source };
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, false)))
        .map_err(|source| TasksError::Table { table: file.to_owned(), source })?;
    let level = ZstdLevel::try_new(19).map_err(encode)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by("sluice-tasks".to_owned())
        .build();
    let out = File::create(&path).map_err(|source| TasksError::Write { path: path.clone(), source })?;
    let mut writer = ArrowWriter::try_new(out, batch.schema(), Some(properties)).map_err(encode)?;
    writer.write(&batch).map_err(encode)?;
    writer.close().map_err(encode)?;
    let bytes = std::fs::metadata(&path).map_err(|source| TasksError::Write { path: path.clone(), source })?.len();
    Ok(Written { path, n_rows: batch.num_rows(), bytes })
}
