//! The fused operations at the shapes of real models, with random values, against the kernels of the CPU in f32.
//!
//! Owns the shapes: head dimension 256, grouped queries, soft cap, a window that is shorter and one that is longer than a
//! sequence. Fresh values each time would find more; these are the same each time, so that a failure can be repeated.
//!
//! Errors are the norm of the difference over the norm of what is expected, so that the roundings of single values average
//! out and a wrong row does not. A rounding of factors to the 24 bits of f32, the 11 of tf32 or the 8 of bf16 is at most
//! 6e-8, 5e-4 or 4e-3 of each. A sum of thousands of f32 products in another order, through exponentials of another
//! library, stays below 2e-5; the other two tolerances are four to five roundings, which is what attention does in a row.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use sluice_lm::kernel::{
    Activation, AdamWSpec, AttentionSpec, CachedSegment, LayerCache, RmsNormSpec, Rope, adamw, glu, next_logits,
    product, rms_norm, self_attention, token_logps, token_logps_gradient,
};
use sluice_lm::packed::Segment;
use sluice_lm::precision::{Placement, Precision};
use sluice_lm::weights::{FreshWeights, WeightSource, values};

use crate::device::{Arithmetic, Subject};
use crate::verdict::{Finding, attempt, relative};

/// How large the tensors are.
#[derive(Clone, Copy, Debug)]
pub struct Shapes {
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    /// Tokens of each sequence of the packed batch.
    pub sequences: [usize; 3],
    pub window: usize,
    pub hidden: usize,
    pub vocabulary: usize,
}

impl Shapes {
    /// A quarter of gemma-2-9b in the number of heads, all of it in their size.
    pub const REAL: Shapes = Shapes {
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 256,
        sequences: [1500, 1, 347],
        window: 512,
        hidden: 3584,
        vocabulary: 32_000,
    };
    /// For a test on the CPU.
    pub const SMALL: Shapes = Shapes {
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 16,
        sequences: [70, 1, 17],
        window: 9,
        hidden: 48,
        vocabulary: 300,
    };
}

/// Every operation of training forward and backward, and those of generation and of the optimiser.
pub fn findings(subject: &Subject, shapes: Shapes) -> Vec<Finding> {
    let checks: [(&str, &dyn Fn() -> Vec<Finding>); 6] = [
        ("attention", &|| attention(subject, shapes)),
        ("row operations", &|| rows(subject, shapes)),
        ("vocabulary head", &|| head(subject, shapes)),
        ("cached attention", &|| cached_attention(subject, shapes)),
        ("logits of next tokens", &|| logits_of_next(subject, shapes)),
        ("optimiser step", &|| optimizer_step(subject, shapes)),
    ];
    checks.into_iter().flat_map(|(what, check)| attempt(what, || Ok(check()))).collect()
}

impl Shapes {
    fn n_tokens(&self) -> usize {
        self.sequences.iter().sum()
    }

    fn attention(&self, window: Option<usize>, softcap: Option<f32>) -> Arc<AttentionSpec> {
        let Self { n_heads, n_kv_heads, head_dim, .. } = *self;
        let frequency = |i: usize| 10_000f32.powf(-2.0 * i as f32 / head_dim as f32);
        let frequencies: Vec<f32> = (0..head_dim / 2).map(frequency).collect();
        let rope = Arc::new(Rope::new(&frequencies, self.n_tokens()));
        let scale = (head_dim as f32).powf(-0.5);
        Arc::new(AttentionSpec { n_heads, n_kv_heads, head_dim, scale, softcap, window, rope })
    }

    /// Of queries, keys and values for `n` tokens.
    fn inputs(&self, n: usize) -> [[usize; 2]; 3] {
        let Self { n_heads, n_kv_heads, head_dim, .. } = *self;
        [[n, n_heads * head_dim], [n, n_kv_heads * head_dim], [n, n_kv_heads * head_dim]]
    }
}

fn attention(subject: &Subject, shapes: Shapes) -> Vec<Finding> {
    let (apart, shared) = (segments(&shapes.sequences, false), segments(&shapes.sequences, true));
    let window = Some(shapes.window);
    let cases = [
        ("attention, all keys, soft cap", None, Some(50.0), &apart),
        ("attention, window, soft cap", window, Some(50.0), &apart),
        ("attention, all keys", None, None, &apart),
        ("attention, a prefix shared, soft cap", None, Some(50.0), &shared),
        ("attention, a prefix shared, window, soft cap", window, Some(50.0), &shared),
    ];
    let compared = cases.into_iter().flat_map(|(what, window, softcap, segments)| {
        let spec = shapes.attention(window, softcap);
        compare(subject, what, shapes.inputs(shapes.n_tokens()), |[q, k, v]| self_attention(q, k, v, segments, &spec))
    });
    compared.collect()
}

fn rows(subject: &Subject, shapes: Shapes) -> Vec<Finding> {
    let (n, d) = (shapes.n_tokens(), shapes.hidden);
    let mut found = Vec::new();
    for (what, offset) in [("norm of Gemma", 1.0), ("norm of Llama", 0.0)] {
        let norm = RmsNormSpec { epsilon: 1e-6, offset };
        found.extend(compare(subject, what, [[n, d], [1, d]], |[x, weight]| {
            rms_norm(x, &weight.squeeze_dim::<1>(0), norm)
        }));
    }
    for (what, activation) in [("gated unit, gelu", Activation::GeluTanh), ("gated unit, silu", Activation::Silu)] {
        found.extend(compare(subject, what, [[n, d], [n, d]], |[gate, up]| glu(gate, up, activation)));
    }
    found.extend(compare(subject, "product", [[n, d], [d, d]], |[x, weight]| product(x, &weight)));
    found
}

fn head(subject: &Subject, shapes: Shapes) -> Vec<Finding> {
    let (n, hidden, vocabulary) = (shapes.n_tokens(), shapes.hidden, shapes.vocabulary);
    let targets: Vec<u32> = (0..n).map(|row| (row * 37 % vocabulary) as u32).collect();
    let what = "token log-probabilities";
    let shapes = [[n, hidden], [vocabulary, hidden]];
    let (drawn, weights) = (drawn(what, shapes), drawn("gradient", [[n, 1]]));
    let run = |placement: &Placement| {
        // The largest logits stay where a soft cap of 30 bends them.
        let [x, table] = put(&drawn, shapes, placement);
        let x = x.mul_scalar(0.2);
        let logps = token_logps(x.clone(), table.clone(), &targets, Some(30.0));
        let [grad_m1] = put(&weights, [[n, 1]], &Placement::from(&placement.device));
        let mut sum_n = Tensor::zeros([vocabulary * hidden], (&placement.device, Precision::F32.dtype()));
        let dx = token_logps_gradient(x, table, grad_m1.squeeze_dim(1), &targets, Some(30.0), &mut sum_n);
        [values(logps), values(dx), values(sum_n)]
    };
    let (ours, want) = (run(&subject.placement), run(&Placement::from(&Device::flex())));
    let parts = ["output", "gradient 0", "gradient 1"].into_iter().zip(ours.iter().zip(&want));
    parts
        .map(|(part, (ours, want))| Finding::new(format!("{what}, {part}"), relative(ours, want), tolerance(subject)))
        .collect()
}

/// A prompt is read into one slot and copied to another; both go on, one by several tokens, and then each by single ones.
fn cached_attention(subject: &Subject, shapes: Shapes) -> Vec<Finding> {
    /// Steps of one new token for each of two rows, after the prompt and a few tokens of the first row.
    const N_STEPS: usize = 4;
    const N_FEW: usize = 3;
    let n_prompt = shapes.sequences[0] / 2;
    let n = n_prompt + N_FEW + 2 * N_STEPS;
    let mut found = Vec::new();
    for (what, window) in [("cached attention", None), ("cached attention, window", Some(shapes.window))] {
        let spec = shapes.attention(window, Some(50.0));
        let drawn = drawn(what, shapes.inputs(n));
        found.push(compare_values(subject, what, |placement| {
            let Placement { device, precision } = placement;
            let inputs = put(&drawn, shapes.inputs(n), placement);
            let mut cache = LayerCache::new(3, n, &spec, device, precision.dtype());
            let mut all = Vec::new();
            let mut attend = |cache: &mut LayerCache, first: usize, segments: Vec<CachedSegment>| {
                let n_rows = segments.iter().map(|segment| segment.rows.len()).sum();
                let [q, k, v] = inputs.clone().map(|x| x.narrow(0, first, n_rows));
                all.extend(values(cache.attend(q, k, v, &segments.into(), &spec)));
            };
            let segment = |rows, slot, n_past| CachedSegment { rows, slot, n_past };
            attend(&mut cache, 0, vec![segment(0..n_prompt, 2, 0)]);
            cache.copy_slot(2, 0, n_prompt);
            attend(&mut cache, n_prompt, vec![segment(0..N_FEW, 2, n_prompt)]);
            for step in 0..N_STEPS {
                let rows = [segment(0..1, 0, n_prompt + step), segment(1..2, 2, n_prompt + N_FEW + step)];
                attend(&mut cache, n_prompt + N_FEW + 2 * step, rows.into());
            }
            all
        }));
    }
    found
}

fn logits_of_next(subject: &Subject, shapes: Shapes) -> Vec<Finding> {
    let what = "logits of next tokens";
    let both = [[8, shapes.hidden], [shapes.hidden, shapes.vocabulary]];
    let drawn = drawn(what, both);
    let next = |placement: &Placement| {
        let [x, head] = put(&drawn, both, placement);
        values(next_logits(x.mul_scalar(0.2), &head, Some(30.0)))
    };
    vec![compare_values(subject, what, next)]
}

/// In f32 whatever a model is held in. What a step changes is compared, since it is small beside the weights.
fn optimizer_step(subject: &Subject, shapes: Shapes) -> Vec<Finding> {
    /// The change is a hundredth of the weight it is found from, in f32.
    const TOLERANCE: f64 = 1e-4;
    if subject.arithmetic == Arithmetic::Bf16 {
        return Vec::new();
    }
    let spec = AdamWSpec {
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.1,
        step: 7,
        grad_scale: 0.5,
        seed: 0,
    };
    let shape = [[shapes.hidden, shapes.hidden]; 4];
    let drawn = drawn("optimiser step", shape);
    let step = |device: &Device| {
        let [weight, first, second, grad] = put(&drawn, shape, &Placement::from(device)).map(|x| x.reshape([-1]));
        let (new, first, second) = adamw(weight.clone(), first, second.square(), grad, spec);
        [new - weight, first, second].map(values::<1>)
    };
    let (ours, want) = (step(&subject.placement.device), step(&Device::flex()));
    let parts = ["change of the weight", "first moment", "second moment"].into_iter().zip(ours.iter().zip(&want));
    parts
        .map(|(part, (ours, want))| Finding::new(format!("optimiser step, {part}"), relative(ours, want), TOLERANCE))
        .collect()
}

/// Sequences end to end; the last of them continues the first rows of the first one where a prefix is shared.
fn segments(lengths: &[usize], shares_prefix: bool) -> Arc<[Segment]> {
    let mut start = 0;
    let mut all: Vec<Segment> = Vec::with_capacity(lengths.len());
    for length in lengths {
        all.push(Segment::from(start..start + length));
        start += length;
    }
    if let (true, Some(last)) = (shares_prefix, all.last_mut()) {
        last.prefix = 0..lengths[0] / 3;
    }
    all.into()
}

/// Values that bf16 can hold, so that both sides start from the same numbers.
fn drawn<const N: usize>(what: &str, shapes: [[usize; 2]; N]) -> [Vec<f32>; N] {
    std::array::from_fn(|at| {
        // Fresh weights are never missing.
        let drawn = FreshWeights::new(5, 1.0, 0.0).read(&format!("{what} {at}"), &shapes[at]).unwrap_or_default();
        drawn.into_iter().map(|x| half::bf16::from_f32(x).to_f32()).collect()
    })
}

fn put<const N: usize>(drawn: &[Vec<f32>; N], shapes: [[usize; 2]; N], placement: &Placement) -> [Tensor<2>; N] {
    let Placement { device, precision } = placement;
    std::array::from_fn(|at| precision.hold(Tensor::from_data(TensorData::new(drawn[at].clone(), shapes[at]), device)))
}

fn tolerance(subject: &Subject) -> f64 {
    subject.arithmetic.pick(2e-5, 2e-3, 2e-2)
}

/// What an operation off the tape gives on the subject, against the CPU in f32 on the very same inputs.
fn compare_values(subject: &Subject, what: &str, run: impl Fn(&Placement) -> Vec<f32>) -> Finding {
    let (ours, want) = (run(&subject.placement), run(&Placement::from(&Device::flex())));
    Finding::new(what, relative(&ours, &want), tolerance(subject))
}

/// Output and gradients of an operation on the subject, against the CPU in f32 on the very same inputs.
fn compare<const N: usize>(
    subject: &Subject,
    what: &str,
    shapes: [[usize; 2]; N],
    operation: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) -> Vec<Finding> {
    let drawn = drawn(what, shapes);
    let run = |placement: &Placement| {
        let inputs = put(&drawn, shapes, placement).map(|input| input.autodiff().require_grad());
        let out = operation(inputs.clone());
        let [rows, columns] = out.dims();
        let weights = FreshWeights::new(6, 1.0, 0.0).read(what, &[rows, columns]).unwrap_or_default();
        let weights = Tensor::<2>::from_data(TensorData::new(weights, [rows, columns]), &placement.device).autodiff();
        let gradients = (Precision::F32.hold(out.clone()) * weights).sum().backward();
        let mut all = vec![values(out.inner())];
        all.extend(inputs.iter().map(|input| input.grad(&gradients).map(values).unwrap_or_default()));
        all
    };
    let (ours, want) = (run(&subject.placement), run(&Placement::from(&Device::flex())));
    let parts = std::iter::once("output".to_owned()).chain((0..N).map(|at| format!("gradient {at}")));
    let compared = parts.zip(ours.iter().zip(&want));
    compared
        .map(|(part, (ours, want))| Finding::new(format!("{what}, {part}"), relative(ours, want), tolerance(subject)))
        .collect()
}
