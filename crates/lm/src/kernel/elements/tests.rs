//! The kernels on CubeCL's own CPU device, through the public operations, against the same operations on the CPU: in f32 its
//! hand-written versions, in bf16 the compositions, which round in the same places.
//!
//! `cargo test -p sluice-lm --features cube-cpu --lib kernel::`

use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::kernel::{
    Activation, AdamWSpec, AttentionSpec, CachedSegment, LayerCache, RmsNormSpec, Rope, SplitWeight, adamw,
    adamw_split, glu, rms_norm, rows_added, token_logps, token_logps_gradient,
};
use crate::precision::Precision;
use crate::weights::{FreshWeights, WeightSource, values};

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

fn random<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    let values = FreshWeights::new(11, 1.0, 0.0).read(name, &shape).expect("fresh weights never fail");
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

/// The largest difference is at most `tolerance` of the largest value, or of 1.
#[track_caller]
fn assert_close(what: &str, ours: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), want.len(), "{what}");
    let scale = want.iter().fold(1.0f32, |a, b| a.max(b.abs()));
    let worst =
        ours.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, |a: f32, b| if b.is_nan() { b } else { a.max(b) });
    assert!(worst <= tolerance * scale, "{what}: error {worst:e} at scale {scale}");
}

/// Values and gradients of an operation on both devices, in both precisions.
fn check<const N: usize>(what: &str, shapes: [[usize; 2]; N], operation: impl Fn([Tensor<2>; N]) -> Tensor<2>) {
    for held in PRECISIONS {
        let run = |device: &Device| {
            let input = |at: usize| held.hold(random(&format!("{what} {at}"), shapes[at], device));
            let leaves: [Tensor<2>; N] = std::array::from_fn(|at| input(at).autodiff().require_grad());
            let out = operation(leaves.clone());
            assert_eq!(out.dtype(), held.dtype(), "{what}");
            let projection = held.hold(random("projection", out.dims(), device)).autodiff();
            let gradients = (out.clone() * projection).sum().backward();
            let mut all = vec![values(out.inner())];
            all.extend(leaves.iter().map(|leaf| values(leaf.grad(&gradients).expect("every input has a gradient"))));
            all
        };
        // In bf16 the sum of another order may round another way; gradients of the compositions also round in between.
        let tolerance = if held == Precision::F32 { 3e-6 } else { 1e-2 };
        for (i, (ours, want)) in run(&Device::cpu()).iter().zip(run(&Device::flex())).enumerate() {
            assert_close(&format!("{what} in {}, output or gradient {i}", held.name()), ours, &want, tolerance);
        }
    }
}

#[test]
fn the_norm_is_that_of_the_cpu() {
    // Rows shorter and longer than a cube; one part and several of the weight's gradient.
    for (n, d, offset) in [(3, 16, 1.0), (150, 24, 0.0), (65, 700, 1.0), (1, 1, 0.0)] {
        let spec = RmsNormSpec { epsilon: 1e-6, offset };
        check(&format!("rms norm {n} x {d}, offset {offset}"), [[n, d], [1, d]], |[x, w]| {
            rms_norm(x, &w.squeeze_dim::<1>(0), spec)
        });
    }
}

#[test]
fn the_gated_unit_is_that_of_the_cpu() {
    // Numbers that fill vectors, and those that do not.
    for (activation, [n, d]) in
        [(Activation::GeluTanh, [40, 50]), (Activation::Silu, [40, 50]), (Activation::Silu, [41, 49])]
    {
        check(&format!("{activation:?} {n} x {d}"), [[n, d], [n, d]], |[gate, up]| glu(gate, up, activation));
    }
}

const SPEC: AdamWSpec = AdamWSpec {
    learning_rate: 0.01,
    beta1: 0.9,
    beta2: 0.99,
    epsilon: 1e-8,
    weight_decay: 0.1,
    step: 7,
    grad_scale: 0.5,
    seed: 0,
};

/// Weight, moments and gradient of one parameter of `n` numbers.
fn parameter(n: usize, device: &Device) -> [Tensor<1>; 4] {
    let [weight, first, second, grad] = ["w", "m", "v", "g"].map(|name| random(name, [n], device));
    [weight, first, second.square(), grad]
}

/// What a weight is held in.
#[derive(Clone, Copy, Debug)]
enum Form {
    Exact,
    Split,
    ByChance,
}

/// Weight and moments after three steps.
fn stepped(n: usize, form: Form, of_moments: Precision, device: &Device) -> [Vec<f32>; 3] {
    let [weight, first, second, grad] = parameter(n, device);
    let mut moments = [first, second].map(|moment| of_moments.hold(moment));
    let spec = |step| AdamWSpec { step, seed: step * 0x1234_5678_9abc_def1, ..SPEC };
    let weight = if let Form::Split = form {
        let mut split = SplitWeight::of(weight);
        for step in 7..10 {
            let [first, second] = moments;
            let (new, first, second) = adamw_split(split, first, second, grad.clone(), spec(step));
            (split, moments) = (new, [first, second]);
        }
        split.exact()
    } else {
        let held = if let Form::ByChance = form { Precision::Bf16 } else { Precision::F32 };
        let mut weight = held.hold(weight);
        for step in 7..10 {
            let [first, second] = moments;
            let (new, first, second) = adamw(weight, first, second, grad.clone(), spec(step));
            (weight, moments) = (new, [first, second]);
        }
        assert_eq!(weight.dtype(), held.dtype());
        weight
    };
    let [first, second] = moments;
    assert_eq!([&first, &second].map(|moment| moment.dtype()), [of_moments.dtype(); 2]);
    [weight, first, second].map(values)
}

/// Equal to the bit, chance included: on CubeCL's CPU device only what is written as one is a fused multiply-add. On a GPU its
/// compiler joins a product and a sum where it likes, which moves the last bit of an f32 and with it one rounding by chance in
/// 65,536.
#[test]
fn every_form_of_the_step_is_that_of_the_cpu() {
    // Blocks of the CPU's version, an incomplete one, and lengths that leave a rest in vectors.
    for (n, form, of_moments) in [70_000, 1002, 1001, 1]
        .into_iter()
        .flat_map(|n| [Form::Exact, Form::Split, Form::ByChance].map(|form| (n, form)))
        .flat_map(|(n, form)| PRECISIONS.map(|of_moments| (n, form, of_moments)))
    {
        let [ours, want] = [Device::cpu(), Device::flex()].map(|device| stepped(n, form, of_moments, &device));
        for (what, (ours, want)) in ["weight", "first moment", "second moment"].iter().zip(ours.iter().zip(&want)) {
            let n_different = ours.iter().zip(want).filter(|(ours, want)| ours.to_bits() != want.to_bits()).count();
            assert_eq!(n_different, 0, "{what} of {n}, {form:?}, moments in {}", of_moments.name());
        }
    }
}

/// A tensor that somebody else holds stays as it is.
#[test]
fn a_step_writes_in_no_place_that_is_shared() {
    let [weight, first, second, grad] = parameter(1000, &Device::cpu());
    let kept = [weight.clone(), first.clone(), second.clone()];
    let before = kept.clone().map(values);
    let (moved, ..) = adamw(weight, first, second, grad, SPEC);
    assert_ne!(values(moved), before[0]);
    assert_eq!(kept.map(values), before);
}

/// A weight in two parts goes where one in f32 goes, to the bit, on the device as on the CPU.
#[test]
fn a_split_weight_is_the_exact_one() {
    let device = Device::cpu();
    let [mut weight, first, second, grad] = parameter(1000, &device);
    let mut split = SplitWeight::of(weight.clone());
    let (mut moments, mut split_moments) = ([first.clone(), second.clone()], [first, second]);
    for step in 1..=20 {
        let spec = AdamWSpec { step, learning_rate: 8e-7, ..SPEC };
        let [first, second] = moments;
        let (new, first, second) = adamw(weight, first, second, grad.clone(), spec);
        (weight, moments) = (new, [first, second]);
        let [first, second] = split_moments;
        let (new, first, second) = adamw_split(split, first, second, grad.clone(), spec);
        (split, split_moments) = (new, [first, second]);
    }
    assert_eq!(values(split.exact()), values(weight.clone()));
    assert_eq!(split_moments.map(values), moments.map(values));
    assert_eq!((split.weight_n.dtype(), split.rest_n.dtype()), (DType::BF16, DType::I16));
    // It is taken apart as the CPU takes apart.
    let on_the_cpu = SplitWeight::of(Tensor::from_data(weight.to_data(), &Device::flex()));
    let rests = |rest_n: &Tensor<1, Int>| rest_n.to_data().iter::<i16>().collect::<Vec<_>>();
    assert_eq!(rests(&split.rest_n), rests(&on_the_cpu.rest_n));
}

/// What attention gives in passes over segments of (new tokens, slot, past tokens); before the pass `copied_before` slot 1
/// takes over 5 tokens of slot 2.
fn attended(
    device: &Device,
    spec: &Arc<AttentionSpec>,
    held: Precision,
    passes: &[&[(usize, usize, usize)]],
    copied_before: usize,
) -> Vec<f32> {
    let (width, kv_width) = (spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim);
    // Slots that end with a vector, and slots that do not.
    let capacity = if spec.window.is_none() { 312 } else { 309 };
    let mut cache = LayerCache::new(3, capacity, spec, device, held.dtype());
    let mut all = Vec::new();
    for (number, pass) in passes.iter().enumerate() {
        if number == copied_before {
            cache.copy_slot(2, 1, 5);
        }
        let mut start = 0;
        let segments = pass.iter().map(|(n_tokens, slot, n_past)| {
            start += n_tokens;
            CachedSegment { rows: start - n_tokens..start, slot: *slot, n_past: *n_past }
        });
        let segments: Arc<[CachedSegment]> = segments.collect();
        let of = |side: &str, width| held.hold(random(&format!("{side} of pass {number}"), [start, width], device));
        let out = cache.attend(of("q", width), of("k", kv_width), of("v", kv_width), &segments, spec);
        assert_eq!(out.dtype(), held.dtype());
        all.extend(values(out));
    }
    all
}

/// Of products and kernels on the one device, of the CPU's kernels or compositions on the other.
#[test]
fn the_vocabulary_head_is_that_of_the_cpu() {
    let targets: Vec<u32> = (0..40).map(|i| i * 7 % 50).collect();
    for (held, tolerance) in [(Precision::F32, 3e-6), (Precision::Bf16, 2e-2)] {
        let run = |device: &Device| {
            let input = |name, shape| held.hold(random::<2>(name, shape, device));
            let (hidden, table) = (input("hidden", [40, 8]), input("table", [50, 8]));
            let logps = token_logps(hidden.clone(), table.clone(), &targets, Some(3.0));
            let (grad, mut sum_n) = (random::<1>("grad", [40], device), random::<1>("sum", [400], device));
            let dhidden = token_logps_gradient(hidden, table, grad, &targets, Some(3.0), &mut sum_n);
            [values(logps), values(dhidden), values(sum_n)]
        };
        for (ours, want) in run(&Device::cpu()).iter().zip(run(&Device::flex())) {
            assert_close(&format!("head in {}", held.name()), ours, &want, tolerance);
        }
    }
}

#[test]
fn rows_are_added_as_on_the_cpu() {
    let run = |device: &Device| {
        let (sum_n, part) = (random::<1>("sum", [60], device), random::<2>("part", [4, 3], device));
        let sum_n = rows_added(sum_n, part.clone().transpose().reshape([3, 4]).transpose(), [7, 0, 19, 3]);
        values(rows_added(sum_n, part, 16..20))
    };
    assert_eq!(run(&Device::cpu()), run(&Device::flex()));
}

#[test]
fn cached_attention_is_that_of_the_cpu() {
    let frequencies: Vec<f32> = (0..4).map(|i| 100f32.powf(-(i as f32) / 4.0)).collect();
    let spec = AttentionSpec {
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 8,
        scale: 0.4,
        softcap: Some(5.0),
        window: None,
        rope: Arc::new(Rope::new(&frequencies, 600)),
    };
    let windowed = AttentionSpec { window: Some(3), softcap: None, ..spec.clone() };
    // Whole prompts; single tokens; several after others, a whole prompt and a single token in one pass.
    let short: [&[_]; 3] =
        [&[(5, 2, 0), (3, 0, 0)], &[(1, 0, 3), (1, 1, 5), (1, 2, 5)], &[(2, 2, 6), (3, 0, 0), (1, 1, 6)]];
    // More keys than a cube has units.
    let long: [&[_]; 3] = [&[(1, 0, 0)], &[(299, 0, 1)], &[(1, 0, 300)]];
    for (spec, passes) in [(&spec, short), (&windowed, short), (&spec, long), (&windowed, long)] {
        let spec = Arc::new(spec.clone());
        for (held, tolerance) in [(Precision::F32, 3e-6), (Precision::Bf16, 2e-2)] {
            let run = |device: &Device| attended(device, &spec, held, &passes, 1);
            let what = format!("{passes:?}, window {:?}, {}", spec.window, held.name());
            assert_close(&what, &run(&Device::cpu()), &run(&Device::flex()), tolerance);
        }
    }
}
