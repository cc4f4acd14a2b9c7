//! Padding-free batches of token sequences.
//!
//! Owns the layout: the tokens of all sequences end to end, and where each sequence lies. Knows nothing of models. A
//! sequence attends to itself and to the prefix it continues, if it has one; its positions count from the first token of
//! that. No arithmetic is spent on padding, and none twice on a prefix that several sequences have.

use std::ops::Range;
use std::sync::Arc;

/// Token sequences laid end to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    ids: Vec<u32>,
    segments: Arc<[Segment]>,
}

/// Where a sequence lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its own rows.
    pub rows: Range<usize>,
    /// The rows it continues: the first ones of an earlier sequence that continues nothing itself. Empty for most.
    pub prefix: Range<usize>,
}

impl Segment {
    /// Rows of its tokens, the prefix first: the token at position `i` is the `i`-th.
    pub fn tokens(&self) -> impl Iterator<Item = usize> + Clone {
        self.prefix.clone().chain(self.rows.clone())
    }

    /// Number of tokens with the prefix.
    pub fn n_tokens(&self) -> usize {
        self.prefix.len() + self.rows.len()
    }
}

/// A sequence that continues nothing.
impl From<Range<usize>> for Segment {
    fn from(rows: Range<usize>) -> Self {
        Self { rows, prefix: 0..0 }
    }
}

impl Packed {
    /// Packs sequences in the order given. Empty sequences are kept as empty segments.
    pub fn new<S: AsRef<[u32]>>(sequences: &[S]) -> Self {
        let mut packed = Self { ids: Vec::new(), segments: Arc::new([]) };
        let segments = sequences.iter().map(|sequence| packed.append(sequence.as_ref()).into()).collect();
        Self { segments, ..packed }
    }

    /// Packs pairs of sequences that have their first tokens in common, as many as stand beside them: the first of a pair
    /// whole, the second as its continuation.
    pub fn pairs<S: AsRef<[u32]>>(pairs: &[(S, S, usize)]) -> Self {
        let mut packed = Self { ids: Vec::new(), segments: Arc::new([]) };
        let mut segments = Vec::with_capacity(2 * pairs.len());
        for (whole, other, n_common) in pairs {
            let rows = packed.append(whole.as_ref());
            let prefix = rows.start..rows.start + n_common;
            segments.push(rows.into());
            segments.push(Segment { rows: packed.append(&other.as_ref()[*n_common..]), prefix });
        }
        Self { segments: segments.into(), ..packed }
    }

    /// Packs sequences in the order given, each as the continuation of the last one that is whole where both begin with the
    /// same tokens, `n_least` or more. The last token of a sequence is always its own.
    pub fn sharing<S: AsRef<[u32]>>(sequences: &[S], n_least: usize) -> Self {
        let mut packed = Self { ids: Vec::new(), segments: Arc::new([]) };
        let mut segments: Vec<Segment> = Vec::with_capacity(sequences.len());
        let mut whole = 0..0;
        for sequence in sequences {
            let ids = sequence.as_ref();
            let (own, of_whole) = (&ids[..ids.len().saturating_sub(1)], &packed.ids[whole.clone()]);
            let n_common = own.iter().zip(of_whole).take_while(|(a, b)| a == b).count();
            if n_common >= n_least.max(1) {
                let prefix = whole.start..whole.start + n_common;
                segments.push(Segment { rows: packed.append(&ids[n_common..]), prefix });
            } else {
                whole = packed.append(ids);
                segments.push(whole.clone().into());
            }
        }
        Self { segments: segments.into(), ..packed }
    }

    /// The token ids of a sequence, those of its prefix first.
    pub fn sequence(&self, segment: &Segment) -> Vec<u32> {
        segment.tokens().map(|row| self.ids[row]).collect()
    }

    /// All token ids, sequence after sequence.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Where each sequence lies in [`Packed::ids`].
    pub fn segments(&self) -> &Arc<[Segment]> {
        &self.segments
    }

    /// Number of tokens over all sequences, a shared prefix counted once.
    pub fn n_tokens(&self) -> usize {
        self.ids.len()
    }

    fn append(&mut self, ids: &[u32]) -> Range<usize> {
        let start = self.ids.len();
        self.ids.extend_from_slice(ids);
        start..self.ids.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_has_its_prefix_once() {
        let packed = Packed::pairs(&[(vec![1, 2, 3], vec![1, 2, 4, 5], 2), (vec![6], vec![7], 0)]);
        assert_eq!(packed.ids(), [1, 2, 3, 4, 5, 6, 7]);
        let segment = |rows, prefix| Segment { rows, prefix };
        assert_eq!(
            packed.segments()[..],
            [segment(0..3, 0..0), segment(3..5, 0..2), segment(5..6, 0..0), segment(6..7, 5..5)]
        );
        assert_eq!(packed.segments()[1].tokens().collect::<Vec<_>>(), [0, 1, 3, 4]);
    }

    #[test]
    fn answers_to_one_prompt_have_it_once() {
        let sequences = [vec![1, 2, 3, 4], vec![1, 2, 3, 5, 6], vec![1, 2, 3], vec![1, 7], vec![1, 7, 8], vec![]];
        let packed = Packed::sharing(&sequences, 2);
        let segment = |rows, prefix| Segment { rows, prefix };
        assert_eq!(
            packed.segments()[..],
            [
                segment(0..4, 0..0),
                segment(4..6, 0..3),
                // Its last token is its own, so that something of it is computed.
                segment(6..7, 0..2),
                // One token in common is too little.
                segment(7..9, 0..0),
                segment(9..10, 7..9),
                segment(10..10, 0..0),
            ]
        );
        let read: Vec<Vec<u32>> = packed.segments().iter().map(|segment| packed.sequence(segment)).collect();
        assert_eq!(read, sequences);
    }
}
