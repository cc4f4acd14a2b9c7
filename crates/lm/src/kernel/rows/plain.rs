//! The row operations composed of tensor operations: what the CPU runs where it is asked for them, and the oracle of the
//! kernels.

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Bool, DType, Device, FloatDType, Int, Tensor, TensorData};

use super::{DrawSpec, LOWEST, Rows, ScoreSpec};
use crate::nn::index;
use crate::precision::Precision;

type CpuTensor = FloatTensor<Flex>;

fn lift<const D: usize>(tensor: CpuTensor) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(tensor)
}

fn lower<const D: usize>(tensor: Tensor<D>) -> CpuTensor {
    tensor.try_into_primitive::<Flex>().expect("a plain operation stays on its backend and off the tape")
}

impl Rows for Flex {
    fn product(lhs: CpuTensor, rhs: CpuTensor) -> CpuTensor {
        let wide = |x: CpuTensor| if x.dtype() == DType::F32 { x } else { Flex::float_cast(x, FloatDType::F32) };
        Flex::float_matmul(wide(lhs), wide(rhs))
    }

    fn weights(scores: CpuTensor, starts: Arc<[u32]>, spec: ScoreSpec, held: Precision) -> (CpuTensor, CpuTensor) {
        let (weights, lse) = weights(lift(scores), &starts, spec);
        (lower(held.hold(weights)), lower(lse.squeeze_dim::<1>(1)))
    }

    fn weights_backward(
        scores: CpuTensor,
        lse: CpuTensor,
        grad: CpuTensor,
        starts: Arc<[u32]>,
        spec: ScoreSpec,
        held: Precision,
    ) -> (CpuTensor, CpuTensor) {
        let lse_r1 = lift::<1>(lse).unsqueeze_dim(1);
        let (weights, grad) = weights_backward(lift(scores), lse_r1, lift(grad), &starts, spec);
        (lower(held.hold(weights)), lower(held.hold(grad)))
    }

    fn turned(
        x: CpuTensor,
        cos: CpuTensor,
        sin: CpuTensor,
        positions: Arc<[u32]>,
        direction: f32,
        held: Precision,
    ) -> CpuTensor {
        lower(held.hold(turned(lift(x), [lift(cos), lift(sin)], &positions, direction)))
    }

    fn logps(logits: CpuTensor, targets: Arc<[u32]>, softcap: Option<f32>) -> CpuTensor {
        lower(logps(lift(logits), &targets, softcap))
    }

    fn logps_backward(
        logits: CpuTensor,
        grad: CpuTensor,
        targets: Arc<[u32]>,
        softcap: Option<f32>,
        held: Precision,
    ) -> CpuTensor {
        lower(held.hold(logps_backward(lift(logits), lift(grad), &targets, softcap)))
    }

    fn drawn(logits: CpuTensor, uniforms: Arc<[f32]>, spec: Option<DrawSpec>) -> CpuTensor {
        lower(drawn(lift(logits), &uniforms, spec))
    }
}

fn capped(x: Tensor<2>, cap: Option<f32>) -> Tensor<2> {
    match cap {
        Some(cap) => x.div_scalar(cap).tanh().mul_scalar(cap),
        None => x,
    }
}

/// The slope of the cap at capped values.
fn slope(capped: Tensor<2>, cap: Option<f32>) -> Option<Tensor<2>> {
    cap.map(|cap| capped.div_scalar(cap).square().neg().add_scalar(1.0))
}

/// Weights `[r, s]` and logarithms of the sums `[r, 1]`.
fn weights(scores_rs: Tensor<2>, starts: &[u32], spec: ScoreSpec) -> (Tensor<2>, Tensor<2>) {
    let hidden = hidden_columns(scores_rs.dims(), starts, spec, &scores_rs.device());
    let scores = capped(scores_rs.mul_scalar(spec.scale), spec.softcap).mask_fill(hidden, f32::NEG_INFINITY);
    let largest_r1 = scores.clone().max_dim(1);
    let sum_r1 = (scores.clone() - largest_r1.clone()).exp().sum_dim(1);
    let lse_r1 = largest_r1 + sum_r1.log();
    ((scores - lse_r1.clone()).exp(), lse_r1)
}

/// Which columns a row may not see, `[r, s]`: later keys, and those before its window.
fn hidden_columns([r, s]: [usize; 2], starts: &[u32], spec: ScoreSpec, device: &Device) -> Tensor<2, Bool> {
    let ScoreSpec { n_heads, n_queries, first_key, window, scale: _, softcap: _ } = spec;
    let of_sequence = |start: &u32| {
        let start = i64::from(*start);
        (0..n_heads).flat_map(move |_| (start..).take(n_queries))
    };
    let positions: Vec<i64> = starts.iter().flat_map(of_sequence).collect();
    let queries = Tensor::<2, Int>::from_data(TensorData::new(positions, [r, 1]), device).expand([r, s]);
    let keys = Tensor::<1, Int>::arange(first_key as i64..(first_key + s) as i64, device);
    let keys = keys.reshape([1, s]).expand([r, s]);
    let later = keys.clone().greater(queries.clone());
    match window {
        Some(window) => later.bool_or(keys.add_scalar(window as i64).lower_equal(queries)),
        None => later,
    }
}

fn weights_backward(
    scores_rs: Tensor<2>,
    lse_r1: Tensor<2>,
    grad_rs: Tensor<2>,
    starts: &[u32],
    spec: ScoreSpec,
) -> (Tensor<2>, Tensor<2>) {
    let hidden = hidden_columns(scores_rs.dims(), starts, spec, &scores_rs.device());
    let scores_rs = capped(scores_rs.mul_scalar(spec.scale), spec.softcap);
    let weights_rs = (scores_rs.clone() - lse_r1).exp().mask_fill(hidden, 0.0);
    let mean_r1 = (weights_rs.clone() * grad_rs.clone()).sum_dim(1);
    let mut grad_rs = weights_rs.clone() * (grad_rs - mean_r1);
    if let Some(slope_rs) = slope(scores_rs, spec.softcap) {
        grad_rs = grad_rs * slope_rs;
    }
    (weights_rs, grad_rs.mul_scalar(spec.scale))
}

/// In f32, whatever comes.
fn turned(x: Tensor<2>, tables: [Tensor<2>; 2], positions: &[u32], direction: f32) -> Tensor<2> {
    let ([n, width], device) = (x.dims(), x.device());
    let half = tables[0].dims()[1];
    let positions = index(positions.iter().map(|position| *position as usize), &device);
    let [cos, sin] = tables.map(|table| table.select(0, positions.clone()).unsqueeze_dim::<3>(1));
    let sin = sin.mul_scalar(direction);
    let x = Precision::F32.hold(x).reshape([n, width / (2 * half), 2 * half]);
    let (x1, x2) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
    let first = x1.clone() * cos.clone() - x2.clone() * sin.clone();
    let second = x2 * cos + x1 * sin;
    Tensor::cat(vec![first, second], 2).reshape([n, width])
}

/// Token ids as a column `[r, 1]`.
fn column(ids: &[u32], device: &Device) -> Tensor<2, Int> {
    index(ids.iter().map(|id| *id as usize), device).unsqueeze_dim(1)
}

fn logps(logits_rw: Tensor<2>, targets: &[u32], softcap: Option<f32>) -> Tensor<1> {
    let targets = column(targets, &logits_rw.device());
    log_softmax(capped(logits_rw, softcap), 1).gather(1, targets).squeeze_dim(1)
}

fn logps_backward(logits_rw: Tensor<2>, grad_r: Tensor<1>, targets: &[u32], softcap: Option<f32>) -> Tensor<2> {
    let ([r, w], device) = (logits_rw.dims(), logits_rw.device());
    let capped = capped(logits_rw, softcap);
    let ids = Tensor::<1, Int>::arange(0..w as i64, &device).reshape([1, w]).expand([r, w]);
    let target = ids.equal(column(targets, &device).expand([r, w])).float();
    let grad_rw = (target - softmax(capped.clone(), 1)) * grad_r.unsqueeze_dim(1);
    match slope(capped, softcap) {
        Some(slope) => grad_rw * slope,
        None => grad_rw,
    }
}

fn drawn(logits_rw: Tensor<2>, uniforms: &[f32], spec: Option<DrawSpec>) -> Tensor<2> {
    let ([r, w], device) = (logits_rw.dims(), logits_rw.device());
    let chosen_r1 = match spec {
        None => logits_rw.clone().argmax(1),
        Some(spec) => {
            // Distances from the largest, which no temperature takes out of range.
            let largest_r1 = logits_rw.clone().max_dim(1);
            let scores_rw = (logits_rw.clone() - largest_r1).div_scalar(spec.temperature);
            let kept_rw = scores_rw.clone().greater_equal(floor(scores_rw.clone(), spec).expand([r, w]));
            let weights_rw = scores_rw.exp() * kept_rw.float();
            let uniforms_r1 = Tensor::<2>::from_data(TensorData::new(uniforms.to_vec(), [r, 1]), &device);
            let target_r1 = weights_rw.clone().sum_dim(1) * uniforms_r1;
            // As many tokens stand before the one that is drawn as have a cumulative weight up to the target.
            let before_r1 = weights_rw.clone().cumsum(1).lower_equal(target_r1.expand([r, w])).int().sum_dim(1);
            // Rounding may leave a crumb after the last token that weighs anything.
            let ids_rw = Tensor::<1, Int>::arange(0..w as i64, &device).reshape([1, w]).expand([r, w]);
            let last_r1 = ids_rw.mask_fill(weights_rw.lower_equal_elem(0.0), 0).max_dim(1);
            before_r1.min_pair(last_r1)
        }
    };
    let logp_r1 = log_softmax(logits_rw, 1).gather(1, chosen_r1.clone());
    Tensor::cat(vec![chosen_r1.float(), logp_r1], 1)
}

/// The lowest score `[r, 1]` that the filters leave, of scores whose largest is 0.
fn floor(scores_rw: Tensor<2>, spec: DrawSpec) -> Tensor<2> {
    let [r, w] = scores_rw.dims();
    let kept = |floor_r1: &Tensor<2>| scores_rw.clone().greater_equal(floor_r1.clone().expand([r, w])).float();
    let mut floor_r1 = Tensor::<2>::full([r, 1], -2.0 * LOWEST, &scores_rw.device());
    if let Some(k) = spec.top_k.filter(|k| *k < w) {
        floor_r1 = highest(&floor_r1, |floor_r1| kept(floor_r1).sum_dim(1).greater_equal_elem(k as f32));
    }
    if let Some(p) = spec.top_p.filter(|p| *p < 1.0) {
        let weight_rw = scores_rw.clone().exp() * kept(&floor_r1);
        let wanted_r1 = weight_rw.clone().sum_dim(1).mul_scalar(p);
        let enough =
            |floor_r1: &Tensor<2>| (weight_rw.clone() * kept(floor_r1)).sum_dim(1).greater_equal(wanted_r1.clone());
        floor_r1 = highest(&floor_r1, enough).max_pair(floor_r1);
    }
    match spec.min_p.filter(|p| *p > 0.0) {
        Some(p) => floor_r1.clamp_min(p.ln()),
        None => floor_r1,
    }
}

/// Halvings of a range of [`LOWEST`] that leave less than neighbouring floats are apart.
const N_HALVINGS: usize = 44;

/// The highest floor below which nothing is missed, by halving: equal scores stay together, and so do scores that differ by
/// less than the last halving.
fn highest(like_r1: &Tensor<2>, enough: impl Fn(&Tensor<2>) -> Tensor<2, Bool>) -> Tensor<2> {
    let mut low_r1 = like_r1.zeros_like().sub_scalar(LOWEST);
    let mut high_r1 = like_r1.zeros_like();
    for _ in 0..N_HALVINGS {
        let middle_r1 = (low_r1.clone() + high_r1.clone()).mul_scalar(0.5);
        let enough = enough(&middle_r1);
        low_r1 = low_r1.mask_where(enough.clone(), middle_r1.clone());
        high_r1 = middle_r1.mask_where(enough, high_r1);
    }
    // Halves never reach a floor of 0, where the likeliest token alone is enough: it is above this one all the same.
    low_r1
}
