//! The fused operations written plainly in tensor operations: the oracle of the kernels.
//!
//! Owns the comparison of values and gradients, operation by operation, on small random tensors.
//!
//! t tokens of one sequence, h query heads, g key heads, d head dim

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::activation::{gelu_approximate, log_softmax, silu, softmax};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use super::*;
use crate::weights::{FreshWeights, WeightSource, values};

fn random<const D: usize>(name: &str, shape: [usize; D]) -> Tensor<D> {
    let values = FreshWeights::new(7, 1.0, 0.0).read(name, &shape).expect("fresh weights never fail");
    Tensor::from_data(TensorData::new(values, shape), &Device::flex()).autodiff().require_grad()
}

fn assert_close(what: &str, ours: &[f32], want: &[f32]) {
    assert_eq!(ours.len(), want.len(), "{what}");
    let scale = want.iter().fold(1.0f32, |a, b| a.max(b.abs()));
    let error = ours.iter().zip(want).fold(0.0f32, |a, (x, y)| a.max((x - y).abs()));
    assert!(error <= 3e-6 * scale, "{what}: error {error:e} at scale {scale}");
}

/// Values and gradients of a fused operation against its plain twin, through one random projection to a scalar.
fn check<const N: usize, const D: usize>(
    what: &str,
    inputs: [Tensor<2>; N],
    fused: impl Fn([Tensor<2>; N]) -> Tensor<D>,
    plain: impl Fn([Tensor<2>; N]) -> Tensor<D>,
) {
    let (ours, want) = (fused(inputs.clone()), plain(inputs.clone()));
    assert_close(what, &values(ours.clone()), &values(want.clone()));
    let projection = random::<D>("projection", ours.dims()).detach();
    let grads = |out: Tensor<D>| (out * projection.clone()).sum().backward();
    let (ours, want) = (grads(ours), grads(want));
    for (i, input) in inputs.iter().enumerate() {
        let of = |grads| values(input.grad(grads).expect("every input has a gradient"));
        assert_close(&format!("{what}, gradient {i}"), &of(&ours), &of(&want));
    }
}

#[test]
fn rms_norm_equals_its_definition() {
    for (n, d, offset) in [(3, 16, 1.0), (150, 24, 0.0), (1500, 32, 1.0)] {
        let spec = RmsNormSpec { epsilon: 1e-6, offset };
        check(
            &format!("rms norm {n} x {d}"),
            [random("x", [n, d]), random("w", [1, d])],
            |[x, w]| rms_norm(x, &w.squeeze_dim::<1>(0), spec),
            |[x, w]| {
                let mean = x.clone().powf_scalar(2.0).mean_dim(1).add_scalar(spec.epsilon);
                x / mean.sqrt() * w.add_scalar(offset)
            },
        );
    }
}

#[test]
fn gated_units_equal_their_definition() {
    let inputs = || [random("gate", [40, 50]), random("up", [40, 50])];
    check("gelu", inputs(), |[g, u]| glu(g, u, Activation::GeluTanh), |[g, u]| gelu_approximate(g) * u);
    check("silu", inputs(), |[g, u]| glu(g, u, Activation::Silu), |[g, u]| silu(g) * u);
}

#[test]
fn token_log_probabilities_equal_their_definition() {
    let targets: Vec<u32> = (0..700).map(|i| i * 7 % 50).collect();
    let picked = Tensor::<2, Int>::from_data(
        TensorData::new(targets.iter().map(|t| i64::from(*t)).collect(), [700, 1]),
        &Device::flex().autodiff(),
    );
    for cap in [None, Some(3.0)] {
        check(
            &format!("token logps, cap {cap:?}"),
            [random("hidden", [700, 8]), random("table", [50, 8])],
            |[hidden, table]| token_logps(hidden, table, &targets, cap),
            |[hidden, table]| {
                let logits = hidden.matmul(table.transpose());
                let logits = match cap {
                    Some(cap) => logits.div_scalar(cap).tanh().mul_scalar(cap),
                    None => logits,
                };
                log_softmax(logits, 1).gather(1, picked.clone()).squeeze_dim::<1>(1)
            },
        );
    }
}

fn rotated(x_td: Tensor<2>, spec: &AttentionSpec) -> Tensor<2> {
    let [t, d] = x_td.dims();
    let (cos, sin, half) = spec.rope.tables();
    let table = |values: &[f32]| {
        let rows: Vec<f32> = (0..t).flat_map(|i| [&values[i * half..][..half]; 2].concat()).collect();
        Tensor::<2>::from_data(TensorData::new(rows, [t, d]), &Device::flex()).autodiff()
    };
    let (x1, x2) = (x_td.clone().narrow(1, 0, half), x_td.clone().narrow(1, half, half));
    x_td * table(cos) + Tensor::cat(vec![x2.neg(), x1], 1) * table(sin)
}

fn plain_attention([q, k, v]: [Tensor<2>; 3], segments: &[Range<usize>], spec: &AttentionSpec) -> Tensor<2> {
    let d = spec.head_dim;
    let rows = segments.iter().map(|segment| {
        let t = segment.len();
        let mask: Vec<bool> = (0..t * t)
            .map(|at| (at / t, at % t))
            .map(|(i, j)| j > i || spec.window.is_some_and(|window| j + window <= i))
            .collect();
        let mask = Tensor::<2, Bool>::from_data(TensorData::new(mask, [t, t]), &Device::flex().autodiff());
        let head = |x: &Tensor<2>, h: usize| x.clone().narrow(0, segment.start, t).narrow(1, h * d, d);
        let heads = (0..spec.n_heads).map(|h| {
            let g = h / (spec.n_heads / spec.n_kv_heads);
            let (q, k) = (rotated(head(&q, h), spec), rotated(head(&k, g), spec));
            let scores = q.matmul(k.transpose()).mul_scalar(spec.scale);
            let scores = match spec.softcap {
                Some(cap) => scores.div_scalar(cap).tanh().mul_scalar(cap),
                None => scores,
            };
            softmax(scores.mask_fill(mask.clone(), f32::NEG_INFINITY), 1).matmul(head(&v, g))
        });
        Tensor::cat(heads.collect(), 1)
    });
    Tensor::cat(rows.collect(), 0)
}

fn specs() -> [AttentionSpec; 3] {
    let frequencies: Vec<f32> = (0..4).map(|i| 100f32.powf(-(i as f32) / 4.0)).collect();
    let spec = AttentionSpec {
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 8,
        scale: 0.4,
        softcap: None,
        window: None,
        rope: Arc::new(Rope::new(&frequencies, 64)),
    };
    [
        spec.clone(),
        AttentionSpec { softcap: Some(2.0), window: Some(3), ..spec.clone() },
        AttentionSpec { n_kv_heads: 4, softcap: Some(50.0), window: Some(1), ..spec },
    ]
}

#[test]
fn attention_equals_its_definition() {
    let segments: Arc<[Range<usize>]> = Arc::new([0..5, 5..6, 6..6, 6..19]);
    for spec in specs() {
        let spec = Arc::new(spec);
        let (q, kv) = (spec.n_heads * 8, spec.n_kv_heads * 8);
        check(
            &format!("attention, window {:?}", spec.window),
            [random("q", [19, q]), random("k", [19, kv]), random("v", [19, kv])],
            |[q, k, v]| self_attention(q, k, v, &segments, &spec),
            |inputs| plain_attention(inputs, &[0..5, 5..6, 6..19], &spec),
        );
    }
}

#[test]
fn cached_attention_continues_as_if_nothing_had_been_cached() {
    for spec in specs() {
        let spec = Arc::new(spec);
        let (q, kv) = (spec.n_heads * 8, spec.n_kv_heads * 8);
        let inputs = [random("q", [12, q]), random("k", [12, kv]), random("v", [12, kv])].map(Tensor::inner);
        let [q, k, v] = inputs.clone();
        let whole: Arc<[Range<usize>]> = std::iter::once(0..12).collect();
        let want = values(self_attention(q, k, v, &whole, &spec));
        let mut cache = LayerCache::new(3, 20, &spec, &Device::flex());
        let mut ours = Vec::new();
        // The first tokens go through slot 2, the rest through slot 0, which takes over what slot 2 had read.
        for (start, end, slot) in [(0, 5, 2), (5, 6, 2), (6, 12, 0)] {
            if slot == 0 {
                cache.copy_slot(2, 0, start);
            }
            let [q, k, v] = inputs.clone().map(|x| x.narrow(0, start, end - start));
            let segments = Arc::new([CachedSegment { rows: 0..end - start, slot, n_past: start }]);
            ours.extend(values(cache.attend(q, k, v, &(segments as Arc<[_]>), &spec)));
        }
        assert_close("cached attention", &ours, &want);
    }
}

#[test]
fn adamw_equals_its_definition() {
    let [w, g] = ["w", "g"].map(|name| random::<1>(name, [100]).inner());
    let zeros = Tensor::<1>::zeros([100], &Device::flex());
    let spec = AdamWSpec {
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        weight_decay: 0.1,
        step: 1,
        grad_scale: 0.5,
    };
    let (first, second) = (zeros.clone(), zeros);
    let (w1, m1, v1) = adamw(w.clone(), first, second, g.clone(), spec);
    let (w2, m2, v2) = adamw(w1, m1, v1, g.clone(), AdamWSpec { step: 2, ..spec });
    let g = values(g);
    for (i, (mut w, g)) in values(w).into_iter().zip(g).enumerate() {
        let g = 0.5 * g;
        let (mut m, mut v) = (0.0, 0.0);
        for step in 1..=2 {
            (m, v) = (0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g);
            let (m_hat, v_hat) = (m / (1.0 - 0.9f32.powi(step)), v / (1.0 - 0.99f32.powi(step)));
            w = w * (1.0 - 0.01 * 0.1) - 0.01 * m_hat / (v_hat.sqrt() + 1e-8);
        }
        assert!((values(w2.clone())[i] - w).abs() < 1e-6, "weight {i}");
        assert!((values(m2.clone())[i] - m).abs() < 1e-6 && (values(v2.clone())[i] - v).abs() < 1e-6, "moments {i}");
    }
}
