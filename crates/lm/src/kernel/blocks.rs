//! Causal attention over packed rows by blocks of queries: what runs on devices whose products are the backend's own.
//!
//! Owns the cutting. Sequences of like lengths are laid side by side, so that a handful of products serves them all; a block
//! of queries meets the keys that it can see and no others, so that a window costs what it spans. Scores exist for one block
//! at a time, which is bounded whatever the lengths: memory grows with the tokens alone. Of the forward pass the logarithm
//! of each softmax's sum is kept, from which the backward pass makes the weights of a block again (Dao et al. 2022,
//! "FlashAttention", section 3.1; the blocks there are tiles on the chip, here they are products of the backend).
//! Knows nothing of tapes: forward and backward are two functions.
//!
//! n tokens, b sequences, t queries of a sequence, s keys of a sequence or a block, q queries of a block, h query heads, g key
//! heads, d head dim, m query heads of a key head times queries

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};

use super::attention::{AttentionSpec, MAX_SCORES};
use super::rows::{ScoreSpec, product, turned, weights, weights_backward};
use crate::nn::index;
use crate::packed::Segment;
use crate::precision::Precision;

/// Queries of a block, at most.
const BLOCK: usize = 512;

/// How much shorter the shortest of the sequences that lie side by side may be.
const LIKE: f64 = 0.75;

/// Output `[n, h · d]` in the precision of the queries, and the logarithms `[n, h]` of the softmax's sums, nats, f32.
pub fn forward(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    segments: &[Segment],
    spec: &AttentionSpec,
) -> (Tensor<2>, Tensor<2>) {
    let (n, device) = (q.dims()[0], q.device());
    let groups = groups(segments, spec.n_heads);
    if groups.is_empty() {
        return (q, Tensor::zeros([0, spec.n_heads], (&device, Precision::F32.dtype())));
    }
    let (held, positions) = (Precision::of(&q), positions(segments));
    // What a cache would hold is rounded as a cache would hold it, once.
    let [q, k] = [q, k].map(|side| turned(side, &spec.rope, &positions, 1.0, held));
    let (mut outs, mut sums) = (Vec::new(), Vec::new());
    for group in &groups {
        let sides = Sides::new(group, [&q, &k, &v], spec);
        let (mut out, mut lse) = (Vec::new(), Vec::new());
        for block in &sides.blocks {
            let (weights, sum) = weights(sides.scores(block), &block.starts, sides.score_spec(block), sides.held);
            out.push(sides.queries_back(product(sides.by_block(weights, block), sides.values(block)), block));
            lse.push(sides.queries_back(sum.reshape(sides.sum_shape(block)), block));
        }
        outs.push(rows(sides.held.hold(Tensor::cat(out, 1))));
        sums.push(rows(Tensor::cat(lse, 1)));
    }
    let places = Places::of_queries(&groups, n);
    (places.packed(outs), places.packed(sums))
}

/// Gradients with respect to queries, keys and values, from the logarithms that [`forward`] gave and the gradient of its
/// output.
pub fn backward(
    [q, k, v]: [Tensor<2>; 3],
    lse_nh: Tensor<2>,
    grad: Tensor<2>,
    segments: &[Segment],
    spec: &AttentionSpec,
) -> [Tensor<2>; 3] {
    let (n, held) = (q.dims()[0], Precision::of(&q));
    let groups = groups(segments, spec.n_heads);
    if groups.is_empty() {
        return [q, k, v];
    }
    let positions = positions(segments);
    let [q, k] = [q, k].map(|side| turned(side, &spec.rope, &positions, 1.0, held));
    let mut parts: [Vec<Tensor<2>>; 3] = Default::default();
    for group in &groups {
        let sides = Sides::new(group, [&q, &k, &v], spec);
        let (grad, lse) = (sides.gradient(&grad, group), taken(&lse_nh, &group.query_rows, 1, group));
        let mut dq = Vec::new();
        let zeros = Tensor::<4>::zeros(sides.k.dims(), (&sides.k.device(), Precision::F32.dtype()));
        let (mut dk, mut dv) = (zeros.clone(), zeros);
        for block in &sides.blocks {
            let grad = sides.by_key_head(&grad, block);
            let dweights = product(grad.clone(), sides.values(block).swap_dims(2, 3));
            let (weights, dscores) = weights_backward(
                sides.scores(block),
                sides.by_key_head(&lse, block).flatten(0, 3),
                dweights.flatten(0, 2),
                &block.starts,
                sides.score_spec(block),
                held,
            );
            let [weights, dscores] = [weights, dscores].map(|x| sides.by_block(x, block));
            dq.push(sides.queries_back(product(dscores.clone(), sides.keys(block)), block));
            dk = added(dk, product(dscores.swap_dims(2, 3), sides.by_key_head(&sides.q, block)), &block.keys);
            dv = added(dv, product(weights.swap_dims(2, 3), grad), &block.keys);
        }
        parts[0].push(rows(Tensor::cat(dq, 1)));
        parts[1].push(rows(dk.swap_dims(1, 2)));
        parts[2].push(rows(dv.swap_dims(1, 2)));
    }
    let [dq, dk, dv] = parts;
    let of_keys = Places::of_keys(&groups, n);
    let [dq, dk] = [Places::of_queries(&groups, n).packed(dq), of_keys.packed(dk)];
    let [dq, dk] = [dq, dk].map(|side| turned(side, &spec.rope, &positions, -1.0, held));
    [dq, dk, held.hold(of_keys.packed(dv))]
}

/// Sequences that lie side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    segments: Vec<Segment>,
    /// Queries of the sequence that has most.
    n_queries: usize,
    /// Keys of the sequence that has most.
    n_keys: usize,
    /// Packed row of each query's place; a place past the end of its sequence repeats the last one.
    query_rows: Vec<usize>,
    /// Packed row of each key's place, alike.
    key_rows: Vec<usize>,
}

/// Sequences by length, longest first, cut where the next would be padded too much or blocks would have to be small. Those
/// without queries are left out.
fn groups(segments: &[Segment], n_heads: usize) -> Vec<Group> {
    let mut segments: Vec<&Segment> = segments.iter().filter(|segment| !segment.rows.is_empty()).collect();
    segments.sort_by_key(|segment| (Reverse(segment.n_tokens()), Reverse(segment.rows.len()), segment.rows.start));
    let are_like = |a: usize, b: usize| a.min(b) as f64 >= LIKE * a.max(b) as f64;
    let mut groups: Vec<Vec<&Segment>> = Vec::new();
    for segment in segments {
        let joins = groups.last().is_some_and(|group| {
            let longest = group[0];
            let n_scores = (group.len() + 1) * n_heads * longest.n_tokens() * longest.rows.len().min(BLOCK);
            n_scores <= MAX_SCORES
                && are_like(segment.n_tokens(), longest.n_tokens())
                && are_like(segment.rows.len(), longest.rows.len())
        });
        match groups.last_mut() {
            Some(group) if joins => group.push(segment),
            _ => groups.push(vec![segment]),
        }
    }
    groups.iter().map(|group| Group::new(group)).collect()
}

impl Group {
    fn new(segments: &[&Segment]) -> Self {
        let most = |count: fn(&Segment) -> usize| segments.iter().map(|segment| count(segment)).max().unwrap_or(0);
        let (n_queries, n_keys) = (most(|segment| segment.rows.len()), most(Segment::n_tokens));
        let query_rows = segments
            .iter()
            .flat_map(|segment| (0..n_queries).map(|i| segment.rows.start + i.min(segment.rows.len() - 1)));
        let key_rows = segments.iter().flat_map(|segment| {
            let past_the_end = std::iter::repeat(segment.rows.end - 1);
            segment.tokens().chain(past_the_end).take(n_keys)
        });
        Self {
            n_queries,
            n_keys,
            query_rows: query_rows.collect(),
            key_rows: key_rows.collect(),
            segments: segments.iter().map(|segment| (*segment).clone()).collect(),
        }
    }

    /// Blocks whose scores under `n_heads` heads stay in bounds.
    fn blocks(&self, n_heads: usize, window: Option<usize>) -> Vec<Block> {
        let n_scores = self.segments.len() * n_heads * self.n_keys;
        let n_queries = (MAX_SCORES / n_scores.max(1)).clamp(1, BLOCK);
        let prefixes = || self.segments.iter().map(|segment| segment.prefix.len());
        let (shortest, longest) = (prefixes().min().unwrap_or(0), prefixes().max().unwrap_or(0));
        let block = |start: usize| {
            let end = (start + n_queries).min(self.n_queries);
            // A multiple of a product's tile.
            let first = window.map_or(0, |window| (shortest + start + 1).saturating_sub(window) / 64 * 64);
            Block {
                queries: start..end,
                keys: first..(longest + end).min(self.n_keys),
                starts: prefixes().map(|prefix| (prefix + start) as u32).collect(),
            }
        };
        (0..self.n_queries).step_by(n_queries).map(block).collect()
    }
}

/// A block of queries, the keys that it can see, and where in each sequence the first of the queries stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Block {
    queries: Range<usize>,
    keys: Range<usize>,
    starts: Arc<[u32]>,
}

/// Queries `[b, t, h, d]`, keys and values `[b, g, s, d]` of a group, turned, in the precision they came in.
struct Sides<'a> {
    held: Precision,
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    blocks: Vec<Block>,
    spec: &'a AttentionSpec,
}

impl<'a> Sides<'a> {
    fn new(group: &Group, [q, k, v]: [&Tensor<2>; 3], spec: &'a AttentionSpec) -> Self {
        let d = spec.head_dim;
        Self {
            held: Precision::of(q),
            q: taken(q, &group.query_rows, d, group),
            k: taken(k, &group.key_rows, d, group).swap_dims(1, 2),
            v: taken(v, &group.key_rows, d, group).swap_dims(1, 2),
            blocks: group.blocks(spec.n_heads, spec.window),
            spec,
        }
    }

    /// Rows `[b, t, h, d]` of the output's gradient, 0 at places past the end of a sequence.
    fn gradient(&self, grad: &Tensor<2>, group: &Group) -> Tensor<4> {
        let [b, t, h, d] = self.q.dims();
        let grad = taken(grad, &group.query_rows, d, group);
        if group.segments.iter().all(|segment| segment.rows.len() == t) {
            return grad;
        }
        let own = |segment: &Segment| (0..t).map(|i| f32::from(u8::from(i < segment.rows.len()))).collect::<Vec<_>>();
        let counts: Vec<f32> = group.segments.iter().flat_map(own).collect();
        let counts = Tensor::<4>::from_data(TensorData::new(counts, [b, t, 1, 1]), &self.q.device());
        grad * self.held.hold(counts).expand([b, t, h, d])
    }

    fn score_spec(&self, block: &Block) -> ScoreSpec {
        ScoreSpec {
            n_heads: self.spec.n_heads,
            n_queries: block.queries.len(),
            first_key: block.keys.start,
            window: self.spec.window,
            scale: self.spec.scale,
            softcap: self.spec.softcap,
        }
    }

    /// Queries of a block, of `[b, t, h, d]`, as `[b, g, m, d]`: the query heads of one key head stand together, so that no
    /// key is copied for them.
    fn by_key_head(&self, x_bthd: &Tensor<4>, block: &Block) -> Tensor<4> {
        let [b, _, h, d] = x_bthd.dims();
        let g = self.spec.n_kv_heads;
        let queries = &block.queries;
        let rows = x_bthd.clone().narrow(1, queries.start, queries.len()).swap_dims(1, 2);
        rows.reshape([b, g, h / g * queries.len(), d])
    }

    /// The way back of [`Sides::by_key_head`]: `[b, q, h, d]`.
    fn queries_back(&self, x_bgmd: Tensor<4>, block: &Block) -> Tensor<4> {
        let [b, _, _, d] = x_bgmd.dims();
        x_bgmd.reshape([b, self.spec.n_heads, block.queries.len(), d]).swap_dims(1, 2)
    }

    fn keys(&self, block: &Block) -> Tensor<4> {
        self.k.clone().narrow(2, block.keys.start, block.keys.len())
    }

    fn values(&self, block: &Block) -> Tensor<4> {
        self.v.clone().narrow(2, block.keys.start, block.keys.len())
    }

    /// Raw scores, a row for each query head and query of each sequence.
    fn scores(&self, block: &Block) -> Tensor<2> {
        product(self.by_key_head(&self.q, block), self.keys(block).swap_dims(2, 3)).flatten(0, 2)
    }

    /// Rows of scores as `[b, g, m, s]`.
    fn by_block(&self, rows: Tensor<2>, block: &Block) -> Tensor<4> {
        let [b, g, m, _] = self.sum_shape(block);
        rows.reshape([b, g, m, block.keys.len()])
    }

    /// One number for each row of scores: `[b, g, m, 1]`.
    fn sum_shape(&self, block: &Block) -> [usize; 4] {
        let [b, _, h, _] = self.q.dims();
        let g = self.spec.n_kv_heads;
        [b, g, h / g * block.queries.len(), 1]
    }
}

/// Packed rows `[n, heads · d]` at the places of a group: `[b, places, heads, d]`.
fn taken(x: &Tensor<2>, rows: &[usize], d: usize, group: &Group) -> Tensor<4> {
    let [_, width] = x.dims();
    let first = rows[0];
    let lie_so = rows.iter().enumerate().all(|(i, row)| *row == first + i);
    let rows_taken = match lie_so {
        true => x.clone().narrow(0, first, rows.len()),
        false => x.clone().select(0, index(rows.iter().copied(), &x.device())),
    };
    let b = group.segments.len();
    rows_taken.reshape([b, rows.len() / b, width / d, d])
}

/// `[b, places, heads, d]` as a row a place.
fn rows(x: Tensor<4>) -> Tensor<2> {
    let [b, places, heads, d] = x.dims();
    x.reshape([b * places, heads * d])
}

/// `sum[b, g, s, d]` with `part` added at `keys`.
fn added(sum: Tensor<4>, part: Tensor<4>, keys: &Range<usize>) -> Tensor<4> {
    let [b, g, s, d] = sum.dims();
    if *keys == (0..s) {
        return sum + part;
    }
    let place = [0..b, 0..g, keys.clone(), 0..d];
    let part = sum.clone().slice(place.clone()) + part;
    sum.slice_assign(place, part)
}

/// Which places of the groups, laid end to end, each packed row has.
struct Places {
    /// Of each row, in the order of the groups; the rows of a prefix have one in each sequence that continues it.
    of_rows: Vec<Vec<usize>>,
    n_places: usize,
}

impl Places {
    fn of_queries(groups: &[Group], n: usize) -> Self {
        Self::new(groups, n, |group| group.n_queries, |segment| segment.rows.clone().collect())
    }

    fn of_keys(groups: &[Group], n: usize) -> Self {
        Self::new(groups, n, |group| group.n_keys, |segment| segment.tokens().collect())
    }

    fn new(groups: &[Group], n: usize, n_places: fn(&Group) -> usize, rows: fn(&Segment) -> Vec<usize>) -> Self {
        let mut places = Self { of_rows: vec![Vec::new(); n], n_places: 0 };
        for (group, segment) in groups.iter().flat_map(|group| group.segments.iter().map(move |own| (group, own))) {
            for (at, row) in rows(segment).into_iter().enumerate() {
                places.of_rows[row].push(places.n_places + at);
            }
            places.n_places += n_places(group);
        }
        places
    }

    /// The parts of all groups as packed rows: of each row the sum of its places, always in the same order.
    fn packed(&self, parts: Vec<Tensor<2>>) -> Tensor<2> {
        let ([_, width], device) = (parts[0].dims(), parts[0].device());
        let held = parts[0].dtype();
        let n_rounds = self.of_rows.iter().map(Vec::len).max().unwrap_or(0);
        let is_in_order = n_rounds == 1 && self.of_rows.iter().enumerate().all(|(row, places)| places[..] == [row]);
        if is_in_order && self.n_places == self.of_rows.len() {
            return Tensor::cat(parts, 0);
        }
        // A row that has no place left takes nothing.
        let nothing = Tensor::zeros([1, width], (&device, held));
        let all = Tensor::cat(parts.into_iter().chain([nothing]).collect(), 0);
        let round = |round: usize| {
            let places = self.of_rows.iter().map(|places| places.get(round).copied().unwrap_or(self.n_places));
            all.clone().select(0, index(places, &device))
        };
        (1..n_rounds).fold(round(0), |sum, at| sum + round(at))
    }
}

/// Where each packed row stands in its sequence.
pub fn positions(segments: &[Segment]) -> Arc<[u32]> {
    segments.iter().flat_map(|segment| segment.prefix.len() as u32..segment.n_tokens() as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_of_like_lengths_lie_side_by_side() {
        let ranges = [0..100, 100..100, 100..180, 180..190, 190..290];
        let segments = ranges.map(Segment::from);
        let groups = groups(&segments, 16);
        let shown = groups.iter().map(|group| {
            let starts: Vec<usize> = group.segments.iter().map(|segment| segment.rows.start).collect();
            (group.n_queries, group.n_keys, starts)
        });
        assert_eq!(shown.collect::<Vec<_>>(), [(100, 100, vec![0, 190, 100]), (10, 10, vec![180])]);
        // Past the end of the shortest.
        assert_eq!(groups[0].query_rows[278..282], [178, 179, 179, 179]);
    }

    #[test]
    fn a_prefix_is_keys_and_not_queries() {
        let whole = Segment::from(0..10);
        let other = Segment { rows: 10..14, prefix: 0..6 };
        let groups = groups(&[whole, other], 1);
        assert_eq!(groups.len(), 2);
        assert_eq!((groups[1].n_queries, groups[1].n_keys), (4, 10));
        assert_eq!(groups[1].key_rows, [0, 1, 2, 3, 4, 5, 10, 11, 12, 13]);
        let blocks = groups[1].blocks(1, None);
        assert_eq!(blocks, [Block { queries: 0..4, keys: 0..10, starts: [6].into() }]);
        let places = Places::of_keys(&groups, 14);
        assert_eq!(places.of_rows[5], [5, 15]);
        assert_eq!(places.of_rows[9..11], [vec![9], vec![16]]);
    }

    #[test]
    fn scores_of_a_block_are_bounded_however_long_the_sequences_are() {
        for (n_sequences, n_tokens) in [(1, 8192), (16, 8192), (300, 700), (2, 1_000_000)] {
            let segments: Vec<Segment> =
                (0..n_sequences).map(|at| (at * n_tokens..(at + 1) * n_tokens).into()).collect();
            let groups = groups(&segments, 16);
            let mut n_queries = 0;
            for (group, block) in
                groups.iter().flat_map(|own| own.blocks(16, None).into_iter().map(move |it| (own, it)))
            {
                let n_rows = group.segments.len() * block.queries.len();
                n_queries += n_rows;
                assert!(n_rows * 16 * block.keys.len() <= MAX_SCORES, "{n_sequences} of {n_tokens}");
            }
            assert_eq!(n_queries, n_sequences * n_tokens);
        }
    }

    #[test]
    fn a_window_costs_what_it_spans() {
        let group = &groups(&[(0..8192).into()], 16)[0];
        let blocks = group.blocks(16, Some(1024));
        assert!(blocks.iter().all(|block| block.keys.len() <= 1024 + BLOCK + 64), "{blocks:?}");
        // The first query of a block sees itself and the 1023 keys before it.
        assert!(blocks.iter().all(|block| block.keys.start <= (block.queries.start + 1).saturating_sub(1024)));
    }
}
