//! Tiles of queries and keys: from memory into shared memory, and their products.
//!
//! Owns where the rows of a sequence lie, a prefix before its own, and the two shapes of product that attention is made of.
//! Knows nothing of weights.

use cubecl::prelude::*;

use super::fragments::{BLOCK, Cut, Line, Pair, Side, add_product, column_of, fragment, held, lane, row_of};
use crate::kernel::rows::cube::capped;

/// What a key that a query does not see scores: far below every score, and so that its square still is a number.
pub const UNSEEN: f32 = -1e15;

/// Where a sequence lies among the packed rows.
#[derive(CubeType)]
pub struct Place {
    /// Tokens of the prefix.
    pub n_prefix: u32,
    /// Packed row of the prefix's first token.
    pub prefix: u32,
    /// Packed row of the first token of its own.
    pub own: u32,
}

#[cube]
impl Place {
    /// The packed row of the token at a position.
    pub fn row(&self, position: u32) -> u32 {
        let mut row = self.own + position - self.n_prefix;
        if position < self.n_prefix {
            row = self.prefix + position;
        }
        row
    }
}

/// Puts `n` rows of one head, `[row, heads · d]` in memory, into a stage: those at positions `first` and after. What lies past
/// position `last` repeats it, so that every number of a stage is one of the sequence.
#[cube]
pub fn load<E: Float>(
    stage: &mut Shared<[Line<E>]>,
    from: &Tensor<Line<E>>,
    place: &Place,
    first: u32,
    last: u32,
    head: u32,
    #[comptime] n_heads: usize,
    #[comptime] n: usize,
    #[comptime] cut: Cut,
) {
    let n_lines = comptime!(cut.d / 8);
    let n_units = comptime!(cut.n_units());
    let n_all = comptime!(n * n_lines);
    let unrolled = comptime!(!cut.is_imitated());
    #[unroll(unrolled)]
    for step in 0..comptime!(n_all.div_ceil(n_units)) {
        let at = step * n_units + UNIT_POS as usize;
        let is_of_stage = if comptime!(n_all.is_multiple_of(n_units)) { true.runtime() } else { at < n_all };
        if is_of_stage {
            let (row, line) = (at / n_lines, at % n_lines);
            let packed = place.row(min(first + row as u32, last)) as usize;
            stage[row * comptime!(cut.stride()) + line] = from[(packed * n_heads + head as usize) * n_lines + line];
        }
    }
}

/// Adds to `sums`, a block's rows by `n_met` columns, the dot products of a block's rows of one stage with the rows of another.
#[cube]
pub fn add_dots<E: Float>(
    rows: &Shared<[Line<E>]>,
    first_row: usize,
    columns: &Shared<[Line<E>]>,
    sums: &mut Array<Pair<f32>>,
    #[comptime] cut: Cut,
) {
    let n_blocks = comptime!(cut.n_met / BLOCK);
    let unrolled = comptime!(!cut.is_imitated());
    #[unroll(unrolled)]
    for k in 0..comptime!(cut.d / BLOCK) {
        let left = fragment::<E>(rows, first_row, k * BLOCK, Side::Left, cut);
        #[unroll(unrolled)]
        for block in 0..n_blocks {
            let right = fragment::<E>(columns, block * BLOCK, k * BLOCK, Side::Right, cut);
            add_product::<E>(&left, &right, sums, block, n_blocks, cut);
        }
    }
}

/// Adds to `sums`, a block's rows by `d` columns, the rows of a stage times `weights`, a block's rows by `n_met` columns.
#[cube]
pub fn add_mixed<E: Float>(
    weights: &Array<Pair<f32>>,
    rows: &Shared<[Line<E>]>,
    sums: &mut Array<Pair<f32>>,
    #[comptime] cut: Cut,
) {
    let n_met = comptime!(cut.n_met / BLOCK);
    let n_wide = comptime!(cut.d / BLOCK);
    let unrolled = comptime!(!cut.is_imitated());
    #[unroll(unrolled)]
    for k in 0..n_met {
        let left = held::<E>(weights, k, n_met, cut);
        #[unroll(unrolled)]
        for block in 0..n_wide {
            let right = fragment::<E>(rows, k * BLOCK, block * BLOCK, Side::RightTurned, cut);
            add_product::<E>(&left, &right, sums, block, n_wide, cut);
        }
    }
}

/// Writes a block's rows of sums, rounded, as rows of one head: those of `n` packed rows from `first` on that this plane owns.
#[cube]
pub fn store<E: Float>(
    sums: &Array<Pair<f32>>,
    to: &mut Tensor<Pair<E>>,
    first: u32,
    n: u32,
    head: u32,
    #[comptime] n_heads: usize,
    #[comptime] cut: Cut,
) {
    let n_registers = comptime!(cut.d / BLOCK * 4);
    let unrolled = comptime!(!cut.is_imitated());
    #[unroll(unrolled)]
    for nth in 0..comptime!(cut.n_lanes) {
        #[unroll(unrolled)]
        for register in 0..n_registers {
            let row = UNIT_POS_Y * 16 + row_of(lane(nth), register);
            if row < n {
                let at = ((first + row) as usize * n_heads + head as usize) * comptime!(cut.d / 2);
                let column = column_of(lane(nth), register) as usize / 2;
                to[at + column] = Pair::<E>::cast_from(sums[nth * n_registers + register]);
            }
        }
    }
}

/// `softcap(scale · score)` of all registers of `n_met` columns.
#[cube]
pub fn bend(scores: &mut Array<Pair<f32>>, scale: f32, cap: f32, #[comptime] cut: Cut) {
    let unrolled = comptime!(!cut.is_imitated());
    #[unroll(unrolled)]
    for at in 0..comptime!(cut.n_lanes * cut.n_met / BLOCK * 4) {
        let both = scores[at];
        let mut bent = Pair::<f32>::zeroed();
        bent.insert(0usize, capped(both.extract(0usize) * scale, cap, comptime!(cut.is_capped)));
        bent.insert(1usize, capped(both.extract(1usize) * scale, cap, comptime!(cut.is_capped)));
        scores[at] = bent;
    }
}

/// Whether a query sees a key, both by their positions.
#[cube]
pub fn sees(query: i32, key: i32, window: i32) -> bool {
    query >= key && query - key < window
}
