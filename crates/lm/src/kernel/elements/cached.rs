//! Keys and values of past tokens in their slots, and attention of single new tokens over them.
//!
//! Owns what a step of generation does in a layer: new keys and values go to their places in one launch, and in another each
//! (token, key head) reads its slot once, a tile of keys at a time, with the running maximum and sum of Milakov and Gimelshein
//! (2018, "Online normalizer calculation for softmax"). What bounds it is the memory, so there are no products of tiles. Keys
//! lie `[slot, g, d, capacity]`, values `[slot, g, capacity, d]`, so that neighbouring units read neighbouring numbers of both.
//!
//! n tokens, h query heads, g key heads, d head dim

use burn::backend::TensorMetadata;
use cubecl::prelude::*;

use super::{GpuTensor, element, like};
use crate::kernel::rows::cube::{RowLaunch, capped, joined_max, joined_sum, narrow, words};
use crate::kernel::{AttentionSpec, CacheLayout, SlotCopy};

/// Puts keys and values `[n, g · d]` at their places, the keys turned.
pub fn stored(
    [k, v]: [GpuTensor; 2],
    [keys, values]: [GpuTensor; 2],
    [cos, sin]: [GpuTensor; 2],
    places: &[u32],
    layout: CacheLayout,
    spec: &AttentionSpec,
) -> (GpuTensor, GpuTensor) {
    let n_pairs = k.shape().num_elements() / 2;
    let dim = CubeDim::new(&k.client, n_pairs);
    let (places, held) = (words(places, &k.device), element(&k));
    store_kernel::launch(
        &keys.client.clone(),
        cubecl::calculate_cube_count_elemwise(&keys.client, n_pairs, dim),
        dim,
        keys.required_address_type(),
        k.into_tensor_arg(),
        v.into_tensor_arg(),
        keys.clone().into_tensor_arg(),
        values.clone().into_tensor_arg(),
        cos.into_tensor_arg(),
        sin.into_tensor_arg(),
        places.into_tensor_arg(),
        narrow(layout.capacity),
        narrow(spec.n_kv_heads),
        narrow(spec.head_dim / 2),
        held,
    );
    (keys, values)
}

/// Attention `[n, h · d]` of queries `[n, h · d]`, turned here, over the keys of their slots up to their positions.
pub fn seen(
    q: GpuTensor,
    [keys, values]: [GpuTensor; 2],
    [cos, sin]: [GpuTensor; 2],
    places: &[u32],
    layout: CacheLayout,
    spec: &AttentionSpec,
) -> GpuTensor {
    let AttentionSpec { n_heads, n_kv_heads, head_dim, scale, softcap, window, rope: _ } = spec;
    let out = like(&q);
    let RowLaunch { count: _, dim, n_units } = RowLaunch::of(&q);
    let (n_rows, held) = (q.shape()[0], element(&q));
    let places = words(places, &q.device);
    seen_kernel::launch(
        &out.client.clone(),
        CubeCount::Static(narrow(*n_kv_heads), narrow(n_rows), 1),
        dim,
        keys.required_address_type(),
        q.into_tensor_arg(),
        keys.into_tensor_arg(),
        values.into_tensor_arg(),
        cos.into_tensor_arg(),
        sin.into_tensor_arg(),
        places.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        narrow(layout.capacity),
        window.map_or(u32::MAX, narrow),
        *scale,
        softcap.unwrap_or(1.0),
        softcap.is_some(),
        *n_kv_heads,
        n_heads / n_kv_heads,
        *head_dim,
        n_units,
        held,
    );
    out
}

/// Copies the first tokens of one slot to another.
pub fn slot_copied([keys, values]: [GpuTensor; 2], layout: CacheLayout, copy: SlotCopy) -> (GpuTensor, GpuTensor) {
    let SlotCopy { from, to, n_tokens, n_kv_heads, head_dim } = copy;
    let n = n_kv_heads * head_dim * n_tokens;
    let dim = CubeDim::new(&keys.client, n);
    let held = element(&keys);
    copy_kernel::launch(
        &keys.client.clone(),
        cubecl::calculate_cube_count_elemwise(&keys.client, n, dim),
        dim,
        keys.required_address_type(),
        keys.clone().into_tensor_arg(),
        values.clone().into_tensor_arg(),
        narrow(from),
        narrow(to),
        narrow(n_tokens),
        narrow(layout.capacity),
        narrow(n_kv_heads),
        narrow(head_dim),
        held,
    );
    (keys, values)
}

/// A unit for each pair of elements that turn together.
#[cube(launch, address_type = "dynamic")]
#[expect(clippy::too_many_arguments, reason = "a launch has one argument a number")]
fn store_kernel<E: Float>(
    k: &Tensor<E>,
    v: &Tensor<E>,
    keys: &mut Tensor<E>,
    values: &mut Tensor<E>,
    cos: &Tensor<f32>,
    sin: &Tensor<f32>,
    places: &Tensor<u32>,
    capacity: u32,
    n_kv_heads: u32,
    half: u32,
    #[define(E)] _held: ElemType,
) {
    let (capacity, g, half) = (capacity as usize, n_kv_heads as usize, half as usize);
    let row = ABSOLUTE_POS / (g * half);
    if row < k.len() / (g * half * 2) {
        let (head, element) = (ABSOLUTE_POS / half % g, ABSOLUTE_POS % half);
        let (slot, position) = (places[2 * row] as usize, places[2 * row + 1] as usize);
        let at = (row * g + head) * 2 * half + element;
        let angle = position * half + element;
        let (cos, sin) = (cos[angle], sin[angle]);
        let (x1, x2) = (f32::cast_from(k[at]), f32::cast_from(k[at + half]));
        let base = (slot * g + head) * 2 * half * capacity;
        keys[base + element * capacity + position] = E::cast_from(x1 * cos - x2 * sin);
        keys[base + (element + half) * capacity + position] = E::cast_from(x2 * cos + x1 * sin);
        let base = base + position * 2 * half + element;
        values[base] = v[at];
        values[base + half] = v[at + half];
    }
}

/// A cube for each key head of a row.
#[cube(launch, address_type = "dynamic")]
#[expect(clippy::too_many_arguments, reason = "a launch has one argument a number")]
fn seen_kernel<E: Float>(
    q: &Tensor<E>,
    keys: &Tensor<E>,
    values: &Tensor<E>,
    cos: &Tensor<f32>,
    sin: &Tensor<f32>,
    places: &Tensor<u32>,
    out: &mut Tensor<E>,
    capacity: u32,
    window: u32,
    scale: f32,
    cap: f32,
    #[comptime] is_capped: bool,
    #[comptime] n_kv_heads: usize,
    #[comptime] group: usize,
    #[comptime] d: usize,
    #[comptime] n_units: usize,
    #[define(E)] _held: ElemType,
) {
    // Columns of the output that a unit makes, at most.
    let n_own = comptime!(d.div_ceil(n_units));
    let mut queries = Shared::<[f32]>::new_slice(comptime!(group * d));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(group * n_units));
    let mut shared = Shared::<[f32]>::new_slice(n_units);
    let (head, row) = (CUBE_POS_X as usize, CUBE_POS_Y as usize);
    let (slot, position) = (places[2 * row] as usize, places[2 * row + 1]);
    let unit = UNIT_POS as usize;

    // The queries of this key head, turned, rounded as a cache rounds keys.
    let first_query = (row * n_kv_heads + head) * group * d;
    let mut pair = unit;
    while pair < comptime!(group * d / 2) {
        let (of_group, element) = (pair / comptime!(d / 2), pair % comptime!(d / 2));
        let at = of_group * d + element;
        let angle = position as usize * comptime!(d / 2) + element;
        let (cos, sin) = (cos[angle], sin[angle]);
        let x1 = f32::cast_from(q[first_query + at]);
        let x2 = f32::cast_from(q[first_query + at + comptime!(d / 2)]);
        queries[at] = f32::cast_from(E::cast_from(x1 * cos - x2 * sin));
        queries[at + comptime!(d / 2)] = f32::cast_from(E::cast_from(x2 * cos + x1 * sin));
        pair += n_units;
    }
    sync_cube();

    let mut largest = Array::<f32>::new(group);
    let mut sum = Array::<f32>::new(group);
    let mut mixed = Array::<f32>::new(comptime!(group * n_own));
    #[unroll]
    for of_group in 0..group {
        largest[of_group] = f32::new(-3.4e38);
        sum[of_group] = f32::new(0.0);
        #[unroll]
        for own in 0..n_own {
            mixed[of_group * n_own + own] = f32::new(0.0);
        }
    }
    let base = (slot * n_kv_heads + head) * d * capacity as usize;
    let mut first = u32::new(0);
    if position >= window {
        first = position - window + 1;
    }
    let mut tile = first;
    while tile <= position {
        let key = tile + UNIT_POS;
        let n_keys = min(position - tile + 1, CUBE_DIM);
        let mut dots = Array::<f32>::new(group);
        #[unroll]
        for of_group in 0..group {
            dots[of_group] = f32::new(0.0);
        }
        if key <= position {
            for element in 0..d {
                let of_key = f32::cast_from(keys[base + element * capacity as usize + key as usize]);
                #[unroll]
                for of_group in 0..group {
                    dots[of_group] += queries[of_group * d + element] * of_key;
                }
            }
        }
        #[unroll]
        for of_group in 0..group {
            let mut score = f32::new(-3.4e38);
            if key <= position {
                score = capped(dots[of_group] * scale, cap, is_capped);
            }
            let before = largest[of_group];
            let now = max(before, joined_max(&mut shared, score));
            let mut weight = f32::new(0.0);
            if key <= position {
                weight = (score - now).exp();
            }
            weights[of_group * n_units + unit] = weight;
            let shrunk = (before - now).exp();
            sum[of_group] = sum[of_group] * shrunk + joined_sum(&mut shared, weight);
            largest[of_group] = now;
            #[unroll]
            for own in 0..n_own {
                mixed[of_group * n_own + own] *= shrunk;
            }
        }
        sync_cube();
        #[unroll]
        for own in 0..n_own {
            let column = unit + own * n_units;
            if column < d {
                for at in 0..n_keys as usize {
                    let value = f32::cast_from(values[base + (tile as usize + at) * d + column]);
                    #[unroll]
                    for of_group in 0..group {
                        mixed[of_group * n_own + own] += weights[of_group * n_units + at] * value;
                    }
                }
            }
        }
        sync_cube();
        tile += CUBE_DIM;
    }
    #[unroll]
    for own in 0..n_own {
        let column = unit + own * n_units;
        if column < d {
            #[unroll]
            for of_group in 0..group {
                let result = mixed[of_group * n_own + own] / sum[of_group];
                out[first_query + of_group * d + column] = E::cast_from(result);
            }
        }
    }
}

/// A unit for each key number of these tokens, and for each value number.
#[cube(launch, address_type = "dynamic")]
#[expect(clippy::too_many_arguments, reason = "a launch has one argument a number")]
fn copy_kernel<E: Float>(
    keys: &mut Tensor<E>,
    values: &mut Tensor<E>,
    from: u32,
    to: u32,
    n_tokens: u32,
    capacity: u32,
    n_kv_heads: u32,
    head_dim: u32,
    #[define(E)] _held: ElemType,
) {
    let (n_tokens, capacity, g, d) = (n_tokens as usize, capacity as usize, n_kv_heads as usize, head_dim as usize);
    if ABSOLUTE_POS < g * d * n_tokens {
        let slot = g * d * capacity;
        let line = ABSOLUTE_POS / n_tokens;
        let key = line * capacity + ABSOLUTE_POS % n_tokens;
        keys[to as usize * slot + key] = keys[from as usize * slot + key];
        let head = ABSOLUTE_POS / (d * n_tokens);
        let value = head * d * capacity + ABSOLUTE_POS % (d * n_tokens);
        values[to as usize * slot + value] = values[from as usize * slot + value];
    }
}
