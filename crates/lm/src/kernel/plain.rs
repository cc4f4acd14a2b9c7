//! The fused operations composed of tensor operations: what runs in bf16, and on devices that have no kernels of their
//! own; and what the kernels are compared with.
//!
//! Owns the arithmetic in any precision: where the Python library's eager run rounds to bf16, so does this, and in f32
//! nothing is rounded. Gradients come from Burn's tape over the same operations, so that they cannot drift from them.
//!
//! n tokens, d hidden size or head dim, m picked rows, w vocabulary, b sequences, t query tokens, s key tokens, h query heads,
//! g key heads

use std::ops::Range;

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

#[cfg(test)]
use super::AdamWSpec;
use super::attention::{AttentionSpec, CacheLayout, CachedSegment, SlotCopy};
use super::head::chunks;
use super::sums::product_added;
use super::{Activation, RmsNormSpec, product};
use crate::packed::Segment;
use crate::precision::Precision;

fn wide<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Precision::F32.hold(x)
}

/// `x / rms(x) · (offset + weight)` of rows `x[n, d]` with `weight[1, d]`.
///
/// The published Gemma rounds once, after the weight; the published Llama, which has no offset, before it and after it.
pub fn rms_norm(x_nd: Tensor<2>, weight_1d: Tensor<2>, spec: RmsNormSpec) -> Tensor<2> {
    let held = Precision::of(&x_nd);
    let wide_nd = wide(x_nd);
    let mean_n1 = wide_nd.clone().square().mean_dim(1).add_scalar(spec.epsilon);
    let normed_nd = wide_nd / mean_n1.sqrt();
    let scale_1d = wide(weight_1d);
    if spec.offset == 0.0 {
        held.hold(held.round(normed_nd) * scale_1d)
    } else {
        held.hold(normed_nd * scale_1d.add_scalar(spec.offset))
    }
}

/// `act(gate) · up`, rounded after the activation and after the product.
pub fn glu(gate: Tensor<2>, up: Tensor<2>, activation: Activation) -> Tensor<2> {
    let held = Precision::of(&gate);
    let x = wide(gate);
    let activated = match activation {
        Activation::GeluTanh => burn::tensor::activation::gelu_approximate(x),
        Activation::Silu => burn::tensor::activation::silu(x),
    };
    held.hold(held.round(activated) * wide(up))
}

/// `cap · tanh(x / cap)` of f32 values, rounded after each of the three operations.
pub fn softcap<const D: usize>(wide: Tensor<D>, cap: Option<f32>, held: Precision) -> Tensor<D> {
    let Some(cap) = cap else { return wide };
    let tanh = held.round(held.round(wide.div_scalar(cap)).tanh());
    held.round(tanh.mul_scalar(cap))
}

/// Log-probabilities `[m]` in nats, f32, of `targets` under `softcap(hidden · tableᵀ)`. The logits exist whole.
pub fn token_logps(hidden_md: Tensor<2>, table_wd: Tensor<2>, targets: &[u32], cap: Option<f32>) -> Tensor<1> {
    let held = Precision::of(&hidden_md);
    logps(wide(product(hidden_md, &table_wd.transpose())), targets, cap, held)
}

/// The same from raw logits in f32 that have been rounded as `held`.
fn logps(logits_mw: Tensor<2>, targets: &[u32], cap: Option<f32>, held: Precision) -> Tensor<1> {
    let device = logits_mw.device();
    let logits_mw = softcap(logits_mw, cap, held);
    let targets_m: Vec<i64> = targets.iter().map(|id| i64::from(*id)).collect();
    let targets_m1 = Tensor::<2, Int>::from_data(TensorData::new(targets_m, [targets.len(), 1]), &device);
    log_softmax(logits_mw, 1).gather(1, targets_m1).squeeze_dim(1)
}

/// As [`token_logps`], a bounded number of logits at a time. Not for the tape, which would keep them all.
pub fn token_logps_by_chunks(
    hidden_md: Tensor<2>,
    table_wd: Tensor<2>,
    targets: &[u32],
    cap: Option<f32>,
) -> Tensor<1> {
    let [n_vocabulary, _] = table_wd.dims();
    let parts = chunks(targets.len(), n_vocabulary).map(|rows| {
        let hidden_md = hidden_md.clone().narrow(0, rows.start, rows.len());
        token_logps(hidden_md, table_wd.clone(), &targets[rows], cap)
    });
    joined(parts.collect(), &hidden_md.device())
}

/// The gradient of the hidden states under [`token_logps_by_chunks`], from that of the log-probabilities, and the flat sum
/// with that of the table added. The gradient of logits stays in f32, so that this is rounded once and the sum never.
pub fn token_logps_gradient(
    hidden_md: Tensor<2>,
    table_wd: Tensor<2>,
    grad_m: Tensor<1>,
    targets: &[u32],
    cap: Option<f32>,
    mut sum_n: Tensor<1>,
) -> (Tensor<2>, Tensor<1>) {
    let (held, [n_vocabulary, _]) = (Precision::of(&hidden_md), table_wd.dims());
    let mut hidden_parts = Vec::new();
    for rows in chunks(targets.len(), n_vocabulary) {
        let (start, n_rows) = (rows.start, rows.len());
        let hidden_md = hidden_md.clone().narrow(0, start, n_rows);
        let logits_mw = wide(product(hidden_md.clone(), &table_wd.clone().transpose()));
        let [dlogits_mw] = gradients([logits_mw], grad_m.clone().narrow(0, start, n_rows), |[logits_mw]| {
            logps(logits_mw, &targets[rows.clone()], cap, held)
        });
        hidden_parts.push(product(dlogits_mw.clone(), &table_wd));
        sum_n = product_added(sum_n, &[dlogits_mw], &hidden_md, |lhs, rhs| wide(lhs).matmul(wide(rhs)));
    }
    match hidden_parts.is_empty() {
        true => (hidden_md.zeros_like(), sum_n),
        false => (Tensor::cat(hidden_parts, 0), sum_n),
    }
}

fn joined(parts: Vec<Tensor<1>>, device: &Device) -> Tensor<1> {
    if parts.is_empty() { Tensor::zeros([0], (device, Precision::F32.dtype())) } else { Tensor::cat(parts, 0) }
}

/// Causal self-attention `[n, h · d]` within each segment of packed rows and over the prefix it continues.
pub fn self_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    segments: &[Segment],
    spec: &AttentionSpec,
) -> Tensor<2> {
    let device = q.device();
    let own = |segment: &Segment| segment.prefix.len()..segment.n_tokens();
    let positions: Vec<usize> = segments.iter().flat_map(own).collect();
    if positions.is_empty() {
        return q;
    }
    let (q, k) = (turned(q, &positions, spec), turned(k, &positions, spec));
    let parts = segments.iter().filter(|segment| !segment.rows.is_empty()).map(|segment| {
        let rows = |x: &Tensor<2>, rows: &Range<usize>| x.clone().narrow(0, rows.start, rows.len());
        let seen = |x: &Tensor<2>| {
            let own = rows(x, &segment.rows);
            let all = match segment.prefix.is_empty() {
                true => own,
                false => Tensor::cat(vec![rows(x, &segment.prefix), own], 0),
            };
            by_head(all, 1, spec.head_dim)
        };
        let positions = own(segment);
        let positions = positions_from(positions.start as i64..positions.end as i64, &device);
        let hidden = hidden_keys(positions, segment.n_tokens(), spec, &device);
        attend(by_head(rows(&q, &segment.rows), 1, spec.head_dim), seen(&k), seen(&v), hidden, spec)
    });
    Tensor::cat(parts.collect(), 0)
}

/// Rows of packed heads `[b · t, h · d]` as `[b, h, t, d]`.
fn by_head(x: Tensor<2>, n_sequences: usize, d: usize) -> Tensor<4> {
    let [n, width] = x.dims();
    x.reshape([n_sequences, n / n_sequences, width / d, d]).swap_dims(1, 2)
}

/// Positions of the queries of one sequence, `[1, t]`.
fn positions_from(range: Range<i64>, device: &Device) -> Tensor<2, Int> {
    Tensor::<1, Int>::arange(range, device).unsqueeze()
}

/// Which of `n_keys` keys a query at a position may not see, `[b, 1, t, s]`: later ones, and those before its window.
fn hidden_keys(positions_bt: Tensor<2, Int>, n_keys: usize, spec: &AttentionSpec, device: &Device) -> Tensor<4, Bool> {
    let [b, t] = positions_bt.dims();
    let queries = positions_bt.reshape([b, 1, t, 1]).expand([b, 1, t, n_keys]);
    let keys = Tensor::<1, Int>::arange(0..n_keys as i64, device).reshape([1, 1, 1, n_keys]).expand([b, 1, t, n_keys]);
    let later = keys.clone().greater(queries.clone());
    match spec.window {
        Some(window) => later.bool_or(keys.add_scalar(window as i64).lower_equal(queries)),
        None => later,
    }
}

/// Attention of turned queries `[b, h, t, d]` over turned keys and values `[b, g, s, d]`: `[b · t, h · d]`.
fn attend(
    q_bhtd: Tensor<4>,
    k_bgsd: Tensor<4>,
    v_bgsd: Tensor<4>,
    hidden_b1ts: Tensor<4, Bool>,
    spec: &AttentionSpec,
) -> Tensor<2> {
    let held = Precision::of(&q_bhtd);
    let [b, h, t, d] = q_bhtd.dims();
    let [_, g, s, _] = k_bgsd.dims();
    // The query heads of one key head stand together, so that no key is copied for them.
    let queries = q_bhtd.reshape([b, g, h / g * t, d]);
    let scores = wide(queries.matmul(k_bgsd.swap_dims(2, 3)));
    let scores = softcap(held.round(scores.mul_scalar(spec.scale)), spec.softcap, held).reshape([b, h, t, s]);
    let scores = scores.mask_fill(hidden_b1ts.expand([b, h, t, s]), f32::NEG_INFINITY);
    let p_bhts = held.hold(softmax(scores, 3));
    let out = p_bhts.reshape([b, g, h / g * t, s]).matmul(v_bgsd).reshape([b, h, t, d]);
    out.swap_dims(1, 2).reshape([b * t, h * d])
}

/// Heads `[n, heads · d]` turned to the positions of their rows. In bf16 the cosines and sines are rounded, and so are both
/// products and their sum.
pub fn turned(x: Tensor<2>, positions: &[usize], spec: &AttentionSpec) -> Tensor<2> {
    let held = Precision::of(&x);
    let ([n, width], d, device) = (x.dims(), spec.head_dim, x.device());
    let half = d / 2;
    let rows = crate::nn::index(positions.iter().copied(), &device);
    let (cos, sin) = spec.rope.on(&device.inner());
    let table = |table: Tensor<2>| held.round(table.select(0, rows.clone())).unsqueeze_dim::<3>(1);
    let (cos_n1c, sin_n1c) = (table(cos), table(sin));
    let x = wide(x).reshape([n, width / d, d]);
    let (x1, x2) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
    let product = |x: &Tensor<3>, table: &Tensor<3>| held.round(x.clone() * table.clone());
    let first = product(&x1, &cos_n1c) - product(&x2, &sin_n1c);
    let second = product(&x2, &cos_n1c) + product(&x1, &sin_n1c);
    held.hold(Tensor::cat(vec![first, second], 2).reshape([n, width]))
}

/// Attention of new tokens over their slots' caches, which take in their keys and values first: output, keys, values.
///
/// Keys lie `[slot, g, d, capacity]`, values `[slot, g, capacity, d]`, both flat.
#[expect(clippy::too_many_arguments, reason = "five tensors, and what says how to read them")]
pub fn cached_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    keys: Tensor<1>,
    values: Tensor<1>,
    layout: CacheLayout,
    segments: &[CachedSegment],
    spec: &AttentionSpec,
) -> (Tensor<2>, Tensor<1>, Tensor<1>) {
    let (g, d, capacity) = (spec.n_kv_heads, spec.head_dim, layout.capacity);
    let ([n, _], [n_cache]) = (q.dims(), keys.dims());
    let n_slots = n_cache / (g * d * capacity);
    let mut positions = vec![0; n];
    for segment in segments {
        segment.rows.clone().enumerate().for_each(|(i, row)| positions[row] = segment.n_past + i);
    }
    let (q, k) = (turned(q, &positions, spec), turned(k, &positions, spec));
    let mut keys = keys.reshape([n_slots, g, d, capacity]);
    let mut values = values.reshape([n_slots, g, capacity, d]);
    for CachedSegment { rows, slot, n_past } in segments {
        let new = |x: &Tensor<2>| by_head(x.clone().narrow(0, rows.start, rows.len()), 1, d);
        let (slots, tokens) = (*slot..slot + 1, *n_past..n_past + rows.len());
        keys = keys.slice_assign([slots.clone(), 0..g, 0..d, tokens.clone()], new(&k).swap_dims(2, 3));
        values = values.slice_assign([slots, 0..g, tokens, 0..d], new(&v));
    }
    let mut parts: Vec<Option<Tensor<2>>> = vec![None; segments.len()];
    for batch in batches(segments) {
        let of_batch: Vec<&CachedSegment> = batch.iter().map(|at| &segments[*at]).collect();
        let out = cached_batch(&q, &keys, &values, &of_batch, spec);
        let t = of_batch[0].rows.len();
        for (i, at) in batch.iter().enumerate() {
            parts[*at] = Some(out.clone().narrow(0, i * t, t));
        }
    }
    // Segments lie in the order of their rows and leave none out.
    let out = Tensor::cat(parts.into_iter().flatten().collect(), 0);
    (out, keys.reshape([n_cache]), values.reshape([n_cache]))
}

/// Segments that are computed together: all that have one new token, and each of the others alone.
fn batches(segments: &[CachedSegment]) -> Vec<Vec<usize>> {
    let (single, several): (Vec<usize>, Vec<usize>) =
        (0..segments.len()).filter(|at| !segments[*at].rows.is_empty()).partition(|at| segments[*at].rows.len() == 1);
    let mut batches: Vec<Vec<usize>> = several.into_iter().map(|at| vec![at]).collect();
    if !single.is_empty() {
        batches.push(single);
    }
    batches
}

/// Attention of segments with equally many new tokens.
fn cached_batch(
    q: &Tensor<2>,
    keys: &Tensor<4>,
    values: &Tensor<4>,
    segments: &[&CachedSegment],
    spec: &AttentionSpec,
) -> Tensor<2> {
    let device = q.device();
    let (b, t) = (segments.len(), segments[0].rows.len());
    let n_keys = segments.iter().map(|segment| segment.n_past + t).max().unwrap_or(0);
    let rows = crate::nn::index(segments.iter().flat_map(|segment| segment.rows.clone()), &device);
    let slots = crate::nn::index(segments.iter().map(|segment| segment.slot), &device);
    let k_bgsd = keys.clone().narrow(3, 0, n_keys).select(0, slots.clone()).swap_dims(2, 3);
    let v_bgsd = values.clone().narrow(2, 0, n_keys).select(0, slots);
    let positions: Vec<i64> = segments.iter().flat_map(|segment| (0..t).map(|i| (segment.n_past + i) as i64)).collect();
    let positions_bt = Tensor::<2, Int>::from_data(TensorData::new(positions, [b, t]), &device);
    let hidden = hidden_keys(positions_bt, n_keys, spec, &device);
    attend(by_head(q.clone().select(0, rows), b, spec.head_dim), k_bgsd, v_bgsd, hidden, spec)
}

/// Copies the first tokens of one slot to another.
pub fn copy_slot(keys: Tensor<1>, values: Tensor<1>, layout: CacheLayout, copy: SlotCopy) -> (Tensor<1>, Tensor<1>) {
    let SlotCopy { from, to, n_tokens, n_kv_heads: g, head_dim: d } = copy;
    let ([n_cache], capacity) = (keys.dims(), layout.capacity);
    let n_slots = n_cache / (g * d * capacity);
    let keys = keys.reshape([n_slots, g, d, capacity]);
    let values = values.reshape([n_slots, g, capacity, d]);
    let key_places = |slot: usize| [slot..slot + 1, 0..g, 0..d, 0..n_tokens];
    let value_places = |slot: usize| [slot..slot + 1, 0..g, 0..n_tokens, 0..d];
    let (key_part, value_part) = (keys.clone().slice(key_places(from)), values.clone().slice(value_places(from)));
    let keys = keys.slice_assign(key_places(to), key_part);
    let values = values.slice_assign(value_places(to), value_part);
    (keys.reshape([n_cache]), values.reshape([n_cache]))
}

/// `softcap(hidden · head)` with `head[d, w]`.
pub fn next_logits(hidden_md: Tensor<2>, head_dw: Tensor<2>, cap: Option<f32>) -> Tensor<2> {
    let held = Precision::of(&hidden_md);
    held.hold(softcap(wide(product(hidden_md, &head_dw)), cap, held))
}

/// One AdamW step in f32: new weight, first and second moment.
#[cfg(test)]
pub fn adamw(
    weight: Tensor<1>,
    first: Tensor<1>,
    second: Tensor<1>,
    grad: Tensor<1>,
    spec: AdamWSpec,
) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
    let AdamWSpec { learning_rate, beta1, beta2, epsilon, weight_decay, step, grad_scale, seed: _ } = spec;
    let step = i32::try_from(step).unwrap_or(i32::MAX);
    let step_size = learning_rate / (1.0 - beta1.powi(step));
    let root_correction = 1.0 / (1.0 - beta2.powi(step)).sqrt();
    let grad = grad.mul_scalar(grad_scale);
    let first = first.mul_scalar(beta1) + grad.clone().mul_scalar(1.0 - beta1);
    let second = second.mul_scalar(beta2) + grad.square().mul_scalar(1.0 - beta2);
    let denominator = second.clone().sqrt().mul_scalar(root_correction).add_scalar(epsilon);
    let change = first.clone().mul_scalar(step_size) / denominator;
    (weight.mul_scalar(1.0 - learning_rate * weight_decay) - change, first, second)
}

/// Gradients of `f` with respect to `inputs`, from the gradient of its output, on a tape of their own.
pub fn gradients<const N: usize, const D: usize>(
    inputs: [Tensor<2>; N],
    grad: Tensor<D>,
    f: impl Fn([Tensor<2>; N]) -> Tensor<D>,
) -> [Tensor<2>; N] {
    let leaves = inputs.map(|input| input.autodiff().require_grad());
    // The gradient of this sum with respect to the output is `grad` itself.
    let mut of_leaves = (f(leaves.clone()) * grad.autodiff()).sum().backward();
    leaves.map(|leaf| leaf.grad_remove(&mut of_leaves).unwrap_or_else(|| leaf.inner().zeros_like()))
}
