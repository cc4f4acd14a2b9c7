//! Prompts as batches of the table, the kept columns among them. It owns how large a batch is, and refuses to judge rows.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use sluice_table::{PromptRow, Prompts, PromptsBuilder};

use super::IngestError;
use super::files::Rows;
use super::judge::Accepted;
use super::kept::KeptValues;

/// What a batch has at least, but for the last: so many rows, or so many bytes.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: usize = 8 << 20;

/// Prompts that are not in a batch yet.
pub(super) struct Table {
    builder: PromptsBuilder,
    kept: KeptValues,
    n_bytes: usize,
    schema: SchemaRef,
}

impl Table {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let n_kept = schema.fields().len() - Prompts::schema().fields().len();
        Self { builder: PromptsBuilder::new(), kept: KeptValues::new(n_kept), n_bytes: 0, schema: schema.clone() }
    }

    /// Takes up the prompts among some rows.
    pub(super) fn push(&mut self, rows: &Rows, accepted: &[Accepted]) -> Result<(), IngestError> {
        let Rows { file: _, start, values } = rows;
        for Accepted { row, id, split } in accepted {
            let prompt = values.prompt(*row).unwrap_or_default();
            let response = values.response(*row);
            self.n_bytes += prompt.len() + response.map_or(0, str::len);
            self.builder.push(PromptRow {
                prompt_id: &id.to_string(),
                prompt,
                reference: values.reference(*row),
                group: values.group(*row),
                split: *split,
                source: rows.source(),
                source_row: start + *row as u64,
                response,
                label: values.label(*row),
            });
        }
        let taken = accepted.iter().map(|prompt| prompt.row as u64).collect();
        self.n_bytes += self.kept.push(values.kept(), taken).map_err(|source| IngestError::Keep { source })?;
        Ok(())
    }

    /// A batch, if there is enough for one.
    pub(super) fn filled(&mut self) -> Result<Option<RecordBatch>, IngestError> {
        if self.builder.len() < BATCH_ROWS && self.n_bytes < BATCH_BYTES { Ok(None) } else { self.rest() }
    }

    /// A batch of what is left.
    pub(super) fn rest(&mut self) -> Result<Option<RecordBatch>, IngestError> {
        if self.builder.is_empty() {
            return Ok(None);
        }
        self.n_bytes = 0;
        let batch = self.kept.append_to(&self.builder.finish(), &self.schema);
        batch.map(Some).map_err(|source| IngestError::Keep { source })
    }
}
