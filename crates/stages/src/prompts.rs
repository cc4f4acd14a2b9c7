//! The prompts that a stage answers: those of the wanted split, in the order of their ids.
//!
//! Owns the choice alone. The order depends on the texts of the prompts and not on the files they came from, so that a
//! limit takes the same ones whenever they are there.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use sluice_spec::stage::sample::{Selection, SplitName};
use sluice_table::{PromptRow, Prompts, Split, TableError};

use crate::StageError;
use crate::answers::Prompt;

/// Prompt tables that give nothing to answer.
#[derive(Debug, thiserror::Error)]
pub enum PromptsError {
    #[error("none of the {n_prompts} prompts is in the split `{split}`{hint}")]
    NoneInSplit { n_prompts: usize, split: SplitName, hint: &'static str },
}

/// Makes every batch of an input readable by row.
pub fn views<T>(
    role: &str,
    batches: &[RecordBatch],
    view: fn(&RecordBatch) -> Result<T, TableError>,
) -> Result<Vec<T>, StageError> {
    let views: Result<Vec<T>, TableError> = batches.iter().map(view).collect();
    views.map_err(|source| StageError::InputTable { role: role.to_owned(), source })
}

/// The selected prompts, ascending by id. Of rows with one id, which have one text, the first counts.
pub fn select<'p>(tables: &'p [Prompts], selection: &Selection) -> Result<Vec<PromptRow<'p>>, PromptsError> {
    let Selection { split, limit } = selection;
    let wanted = |row: &PromptRow<'_>| match split.value {
        SplitName::All => true,
        SplitName::Train => row.split == Split::Train,
        SplitName::Heldout => row.split == Split::Heldout,
    };
    let mut chosen = BTreeMap::new();
    for row in tables.iter().flat_map(Prompts::rows).filter(wanted) {
        chosen.entry(row.prompt_id).or_insert(row);
    }
    if chosen.is_empty() {
        let n_prompts = tables.iter().map(Prompts::len).sum();
        let hint = match split.value {
            SplitName::Heldout => "; raise `split.heldout` or name files in `heldout_from` where they are ingested",
            SplitName::Train => "; lower `split.heldout` where they are ingested",
            SplitName::All => "",
        };
        return Err(PromptsError::NoneInSplit { n_prompts, split: split.value, hint });
    }
    let limit = limit.value.map_or(usize::MAX, |limit| limit.get() as usize);
    Ok(chosen.into_values().take(limit).collect())
}

/// What of the prompts is put to a policy.
pub fn texts<'p>(rows: &[PromptRow<'p>]) -> Vec<Prompt<'p>> {
    rows.iter().map(|row| Prompt { id: row.prompt_id, text: row.prompt }).collect()
}
