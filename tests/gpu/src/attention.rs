//! The two attentions of a GPU beside each other, at the heads of published models.
//!
//! Owns the heads, and what is compared: kernels that keep scores on the chip with products of the backend, in values and
//! gradients. Knows nothing of where the one that runs is chosen.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use sluice_lm::kernel::{AttentionSpec, Rope};
use sluice_lm::packed::Segment;
use sluice_lm::precision::Placement;
use sluice_lm::weights::{FreshWeights, WeightSource};

/// The heads of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heads {
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub softcap: Option<f32>,
    pub window: Option<usize>,
}

impl Heads {
    /// Of a layer with a window of gemma-2-9b.
    pub const GEMMA2: Heads =
        Heads { n_heads: 16, n_kv_heads: 8, head_dim: 256, softcap: Some(50.0), window: Some(4096) };
    /// Of Llama 3 8B.
    pub const LLAMA: Heads = Heads { n_heads: 32, n_kv_heads: 8, head_dim: 128, softcap: None, window: None };
    /// For a test on the CPU.
    pub const SMALL: Heads = Heads { n_heads: 4, n_kv_heads: 2, head_dim: 16, softcap: Some(50.0), window: Some(30) };

    /// What a layer for up to `n_tokens` has to know.
    pub fn spec(self, n_tokens: usize) -> AttentionSpec {
        let Self { n_heads, n_kv_heads, head_dim, softcap, window } = self;
        let frequency = |i: usize| 10_000f32.powf(-2.0 * i as f32 / head_dim as f32);
        let frequencies: Vec<f32> = (0..head_dim / 2).map(frequency).collect();
        let (scale, rope) = ((head_dim as f32).powf(-0.5), Arc::new(Rope::new(&frequencies, n_tokens)));
        AttentionSpec { n_heads, n_kv_heads, head_dim, scale, softcap, window, rope }
    }

    /// Queries, keys, values and the gradient of the output for `n` tokens.
    pub fn inputs(self, n: usize, placement: &Placement) -> [Tensor<2>; 4] {
        let Self { n_heads, n_kv_heads, head_dim, .. } = self;
        let Placement { device, precision } = placement;
        [("q", n_heads), ("k", n_kv_heads), ("v", n_kv_heads), ("grad", n_heads)].map(|(name, heads)| {
            let shape = [n, heads * head_dim];
            // Fresh weights are never missing.
            let drawn = FreshWeights::new(9, 1.0, 0.0).read(name, &shape).unwrap_or_default();
            precision.hold(Tensor::from_data(TensorData::new(drawn, shape), device))
        })
    }

    /// Multiplications and additions of a forward pass over `n_sequences` of `n_tokens` each: of every pair of a query and a
    /// key that it sees, for the score and for the value. A backward pass is two and a half times as much.
    pub fn operations(self, n_sequences: usize, n_tokens: usize) -> f64 {
        let Self { n_heads, n_kv_heads: _, head_dim, softcap: _, window } = self;
        let seen = |position: usize| window.map_or(position + 1, |window| window.min(position + 1));
        let n_pairs: usize = (0..n_tokens).map(seen).sum();
        (4 * n_heads * head_dim * n_sequences * n_pairs) as f64
    }
}

/// A whole sequence, one that continues its first third, and a short one.
pub fn sequences(n_tokens: usize) -> Vec<Segment> {
    let (continued, end) = (n_tokens + n_tokens / 2, n_tokens + n_tokens / 2 + n_tokens / 5);
    vec![(0..n_tokens).into(), Segment { rows: n_tokens..continued, prefix: 0..n_tokens / 3 }, (continued..end).into()]
}

#[cfg(any(feature = "cube-cpu", feature = "cuda"))]
pub use compared::findings;

/// A build for the CPU alone has neither.
#[cfg(not(any(feature = "cube-cpu", feature = "cuda")))]
pub fn findings(_subject: &crate::device::Subject, _is_small: bool) -> Vec<crate::verdict::Finding> {
    Vec::new()
}

#[cfg(any(feature = "cube-cpu", feature = "cuda"))]
mod compared {
    use burn::tensor::Tensor;
    use sluice_lm::kernel::{AttentionKernel, AttentionSpec};
    use sluice_lm::packed::Segment;
    use sluice_lm::weights::values;

    use super::{Heads, sequences};
    use crate::device::{Arithmetic, Subject};
    use crate::verdict::{Finding, relative};

    /// In bf16 each of the two is within 2e-2 of f32: see `kernels.rs`.
    const TOLERANCE: f64 = 2e-2;

    /// Values and gradients of flash attention against those by blocks, and against its own of a second time, where the
    /// subject runs both.
    pub fn findings(subject: &Subject, is_small: bool) -> Vec<Finding> {
        let cases: &[(&str, Heads, usize)] = match is_small {
            true => &[("small heads", Heads::SMALL, 70)],
            // The window of Gemma 2 is shorter than the longest sequence.
            false => &[("heads of Gemma 2", Heads::GEMMA2, 4500), ("heads of Llama 3", Heads::LLAMA, 2100)],
        };
        cases.iter().flat_map(|(what, heads, n_tokens)| compare(subject, what, *heads, *n_tokens)).collect()
    }

    fn compare(subject: &Subject, what: &str, heads: Heads, n_tokens: usize) -> Vec<Finding> {
        let segments = sequences(n_tokens);
        let n = segments.last().map_or(0, |last| last.rows.end);
        let spec = heads.spec(n);
        let inputs = heads.inputs(n, &subject.placement);
        if !AttentionKernel::Flash.runs(&inputs[0], &spec) {
            return Vec::new();
        }
        let run = |kernel| all(kernel, inputs.clone(), &segments, &spec).map(values);
        let (flash, again, blocks) =
            (run(AttentionKernel::Flash), run(AttentionKernel::Flash), run(AttentionKernel::Blocks));
        let tolerance = if subject.arithmetic == Arithmetic::F32 { 2e-5 } else { TOLERANCE };
        let parts = ["output", "gradient of q", "gradient of k", "gradient of v"];
        let mut found: Vec<Finding> = parts
            .into_iter()
            .zip(flash.iter().zip(&blocks))
            .map(|(part, (flash, blocks))| {
                Finding::new(format!("flash attention, {what}, {part}"), relative(flash, blocks), tolerance)
            })
            .collect();
        let bits = |all: &[Vec<f32>; 4]| all.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
        let is_same = bits(&flash) == bits(&again);
        found.push(Finding::holds(format!("flash attention, {what}, a second time to the bit"), is_same));
        found
    }

    /// Output and gradients.
    fn all(
        kernel: AttentionKernel,
        [q, k, v, grad]: [Tensor<2>; 4],
        segments: &[Segment],
        spec: &AttentionSpec,
    ) -> [Tensor<2>; 4] {
        let (out, lse) = kernel.forward([q.clone(), k.clone(), v.clone()], segments, spec);
        let [dq, dk, dv] = kernel.backward([q, k, v], lse, grad, segments, spec);
        [out, dq, dk, dv]
    }
}
