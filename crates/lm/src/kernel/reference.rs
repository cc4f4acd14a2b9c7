//! The kernels against the plain composition, values and gradients, operation by operation, on small random tensors; and
//! the plain composition in bf16 against itself in f32.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use super::*;
use crate::packed::Segment;
use crate::weights::{FreshWeights, WeightSource, values};

fn random<const D: usize>(name: &str, shape: [usize; D]) -> Tensor<D> {
    let values = FreshWeights::new(7, 1.0, 0.0).read(name, &shape).expect("fresh weights never fail");
    Tensor::from_data(TensorData::new(values, shape), &Device::flex()).autodiff().require_grad()
}

fn assert_close(what: &str, ours: &[f32], want: &[f32]) {
    assert_within(what, ours, want, 3e-6);
}

/// The largest difference is at most `tolerance` of the largest value, or of 1.
fn assert_within(what: &str, ours: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), want.len(), "{what}");
    let scale = want.iter().fold(1.0f32, |a, b| a.max(b.abs()));
    let error = ours.iter().zip(want).map(|(x, y)| (x - y).abs()).fold(0.0f32, f32::max);
    assert!(
        ours.iter().all(|x| x.is_finite()) && error <= tolerance * scale,
        "{what}: error {error:e} at scale {scale}"
    );
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
            |[x, w]| plain::rms_norm(x, w, spec),
        );
    }
}

#[test]
fn gated_units_equal_their_definition() {
    let inputs = || [random("gate", [40, 50]), random("up", [40, 50])];
    for activation in [Activation::GeluTanh, Activation::Silu] {
        let what = format!("{activation:?}");
        check(&what, inputs(), |[g, u]| glu(g, u, activation), |[g, u]| plain::glu(g, u, activation));
    }
}

#[test]
fn token_log_probabilities_equal_their_definition() {
    let targets: Vec<u32> = (0..700).map(|i| i * 7 % 50).collect();
    let inputs = [random("hidden", [700, 8]).inner(), random("table", [50, 8]).inner()];
    for cap in [None, Some(3.0)] {
        let definition =
            |[hidden, table]: [Tensor<2>; 2]| plain::token_logps(hidden, table, &targets, cap.map(|cap| cap as f32));
        let [hidden, table] = inputs.clone();
        let logps = token_logps(hidden, table, &targets, cap);
        assert_close(&format!("token logps, cap {cap:?}"), &values(logps), &values(definition(inputs.clone())));
        let want = plain::gradients(inputs.clone(), random::<1>("grad", [700]).inner(), definition);
        // On top of what other passes have left.
        let ours = head_gradients(inputs.clone(), &targets, cap, 0.5);
        assert_close("gradient of hidden states", &ours[0], &values(want[0].clone()));
        assert_close("gradient of the table", &ours[1], &values(want[1].clone() + 0.5));
    }
}

/// Of hidden states and table, this one added to a sum that starts with the same number everywhere.
fn head_gradients([hidden, table]: [Tensor<2>; 2], targets: &[u32], cap: Option<f64>, before: f32) -> [Vec<f32>; 2] {
    let grad = random::<1>("grad", [targets.len()]).inner();
    let n = table.dims().iter().product();
    let mut sum_n = Tensor::from_data(TensorData::new(vec![before; n], [n]), (&Device::flex(), DType::F32));
    let dhidden = token_logps_gradient(hidden.clone(), table, grad, targets, cap, &mut sum_n);
    assert_eq!((dhidden.dtype(), sum_n.dtype()), (hidden.dtype(), DType::F32));
    [values(dhidden), values(sum_n)]
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

/// Four segments, the second and the last of which continue the first three rows.
fn with_a_prefix(rows: [Range<usize>; 4]) -> Arc<[Segment]> {
    let continues = [false, true, false, true];
    let segments = rows.into_iter().zip(continues);
    segments.map(|(rows, continues)| Segment { rows, prefix: if continues { 0..3 } else { 0..0 } }).collect()
}

#[test]
fn attention_equals_its_definition() {
    let segments = with_a_prefix([0..5, 5..6, 6..6, 6..19]);
    for spec in specs() {
        let spec = Arc::new(spec);
        let (q, kv) = (spec.n_heads * 8, spec.n_kv_heads * 8);
        check(
            &format!("attention, window {:?}", spec.window),
            [random("q", [19, q]), random("k", [19, kv]), random("v", [19, kv])],
            |[q, k, v]| self_attention(q, k, v, &segments, &spec),
            |[q, k, v]| plain::self_attention(q, k, v, &segments, &spec),
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
        let whole: Arc<[Segment]> = std::iter::once((0..12).into()).collect();
        let want = values(self_attention(q, k, v, &whole, &spec));
        let mut cache = LayerCache::new(3, 20, &spec, &Device::flex(), DType::F32);
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

/// The plain cached attention, through two slots of one batch, against the packed one.
#[test]
fn plain_cached_attention_continues_as_if_nothing_had_been_cached() {
    for (spec, held) in specs().into_iter().flat_map(|spec| [(spec.clone(), Precision::F32), (spec, Precision::Bf16)]) {
        let (q, kv) = (spec.n_heads * 8, spec.n_kv_heads * 8);
        let inputs = [random("q", [12, q]), random("k", [12, kv]), random("v", [12, kv])];
        let inputs = inputs.map(|x| held.hold(x.inner()));
        let [q, k, v] = inputs.clone();
        let want = values(plain::self_attention(q, k, v, &[(0..7).into(), (7..12).into()], &spec));
        let layout = CacheLayout { capacity: 9 };
        let empty = || Tensor::<1>::zeros([2 * spec.n_kv_heads * 8 * 9], (&Device::flex(), held.dtype()));
        let (mut keys, mut cached_values) = (empty(), empty());
        let mut ours = [vec![], vec![]];
        // New tokens of the first sequence and of the second, which starts at row 7; one each, several, or none.
        for (first, second) in [(0..4, 0..1), (4..5, 1..2), (5..7, 2..2), (7..7, 2..5)] {
            let n_first = first.len();
            let rows = first.clone().chain(second.clone().map(|row| 7 + row));
            let rows = crate::nn::index(rows, &Device::flex());
            let [q, k, v] = inputs.clone().map(|x| x.select(0, rows.clone()));
            let segment = |slot, rows, n_past| CachedSegment { rows, slot, n_past };
            let segments =
                [segment(1, 0..n_first, first.start), segment(0, n_first..n_first + second.len(), second.start)];
            let segments: Vec<_> = segments.into_iter().filter(|segment| !segment.rows.is_empty()).collect();
            let (out, new_keys, new_values) =
                plain::cached_attention(q, k, v, keys, cached_values, layout, &segments, &spec);
            (keys, cached_values) = (new_keys, new_values);
            let out = values(out);
            let (of_first, of_second) = out.split_at(n_first * spec.n_heads * 8);
            ours[0].extend_from_slice(of_first);
            ours[1].extend_from_slice(of_second);
        }
        // In bf16 the order of a sum may decide a rounding.
        let tolerance = if held == Precision::F32 { 3e-6 } else { 8e-3 };
        assert_within("plain cached attention", &ours.concat(), &want, tolerance);
    }
}

#[test]
fn slots_are_copied_alike() {
    let [spec, ..] = specs();
    let n = 3 * spec.n_kv_heads * 8 * 5;
    let caches = || [random::<1>("keys", [n]).inner(), random::<1>("values", [n]).inner()];
    let copy = SlotCopy { from: 2, to: 0, n_tokens: 3, n_kv_heads: spec.n_kv_heads, head_dim: 8 };
    let layout = CacheLayout { capacity: 5 };
    let [keys, cached_values] = caches();
    let (keys, cached_values) = plain::copy_slot(keys, cached_values, layout, copy);
    let [ours_k, ours_v] = caches().map(values);
    let (mut ours_k, mut ours_v) = (ours_k, ours_v);
    attention::copy_slot(&mut ours_k, &mut ours_v, layout, copy);
    assert_eq!((ours_k, ours_v), (values(keys), values(cached_values)));
}

/// Every operation in bf16, values and gradients, within the rounding of bf16 of the same in f32.
#[test]
fn operations_in_bf16_stay_near_those_in_f32() {
    let targets: Vec<u32> = (0..40).map(|i| i * 7 % 50).collect();
    let segments = with_a_prefix([0..5, 5..6, 6..6, 6..40]);
    let [_, spec, _] = specs();
    let spec = Arc::new(spec);
    let norm = RmsNormSpec { epsilon: 1e-6, offset: 1.0 };
    check_half("rms norm", [random("x", [40, 24]), random("w", [1, 24])], |[x, w]| {
        rms_norm(x, &w.squeeze_dim::<1>(0), norm)
    });
    let llama = RmsNormSpec { offset: 0.0, ..norm };
    check_half("rms norm of Llama", [random("x", [40, 24]), random("w", [1, 24])], |[x, w]| {
        rms_norm(x, &w.squeeze_dim::<1>(0), llama)
    });
    check_half("glu", [random("gate", [40, 50]), random("up", [40, 50])], |[g, u]| glu(g, u, Activation::GeluTanh));
    check_half("product", [random("x", [40, 33]), random("w", [33, 200])], |[x, w]| product(x, &w));
    check_half("turned product", [random("x", [40, 33]), random("w", [200, 33])], |[x, w]| product(x, &w.transpose()));
    check_half("attention", [random("q", [40, 32]), random("k", [40, 16]), random("v", [40, 16])], |[q, k, v]| {
        self_attention(q, k, v, &segments, &spec)
    });
    let inputs = [random("hidden", [40, 8]), random("table", [50, 8])].map(|x| Precision::Bf16.round(x.inner()));
    let head = |held: Precision| {
        let [hidden, table] = inputs.clone().map(|x| held.hold(x));
        let logps = token_logps(hidden.clone(), table.clone(), &targets, Some(30.0));
        let [dhidden, dtable] = head_gradients([hidden, table], &targets, Some(30.0), 0.0);
        [values(logps), dhidden, dtable]
    };
    let (ours, want) = (head(Precision::Bf16), head(Precision::F32));
    for ((what, tolerance), (ours, want)) in
        [("logps", 1e-2), ("gradient of hidden states", 2e-2), ("gradient of the table", 2e-2)]
            .into_iter()
            .zip(ours.iter().zip(&want))
    {
        assert_within(&format!("token {what}"), ours, want, tolerance);
    }
}

fn check_half<const N: usize, const D: usize>(
    what: &str,
    inputs: [Tensor<2>; N],
    operation: impl Fn([Tensor<2>; N]) -> Tensor<D>,
) {
    // Inputs that both can hold; what differs then is the operation.
    let inputs = inputs.map(|x| Precision::Bf16.round(x.inner()));
    let leaves = |held: Precision| inputs.clone().map(|x| held.hold(x).autodiff().require_grad());
    let (half, full) = (leaves(Precision::Bf16), leaves(Precision::F32));
    let (ours, want) = (operation(half.clone()), operation(full.clone()));
    assert_within(what, &values(ours.clone()), &values(want.clone()), 1e-2);
    // Off the tape the same numbers come out.
    let plain = operation(inputs.clone().map(|x| Precision::Bf16.hold(x)));
    assert_eq!(plain.dtype(), ours.dtype(), "{what}");
    assert_within(what, &values(plain), &values(ours.clone()), 8e-3);
    let projection = Precision::Bf16.round(random::<D>("projection", ours.dims()).inner());
    let grads = |out: Tensor<D>| {
        let held = Precision::of(&out);
        (out * held.hold(projection.clone()).autodiff()).sum().backward()
    };
    let (ours, want) = (grads(ours), grads(want));
    for (i, (half, full)) in half.iter().zip(&full).enumerate() {
        let gradient = half.grad(&ours).expect("every input has a gradient");
        assert_eq!(gradient.dtype(), DType::BF16, "{what}, gradient {i}");
        let want = values(full.grad(&want).expect("every input has a gradient"));
        assert_within(&format!("{what}, gradient {i}"), &values(gradient), &want, 2e-2);
    }
}

/// What a bounded number of logits at a time gives is what all of them give.
#[test]
fn token_log_probabilities_do_not_depend_on_the_chunk() {
    let targets: Vec<u32> = (0..700).map(|i| i * 7 % 50).collect();
    let inputs = [random("hidden", [700, 8]).inner(), random("table", [50, 8]).inner()];
    let [hidden, table] = inputs.clone();
    let whole = plain::token_logps(hidden.clone(), table.clone(), &targets, Some(3.0));
    let chunked = plain::token_logps_by_chunks(hidden.clone(), table.clone(), &targets, Some(3.0));
    assert_close("chunked token logps", &values(chunked), &values(whole));
    let grad = random::<1>("grad", [700]).inner();
    let zeros = Tensor::zeros([50 * 8], &Device::flex());
    let (dhidden, dtable) = plain::token_logps_gradient(hidden, table, grad.clone(), &targets, Some(3.0), zeros);
    let [want_hidden, want_table] =
        plain::gradients(inputs, grad, |[hidden, table]| plain::token_logps(hidden, table, &targets, Some(3.0)));
    assert_close("chunked gradient of hidden states", &values(dhidden), &values(want_hidden));
    assert_close("chunked gradient of the table", &values(dtable), &values(want_table));
}

#[test]
fn plain_adamw_equals_the_kernel() {
    let of = |name| random::<1>(name, [100]).inner();
    let spec = AdamWSpec {
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        weight_decay: 0.1,
        step: 7,
        grad_scale: 0.5,
        seed: 0,
    };
    let (w, m, v) = adamw(of("w"), of("m"), of("v").square(), of("g"), spec);
    let (plain_w, plain_m, plain_v) = plain::adamw(of("w"), of("m"), of("v").square(), of("g"), spec);
    assert_close("weight", &values(w), &values(plain_w));
    assert_close("first moment", &values(m), &values(plain_m));
    assert_close("second moment", &values(v), &values(plain_v));
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
        seed: 0,
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
