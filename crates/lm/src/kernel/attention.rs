//! Causal attention on slices: grouped queries, rotary positions, sliding window, soft cap; forward, backward, cached.
//!
//! Owns the arithmetic of one (sequence, key head) pair and the spreading of pairs over threads. Knows nothing of tensors.
//! Scores are never kept for the backward pass: recomputing a row costs less than reading it back.
//!
//! t tokens of one sequence, s tokens it sees, h query heads, g key heads, d head dim

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use burn::tensor::{DType, Device, Tensor, TensorData};
use rayon::prelude::*;

use super::math::{self, accumulate_rows, axpy, vectorized};
use crate::packed::Segment;

/// Cosines and sines of the rotary position embedding, `[position, d / 2]` each.
///
/// Su et al. 2021, in the half-split layout of the published checkpoints: element `i` turns with element `i + d / 2`.
#[derive(Debug)]
pub struct Rope {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// The tables as tensors, on the device that asked first.
    on_device: OnceLock<(Device, [Tensor<2>; 2])>,
}

impl Rope {
    /// Tables for `n_positions`, from the inverse frequency of each element pair.
    pub fn new(inverse_frequencies: &[f32], n_positions: usize) -> Self {
        let half = inverse_frequencies.len();
        let angles = (0..n_positions)
            .flat_map(|position| inverse_frequencies.iter().map(move |frequency| position as f32 * frequency));
        let (cos, sin) = angles.map(|angle| (angle.cos(), angle.sin())).unzip();
        Self { half, cos, sin, on_device: OnceLock::new() }
    }

    /// Number of positions the tables reach.
    pub fn n_positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }

    /// Turns `x[d]` to `position` and multiplies it by `scale`; a negative `direction` turns it back.
    #[inline(always)]
    fn rotate(&self, x: &[f32], position: usize, scale: f32, direction: f32, out: &mut [f32]) {
        let cos = &self.cos[position * self.half..][..self.half];
        let sin = &self.sin[position * self.half..][..self.half];
        let (x1, x2) = x.split_at(self.half);
        let (out1, out2) = out.split_at_mut(self.half);
        for i in 0..self.half {
            let (c, s) = (cos[i] * scale, sin[i] * scale * direction);
            out1[i] = x1[i] * c - x2[i] * s;
            out2[i] = x2[i] * c + x1[i] * s;
        }
    }

    /// Cosines and sines as tensors `[position, d / 2]` in f32.
    pub(super) fn on(&self, device: &Device) -> (Tensor<2>, Tensor<2>) {
        let make = || {
            [&self.cos, &self.sin].map(|table| {
                let data = TensorData::new(table.clone(), [self.n_positions(), self.half]);
                Tensor::from_data(data, (device, DType::F32))
            })
        };
        let (first, tables) = self.on_device.get_or_init(|| (device.clone(), make()));
        let [cos, sin] = if first == device { tables.clone() } else { make() };
        (cos, sin)
    }
}

/// Scores that exist at one time on a GPU, at most: 256 MiB in f32.
pub const MAX_SCORES: usize = 1 << 26;

/// What one attention layer needs to know besides its tensors.
#[derive(Clone, Debug)]
pub struct AttentionSpec {
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    /// Factor on `q · k`.
    pub scale: f32,
    /// `cap · tanh(score / cap)` before the mask (Gemma 2, section 2).
    pub softcap: Option<f32>,
    /// How many keys a query sees, itself included; all earlier ones where absent.
    pub window: Option<usize>,
    pub rope: Arc<Rope>,
}

impl AttentionSpec {
    /// First key that the query at `position` sees.
    #[inline(always)]
    fn first_key(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }
}

/// A query row of a sequence inside the packed batch: which rows, which cache slot, how many tokens came before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedSegment {
    pub rows: Range<usize>,
    pub slot: usize,
    pub n_past: usize,
}

/// One head's slice of row `row` of a `[n, heads · d]` matrix.
#[inline(always)]
fn head(x: &[f32], row: usize, n_heads: usize, head: usize, d: usize) -> &[f32] {
    &x[(row * n_heads + head) * d..][..d]
}

/// `scores ← softmax(softcap(scores))`.
#[inline(always)]
fn normalise(scores: &mut [f32], cap: Option<f32>) {
    if let Some(cap) = cap {
        math::softcap(scores, cap);
    }
    let shift = math::max(scores);
    let sum = math::exp_sum(scores, shift);
    math::scale(scores, 1.0 / sum);
}

fn pairs(segments: &[Segment], n_kv_heads: usize) -> Vec<(&Segment, usize)> {
    segments.iter().flat_map(|segment| (0..n_kv_heads).map(move |g| (segment, g))).collect()
}

/// Output `[n, h · d]` of causal self-attention within each segment and over the prefix it continues.
pub fn forward(q: &[f32], k: &[f32], v: &[f32], segments: &[Segment], spec: &AttentionSpec) -> Vec<f32> {
    let (d, h, group) = (spec.head_dim, spec.n_heads, spec.group());
    let pairs = pairs(segments, spec.n_kv_heads);
    let blocks: Vec<Vec<f32>> = pairs
        .par_iter()
        .map(|(segment, g)| {
            vectorized(
                #[inline(always)]
                || forward_pair(q, k, v, segment, *g, spec),
            )
        })
        .collect();
    let mut out = vec![0.0; q.len()];
    for ((segment, g), block) in pairs.iter().zip(&blocks) {
        let t = segment.rows.len();
        for in_group in 0..group {
            for (i, row) in segment.rows.clone().enumerate() {
                let target = (row * h + g * group + in_group) * d;
                out[target..target + d].copy_from_slice(&block[(in_group * t + i) * d..][..d]);
            }
        }
    }
    out
}

/// Keys of one head turned to their positions and laid `[d, s]`, the prefix first, so that a score row is a sum over
/// contiguous rows.
#[inline(always)]
fn rotated_keys_transposed(k: &[f32], segment: &Segment, g: usize, spec: &AttentionSpec) -> Vec<f32> {
    let (d, s) = (spec.head_dim, segment.n_tokens());
    let mut turned = vec![0.0; d];
    let mut keys_ds = vec![0.0; d * s];
    for (j, row) in segment.tokens().enumerate() {
        spec.rope.rotate(head(k, row, spec.n_kv_heads, g, d), j, 1.0, 1.0, &mut turned);
        for (c, value) in turned.iter().enumerate() {
            keys_ds[c * s + j] = *value;
        }
    }
    keys_ds
}

#[inline(always)]
fn forward_pair(q: &[f32], k: &[f32], v: &[f32], segment: &Segment, g: usize, spec: &AttentionSpec) -> Vec<f32> {
    let Segment { rows, prefix } = segment;
    let (d, t, s, group) = (spec.head_dim, rows.len(), segment.n_tokens(), spec.group());
    let keys_ds = rotated_keys_transposed(k, segment, g, spec);
    let stride = spec.n_kv_heads * d;
    let (of_prefix, own) = (&v[prefix.start * stride..], &v[rows.start * stride..]);
    let mut block = vec![0.0; group * t * d];
    let mut query = vec![0.0; d];
    let mut scores = vec![0.0; s];
    for in_group in 0..group {
        for i in 0..t {
            let position = prefix.len() + i;
            let row = head(q, rows.start + i, spec.n_heads, g * group + in_group, d);
            spec.rope.rotate(row, position, spec.scale, 1.0, &mut query);
            let first = spec.first_key(position);
            let scores = &mut scores[first..=position];
            scores.fill(0.0);
            accumulate_rows(scores, &query, &keys_ds, s, first);
            normalise(scores, spec.softcap);
            let out = &mut block[(in_group * t + i) * d..][..d];
            // The sum runs over the keys in order, so that it does not matter whether they lie in one piece.
            let (in_prefix, in_own) = scores.split_at(prefix.len().saturating_sub(first));
            accumulate_rows(out, in_prefix, &of_prefix[first * stride..], stride, g * d);
            accumulate_rows(out, in_own, &own[first.saturating_sub(prefix.len()) * stride..], stride, g * d);
        }
    }
    block
}

/// Gradients of [`forward`] with respect to `q`, `k` and `v`, from the gradient of its output.
pub fn backward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    grad: &[f32],
    segments: &[Segment],
    spec: &AttentionSpec,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let (d, h, n_kv, group) = (spec.head_dim, spec.n_heads, spec.n_kv_heads, spec.group());
    let pairs = pairs(segments, n_kv);
    let blocks: Vec<PairGradients> = pairs
        .par_iter()
        .map(|(segment, g)| {
            vectorized(
                #[inline(always)]
                || backward_pair(q, k, v, grad, segment, *g, spec),
            )
        })
        .collect();
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    for ((segment, g), block) in pairs.iter().zip(&blocks) {
        let (t, n_prefix) = (segment.rows.len(), segment.prefix.len());
        for (i, row) in segment.rows.clone().enumerate() {
            let (key, place) = ((row * n_kv + g) * d, (n_prefix + i) * d);
            dk[key..key + d].copy_from_slice(&block.keys[place..][..d]);
            dv[key..key + d].copy_from_slice(&block.values[place..][..d]);
            for in_group in 0..group {
                let query = (row * h + g * group + in_group) * d;
                dq[query..query + d].copy_from_slice(&block.queries[(in_group * t + i) * d..][..d]);
            }
        }
    }
    // What continues a prefix adds to its gradient, in the order of the segments.
    for ((segment, g), block) in pairs.iter().zip(&blocks) {
        for (j, row) in segment.prefix.clone().enumerate() {
            let key = (row * n_kv + g) * d;
            axpy(&mut dk[key..key + d], 1.0, &block.keys[j * d..][..d]);
            axpy(&mut dv[key..key + d], 1.0, &block.values[j * d..][..d]);
        }
    }
    (dq, dk, dv)
}

/// Of a segment's own queries, and of the keys and values that they see, the prefix first.
struct PairGradients {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

#[inline(always)]
fn backward_pair(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    grad: &[f32],
    segment: &Segment,
    g: usize,
    spec: &AttentionSpec,
) -> PairGradients {
    let Segment { rows, prefix } = segment;
    let (d, t, s, n_kv, group) = (spec.head_dim, rows.len(), segment.n_tokens(), spec.n_kv_heads, spec.group());
    let keys_ds = rotated_keys_transposed(k, segment, g, spec);
    let mut keys_sd = vec![0.0; s * d];
    let mut values_ds = vec![0.0; d * s];
    for (j, row) in segment.tokens().enumerate() {
        let value = head(v, row, n_kv, g, d);
        for c in 0..d {
            keys_sd[j * d + c] = keys_ds[c * s + j];
            values_ds[c * s + j] = value[c];
        }
    }
    let mut out = PairGradients { queries: vec![0.0; group * t * d], keys: vec![0.0; s * d], values: vec![0.0; s * d] };
    let mut query = vec![0.0; d];
    let mut turned = vec![0.0; d];
    let (mut capped, mut probabilities, mut dp) = (vec![0.0; s], vec![0.0; s], vec![0.0; s]);
    for in_group in 0..group {
        for i in 0..t {
            let h = g * group + in_group;
            let (row, position) = (rows.start + i, prefix.len() + i);
            spec.rope.rotate(head(q, row, spec.n_heads, h, d), position, spec.scale, 1.0, &mut query);
            let first = spec.first_key(position);
            let seen = first..=position;
            let (capped, p, dp) = (&mut capped[seen.clone()], &mut probabilities[seen.clone()], &mut dp[seen.clone()]);
            capped.fill(0.0);
            accumulate_rows(capped, &query, &keys_ds, s, first);
            if let Some(cap) = spec.softcap {
                math::softcap(capped, cap);
            }
            p.copy_from_slice(capped);
            normalise(p, None);
            let out_grad = head(grad, row, spec.n_heads, h, d);
            dp.fill(0.0);
            accumulate_rows(dp, out_grad, &values_ds, s, first);
            let mean = math::dot(p, dp);
            for (dp, p) in dp.iter_mut().zip(p.iter()) {
                *dp = p * (*dp - mean);
            }
            if let Some(cap) = spec.softcap {
                let inverse = 1.0 / cap;
                for (dp, capped) in dp.iter_mut().zip(capped.iter()) {
                    let tanh = capped * inverse;
                    *dp *= 1.0 - tanh * tanh;
                }
            }
            turned.fill(0.0);
            accumulate_rows(&mut turned, dp, &keys_sd[first * d..], d, 0);
            spec.rope.rotate(&turned, position, spec.scale, -1.0, &mut out.queries[(in_group * t + i) * d..][..d]);
            for (offset, j) in seen.enumerate() {
                axpy(&mut out.keys[j * d..][..d], dp[offset], &query);
                axpy(&mut out.values[j * d..][..d], p[offset], out_grad);
            }
        }
    }
    for j in 0..s {
        turned.copy_from_slice(&out.keys[j * d..][..d]);
        spec.rope.rotate(&turned, j, 1.0, -1.0, &mut out.keys[j * d..][..d]);
    }
    out
}

/// Where keys and values of past tokens lie: keys `[slot, g, d, capacity]`, values `[slot, g, capacity, d]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLayout {
    pub capacity: usize,
}

/// A prompt's cache shared with another slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotCopy {
    pub from: usize,
    pub to: usize,
    pub n_tokens: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
}

/// Copies the first tokens of one slot to another.
pub fn copy_slot(keys: &mut [f32], values: &mut [f32], layout: CacheLayout, copy: SlotCopy) {
    let SlotCopy { from, to, n_tokens, n_kv_heads, head_dim } = copy;
    let (capacity, slot) = (layout.capacity, n_kv_heads * head_dim * layout.capacity);
    for row in 0..n_kv_heads * head_dim {
        let start = from * slot + row * capacity;
        keys.copy_within(start..start + n_tokens, to * slot + row * capacity);
    }
    for g in 0..n_kv_heads {
        let start = from * slot + g * head_dim * capacity;
        values.copy_within(start..start + n_tokens * head_dim, to * slot + g * head_dim * capacity);
    }
}

/// Attention of new tokens over their slot's cache, which takes in their keys and values first.
///
/// Keys are stored turned to their positions, so that a step turns only what is new.
#[expect(clippy::too_many_arguments, reason = "five tensors, and what says how to read them")]
pub fn cached(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    keys: &mut [f32],
    values: &mut [f32],
    layout: CacheLayout,
    segments: &[CachedSegment],
    spec: &AttentionSpec,
) -> Vec<f32> {
    let (d, n_kv, capacity) = (spec.head_dim, spec.n_kv_heads, layout.capacity);
    let mut turned = vec![0.0; d];
    for segment in segments {
        for (i, row) in segment.rows.clone().enumerate() {
            let position = segment.n_past + i;
            for g in 0..n_kv {
                let base = (segment.slot * n_kv + g) * d * capacity;
                spec.rope.rotate(head(k, row, n_kv, g, d), position, 1.0, 1.0, &mut turned);
                for (c, value) in turned.iter().enumerate() {
                    keys[base + c * capacity + position] = *value;
                }
                values[base + position * d..][..d].copy_from_slice(head(v, row, n_kv, g, d));
            }
        }
    }
    let (keys, values) = (&*keys, &*values);
    let mut out = vec![0.0; q.len()];
    let row_width = spec.n_heads * d;
    let mut tasks: Vec<(&CachedSegment, &mut [f32])> = Vec::with_capacity(segments.len());
    let mut rest = &mut out[..];
    let mut consumed = 0;
    for segment in segments {
        let (_, tail) = std::mem::take(&mut rest).split_at_mut(segment.rows.start * row_width - consumed);
        let (mine, tail) = tail.split_at_mut(segment.rows.len() * row_width);
        consumed = segment.rows.end * row_width;
        rest = tail;
        tasks.push((segment, mine));
    }
    let n_scores: usize = segments.iter().map(|s| s.rows.len() * (s.n_past + s.rows.len())).sum();
    let step = |(segment, out): (&CachedSegment, &mut [f32])| {
        vectorized(
            #[inline(always)]
            || cached_segment(q, keys, values, capacity, segment, spec, out),
        );
    };
    // Waking the other threads costs about as much as this many scores.
    if n_scores * row_width < 200_000 {
        tasks.into_iter().for_each(step);
    } else {
        tasks.into_par_iter().for_each(step);
    }
    out
}

#[inline(always)]
fn cached_segment(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    capacity: usize,
    segment: &CachedSegment,
    spec: &AttentionSpec,
    out: &mut [f32],
) {
    let (d, n_kv, group) = (spec.head_dim, spec.n_kv_heads, spec.group());
    let mut query = vec![0.0; d];
    let mut scores = vec![0.0; segment.n_past + segment.rows.len()];
    for (i, row) in segment.rows.clone().enumerate() {
        let position = segment.n_past + i;
        let first = spec.first_key(position);
        for h in 0..spec.n_heads {
            let base = (segment.slot * n_kv + h / group) * d * capacity;
            spec.rope.rotate(head(q, row, spec.n_heads, h, d), position, spec.scale, 1.0, &mut query);
            let scores = &mut scores[first..=position];
            scores.fill(0.0);
            accumulate_rows(scores, &query, &keys[base..base + d * capacity], capacity, first);
            normalise(scores, spec.softcap);
            let out = &mut out[(i * spec.n_heads + h) * d..][..d];
            accumulate_rows(out, scores, &values[base + first * d..base + d * capacity], d, 0);
        }
    }
}
