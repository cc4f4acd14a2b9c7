//! A limit: of each split, the prompts whose ids come first.
//!
//! Owns that choice. An id is a hash of the prompt's text, so the choice is as good as drawn by lot, depends neither on
//! the files nor on the order of their rows, and a smaller limit takes some of what a larger one takes. What the files
//! are judged by is not affected: the limited table is a part of the full one.

use std::collections::BTreeSet;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use sluice_table::{PromptRow, Prompts, Split};

use crate::StageError;
use crate::ingest::{Counts, IngestError, Ingested};
use crate::prompts::views;

/// All rows of the first `limit` prompts of each split.
pub(super) fn limited(ingested: Ingested, limit: u32) -> Result<Ingested, StageError> {
    let Ingested { schema, batches, mut counts } = ingested;
    let tables = views("prompts", &batches, Prompts::view)?;
    let first = |split: Split| -> BTreeSet<&str> {
        let ids: BTreeSet<&str> =
            tables.iter().flat_map(Prompts::rows).filter(|row| row.split == split).map(|row| row.prompt_id).collect();
        ids.into_iter().take(limit as usize).collect()
    };
    let (train, heldout) = (first(Split::Train), first(Split::Heldout));
    let is_first = |row: &PromptRow<'_>| match row.split {
        Split::Train => train.contains(row.prompt_id),
        Split::Heldout => heldout.contains(row.prompt_id),
    };
    let mut kept = Vec::with_capacity(batches.len());
    for (batch, table) in batches.iter().zip(&tables) {
        let wanted: BooleanArray = table.rows().map(|row| Some(is_first(&row))).collect();
        let batch = filter_record_batch(batch, &wanted).map_err(|source| IngestError::Limit { limit, source })?;
        kept.push(batch);
    }
    let Counts { n_train, n_heldout, .. } = counts;
    let n_of = |split: Split| -> u64 {
        let rows = tables.iter().flat_map(Prompts::rows);
        rows.filter(|row| row.split == split && is_first(row)).count() as u64
    };
    (counts.n_train, counts.n_heldout) = (n_of(Split::Train), n_of(Split::Heldout));
    counts.n_past_limit = n_train + n_heldout - counts.n_train - counts.n_heldout;
    Ok(Ingested { schema, batches: kept, counts })
}
