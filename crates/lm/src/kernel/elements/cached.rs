//! Keys and values of past tokens in their slots, and attention of single new tokens over them.
//!
//! Owns what a step of generation does in a layer: new keys and values go to their places in one launch, and in another each
//! (token, key head) reads its slot once, a tile of keys at a time, with the running maximum and sum of Milakov and Gimelshein
//! (2018, "Online normalizer calculation for softmax"). What bounds it is the memory, so there are no products of tiles, and
//! caches are read in vectors. Keys lie `[slot, g, d, capacity]`, values `[slot, g, capacity, d]`, so that neighbouring units
//! read neighbouring vectors of both.
//!
//! n tokens, h query heads, g key heads, d head dim

use burn::backend::TensorMetadata;
use cubecl::prelude::*;

use super::{GpuTensor, element, like};
use crate::kernel::rows::cube::{RowLaunch, capped, joined_max, joined_sum, lanes, narrow, words};
use crate::kernel::{AttentionSpec, CacheLayout, SlotCopy};

/// Puts keys and values `[n, g · d]` at their places, the keys turned.
pub fn stored(
    [k, v]: [GpuTensor; 2],
    [keys, values]: [GpuTensor; 2],
    tables: [GpuTensor; 2],
    places: &[u32],
    layout: CacheLayout,
    spec: &AttentionSpec,
) -> (GpuTensor, GpuTensor) {
    let n_pairs = k.shape().num_elements() / 2;
    let dim = CubeDim::new(&k.client, n_pairs);
    let held = element(&k);
    store_kernel::launch(
        &keys.client.clone(),
        cubecl::calculate_cube_count_elemwise(&keys.client, n_pairs, dim),
        dim,
        keys.required_address_type(),
        k.into_tensor_arg(),
        v.into_tensor_arg(),
        keys.clone().into_tensor_arg(),
        values.clone().into_tensor_arg(),
        PlacesLaunch::of(places, tables, layout, spec),
        narrow(spec.head_dim / 2),
        held,
    );
    (keys, values)
}

/// Attention `[n, h · d]` of queries `[n, h · d]`, turned here, over the keys of their slots up to their positions.
pub fn seen(
    q: GpuTensor,
    [keys, values]: [GpuTensor; 2],
    tables: [GpuTensor; 2],
    places: &[u32],
    layout: CacheLayout,
    spec: &AttentionSpec,
) -> GpuTensor {
    let AttentionSpec { n_heads, n_kv_heads, head_dim, scale, softcap, window, rope: _ } = spec;
    let out = like(&q);
    let RowLaunch { count: _, dim, n_units } = RowLaunch::of(&q);
    let (n_rows, held) = (q.shape()[0], element(&q));
    // Powers of two all of them.
    let n_lanes = lanes(&[&keys], layout.capacity).min(lanes(&[&keys], *head_dim)).min(n_units);
    let sizes = Sizes { group: n_heads / n_kv_heads, head_dim: *head_dim, n_units };
    let sight = SightLaunch {
        places: PlacesLaunch::of(places, tables, layout, spec),
        window: window.map_or(u32::MAX, narrow),
        scale: *scale,
        cap: softcap.unwrap_or(1.0),
        is_capped: softcap.is_some(),
        sizes,
    };
    seen_kernel::launch(
        &out.client.clone(),
        CubeCount::Static(narrow(*n_kv_heads), narrow(n_rows), 1),
        dim,
        keys.required_address_type(),
        n_lanes,
        q.into_tensor_arg(),
        keys.into_tensor_arg(),
        values.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        sight,
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
    let [from, to, n_tokens, capacity, n_kv_heads, head_dim] =
        [from, to, n_tokens, layout.capacity, n_kv_heads, head_dim].map(narrow);
    copy_kernel::launch(
        &keys.client.clone(),
        cubecl::calculate_cube_count_elemwise(&keys.client, n, dim),
        dim,
        keys.required_address_type(),
        keys.clone().into_tensor_arg(),
        values.clone().into_tensor_arg(),
        SlotsLaunch { from, to, n_tokens, capacity, n_kv_heads, head_dim },
        held,
    );
    (keys, values)
}

/// Where rows stand in the cache, and the tables by which heads turn there.
#[derive(CubeType, CubeLaunch)]
struct Places {
    /// Slot and position of each row, one after the other.
    of_rows: Box<[u32]>,
    cos: Box<[f32]>,
    sin: Box<[f32]>,
    capacity: u32,
    n_kv_heads: u32,
}

impl PlacesLaunch {
    fn of(places: &[u32], [cos, sin]: [GpuTensor; 2], layout: CacheLayout, spec: &AttentionSpec) -> Self {
        Self {
            of_rows: words(places, &cos.device).into_buffer_arg(),
            cos: cos.into_buffer_arg(),
            sin: sin.into_buffer_arg(),
            capacity: narrow(layout.capacity),
            n_kv_heads: narrow(spec.n_kv_heads),
        }
    }
}

#[cube]
impl Places {
    /// Slot and position.
    fn of_row(&self, row: usize) -> (usize, usize) {
        (self.of_rows[2 * row] as usize, self.of_rows[2 * row + 1] as usize)
    }

    /// A pair of elements, turned by what the tables have at `angle`.
    fn turned(&self, x1: f32, x2: f32, angle: usize) -> (f32, f32) {
        let (cos, sin) = (self.cos[angle], self.sin[angle]);
        (x1 * cos - x2 * sin, x2 * cos + x1 * sin)
    }
}

/// A unit for each pair of elements that turn together. A token's keys lie far from each other, so there are no vectors.
#[cube(launch, address_type = "dynamic")]
fn store_kernel<E: Float>(
    k: &Tensor<E>,
    v: &Tensor<E>,
    keys: &mut Tensor<E>,
    values: &mut Tensor<E>,
    places: Places,
    half: u32,
    #[define(E)] _held: ElemType,
) {
    let (capacity, g, half) = (places.capacity as usize, places.n_kv_heads as usize, half as usize);
    let row = ABSOLUTE_POS / (g * half);
    if row < k.len() / (g * half * 2) {
        let (head, element) = (ABSOLUTE_POS / half % g, ABSOLUTE_POS % half);
        let (slot, position) = places.of_row(row);
        let at = (row * g + head) * 2 * half + element;
        let (x1, x2) = (f32::cast_from(k[at]), f32::cast_from(k[at + half]));
        let (x1, x2) = places.turned(x1, x2, position * half + element);
        let base = (slot * g + head) * 2 * half * capacity;
        keys[base + element * capacity + position] = E::cast_from(x1);
        keys[base + (element + half) * capacity + position] = E::cast_from(x2);
        let base = base + position * 2 * half + element;
        values[base] = v[at];
        values[base + half] = v[at + half];
    }
}

/// What a query sees, as a kernel takes it.
#[derive(CubeType, CubeLaunch)]
struct Sight {
    places: Places,
    /// Larger than any position where there is none.
    window: u32,
    scale: f32,
    cap: f32,
    #[cube(comptime)]
    is_capped: bool,
    #[cube(comptime)]
    sizes: Sizes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sizes {
    /// Query heads of a key head.
    group: usize,
    head_dim: usize,
    n_units: usize,
}

/// A cube for each key head of a row.
///
/// Of a tile of as many keys as there are units, a unit reads a vector of keys, and of these one element in N: what it finds
/// is a part of N dot products, which are joined in shared memory and leave a key for each unit. Of the values a unit reads a
/// vector of columns, and of these one key in as many as there are units for each vector.
#[cube(launch, address_type = "dynamic")]
fn seen_kernel<E: Float, N: Size>(
    q: &Tensor<E>,
    keys: &Tensor<Vector<E, N>>,
    values: &Tensor<Vector<E, N>>,
    out: &mut Tensor<E>,
    sight: Sight,
    #[define(E)] _held: ElemType,
) {
    let Sizes { group, head_dim: d, n_units } = comptime!(sight.sizes);
    let n_lanes = N::value();
    let n_columns = comptime!(d / n_lanes);
    let n_own = comptime!(n_columns.div_ceil(n_units));
    let n_parts = comptime!((n_units / n_columns).max(1));
    let mut queries = Shared::<[f32]>::new_slice(comptime!(group * d));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(group * n_units));
    let mut parts = Shared::<[f32]>::new_slice(comptime!((n_units * n_lanes).max(d)));
    let mut shared = Shared::<[f32]>::new_slice(n_units);
    let (head, row, unit) = (CUBE_POS_X as usize, CUBE_POS_Y as usize, UNIT_POS as usize);
    let (slot, position) = sight.places.of_row(row);
    let n_kv_heads = sight.places.n_kv_heads as usize;

    // The queries of this key head, turned, rounded as a cache rounds keys.
    let first_query = (row * n_kv_heads + head) * group * d;
    let mut pair = unit;
    while pair < comptime!(group * d / 2) {
        let (of_group, element) = (pair / comptime!(d / 2), pair % comptime!(d / 2));
        let at = of_group * d + element;
        let x1 = f32::cast_from(q[first_query + at]);
        let x2 = f32::cast_from(q[first_query + at + comptime!(d / 2)]);
        let (x1, x2) = sight.places.turned(x1, x2, position * comptime!(d / 2) + element);
        queries[at] = f32::cast_from(E::cast_from(x1));
        queries[at + comptime!(d / 2)] = f32::cast_from(E::cast_from(x2));
        pair += n_units;
    }
    sync_cube();

    let mut largest = Array::<f32>::new(group);
    let mut sum = Array::<f32>::new(group);
    let mut mixed = Array::<Vector<f32, N>>::new(comptime!(group * n_own));
    #[unroll]
    for of_group in 0..group {
        largest[of_group] = f32::new(-3.4e38);
        sum[of_group] = f32::new(0.0);
        #[unroll]
        for own in 0..n_own {
            mixed[of_group * n_own + own] = Vector::new(0.0f32);
        }
    }
    let capacity = sight.places.capacity as usize / n_lanes;
    let base = (slot * n_kv_heads + head) * d * capacity;
    let mut first = 0usize;
    if position as u32 >= sight.window {
        first = position - sight.window as usize + 1;
    }
    // Vectors begin at multiples of their length, so the first one may have keys that nobody sees.
    let mut tile = first / n_lanes * n_lanes;
    while tile <= position {
        let n_keys = min(position - tile + 1, n_units);
        let mut dots = Array::<Vector<f32, N>>::new(group);
        #[unroll]
        for of_group in 0..group {
            dots[of_group] = Vector::new(0.0f32);
        }
        let vector = unit % comptime!(n_units / n_lanes);
        let part = unit / comptime!(n_units / n_lanes);
        if vector * n_lanes < n_keys {
            let mut element = part;
            while element < d {
                let of_keys = Vector::<f32, N>::cast_from(keys[base + element * capacity + tile / n_lanes + vector]);
                #[unroll]
                for of_group in 0..group {
                    dots[of_group] += Vector::new(queries[of_group * d + element]) * of_keys;
                }
                element += n_lanes;
            }
        }
        let key = tile + unit;
        #[unroll]
        for of_group in 0..group {
            sync_cube();
            #[unroll]
            for lane in 0..n_lanes {
                parts[part * n_units + vector * n_lanes + lane] = dots[of_group].extract(lane);
            }
            sync_cube();
            let mut dot = f32::new(0.0);
            #[unroll]
            for part in 0..n_lanes {
                dot += parts[part * n_units + unit];
            }
            let is_seen = key >= first && key <= position;
            let mut score = f32::new(-3.4e38);
            if is_seen {
                score = capped(dot * sight.scale, sight.cap, comptime!(sight.is_capped));
            }
            let before = largest[of_group];
            let now = max(before, joined_max(&mut shared, score));
            let mut weight = f32::new(0.0);
            if is_seen {
                weight = (score - now).exp();
            }
            weights[of_group * n_units + unit] = weight;
            let shrunk = (before - now).exp();
            sum[of_group] = sum[of_group] * shrunk + joined_sum(&mut shared, weight);
            largest[of_group] = now;
            #[unroll]
            for own in 0..n_own {
                mixed[of_group * n_own + own] *= Vector::new(shrunk);
            }
        }
        sync_cube();
        #[unroll]
        for own in 0..n_own {
            let column = unit % n_columns + comptime!(own * n_units);
            if column < n_columns && unit / n_columns < n_parts {
                let mut at = unit / n_columns;
                while at < n_keys {
                    let of_values = Vector::<f32, N>::cast_from(values[base + (tile + at) * n_columns + column]);
                    #[unroll]
                    for of_group in 0..group {
                        mixed[of_group * n_own + own] += Vector::new(weights[of_group * n_units + at]) * of_values;
                    }
                    at += n_parts;
                }
            }
        }
        sync_cube();
        tile += n_units;
    }
    #[unroll]
    for of_group in 0..group {
        sync_cube();
        #[unroll]
        for own in 0..n_own {
            let column = unit % n_columns + comptime!(own * n_units);
            if column < n_columns && unit / n_columns < n_parts {
                #[unroll]
                for lane in 0..n_lanes {
                    let at = unit / n_columns * d + column * n_lanes + lane;
                    parts[at] = mixed[of_group * n_own + own].extract(lane);
                }
            }
        }
        sync_cube();
        let mut column = unit;
        while column < d {
            let mut result = f32::new(0.0);
            #[unroll]
            for part in 0..n_parts {
                result += parts[part * d + column];
            }
            out[first_query + of_group * d + column] = E::cast_from(result / sum[of_group]);
            column += n_units;
        }
    }
}

#[derive(CubeType, CubeLaunch)]
struct Slots {
    from: u32,
    to: u32,
    n_tokens: u32,
    capacity: u32,
    n_kv_heads: u32,
    head_dim: u32,
}

/// A unit for each key number of these tokens, and for each value number.
#[cube(launch, address_type = "dynamic")]
fn copy_kernel<E: Float>(keys: &mut Tensor<E>, values: &mut Tensor<E>, slots: Slots, #[define(E)] _held: ElemType) {
    let (n_tokens, capacity) = (slots.n_tokens as usize, slots.capacity as usize);
    let (g, d) = (slots.n_kv_heads as usize, slots.head_dim as usize);
    if ABSOLUTE_POS < g * d * n_tokens {
        let (from, to) = (slots.from as usize * g * d * capacity, slots.to as usize * g * d * capacity);
        let line = ABSOLUTE_POS / n_tokens;
        let key = line * capacity + ABSOLUTE_POS % n_tokens;
        keys[to + key] = keys[from + key];
        let head = ABSOLUTE_POS / (d * n_tokens);
        let value = head * d * capacity + ABSOLUTE_POS % (d * n_tokens);
        values[to + value] = values[from + value];
    }
}
