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

    /// Packs families one after the other: the first sequence of each whole, the others as its continuations.
    pub fn families<S: AsRef<[u32]>>(sequences: &[S], families: &[Family]) -> Self {
        let mut packed = Self { ids: Vec::new(), segments: Arc::new([]) };
        let mut segments = Vec::with_capacity(sequences.len());
        for Family { members, n_tokens: _ } in families {
            let start = packed.ids.len();
            for Member { sequence, n_common } in members {
                let rows = packed.append(&sequences[*sequence].as_ref()[*n_common..]);
                segments.push(Segment { rows, prefix: start..start + n_common });
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

/// Sequences that are packed together since they begin alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    pub members: Vec<Member>,
    /// Of all members, what they have in common counted once.
    pub n_tokens: usize,
}

/// A sequence by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub sequence: usize,
    /// How many of its first tokens are those of the first member, which has none in common with anyone before it.
    pub n_common: usize,
}

impl Family {
    /// Each sequence as a family of its own.
    pub fn singles<S: AsRef<[u32]>>(sequences: &[S]) -> Vec<Self> {
        let single = |(sequence, ids): (usize, &S)| Self {
            members: vec![Member { sequence, n_common: 0 }],
            n_tokens: ids.as_ref().len(),
        };
        sequences.iter().enumerate().map(single).collect()
    }

    /// Families of sequences that have their first tokens in common, `n_least` or more, and together at most `max_tokens`; a
    /// longer sequence stands alone. The last token of a sequence is always its own.
    ///
    /// What a pair has in common may go on further than what a whole family has, as where a template opens all conversations
    /// alike: such a pair begins a family of its own if that saves tokens.
    pub fn alike<S: AsRef<[u32]>>(sequences: &[S], n_least: usize, max_tokens: usize) -> Vec<Self> {
        let ids = |sequence: usize| sequences[sequence].as_ref();
        let n_common = |first: usize, other: usize| {
            let own = &ids(other)[..ids(other).len().saturating_sub(1)];
            own.iter().zip(ids(first)).take_while(|(a, b)| a == b).count()
        };
        // In this order stands beside each other what begins alike.
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by(|a, b| ids(*a).cmp(ids(*b)));
        let mut families: Vec<Self> = Vec::new();
        for (at, &sequence) in order.iter().enumerate() {
            let of_next = order.get(at + 1).map_or(0, |next| n_common(sequence, *next));
            let joined = families.last_mut().and_then(|family| {
                let n_common = n_common(family.members[0].sequence, sequence);
                let n_tokens = family.n_tokens + ids(sequence).len() - n_common;
                let joins = n_common >= n_least.max(1) && of_next < 2 * n_common && n_tokens <= max_tokens;
                joins.then_some((family, Member { sequence, n_common }, n_tokens))
            });
            match joined {
                Some((family, member, n_tokens)) => {
                    family.members.push(member);
                    family.n_tokens = n_tokens;
                }
                None => families
                    .push(Self { members: vec![Member { sequence, n_common: 0 }], n_tokens: ids(sequence).len() }),
            }
        }
        families
    }

    /// The numbers of the members.
    pub fn sequences(&self) -> impl Iterator<Item = usize> {
        self.members.iter().map(|member| member.sequence)
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
        let sequences = [vec![1, 7], vec![1, 2, 3, 5, 6], vec![1, 2, 3], vec![1, 2, 3, 4], vec![1, 7, 8], vec![]];
        let families = Family::alike(&sequences, 2, 100);
        let packed = Packed::families(&sequences, &families);
        let segment = |rows, prefix| Segment { rows, prefix };
        assert_eq!(
            packed.segments()[..],
            [
                segment(0..0, 0..0),
                segment(0..3, 0..0),
                segment(3..4, 0..3),
                segment(4..6, 0..3),
                // One token in common is too little.
                segment(6..8, 6..6),
                segment(8..9, 6..8),
            ]
        );
        let order: Vec<usize> = families.iter().flat_map(Family::sequences).collect();
        assert_eq!(order, [5, 2, 3, 1, 0, 4]);
        let read: Vec<Vec<u32>> = packed.segments().iter().map(|segment| packed.sequence(segment)).collect();
        assert_eq!(read, order.iter().map(|at| sequences[*at].clone()).collect::<Vec<_>>());
        assert_eq!(families.iter().map(|family| family.n_tokens).collect::<Vec<_>>(), [0, 6, 3]);
    }

    #[test]
    fn a_last_token_is_a_sequences_own() {
        let families = Family::alike(&[[1, 2, 3], [1, 2, 3]], 1, 100);
        assert_eq!(families.len(), 1);
        assert_eq!(families[0].members[1], Member { sequence: 1, n_common: 2 });
    }

    #[test]
    fn a_family_keeps_its_budget() {
        let answers: Vec<Vec<u32>> = (0..5).map(|answer| vec![1, 2, 3, 4, 10 + answer, 9]).collect();
        let sizes = |max_tokens| {
            let families = Family::alike(&answers, 2, max_tokens);
            families.iter().map(|family| (family.members.len(), family.n_tokens)).collect::<Vec<_>>()
        };
        assert_eq!(sizes(100), [(5, 14)]);
        assert_eq!(sizes(11), [(3, 10), (2, 8)]);
        assert_eq!(sizes(1), [(1, 6); 5]);
    }

    /// All begin with 1 to 3; two prompts of five more tokens have two answers each.
    #[test]
    fn what_all_begin_with_hides_no_prompt() {
        let answer = |prompt: u32, answer: u32| [vec![1, 2, 3], vec![prompt; 5], vec![answer, 0]].concat();
        let sequences = [answer(20, 1), answer(30, 2), answer(20, 3), answer(30, 4)];
        let families = Family::alike(&sequences, 3, 100);
        assert_eq!(families.iter().map(|it| it.sequences().collect()).collect::<Vec<Vec<_>>>(), [[0, 2], [1, 3]]);
        assert_eq!(families[1].n_tokens, 12);
    }
}
