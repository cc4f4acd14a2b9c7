//! The gradient of a tile of queries.
//!
//! Owns the part of the backward pass that runs over keys: a cube has the queries of one head, makes their weights again from
//! the logarithms of the forward pass's sums, and walks twice over the keys that they see. The first time it finds the mean
//! of each row's gradient of weights, `Σ w · dw`, which the gradient of every score needs, the second time it sums the
//! gradient (Dao 2023, "FlashAttention-2", algorithm 2, where the mean comes from the output instead). Knows nothing of keys'
//! gradients but that they need the means, too.

use cubecl::prelude::*;

use super::forward::{Queries, hide_unseen};
use super::fragments::{BLOCK, Cut, Line, Pair, clear, column_of, join_quads, lane, row_of};
use super::tile::{add_dots, add_mixed, bend, load, store};

/// Writes `dq[n, h · d]` and `means[n, h]`. A cube for each tile and head, as in the forward pass.
#[cube(launch)]
pub fn queries_kernel<E: Float>(
    q: &Tensor<Line<E>>,
    k: &Tensor<Line<E>>,
    v: &Tensor<Line<E>>,
    grad: &Tensor<Line<E>>,
    lse: &Tensor<f32>,
    tiles: &Tensor<u32>,
    dq: &mut Tensor<Pair<E>>,
    means: &mut Tensor<f32>,
    window: u32,
    scale: f32,
    cap: f32,
    #[comptime] cut: Cut,
    #[define(E)] _held: ElemType,
) {
    let n_heads = comptime!(cut.n_heads);
    let n_kv_heads = comptime!(cut.n_kv_heads);
    let n_tile = comptime!(cut.n_met);
    let n_owned = comptime!(cut.n_owned());
    let n_met = comptime!(cut.n_met / BLOCK);
    let n_wide = comptime!(cut.d / BLOCK);
    let tile = Queries::read(tiles, CUBE_POS_X / comptime!(n_heads as u32), window);
    let head = CUBE_POS_X % comptime!(n_heads as u32);
    let key_head = head / comptime!(cut.group() as u32);
    let first_row = UNIT_POS_Y as usize * BLOCK;
    let mut queries = Shared::<[Line<E>]>::new_aligned_slice(comptime!(n_owned * cut.stride()), 16usize);
    let mut grads = Shared::<[Line<E>]>::new_aligned_slice(comptime!(n_owned * cut.stride()), 16usize);
    let mut keys = Shared::<[Line<E>]>::new_aligned_slice(comptime!(n_tile * cut.stride()), 16usize);
    let mut values = Shared::<[Line<E>]>::new_aligned_slice(comptime!(n_tile * cut.stride()), 16usize);
    load::<E>(&mut queries, q, &tile.place, tile.first, tile.last, head, n_heads, n_owned, cut);
    load::<E>(&mut grads, grad, &tile.place, tile.first, tile.last, head, n_heads, n_owned, cut);

    let lse = of_rows(lse, &tile, head, cut);
    let mut mean = Array::<f32>::new(comptime!(2 * cut.n_lanes));
    let mut sums = Array::<Pair<f32>>::new(comptime!(cut.n_lanes * n_wide * 4));
    let mut scores = Array::<Pair<f32>>::new(comptime!(cut.n_lanes * n_met * 4));
    let mut slopes = Array::<Pair<f32>>::new(comptime!(cut.n_lanes * n_met * 4));
    clear(&mut sums, n_wide, cut);
    #[unroll]
    for round in 0..2usize {
        let mut key = tile.first_key / comptime!(n_tile as u32) * comptime!(n_tile as u32);
        while key <= tile.last {
            load::<E>(&mut keys, k, &tile.place, key, tile.last, key_head, n_kv_heads, n_tile, cut);
            load::<E>(&mut values, v, &tile.place, key, tile.last, key_head, n_kv_heads, n_tile, cut);
            sync_cube();
            clear(&mut scores, n_met, cut);
            clear(&mut slopes, n_met, cut);
            add_dots::<E>(&queries, first_row, &keys, &mut scores, cut);
            add_dots::<E>(&grads, first_row, &values, &mut slopes, cut);
            bend(&mut scores, scale, cap, cut);
            hide_unseen(&mut scores, &tile, key, window, cut);
            if comptime!(round == 0) {
                add_means(&scores, &slopes, &lse, &mut mean, cut);
            } else {
                slope_rows(&scores, &mut slopes, &lse, &mean, scale, cap, cut);
                add_mixed::<E>(&slopes, &keys, &mut sums, cut);
            }
            sync_cube();
            key += comptime!(n_tile as u32);
        }
        if comptime!(round == 0) {
            join_quads(&mut mean, true, cut);
        }
    }
    write_rows(&mean, means, &tile, head, cut);
    let (row, n) = (tile.place.row(tile.first), tile.last - tile.first + 1);
    store::<E>(&sums, dq, row, n, head, n_heads, cut);
}

/// A number of each of a lane's two rows.
#[cube]
fn of_rows(from: &Tensor<f32>, tile: &Queries, head: u32, #[comptime] cut: Cut) -> Array<f32> {
    let unrolled = comptime!(!cut.is_imitated());
    let mut numbers = Array::<f32>::new(comptime!(2 * cut.n_lanes));
    #[unroll(unrolled)]
    for nth in 0..comptime!(cut.n_lanes) {
        #[unroll]
        for row in 0..2usize {
            let position = min(tile.first + UNIT_POS_Y * 16 + row_of(lane(nth), row), tile.last);
            let at = tile.place.row(position) as usize * comptime!(cut.n_heads) + head as usize;
            numbers[nth * 2 + row] = from[at];
        }
    }
    numbers
}

#[cube]
fn write_rows(numbers: &Array<f32>, to: &mut Tensor<f32>, tile: &Queries, head: u32, #[comptime] cut: Cut) {
    let unrolled = comptime!(!cut.is_imitated());
    #[unroll(unrolled)]
    for nth in 0..comptime!(cut.n_lanes) {
        #[unroll]
        for row in 0..2usize {
            let position = tile.first + UNIT_POS_Y * 16 + row_of(lane(nth), row);
            if position <= tile.last && column_of(lane(nth), 0usize) == 0 {
                let at = tile.place.row(position) as usize * comptime!(cut.n_heads) + head as usize;
                to[at] = numbers[nth * 2 + row];
            }
        }
    }
}

/// Adds `w · dw` of each row to the lane's part of its mean.
#[cube]
fn add_means(
    scores: &Array<Pair<f32>>,
    dweights: &Array<Pair<f32>>,
    lse: &Array<f32>,
    mean: &mut Array<f32>,
    #[comptime] cut: Cut,
) {
    let n_registers = comptime!(cut.n_met / BLOCK * 4);
    let unrolled = comptime!(!cut.is_imitated());
    #[unroll(unrolled)]
    for nth in 0..comptime!(cut.n_lanes) {
        #[unroll]
        for row in 0..2usize {
            let mut sum = mean[nth * 2 + row];
            #[unroll(unrolled)]
            for register in 0..comptime!(n_registers / 2) {
                let at = nth * n_registers + register * 2 + row;
                let weights = (scores[at] - Pair::<f32>::new(lse[nth * 2 + row])).exp();
                let products = weights * dweights[at];
                sum += products.extract(0usize) + products.extract(1usize);
            }
            mean[nth * 2 + row] = sum;
        }
    }
}

/// Gradients of weights become gradients of raw scores.
#[cube]
fn slope_rows(
    scores: &Array<Pair<f32>>,
    slopes: &mut Array<Pair<f32>>,
    lse: &Array<f32>,
    mean: &Array<f32>,
    scale: f32,
    cap: f32,
    #[comptime] cut: Cut,
) {
    let n_registers = comptime!(cut.n_met / BLOCK * 4);
    let unrolled = comptime!(!cut.is_imitated());
    #[unroll(unrolled)]
    for nth in 0..comptime!(cut.n_lanes) {
        #[unroll(unrolled)]
        for register in 0..n_registers {
            let (at, row) = (nth * n_registers + register, nth * 2 + register % 2);
            let (score, dweights) = (scores[at], slopes[at]);
            let weights = (score - Pair::<f32>::new(lse[row])).exp();
            slopes[at] = slope(score, weights, dweights, Pair::<f32>::new(mean[row]), scale, cap, cut);
        }
    }
}

/// The gradient of a raw score `x` from that of its weight: `c'(x) · w · (dw − mean)`, where `score` is `c(x)`.
#[cube]
pub fn slope(
    score: Pair<f32>,
    weight: Pair<f32>,
    dweight: Pair<f32>,
    mean: Pair<f32>,
    scale: f32,
    cap: f32,
    #[comptime] cut: Cut,
) -> Pair<f32> {
    let slope = weight * (dweight - mean) * Pair::<f32>::new(scale);
    if comptime!(cut.is_capped) {
        let tanh = score / Pair::<f32>::new(cap);
        slope * (Pair::<f32>::new(1.0) - tanh * tanh)
    } else {
        slope
    }
}
