//! Padding-free batches of token sequences.
//!
//! Owns the layout: the tokens of all sequences end to end, and where each sequence lies. Knows nothing of models. A
//! sequence attends to itself only, its first token is at position 0, and no arithmetic is spent on padding.

use std::ops::Range;
use std::sync::Arc;

/// Token sequences laid end to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    ids: Vec<u32>,
    segments: Arc<[Range<usize>]>,
}

impl Packed {
    /// Packs sequences in the order given. Empty sequences are kept as empty segments.
    pub fn new<S: AsRef<[u32]>>(sequences: &[S]) -> Self {
        let mut ids = Vec::with_capacity(sequences.iter().map(|s| s.as_ref().len()).sum());
        let segments = sequences
            .iter()
            .map(|sequence| {
                let start = ids.len();
                ids.extend_from_slice(sequence.as_ref());
                start..ids.len()
            })
            .collect();
        Self { ids, segments }
    }

    /// All token ids, sequence after sequence.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Where each sequence lies in [`Packed::ids`].
    pub fn segments(&self) -> &Arc<[Range<usize>]> {
        &self.segments
    }

    /// Number of tokens over all sequences.
    pub fn n_tokens(&self) -> usize {
        self.ids.len()
    }
}
