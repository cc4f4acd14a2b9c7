//! A limit: of each split, the prompts whose ids come first.
//!
//! Owns that choice. An id is a hash of the prompt's text, so the choice is as good as drawn by lot, depends neither on
//! the files nor on the order of their rows, and a smaller limit takes some of what a larger one takes. What the files
//! are judged by is not affected: the limited table is a part of the full one.

use std::collections::BTreeSet;

use sluice_table::{PromptId, Split};

/// The ids that come first in each split, at most so many.
pub(super) struct FirstIds {
    limit: usize,
    train: BTreeSet<PromptId>,
    heldout: BTreeSet<PromptId>,
}

impl FirstIds {
    /// None yet.
    pub(super) fn new(limit: u32) -> Self {
        Self { limit: limit as usize, train: BTreeSet::new(), heldout: BTreeSet::new() }
    }

    /// Takes an id that may be one of them.
    pub(super) fn offer(&mut self, id: PromptId, split: Split) {
        let ids = match split {
            Split::Train => &mut self.train,
            Split::Heldout => &mut self.heldout,
        };
        ids.insert(id);
        if ids.len() > self.limit {
            ids.pop_last();
        }
    }

    /// Whether an id is one of them, once all were offered.
    pub(super) fn has(&self, id: PromptId, split: Split) -> bool {
        match split {
            Split::Train => self.train.contains(&id),
            Split::Heldout => self.heldout.contains(&id),
        }
    }
}
