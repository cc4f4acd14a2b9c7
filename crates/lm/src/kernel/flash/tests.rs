//! The kernels on CubeCL's own CPU device, where a unit imitates a plane, against the composition that holds all scores.
//!
//! Tiles are small, so that a few tokens are several of them with ragged ends. In f32, which no tensor core multiplies so, the
//! comparison is tight: what is rounded in bf16 and where is then the only thing that it cannot see.
//!
//! `cargo test -p sluice-lm --features cube-cpu --lib flash`

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::*;
use crate::kernel::attention::Rope;
use crate::kernel::{AttentionKernel, blocks, plain as reference};
use crate::weights::{FreshWeights, WeightSource, values};

/// Queries, keys, values and the gradient of the output, of numbers that bf16 can hold.
fn inputs(n: usize, spec: &AttentionSpec, device: &Device, held: Precision) -> [Tensor<2>; 4] {
    let AttentionSpec { n_heads, n_kv_heads, head_dim, .. } = spec;
    [("q", n_heads), ("k", n_kv_heads), ("v", n_kv_heads), ("grad", n_heads)].map(|(name, heads)| {
        let shape = [n, heads * head_dim];
        let drawn = FreshWeights::new(7, 1.0, 0.0).read(name, &shape).expect("fresh weights never fail");
        held.hold(Precision::Bf16.hold(Tensor::from_data(TensorData::new(drawn, shape), (device, DType::F32))))
    })
}

/// The largest difference relative to the largest value, or to 1.
fn error(ours: &[f32], want: &[f32]) -> f32 {
    assert_eq!(ours.len(), want.len());
    let scale = want.iter().fold(1.0f32, |a, b| a.max(b.abs()));
    let larger = |a: f32, b: f32| if b.is_nan() { b } else { a.max(b) };
    ours.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, larger) / scale
}

/// Grouped heads with a cap, the same with a window, single heads without either, and heads so wide that the gradients of
/// keys and values are two launches.
fn specs() -> [AttentionSpec; 4] {
    let spec = |head_dim: usize| {
        let frequencies: Vec<f32> = (0..head_dim / 2).map(|i| 100f32.powf(-2.0 * i as f32 / head_dim as f32)).collect();
        let (softcap, rope) = (Some(5.0), Arc::new(Rope::new(&frequencies, 200)));
        AttentionSpec { n_heads: 4, n_kv_heads: 2, head_dim, scale: 0.2, softcap, window: None, rope }
    };
    let windowed = AttentionSpec { window: Some(21), ..spec(32) };
    let plain = AttentionSpec { n_heads: 2, softcap: None, ..spec(16) };
    let wide = AttentionSpec { n_heads: 2, n_kv_heads: 1, window: Some(40), ..spec(144) };
    [spec(32), windowed, plain, wide]
}

/// Sequences end to end: own tokens, and of how many tokens of which sequence they are the continuation.
fn packed(sequences: &[(usize, Option<(usize, usize)>)]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for (n_tokens, continues) in sequences {
        let start = segments.last().map_or(0, |segment| segment.rows.end);
        let prefix = continues.map_or(0..0, |(of, n)| segments[of].rows.start..segments[of].rows.start + n);
        segments.push(Segment { rows: start..start + n_tokens, prefix });
    }
    segments
}

/// Sequences that fill a tile, that leave gaps, that need several tiles; a pair and several answers that share a prompt.
fn batches() -> [Vec<Segment>; 4] {
    [
        packed(&[(16, None), (1, None), (0, None), (50, None)]),
        packed(&[(33, None), (20, Some((0, 25))), (40, None), (5, Some((2, 16)))]),
        packed(&[(70, None), (6, Some((0, 37))), (35, Some((0, 37))), (1, Some((0, 37)))]),
        packed(&[(3, None)]),
    ]
}

/// One plane a cube and several; tiles that are met as wide as those that meet them, and wider.
const TILINGS: [Tiling; 2] =
    [Tiling { n_planes: 1, n_met: 32, n_met_backward: 16 }, Tiling { n_planes: 2, n_met: 16, n_met_backward: 32 }];

/// The errors of the output, the logarithms and the three gradients.
fn errors(segments: &[Segment], spec: &AttentionSpec, tiling: Tiling, held: Precision) -> [f32; 5] {
    let n = segments.last().map_or(0, |last| last.rows.end);
    let [q, k, v, grad] = inputs(n, spec, &Device::flex(), Precision::F32);
    let attend = |[q, k, v]: [Tensor<2>; 3]| reference::self_attention(q, k, v, segments, spec);
    let (_, want_lse) = blocks::forward(q.clone(), k.clone(), v.clone(), segments, spec);
    let want = attend([q.clone(), k.clone(), v.clone()]);
    let [want_q, want_k, want_v] = reference::gradients([q, k, v], grad, attend);

    let [q, k, v, grad] = inputs(n, spec, &Device::cpu(), held);
    let (out, lse) = forward_in([q.clone(), k.clone(), v.clone()], segments, spec, tiling);
    assert_eq!((out.dtype(), lse.dtype()), (held.dtype(), DType::F32));
    let [dq, dk, dv] = backward_in([q, k, v], lse.clone(), grad, segments, spec, tiling);
    let pairs = [(out, want), (lse, want_lse), (dq, want_q), (dk, want_k), (dv, want_v)];
    pairs.map(|(ours, want)| error(&values(ours), &values(want)))
}

/// All batches under all specs, in tiles of both kinds.
#[track_caller]
fn check(held: Precision, tolerance: f32) {
    let mut worst = [0f32; 5];
    for (tiling, spec) in TILINGS.into_iter().flat_map(|tiling| specs().map(|spec| (tiling, spec))) {
        for segments in batches() {
            let found = errors(&segments, &spec, tiling, held);
            let what = format!("{segments:?}, d {}, window {:?}, {tiling:?}", spec.head_dim, spec.window);
            assert!(found.iter().all(|error| *error <= tolerance), "{what}: {found:?}");
            worst = std::array::from_fn(|at| worst[at].max(found[at]));
        }
    }
    println!("{}: output, logarithms, gradients: {worst:?}", held.name());
}

#[test]
fn flash_attention_is_attention() {
    check(Precision::F32, 1e-5);
}

/// As near to f32 as attention by blocks is held to be.
#[test]
fn flash_attention_in_bf16_is_near() {
    check(Precision::Bf16, 2e-2);
}

/// The CPU imitates what it does not have; nobody who does not ask for that gets it.
#[test]
fn a_device_without_tensor_cores_keeps_blocks() {
    let [spec, ..] = specs();
    let on = |device: &Device| {
        let [q, ..] = inputs(3, &spec, device, Precision::Bf16);
        (AttentionKernel::suited(&q, &spec), AttentionKernel::Flash.runs(&q, &spec))
    };
    assert_eq!(on(&Device::cpu()), (AttentionKernel::Blocks, true));
    assert_eq!(on(&Device::flex()), (AttentionKernel::Blocks, false));
}

#[test]
fn tensor_cores_serve_bf16_where_the_tiles_fit() {
    let of_cpu = Tensor::<1>::zeros([1], &Device::cpu()).try_into_primitive::<burn::backend::Cube>();
    let mut device = of_cpu.expect("CubeCL's CPU is one of its devices").device().client().properties().clone();
    let spec = |head_dim: usize| AttentionSpec { head_dim, ..specs()[0].clone() };
    assert!(!serves(&spec(256), Precision::Bf16, &device));

    let (half, wide) = (ElemType::Float(FloatKind::BF16), ElemType::Float(FloatKind::F32));
    device.features.matmul.mma.insert(MmaConfig { a_type: half, b_type: half, cd_type: wide, m: 16, n: 8, k: 16 });
    device.features.matmul.ldmatrix.insert(half);
    (device.hardware.plane_size_min, device.hardware.plane_size_max) = (32, 32);
    // 192 rows of 256 numbers and 8 that are left empty, 2 bytes each, and 64 numbers of 4 bytes.
    device.hardware.max_shared_memory_size = 192 * 264 * 2 + 256;
    assert!(serves(&spec(256), Precision::Bf16, &device));
    assert!(!serves(&spec(256), Precision::F32, &device));
    assert!(!serves(&spec(24), Precision::Bf16, &device) && !serves(&spec(272), Precision::Bf16, &device));
    device.hardware.max_shared_memory_size -= 1;
    assert!(!serves(&spec(256), Precision::Bf16, &device));
}
