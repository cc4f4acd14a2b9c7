//! Which rows become prompts. It owns what a row is judged by, in this order: condition, empty text, contamination,
//! duplicates, split, limit; and the count of each. It refuses to know where rows come from and where prompts go.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use sluice_spec::stage::ingest::{Ingest, Split as SplitParams};
use sluice_table::{PromptId, Split, Vocabulary};

use super::IngestError;
use super::files::Rows;
use super::limited::FirstIds;

/// Ids of prompts.
pub(super) type Ids = HashSet<PromptId, BuildHasherDefault<OwnHash>>;

/// What rows are judged by.
pub(super) struct Rules<'a> {
    dedup: bool,
    split: &'a SplitParams,
    /// Prompts of the held-out files.
    pub reserved: Ids,
    /// The prompts within the limit.
    pub first: Option<FirstIds>,
}

impl<'a> Rules<'a> {
    /// Nothing is reserved, and there is no limit.
    pub(super) fn of(params: &'a Ingest) -> Self {
        Self { dedup: params.dedup.value, split: &params.split, reserved: Ids::default(), first: None }
    }
}

/// A row that is a prompt.
#[derive(Clone, Copy)]
pub(super) struct Accepted {
    /// Its number among the rows that were judged together.
    pub row: usize,
    pub id: PromptId,
    pub split: Split,
}

/// Judges rows in the order in which it is given them.
pub(super) struct Judge<'a> {
    rules: &'a Rules<'a>,
    seen: Ids,
    counts: Counts,
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

impl<'a> Judge<'a> {
    pub(super) fn new(rules: &'a Rules<'a>) -> Self {
        Self { rules, seen: Ids::default(), counts: Counts::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// The ids of all prompts that were met.
    pub(super) fn into_ids(self) -> Ids {
        self.seen
    }

    /// The prompts among some rows of a file that is meant for a split.
    pub(super) fn accept(&mut self, rows: &Rows, meant_for: Split) -> Result<Vec<Accepted>, IngestError> {
        let mut accepted = Vec::with_capacity(rows.values.len());
        for row in 0..rows.values.len() {
            accepted.extend(self.judge(rows, row, meant_for)?);
        }
        Ok(accepted)
    }

    fn judge(&mut self, rows: &Rows, row: usize, meant_for: Split) -> Result<Option<Accepted>, IngestError> {
        let (Rules { dedup, split, reserved, first }, counts) = (self.rules, &mut self.counts);
        counts.n_read += 1;
        if !rows.values.keep(row) {
            counts.n_filtered += 1;
            return Ok(None);
        }
        let Some(prompt) = rows.values.prompt(row).filter(|prompt| !prompt.trim_start().is_empty()) else {
            counts.n_empty += 1;
            return Ok(None);
        };
        let id = PromptId::of(prompt);
        if meant_for == Split::Train && reserved.contains(&id) {
            counts.n_contaminated += 1;
            return Ok(None);
        }
        if !self.seen.insert(id) && *dedup {
            counts.n_duplicates += 1;
            return Ok(None);
        }
        let written = written_split(rows, row)?;
        let split = match meant_for {
            Split::Heldout => Split::Heldout,
            Split::Train => written.unwrap_or_else(|| split_by_digest(id, split)),
        };
        if first.as_ref().is_some_and(|first| !first.has(id, split)) {
            counts.n_past_limit += 1;
            return Ok(None);
        }
        match split {
            Split::Train => counts.n_train += 1,
            Split::Heldout => counts.n_heldout += 1,
        }
        Ok(Some(Accepted { row, id, split }))
    }
}

/// The split that the file says, if it says one.
fn written_split(rows: &Rows, row: usize) -> Result<Option<Split>, IngestError> {
    let Some(word) = rows.values.split(row) else { return Ok(None) };
    let split = word.parse().map_err(|_| IngestError::UnknownSplit {
        file: rows.file.clone(),
        row: rows.start + row as u64,
        found: word.to_owned(),
        expected: Split::ALL.iter().map(|split| format!("`{split}`")).collect(),
    });
    split.map(Some)
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

/// An id is a hash already: its first bytes serve as the hash of a table.
#[derive(Default)]
pub(super) struct OwnHash(u64);

impl Hasher for OwnHash {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(self.0, |head| u64::from_le_bytes(*head));
    }

    /// The length of an array, which says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Counts {
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

    /// Why there is no prompt.
    pub(super) fn nothing_left(self) -> IngestError {
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
