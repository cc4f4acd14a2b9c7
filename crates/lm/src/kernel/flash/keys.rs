//! The gradients of a tile of keys and values.
//!
//! Owns the part of the backward pass that runs over queries: a cube has the keys of one key head and walks over all queries
//! that see them, head by head of its group and sequence by sequence, so that nobody else adds to its sums and they are the
//! same each time. Rows are keys and columns are queries here, so that the weights are, as they lie, the left operand of both
//! sums. Where the sums of keys and of values would not fit into the registers together, they are two launches.
//! Knows nothing of queries' gradients but the means that were found with them.

use cubecl::prelude::*;

use super::fragments::{BLOCK, Cut, Line, Pair, clear, column_of, lane, row_of};
use super::queries::slope;
use super::tile::{Place, UNSEEN, add_dots, add_mixed, bend, load, sees, store};

/// Which gradients a launch makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    Keys,
    Values,
    Both,
}

impl Wanted {
    pub const fn keys(self) -> bool {
        !matches!(self, Self::Values)
    }

    pub const fn values(self) -> bool {
        !matches!(self, Self::Keys)
    }
}

/// The queries of one sequence that see a tile of keys: see [`super::plan::KeyTiles::visits`].
#[derive(CubeType)]
struct Visit {
    place: Place,
    /// Positions of the first and the last query.
    first: u32,
    last: u32,
    /// Position of the tile's first key.
    key: u32,
    n_keys: u32,
}

#[cube]
impl Visit {
    fn read(visits: &Tensor<u32>, visit: u32) -> Self {
        let at = visit as usize * 6;
        let place = Place { n_prefix: visits[at + 1], prefix: u32::new(0), own: visits[at] };
        Visit { place, first: visits[at + 2], last: visits[at + 3], key: visits[at + 4], n_keys: visits[at + 5] }
    }
}

/// Writes `dk[n, g · d]`, `dv[n, g · d]` or both. A cube for each tile and key head.
#[cube(launch)]
pub fn keys_kernel<E: Float>(
    q: &Tensor<Line<E>>,
    k: &Tensor<Line<E>>,
    v: &Tensor<Line<E>>,
    grad: &Tensor<Line<E>>,
    lse: &Tensor<f32>,
    means: &Tensor<f32>,
    tiles: &Tensor<u32>,
    visits: &Tensor<u32>,
    dk: &mut Tensor<Pair<E>>,
    dv: &mut Tensor<Pair<E>>,
    window: u32,
    scale: f32,
    cap: f32,
    #[comptime] wanted: Wanted,
    #[comptime] cut: Cut,
    #[define(E)] _held: ElemType,
) {
    let n_heads = comptime!(cut.n_heads);
    let n_kv_heads = comptime!(cut.n_kv_heads);
    let n_tile = comptime!(cut.n_met);
    let group = comptime!(cut.group());
    let n_owned = comptime!(cut.n_owned());
    let n_met = comptime!(cut.n_met / BLOCK);
    let n_wide = comptime!(cut.d / BLOCK);
    let at = (CUBE_POS_X / comptime!(n_kv_heads as u32)) as usize * 4;
    let (row, n, first_visit, end) = (tiles[at], tiles[at + 1], tiles[at + 2], tiles[at + 3]);
    let key_head = CUBE_POS_X % comptime!(n_kv_heads as u32);
    let first_row = UNIT_POS_Y as usize * BLOCK;
    let n_of_values = comptime!(if wanted.keys() { n_owned * cut.stride() } else { 1 });
    let n_of_dv = comptime!(if wanted.values() { n_wide } else { 1 });
    let n_of_dk = comptime!(if wanted.keys() { n_wide } else { 1 });
    let mut keys = Shared::<[Line<E>]>::new_aligned_slice(comptime!(n_owned * cut.stride()), 16usize);
    let mut values = Shared::<[Line<E>]>::new_aligned_slice(n_of_values, 16usize);
    let mut queries = Shared::<[Line<E>]>::new_aligned_slice(comptime!(n_tile * cut.stride()), 16usize);
    let mut grads = Shared::<[Line<E>]>::new_aligned_slice(comptime!(n_tile * cut.stride()), 16usize);
    let mut numbers = Shared::<[f32]>::new_slice(comptime!(2 * n_tile));
    let own = Place { n_prefix: u32::new(0), prefix: u32::new(0), own: row };
    load::<E>(&mut keys, k, &own, u32::new(0), n - 1, key_head, n_kv_heads, n_owned, cut);
    if comptime!(wanted.keys()) {
        load::<E>(&mut values, v, &own, u32::new(0), n - 1, key_head, n_kv_heads, n_owned, cut);
    }

    let mut key_sums = Array::<Pair<f32>>::new(comptime!(cut.n_lanes * n_of_dk * 4));
    let mut value_sums = Array::<Pair<f32>>::new(comptime!(cut.n_lanes * n_of_dv * 4));
    let mut weights = Array::<Pair<f32>>::new(comptime!(cut.n_lanes * n_met * 4));
    let mut slopes = Array::<Pair<f32>>::new(comptime!(cut.n_lanes * n_met * 4));
    clear(&mut key_sums, n_of_dk, cut);
    clear(&mut value_sums, n_of_dv, cut);
    let mut at = first_visit;
    while at < end {
        let visit = Visit::read(visits, at);
        for of_group in 0..comptime!(group as u32) {
            let head = key_head * comptime!(group as u32) + of_group;
            let mut query = visit.first;
            while query <= visit.last {
                load::<E>(&mut queries, q, &visit.place, query, visit.last, head, n_heads, n_tile, cut);
                load::<E>(&mut grads, grad, &visit.place, query, visit.last, head, n_heads, n_tile, cut);
                load_numbers(&mut numbers, lse, means, &visit, query, head, cut);
                sync_cube();
                clear(&mut weights, n_met, cut);
                add_dots::<E>(&keys, first_row, &queries, &mut weights, cut);
                bend(&mut weights, scale, cap, cut);
                hide_unseeing(&mut weights, &visit, query, window, cut);
                if comptime!(wanted.keys()) {
                    clear(&mut slopes, n_met, cut);
                    add_dots::<E>(&values, first_row, &grads, &mut slopes, cut);
                }
                slope_columns(&mut weights, &mut slopes, &numbers, scale, cap, wanted, cut);
                if comptime!(wanted.values()) {
                    add_mixed::<E>(&weights, &grads, &mut value_sums, cut);
                }
                if comptime!(wanted.keys()) {
                    add_mixed::<E>(&slopes, &queries, &mut key_sums, cut);
                }
                sync_cube();
                query += comptime!(n_tile as u32);
            }
        }
        at += 1;
    }
    if comptime!(wanted.keys()) {
        store::<E>(&key_sums, dk, row, n, key_head, n_kv_heads, cut);
    }
    if comptime!(wanted.values()) {
        store::<E>(&value_sums, dv, row, n, key_head, n_kv_heads, cut);
    }
}

/// The logarithms of the sums of a tile of queries, and after them the means.
#[cube]
fn load_numbers(
    numbers: &mut Shared<[f32]>,
    lse: &Tensor<f32>,
    means: &Tensor<f32>,
    visit: &Visit,
    query: u32,
    head: u32,
    #[comptime] cut: Cut,
) {
    let mut at = UNIT_POS;
    while at < comptime!(cut.n_met as u32) {
        let row = visit.place.row(min(query + at, visit.last)) as usize;
        numbers[at as usize] = lse[row * comptime!(cut.n_heads) + head as usize];
        numbers[at as usize + comptime!(cut.n_met)] = means[row * comptime!(cut.n_heads) + head as usize];
        at += CUBE_DIM;
    }
}

/// Takes away the scores of queries that do not see a key, where the tile of queries from `query` on has any.
#[cube]
fn hide_unseeing(scores: &mut Array<Pair<f32>>, visit: &Visit, query: u32, window: u32, #[comptime] cut: Cut) {
    let n_registers = comptime!(cut.n_met / BLOCK * 4);
    let unrolled = comptime!(!cut.is_imitated());
    let last = query + comptime!(cut.n_met as u32 - 1);
    let is_full = visit.n_keys == comptime!(cut.n_owned() as u32) && last <= visit.last;
    let is_whole = is_full && visit.key + comptime!(cut.n_owned() as u32 - 1) <= query && last < visit.key + window;
    if !is_whole {
        #[unroll(unrolled)]
        for nth in 0..comptime!(cut.n_lanes) {
            #[unroll(unrolled)]
            for register in 0..n_registers {
                let at = nth * n_registers + register;
                let key = UNIT_POS_Y * 16 + row_of(lane(nth), register);
                let query = query + column_of(lane(nth), register);
                let is_key = key < visit.n_keys;
                let key = (visit.key + key) as i32;
                let both = scores[at];
                let sees_first = is_key && query <= visit.last && sees(query as i32, key, window as i32);
                let sees_second = is_key && query < visit.last && sees(query as i32 + 1, key, window as i32);
                let mut seen = Pair::<f32>::zeroed();
                seen.insert(0usize, select(sees_first, both.extract(0usize), f32::new(UNSEEN)));
                seen.insert(1usize, select(sees_second, both.extract(1usize), f32::new(UNSEEN)));
                scores[at] = seen;
            }
        }
    }
}

/// Scores become weights and, where keys are wanted, gradients of weights those of raw scores.
#[cube]
fn slope_columns(
    scores: &mut Array<Pair<f32>>,
    slopes: &mut Array<Pair<f32>>,
    numbers: &Shared<[f32]>,
    scale: f32,
    cap: f32,
    #[comptime] wanted: Wanted,
    #[comptime] cut: Cut,
) {
    let n_registers = comptime!(cut.n_met / BLOCK * 4);
    let unrolled = comptime!(!cut.is_imitated());
    #[unroll(unrolled)]
    for nth in 0..comptime!(cut.n_lanes) {
        #[unroll(unrolled)]
        for register in 0..n_registers {
            let at = nth * n_registers + register;
            let column = column_of(lane(nth), register) as usize;
            let score = scores[at];
            let weights = (score - neighbours(numbers, column)).exp();
            scores[at] = weights;
            if comptime!(wanted.keys()) {
                let mean = neighbours(numbers, column + comptime!(cut.n_met));
                slopes[at] = slope(score, weights, slopes[at], mean, scale, cap, cut);
            }
        }
    }
}

#[cube]
fn neighbours(numbers: &Shared<[f32]>, at: usize) -> Pair<f32> {
    let mut both = Pair::<f32>::zeroed();
    both.insert(0usize, numbers[at]);
    both.insert(1usize, numbers[at + 1]);
    both
}
