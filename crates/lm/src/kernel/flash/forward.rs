//! Attention of a tile of queries: the forward pass.
//!
//! Owns the running softmax: a cube has the queries of one head and walks over the tiles of keys that they see, with the
//! largest score and the sum of each row so far (Dao 2023, "FlashAttention-2", algorithm 1). Scores, weights and the output
//! never leave the registers. Knows nothing of gradients.

use cubecl::prelude::*;

use super::fragments::{BLOCK, Cut, Line, Pair, clear, column_of, join_quads, lane, row_of};
use super::tile::{Place, UNSEEN, add_dots, add_mixed, bend, load, sees, store};

/// A tile of queries, as `tiles` has it: see [`super::plan::query_tiles`].
#[derive(CubeType)]
pub struct Queries {
    pub place: Place,
    /// Position of the first query.
    pub first: u32,
    /// Of the last one.
    pub last: u32,
    /// The first position whose key one of them sees.
    pub first_key: u32,
}

#[cube]
impl Queries {
    pub fn read(tiles: &Tensor<u32>, tile: u32, window: u32) -> Self {
        let at = tile as usize * 5;
        let first = tiles[at + 3];
        let mut first_key = u32::new(0);
        if first >= window {
            first_key = first - window + 1;
        }
        let place = Place { n_prefix: tiles[at], prefix: tiles[at + 1], own: tiles[at + 2] };
        Queries { place, first, last: tiles[at + 4], first_key }
    }
}

/// Writes `out[n, h · d]` and the logarithms `lse[n, h]` of the softmax's sums. A cube for each tile and head, the heads of a
/// tile side by side, since they read the same keys.
#[cube(launch)]
pub fn forward_kernel<E: Float>(
    q: &Tensor<Line<E>>,
    k: &Tensor<Line<E>>,
    v: &Tensor<Line<E>>,
    tiles: &Tensor<u32>,
    out: &mut Tensor<Pair<E>>,
    lse: &mut Tensor<f32>,
    window: u32,
    scale: f32,
    cap: f32,
    #[comptime] cut: Cut,
    #[define(E)] _held: ElemType,
) {
    let n_heads = comptime!(cut.n_heads);
    let n_kv_heads = comptime!(cut.n_kv_heads);
    let n_owned = comptime!(cut.n_owned());
    let n_met = comptime!(cut.n_met / BLOCK);
    let n_wide = comptime!(cut.d / BLOCK);
    let tile = Queries::read(tiles, CUBE_POS_X / comptime!(n_heads as u32), window);
    let head = CUBE_POS_X % comptime!(n_heads as u32);
    let key_head = head / comptime!(cut.group() as u32);
    let mut queries = Shared::<[Line<E>]>::new_aligned_slice(comptime!(n_owned * cut.stride()), 16usize);
    let mut keys = Shared::<[Line<E>]>::new_aligned_slice(comptime!(cut.n_met * cut.stride()), 16usize);
    let mut values = Shared::<[Line<E>]>::new_aligned_slice(comptime!(cut.n_met * cut.stride()), 16usize);
    load::<E>(&mut queries, q, &tile.place, tile.first, tile.last, head, n_heads, n_owned, cut);

    let mut mixed = Array::<Pair<f32>>::new(comptime!(cut.n_lanes * n_wide * 4));
    let mut scores = Array::<Pair<f32>>::new(comptime!(cut.n_lanes * n_met * 4));
    let mut softmax = Softmax::new(cut);
    clear(&mut mixed, n_wide, cut);
    let mut key = tile.first_key / comptime!(cut.n_met as u32) * comptime!(cut.n_met as u32);
    while key <= tile.last {
        load::<E>(&mut keys, k, &tile.place, key, tile.last, key_head, n_kv_heads, comptime!(cut.n_met), cut);
        load::<E>(&mut values, v, &tile.place, key, tile.last, key_head, n_kv_heads, comptime!(cut.n_met), cut);
        sync_cube();
        clear(&mut scores, n_met, cut);
        add_dots::<E>(&queries, UNIT_POS_Y as usize * BLOCK, &keys, &mut scores, cut);
        bend(&mut scores, scale, cap, cut);
        hide_unseen(&mut scores, &tile, key, window, cut);
        softmax.weigh(&mut scores, &mut mixed, cut);
        add_mixed::<E>(&scores, &values, &mut mixed, cut);
        sync_cube();
        key += comptime!(cut.n_met as u32);
    }
    softmax.finish(&mut mixed, lse, &tile, head, cut);
    let (row, n) = (tile.place.row(tile.first), tile.last - tile.first + 1);
    store::<E>(&mixed, out, row, n, head, n_heads, cut);
}

/// Takes away the scores of keys that a query does not see, where the tile of keys from `key` on has any.
#[cube]
pub fn hide_unseen(scores: &mut Array<Pair<f32>>, tile: &Queries, key: u32, window: u32, #[comptime] cut: Cut) {
    let n_registers = comptime!(cut.n_met / BLOCK * 4);
    let unrolled = comptime!(!cut.is_imitated());
    let is_whole = key + comptime!(cut.n_met as u32 - 1) <= tile.first && tile.last < key + window;
    if !is_whole {
        #[unroll(unrolled)]
        for nth in 0..comptime!(cut.n_lanes) {
            #[unroll(unrolled)]
            for register in 0..n_registers {
                let at = nth * n_registers + register;
                let query = (tile.first + UNIT_POS_Y * 16 + row_of(lane(nth), register)) as i32;
                let key = (key + column_of(lane(nth), register)) as i32;
                let both = scores[at];
                let mut seen = Pair::<f32>::zeroed();
                let first = select(sees(query, key, window as i32), both.extract(0usize), f32::new(UNSEEN));
                let second = select(sees(query, key + 1, window as i32), both.extract(1usize), f32::new(UNSEEN));
                seen.insert(0usize, first);
                seen.insert(1usize, second);
                scores[at] = seen;
            }
        }
    }
}

/// Of each lane's two rows, the largest score and the sum of the weights relative to it; a sum is the lane's own until the end.
#[derive(CubeType)]
struct Softmax {
    largest: Array<f32>,
    sums: Array<f32>,
}

#[cube]
impl Softmax {
    fn new(#[comptime] cut: Cut) -> Self {
        let unrolled = comptime!(!cut.is_imitated());
        let mut largest = Array::<f32>::new(comptime!(2 * cut.n_lanes));
        let mut sums = Array::<f32>::new(comptime!(2 * cut.n_lanes));
        #[unroll(unrolled)]
        for at in 0..comptime!(2 * cut.n_lanes) {
            largest[at] = f32::new(UNSEEN);
            sums[at] = f32::new(0.0);
        }
        Softmax { largest, sums }
    }

    /// Scores become weights, and what was mixed with smaller ones shrinks.
    fn weigh(&mut self, scores: &mut Array<Pair<f32>>, mixed: &mut Array<Pair<f32>>, #[comptime] cut: Cut) {
        let n_met = comptime!(cut.n_met / BLOCK * 4);
        let n_wide = comptime!(cut.d / BLOCK * 4);
        let unrolled = comptime!(!cut.is_imitated());
        let mut largest = Array::<f32>::new(comptime!(2 * cut.n_lanes));
        #[unroll(unrolled)]
        for nth in 0..comptime!(cut.n_lanes) {
            #[unroll]
            for row in 0..2usize {
                let mut most = self.largest[nth * 2 + row];
                #[unroll(unrolled)]
                for register in 0..comptime!(n_met / 2) {
                    let both = scores[nth * n_met + register * 2 + row];
                    most = max(most, max(both.extract(0usize), both.extract(1usize)));
                }
                largest[nth * 2 + row] = most;
            }
        }
        join_quads(&mut largest, false, cut);
        #[unroll(unrolled)]
        for nth in 0..comptime!(cut.n_lanes) {
            #[unroll]
            for row in 0..2usize {
                let most = largest[nth * 2 + row];
                let shrink = (self.largest[nth * 2 + row] - most).exp();
                let mut sum = self.sums[nth * 2 + row] * shrink;
                #[unroll(unrolled)]
                for register in 0..comptime!(n_met / 2) {
                    let at = nth * n_met + register * 2 + row;
                    let weights = (scores[at] - Pair::<f32>::new(most)).exp();
                    sum += weights.extract(0usize) + weights.extract(1usize);
                    scores[at] = weights;
                }
                self.sums[nth * 2 + row] = sum;
                self.largest[nth * 2 + row] = most;
                #[unroll(unrolled)]
                for register in 0..comptime!(n_wide / 2) {
                    let at = nth * n_wide + register * 2 + row;
                    mixed[at] *= Pair::<f32>::new(shrink);
                }
            }
        }
    }

    /// What was mixed becomes a mean, and the logarithms of the sums are written.
    fn finish(
        &mut self,
        mixed: &mut Array<Pair<f32>>,
        lse: &mut Tensor<f32>,
        tile: &Queries,
        head: u32,
        #[comptime] cut: Cut,
    ) {
        let n_wide = comptime!(cut.d / BLOCK * 4);
        let unrolled = comptime!(!cut.is_imitated());
        join_quads(&mut self.sums, true, cut);
        #[unroll(unrolled)]
        for nth in 0..comptime!(cut.n_lanes) {
            #[unroll]
            for row in 0..2usize {
                let sum = self.sums[nth * 2 + row];
                let part = f32::new(1.0) / sum;
                #[unroll(unrolled)]
                for register in 0..comptime!(n_wide / 2) {
                    let at = nth * n_wide + register * 2 + row;
                    mixed[at] *= Pair::<f32>::new(part);
                }
                let position = tile.first + UNIT_POS_Y * 16 + row_of(lane(nth), row);
                if position <= tile.last && column_of(lane(nth), 0usize) == 0 {
                    let at = tile.place.row(position) as usize * comptime!(cut.n_heads) + head as usize;
                    lse[at] = self.largest[nth * 2 + row] + sum.ln();
                }
            }
        }
    }
}
