//! The row operations and the attention made of them, against their definitions and the reference: as compositions on the
//! CPU, and, in a build that has CubeCL there, as compiled kernels, too:
//!
//! `cargo test -p sluice-lm --features cube-cpu --lib kernel::`

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::*;
use crate::kernel::attention::{AttentionSpec, Rope};
use crate::kernel::{blocks, plain as reference, vocabulary};
use crate::packed::Segment;
use crate::sampling::{RowRng, Sampling, Scratch, draw, greedy, log_probability};
use crate::weights::{FreshWeights, WeightSource, values};

/// What the operations are checked on.
fn devices() -> Vec<Device> {
    let mut devices = vec![Device::flex()];
    devices.extend(compiled());
    devices
}

/// CubeCL on the CPU: it compiles as a GPU does, and then runs much slower than either.
fn compiled() -> Option<Device> {
    #[cfg(feature = "cube-cpu")]
    return Some(Device::cpu());
    #[cfg(not(feature = "cube-cpu"))]
    None
}

fn random<const D: usize>(name: &str, shape: [usize; D], std: f64) -> Vec<f32> {
    FreshWeights::new(3, std, 0.0).read(name, &shape).expect("fresh weights never fail")
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (device, DType::F32))
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

fn specs() -> [AttentionSpec; 3] {
    let frequencies: Vec<f32> = (0..4).map(|i| 100f32.powf(-(i as f32) / 4.0)).collect();
    let all = AttentionSpec {
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 8,
        scale: 0.3,
        softcap: Some(5.0),
        window: None,
        rope: Arc::new(Rope::new(&frequencies, 2000)),
    };
    let windowed = AttentionSpec { window: Some(7), ..all.clone() };
    let plain = AttentionSpec { n_heads: 2, softcap: None, ..all.clone() };
    [all, windowed, plain]
}

/// Sequences end to end: own tokens, and of how many tokens of which sequence they are the continuation.
fn packed(sequences: &[(usize, Option<(usize, usize)>)]) -> Arc<[Segment]> {
    let mut segments: Vec<Segment> = Vec::new();
    for (n_tokens, continues) in sequences {
        let start = segments.last().map_or(0, |segment| segment.rows.end);
        let prefix = continues.map_or(0..0, |(of, n)| segments[of].rows.start..segments[of].rows.start + n);
        segments.push(Segment { rows: start..start + n_tokens, prefix });
    }
    segments.into()
}

/// Lengths that fall into one group, into several, that leave gaps of order, that need several blocks of queries; pairs and
/// many answers that share a prompt.
fn batches() -> Vec<Arc<[Segment]>> {
    let whole = |lengths: &[usize]| packed(&lengths.iter().map(|n| (*n, None)).collect::<Vec<_>>());
    vec![
        whole(&[9, 9, 9]),
        whole(&[5, 1, 13, 0, 12]),
        whole(&[3]),
        whole(&[700, 2, 640]),
        packed(&[(20, None), (9, Some((0, 11))), (18, None), (8, Some((2, 10)))]),
        packed(&[(30, None), (6, Some((0, 21))), (7, Some((0, 21))), (1, Some((0, 21))), (5, None)]),
        packed(&[(600, None), (560, Some((0, 40)))]),
    ]
}

fn widths(spec: &AttentionSpec) -> [usize; 4] {
    [spec.n_heads, spec.n_kv_heads, spec.n_kv_heads, spec.n_heads].map(|heads| heads * spec.head_dim)
}

#[test]
fn attention_by_blocks_is_attention() {
    for (segments, spec) in batches().iter().flat_map(|batch| specs().map(|spec| (batch.clone(), spec))) {
        check_attention(&Device::flex(), &segments, &spec);
    }
    // A pair that shares its prompt has all there is: grouped queries, a prefix, a window, a cap.
    if let Some(device) = compiled() {
        let [_, windowed, _] = specs();
        check_attention(&device, &packed(&[(20, None), (9, Some((0, 11)))]), &windowed);
    }
}

/// Values and gradients, against the composition that holds all scores, on its own tape.
fn check_attention(device: &Device, segments: &[Segment], spec: &AttentionSpec) {
    let what = format!("{segments:?}, window {:?} on {device:?}", spec.window);
    let (n, widths) = (segments.last().map_or(0, |last| last.rows.end), widths(spec));
    let drawn: [Vec<f32>; 4] = std::array::from_fn(|at| random(&format!("attention {at}"), [n, widths[at]], 1.0));
    let on = |device: &Device, at: usize| tensor(&drawn[at], [n, widths[at]], device);
    let flex = Device::flex();
    let [q, k, v] = std::array::from_fn(|at| on(&flex, at));
    let want = reference::self_attention(q.clone(), k.clone(), v.clone(), segments, spec);
    let gradients =
        reference::gradients([q, k, v], on(&flex, 3), |[q, k, v]| reference::self_attention(q, k, v, segments, spec));

    let (ours, lse) = blocks::forward(on(device, 0), on(device, 1), on(device, 2), segments, spec);
    assert_close(&what, &values(ours), &values(want), 3e-6);
    let inputs = std::array::from_fn(|at| on(device, at));
    let ours = blocks::backward(inputs, lse, on(device, 3), segments, spec);
    for (at, (ours, want)) in ours.into_iter().zip(gradients).enumerate() {
        assert_close(&format!("{what}, gradient {at}"), &values(ours), &values(want), 1e-5);
    }
}

/// In bf16, values and gradients stay as near to those in f32 as bf16 can tell.
#[test]
fn attention_by_blocks_in_bf16_is_near() {
    let [_, spec, _] = specs();
    for segments in batches() {
        let n = segments.last().map_or(0, |last| last.rows.end);
        let widths = widths(&spec);
        let run = |precision: Precision| {
            let inputs = |at: usize| {
                let drawn = random(&format!("half {at}"), [n, widths[at]], 1.0);
                precision.hold(Precision::Bf16.hold(tensor(&drawn, [n, widths[at]], &Device::flex())))
            };
            let (out, lse) = blocks::forward(inputs(0), inputs(1), inputs(2), &segments, &spec);
            assert_eq!((out.dtype(), lse.dtype()), (precision.dtype(), DType::F32));
            let [dq, dk, dv] = blocks::backward([0, 1, 2].map(inputs), lse, inputs(3), &segments, &spec);
            [out, dq, dk, dv].map(values)
        };
        for (ours, want) in run(Precision::Bf16).into_iter().zip(run(Precision::F32)) {
            assert_close("bf16", &ours, &want, 2e-2);
        }
    }
}

/// On the tape of a CubeCL device attention is the one by blocks, with its own backward pass.
#[cfg(feature = "cube-cpu")]
#[test]
fn attention_on_a_cubecl_device_is_on_the_tape() {
    let [_, spec, _] = specs();
    let segments = packed(&[(20, None), (9, Some((0, 11)))]);
    let widths = widths(&spec);
    let run = |device: &Device| {
        let on = |at: usize| tensor(&random(&format!("tape {at}"), [29, widths[at]], 1.0), [29, widths[at]], device);
        let leaves = [0, 1, 2].map(|at| on(at).autodiff().require_grad());
        let [q, k, v] = leaves.clone();
        let out = crate::kernel::self_attention(q, k, v, &segments, &Arc::new(spec.clone()));
        let gradients = (out * on(3).autodiff()).sum().backward();
        leaves.map(|leaf| values(leaf.grad(&gradients).expect("every input has a gradient")))
    };
    for (ours, want) in run(&Device::cpu()).into_iter().zip(run(&Device::flex())) {
        assert_close("on the tape", &ours, &want, 1e-5);
    }
}

/// Two sequences of two heads and three queries, whose first queries stand at 4 and at 6.
#[test]
fn weights_are_those_of_their_definition() {
    let (r, s) = (12, 9);
    let starts: Arc<[u32]> = [4, 6].into();
    let [scores, grad] = ["scores", "grads"].map(|name| random(name, [r, s], 2.0));
    for (held, window) in [(Precision::F32, None), (Precision::F32, Some(3)), (Precision::Bf16, Some(3))] {
        let spec = ScoreSpec { n_heads: 2, n_queries: 3, first_key: 1, window, scale: 0.7, softcap: Some(3.0) };
        for device in devices() {
            let on = |values: &[f32]| tensor(values, [r, s], &device);
            let (weights, lse) = weights(on(&scores), &starts, spec, held);
            let (again, grads) = weights_backward(on(&scores), lse.clone(), on(&grad), &starts, spec, held);
            assert_eq!((weights.dtype(), grads.dtype(), lse.dtype()), (held.dtype(), held.dtype(), DType::F32));
            let (weights, lse, again, grads) = (values(weights), values(lse), values(again), values(grads));
            let tolerance = if held == Precision::F32 { 2e-6 } else { 8e-3 };
            assert_close("the weights again", &again, &weights, tolerance);
            for row in 0..r {
                let position = starts[row / 6] as usize + row % 3;
                let sees = |column: usize| column < position && window.is_none_or(|window| column + window >= position);
                let capped = |column: usize| 3.0 * (0.7 * scores[row * s + column] / 3.0).tanh();
                let exp = |column: usize| if sees(column) { capped(column).exp() } else { 0.0 };
                let sum: f32 = (0..s).map(exp).sum();
                assert_close("lse", &[lse[row]], &[sum.ln()], 2e-6);
                let want: Vec<f32> = (0..s).map(|column| exp(column) / sum).collect();
                assert_close("weights", &weights[row * s..][..s], &want, tolerance);
                let mean: f32 = (0..s).map(|column| want[column] * grad[row * s + column]).sum();
                let slope = |column: usize| {
                    let tanh = capped(column) / 3.0;
                    want[column] * (grad[row * s + column] - mean) * (1.0 - tanh * tanh) * 0.7
                };
                let want: Vec<f32> = (0..s).map(slope).collect();
                assert_close("gradient of the scores", &grads[row * s..][..s], &want, tolerance);
            }
        }
    }
}

#[test]
fn log_probabilities_of_rows_are_those_of_the_cpu() {
    let r = 5;
    let targets: Vec<u32> = (0..r as u32).map(|row| row * 139 + 7).collect();
    // Rows that are read in vectors, and rows that are not.
    for (w, softcap) in [(700, None), (700, Some(6.0)), (701, Some(6.0))] {
        let logits = random("logits", [r, w], 4.0);
        let head = crate::kernel::head::logps(&mut logits.clone(), &targets, softcap);
        let grad = random("grad", [r], 1.0);
        let mut want = logits.clone();
        crate::kernel::head::logits_gradient(&mut want, &targets, &grad, softcap);
        for device in devices() {
            let on = || tensor(&logits, [r, w], &device);
            assert_close("logps", &values(logps(on(), &targets, softcap)), &head, 1e-6);
            for (held, tolerance) in [(Precision::F32, 1e-6), (Precision::Bf16, 4e-3)] {
                let ours = logps_backward(on(), tensor(&grad, [r], &device), &targets, softcap, held);
                assert_eq!(ours.dtype(), held.dtype());
                assert_close("gradient of the logits", &values(ours), &want, tolerance);
            }
        }
    }
}

/// Several chunks of logits, and more than are kept for one product with the hidden states.
#[test]
fn log_probabilities_by_chunks_are_those_of_the_composition() {
    let (m, d, w) = (crate::kernel::head::CHUNK_ROWS * (crate::kernel::CHUNKS_TOGETHER + 1) + 3, 4, 5);
    let targets: Vec<u32> = (0..m as u32).map(|row| row * 7 % w as u32).collect();
    let [hidden, table, grad] = [("hidden", [m, d]), ("table", [w, d]), ("grad", [m, 1])]
        .map(|(name, shape)| (random(name, shape, 1.0), shape));
    let device = Device::flex();
    let on = |(values, shape): &(Vec<f32>, [usize; 2])| tensor(values, *shape, &device);
    let grad_m = || on(&grad).squeeze_dim::<1>(1);
    let want = reference::token_logps(on(&hidden), on(&table), &targets, Some(3.0));
    assert_close(
        "logps",
        &values(vocabulary::forward(on(&hidden), on(&table), &targets, Some(3.0))),
        &values(want),
        3e-6,
    );
    let sum = || Tensor::zeros([w * d], &device);
    let (dhidden, dtable) = vocabulary::backward(on(&hidden), on(&table), grad_m(), &targets, Some(3.0), sum());
    let (want_hidden, want_table) =
        reference::token_logps_gradient(on(&hidden), on(&table), grad_m(), &targets, Some(3.0), sum());
    assert_close("gradient of hidden states", &values(dhidden), &values(want_hidden), 3e-6);
    assert_close("gradient of the table", &values(dtable), &values(want_table), 3e-6);
}

#[test]
fn heads_turn_as_the_reference_turns_them() {
    let [spec, ..] = specs();
    let positions: Arc<[u32]> = [0, 5, 1, 1999].into();
    let x = random("heads", [4, 32], 1.0);
    let flex = tensor(&x, [4, 32], &Device::flex());
    let at: Vec<usize> = positions.iter().map(|position| *position as usize).collect();
    let want = values(reference::turned(flex, &at, &spec));
    for device in devices() {
        let ours = turned(tensor(&x, [4, 32], &device), &spec.rope, &positions, 1.0, Precision::F32);
        assert_close("turned", &values(ours.clone()), &want, 1e-6);
        let back = turned(ours.clone(), &spec.rope, &positions, -1.0, Precision::F32);
        assert_close("turned back", &values(back), &x, 1e-6);
        let half = turned(Precision::Bf16.hold(ours), &spec.rope, &positions, -1.0, Precision::Bf16);
        assert_eq!(half.dtype(), DType::BF16);
        assert_close("in bf16", &values(half), &x, 1e-2);
    }
}

fn tokens(logits: &[f32], w: usize, uniforms: &[f32], spec: Option<DrawSpec>, device: &Device) -> Vec<(u32, f32)> {
    let out = values(drawn(tensor(logits, [logits.len() / w, w], device), uniforms, spec));
    out.chunks_exact(2).map(|pair| (pair[0] as u32, pair[1])).collect()
}

/// The same ids from the same numbers as `sampling::draw`, in 50 rows each.
#[test]
fn draws_are_those_of_the_cpu() {
    let (r, w) = (50, 300);
    let logits = random("draws", [r, w], 3.0);
    let uniform = |row: usize| RowRng::new(row as u64).uniform(7);
    let uniforms: Vec<f32> = (0..r).map(|row| uniform(row) as f32).collect();
    let filters = [
        (1.0, None, None, None),
        (0.7, None, Some(0.95), None),
        (1.3, Some(5), None, None),
        (1.0, Some(40), Some(0.6), None),
        (0.9, None, None, Some(0.1)),
        (0.01, None, Some(0.5), None),
    ];
    for (temperature, top_k, top_p, min_p) in filters {
        let sampling = Sampling::new(temperature, top_k, top_p, min_p).expect("the settings are right");
        let want: Vec<u32> = (0..r)
            .map(|row| {
                let mut scratch = Scratch::default();
                let candidates = sampling.filter(&logits[row * w..][..w], &mut scratch).expect("the logits are finite");
                draw(candidates, uniform(row)).expect("some token is left").id
            })
            .collect();
        for device in devices() {
            let ours = tokens(&logits, w, &uniforms, Some(sampling.draw_spec()), &device);
            assert_eq!(ours.iter().map(|(id, _)| *id).collect::<Vec<_>>(), want, "{sampling:?} on {device:?}");
            for (row, (id, logp)) in logits.chunks_exact(w).zip(ours) {
                let want = log_probability(row, id) as f32;
                assert!((logp - want).abs() < 1e-5, "{logp} and {want}");
            }
        }
    }
}

/// The ends of [0, 1): the first and the last token that weigh anything.
#[test]
fn a_draw_never_takes_what_weighs_nothing() {
    let logits = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY].repeat(2);
    let spec = DrawSpec { temperature: 1.0, top_k: None, top_p: None, min_p: None };
    for device in devices() {
        let ours = tokens(&logits, 5, &[0.0, 1.0 - f32::EPSILON / 2.0], Some(spec), &device);
        assert_eq!(ours.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3], "{device:?}");
    }
}

#[test]
fn without_a_spec_the_first_of_the_largest_logits_is_taken() {
    let mut logits = random("greedy", [3, 50], 1.0);
    (logits[20], logits[33]) = (9.0, 9.0);
    for device in devices() {
        let want: Vec<u32> = logits.chunks_exact(50).map(|row| greedy(row).expect("the logits are finite")).collect();
        let ours = tokens(&logits, 50, &[0.5; 3], None, &device);
        assert_eq!(ours.iter().map(|(id, _)| *id).collect::<Vec<_>>(), want, "{device:?}");
    }
}

#[test]
fn what_cannot_be_drawn_from_has_no_log_probability() {
    for device in devices() {
        for broken in [f32::NAN, f32::NEG_INFINITY] {
            let spec = DrawSpec { temperature: 1.0, top_k: None, top_p: Some(0.9), min_p: None };
            let (_, logp) = tokens(&[broken; 6], 6, &[0.5], Some(spec), &device)[0];
            assert!(!logp.is_finite(), "{broken} on {device:?}: {logp}");
        }
    }
}
