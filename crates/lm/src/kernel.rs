//! The fused operations of the models, as an extension of Burn's backends.
//!
//! Owns the operations whose plain composition of tensor operations is slow: root-mean-square norm, attention, gated
//! units, the vocabulary head, the optimiser step. Each has a hand-written f32 version for the CPU with its own backward
//! pass, and one for GPUs, of kernels and the backend's products; in bf16 on the CPU the plain composition runs.
//! Knows nothing of architectures: what a model needs to say about an operation is in its `Spec`.
//!
//! n tokens, d hidden size, m picked rows, w vocabulary

mod adamw;
pub mod attention;
mod autodiff;
#[cfg(any(test, feature = "cube"))]
mod blocks;
#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "cube")]
mod elements;
#[cfg(feature = "cube")]
mod flash;
mod flex;
pub mod glu;
mod half;
mod head;
pub mod math;
mod norm;
mod plain;
#[cfg(test)]
mod reference;
#[cfg(any(test, feature = "cube"))]
mod rows;
mod sums;
#[cfg(any(test, feature = "cube"))]
mod vocabulary;

use std::sync::Arc;

use ::half::bf16;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, DispatchTensor, backend_extension};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::nn::expect_known;
use crate::packed::Segment;
use crate::precision::Precision;
use crate::weights::values;

pub use adamw::AdamWSpec;
pub use attention::{AttentionSpec, CacheLayout, CachedSegment, MAX_SCORES, Rope, SlotCopy};
#[cfg(feature = "cube")]
pub use cube::AttentionKernel;
pub use glu::Activation;
pub use head::{CHUNK_BYTES, CHUNKS_TOGETHER};
pub use norm::RmsNormSpec;
#[cfg(any(test, feature = "cube"))]
pub use rows::{DrawSpec, drawn};
pub use sums::{rows_added, rows_of_slice};

/// Differentiable operations. `*_backward` gives the gradients of its forward in argument order.
#[backend_extension(Cube: cfg(feature = "cube"), Flex, Autodiff)]
pub trait Kernels: Backend {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, spec: RmsNormSpec) -> FloatTensor<Self>;
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: RmsNormSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Output, and the logarithm of each softmax's sum `[n, heads]` for the backward pass; where that makes the sums again,
    /// an empty tensor.
    fn self_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        segments: Arc<[Segment]>,
        spec: Arc<AttentionSpec>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    fn self_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        segments: Arc<[Segment]>,
        spec: Arc<AttentionSpec>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    fn glu(gate: FloatTensor<Self>, up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;
    fn glu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// Operations outside the tape.
#[backend_extension(Cube: cfg(feature = "cube"), Flex)]
#[expect(clippy::too_many_arguments, reason = "five tensors, and what says how to read them")]
pub trait PlainKernels: Backend {
    /// `x · weight`; on the CPU `x` may be in f32 where the weight is in bf16.
    fn product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Attention of new tokens over their slots' caches; gives back output, keys and values.
    fn cached_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        layout: CacheLayout,
        segments: Arc<[CachedSegment]>,
        spec: Arc<AttentionSpec>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The caches with the first `n_tokens` of one slot copied to another.
    fn copy_slot(
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        layout: CacheLayout,
        copy: SlotCopy,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `softcap(hidden · head)`, for products with few rows.
    fn next_logits(hidden: FloatTensor<Self>, head: FloatTensor<Self>, softcap: Option<f32>) -> FloatTensor<Self>;

    /// Log-probabilities of `targets`; see [`token_logps`].
    fn token_logps(
        hidden: FloatTensor<Self>,
        table: FloatTensor<Self>,
        targets: Arc<[u32]>,
        softcap: Option<f32>,
    ) -> FloatTensor<Self>;

    /// The gradient of the hidden states, and the flat sum in f32 with that of the table added.
    fn token_logps_gradient(
        hidden: FloatTensor<Self>,
        table: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        targets: Arc<[u32]>,
        softcap: Option<f32>,
        sum: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// New weight, first and second moment. What is in bf16, weight or moments, is rounded up or down by chance.
    fn adamw(
        weight: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: AdamWSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// As [`PlainKernels::adamw`] on a weight in bf16 and the 16 bits by which it differs from one in f32.
    fn adamw_split(
        weight: FloatTensor<Self>,
        rest: IntTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: AdamWSpec,
    ) -> (FloatTensor<Self>, IntTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// `x / rms(x) · (offset + weight)` per row of `x[n, d]`.
pub fn rms_norm(x_nd: Tensor<2>, weight_d: &Tensor<1>, spec: RmsNormSpec) -> Tensor<2> {
    let out = <Dispatch as Kernels>::rms_norm(x_nd.into_dispatch(), weight_d.clone().into_dispatch(), spec);
    Tensor::from_dispatch(out)
}

/// Causal self-attention `[n, heads · head dim]` within each segment of packed rows.
pub fn self_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    segments: &Arc<[Segment]>,
    spec: &Arc<AttentionSpec>,
) -> Tensor<2> {
    let (out, _) = <Dispatch as Kernels>::self_attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        segments.clone(),
        spec.clone(),
    );
    Tensor::from_dispatch(out)
}

/// `act(gate) · up`.
pub fn glu(gate: Tensor<2>, up: Tensor<2>, activation: Activation) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Kernels>::glu(gate.into_dispatch(), up.into_dispatch(), activation))
}

/// Log-probabilities `[m]` in nats of `targets[i]` under `softcap(hidden[i] · tableᵀ)`, with `table[w, d]`. Nothing of it is on
/// a tape: see [`token_logps_gradient`].
///
/// # Panics
/// On a target that has no row of the table.
pub fn token_logps(hidden_md: Tensor<2>, table_wd: Tensor<2>, targets: &[u32], softcap: Option<f64>) -> Tensor<1> {
    expect_known(targets, table_wd.dims()[0]);
    let out = <Dispatch as PlainKernels>::token_logps(
        hidden_md.into_dispatch(),
        table_wd.into_dispatch(),
        targets.into(),
        softcap.map(|cap| cap as f32),
    );
    Tensor::from_dispatch(out)
}

/// The gradient of the hidden states under [`token_logps`], from that of the log-probabilities. That of the table is added to
/// `sum_n`, which is flat and in f32, a slice of the table at a time.
pub fn token_logps_gradient(
    hidden_md: Tensor<2>,
    table_wd: Tensor<2>,
    grad_m: Tensor<1>,
    targets: &[u32],
    softcap: Option<f64>,
    sum_n: &mut Tensor<1>,
) -> Tensor<2> {
    let (dhidden, sum) = <Dispatch as PlainKernels>::token_logps_gradient(
        hidden_md.into_dispatch(),
        table_wd.into_dispatch(),
        grad_m.into_dispatch(),
        targets.into(),
        softcap.map(|cap| cap as f32),
        // Moved out, so that the kernel is its only owner.
        sum_n.extract().into_dispatch(),
    );
    *sum_n = Tensor::from_dispatch(sum);
    Tensor::from_dispatch(dhidden)
}

/// `x[n, k] · weight[k, m]` in the precision of the weight, on the tape when either is.
pub fn product(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    // In f32 the backend's own product is as good; on the tape it also is the one that has a gradient.
    if Precision::of(weight) == Precision::F32 || x.is_autodiff() || weight.is_autodiff() {
        return x.matmul(weight.clone());
    }
    Tensor::from_dispatch(<Dispatch as PlainKernels>::product(x.into_dispatch(), weight.clone().into_dispatch()))
}

/// `softcap(hidden · tableᵀ)` `[m, w]` with `table[w, d]`, all of it at once.
pub fn logits(hidden_md: Tensor<2>, table_wd: Tensor<2>, softcap: Option<f64>) -> Tensor<2> {
    let held = Precision::of(&hidden_md);
    let logits_mw = Precision::F32.hold(product(hidden_md, &table_wd.transpose()));
    held.hold(plain::softcap(logits_mw, softcap.map(|cap| cap as f32), held))
}

/// Keys and values of past tokens of one layer.
#[derive(Debug)]
pub struct LayerCache {
    keys: Option<Tensor<1>>,
    values: Option<Tensor<1>>,
    layout: CacheLayout,
    n_kv_heads: usize,
    head_dim: usize,
}

impl LayerCache {
    /// Room for `capacity` tokens in each of `n_slots`.
    pub fn new(n_slots: usize, capacity: usize, spec: &AttentionSpec, device: &Device, dtype: DType) -> Self {
        let len = n_slots * spec.n_kv_heads * spec.head_dim * capacity;
        Self {
            keys: Some(Tensor::zeros([len], (device, dtype))),
            values: Some(Tensor::zeros([len], (device, dtype))),
            layout: CacheLayout { capacity },
            n_kv_heads: spec.n_kv_heads,
            head_dim: spec.head_dim,
        }
    }

    /// Copies the first `n_tokens` of slot `from` to slot `to`.
    pub fn copy_slot(&mut self, from: usize, to: usize, n_tokens: usize) {
        let (keys, values) = self.take();
        let copy = SlotCopy { from, to, n_tokens, n_kv_heads: self.n_kv_heads, head_dim: self.head_dim };
        let (keys, values) = <Dispatch as PlainKernels>::copy_slot(keys, values, self.layout, copy);
        self.put(keys, values);
    }

    /// Moves the tensors out, so that a kernel is their only owner and writes in place.
    fn take(&mut self) -> (DispatchTensor, DispatchTensor) {
        match (self.keys.take(), self.values.take()) {
            (Some(keys), Some(values)) => (keys.into_dispatch(), values.into_dispatch()),
            _ => unreachable!("every method puts the cache back before it returns"),
        }
    }

    fn put(&mut self, keys: DispatchTensor, values: DispatchTensor) {
        self.keys = Some(Tensor::from_dispatch(keys));
        self.values = Some(Tensor::from_dispatch(values));
    }

    /// Attention of new tokens over their slots, whose caches take them in.
    pub fn attend(
        &mut self,
        q: Tensor<2>,
        k: Tensor<2>,
        v: Tensor<2>,
        segments: &Arc<[CachedSegment]>,
        spec: &Arc<AttentionSpec>,
    ) -> Tensor<2> {
        let (keys, values) = self.take();
        let (out, keys, values) = <Dispatch as PlainKernels>::cached_attention(
            q.into_dispatch(),
            k.into_dispatch(),
            v.into_dispatch(),
            keys,
            values,
            self.layout,
            segments.clone(),
            spec.clone(),
        );
        self.put(keys, values);
        Tensor::from_dispatch(out)
    }
}

/// `softcap(hidden · head)` `[m, w]`, with `head[d, w]` in row order.
pub fn next_logits(hidden_md: Tensor<2>, head_dw: &Tensor<2>, softcap: Option<f64>) -> Tensor<2> {
    let softcap = softcap.map(|cap| cap as f32);
    let out =
        <Dispatch as PlainKernels>::next_logits(hidden_md.into_dispatch(), head_dw.clone().into_dispatch(), softcap);
    Tensor::from_dispatch(out)
}

/// One AdamW step on one parameter: new weight, first and second moment. What of these is in bf16 is rounded away from zero
/// with the chance that the result lies above what bf16 holds, so that many small steps add up on average.
pub fn adamw<const D: usize>(
    weight: Tensor<D>,
    first: Tensor<D>,
    second: Tensor<D>,
    grad: Tensor<D>,
    spec: AdamWSpec,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    let (weight, first, second) = <Dispatch as PlainKernels>::adamw(
        weight.into_dispatch(),
        first.into_dispatch(),
        second.into_dispatch(),
        grad.into_dispatch(),
        spec,
    );
    (Tensor::from_dispatch(weight), Tensor::from_dispatch(first), Tensor::from_dispatch(second))
}

/// A weight in bf16 with what it lacks to be exact in f32: `f32 bits = (bf16 bits << 16) + rest`. The bf16 is the f32 rounded
/// to nearest, ties away from zero.
#[derive(Clone, Debug)]
pub struct SplitWeight {
    /// In bf16.
    pub weight_n: Tensor<1>,
    /// In i16.
    pub rest_n: Tensor<1, Int>,
}

impl SplitWeight {
    /// Takes a weight in f32 apart.
    pub fn of(weight_n: Tensor<1>) -> Self {
        let device = weight_n.device();
        let bits = values(weight_n).into_iter().map(|weight| adamw::apart(weight.to_bits()));
        let (weights, rests): (Vec<bf16>, Vec<i16>) = bits.unzip();
        let n = weights.len();
        Self {
            weight_n: Tensor::from_data(TensorData::new(weights, [n]), (&device, DType::BF16)),
            rest_n: Tensor::from_data(TensorData::new(rests, [n]), (&device, DType::I16)),
        }
    }

    /// The weight in f32, to the bit.
    pub fn exact(&self) -> Tensor<1> {
        let device = self.weight_n.device();
        let (weights, rests) = (self.weight_n.to_data(), self.rest_n.to_data());
        let both = weights.iter::<bf16>().zip(rests.iter::<i16>());
        let exact: Vec<f32> = both.map(|(weight, rest)| f32::from_bits(adamw::joined(weight, rest))).collect();
        let n = exact.len();
        Tensor::from_data(TensorData::new(exact, [n]), (&device, DType::F32))
    }
}

/// One AdamW step on a weight taken apart: exactly that of the weight in f32.
pub fn adamw_split(
    SplitWeight { weight_n, rest_n }: SplitWeight,
    first: Tensor<1>,
    second: Tensor<1>,
    grad: Tensor<1>,
    spec: AdamWSpec,
) -> (SplitWeight, Tensor<1>, Tensor<1>) {
    let (weight, rest, first, second) = <Dispatch as PlainKernels>::adamw_split(
        weight_n.into_dispatch(),
        rest_n.into_dispatch(),
        first.into_dispatch(),
        second.into_dispatch(),
        grad.into_dispatch(),
        spec,
    );
    let split = SplitWeight { weight_n: Tensor::from_dispatch(weight), rest_n: Tensor::from_dispatch(rest) };
    (split, Tensor::from_dispatch(first), Tensor::from_dispatch(second))
}
